"""uvicorn's server with our connections: in a thread, silent, and gone within a second when it is told to."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.applications import Starlette

from .connection import MOST_CONNECTIONS, Connection

# Seconds that a connection may lie idle: as long as a page needs between two questions, and no longer.
_IDLE = 20
# Seconds between two looks at what clients owe us.
_TICK = 1.0
# Seconds for answers that are being written when the server ends.
_DRAIN = 0.4


class Server(uvicorn.Server):
    """Serves an application on sockets it is given, until `end`.

    Raises nothing for what a client does, and logs none of it: a client must not be able to fill a disk.
    """

    def __init__(self, app: Starlette) -> None:
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        drain: Any = _DRAIN  # uvicorn's type is int, asyncio takes either
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_IDLE,
                timeout_graceful_shutdown=drain,
                backlog=MOST_CONNECTIONS,
            )
        )

        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Stop serving; any thread may say so."""
        self.should_exit = True
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._ending.set)
            except RuntimeError:  # it has ended already
                pass

    async def main_loop(self) -> None:
        # uvicorn's own wakes up ten times a second to see whether it is to end, which a small board feels.
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.sweep(now)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _TICK)
