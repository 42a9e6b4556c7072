"""The live page as a sink: the pipeline feeds it, a thread of its own serves it.

Taking a result costs a few assignments; pictures are encoded on the page's threads, and only when a page asks. Listens
on this machine only unless told otherwise, and then demands a token. It stores nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from ..errors import EdgennError
from ..events import Event
from ..extras import require
from ..health import Health
from ..pipeline import Result
from ..sinks.base import About, Sink
from ..uncertain import Keeper
from .access import Door
from .board import Board

if TYPE_CHECKING:
    from .pages import Pages

# Seconds: the whole service has two to end.
_PATIENCE = 1.0
# Seconds after the last picture that somebody got for which somebody counts as watching.
_WATCHED = 3.0

_log = logging.getLogger(__name__)


class Live(Sink):
    """A page at http://HOST:PORT/ with what the camera shows and what the model says.

    Args:
      about: what is told of the device, the model and the source.
      health: shown on the page and at /health.
      host: address to listen on.
      port: 0 takes a free one.
      token: what a browser must show; it is needed where others can reach `host` (see `token.stored_token`).
      keeper: frames that the page offers for labelling.

    Attributes:
      url: where the page is, once it is open; holds no token.

    Raises:
      EdgennError: `host` can be reached by others and there is no token, or one that can be guessed.

    >>> with Live(about, health, port=8080) as live:                    # doctest: +SKIP
    ...     for result in pipeline.results():
    ...         live.write(result)
    """

    name = "web"
    pictures = True

    def __init__(
        self,
        about: About,
        health: Health,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._about, self._health, self._host, self._port, self._keeper = about, health, host, port, keeper
        self._door = Door(host, token)
        self._board = Board()
        self._pages: Pages | None = None
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._error = ""
        self.url = ""

    def open(self) -> None:
        """Listen, and serve from now on.

        Raises:
          EdgennError: the port is taken, the address is not this machine's, or Starlette or uvicorn is missing.
        """
        if self._thread is not None:
            return
        require("starlette.applications")
        require("uvicorn")
        from .pages import Pages
        from .server import Server

        listener = _bound(self._host, self._port)
        address, port = listener.getsockname()[:2]
        if ipaddress.ip_address(address).is_unspecified:  # every address there is; a browser needs one
            address = socket.gethostname()
        self.url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
        self._pages = Pages(self._board, self._about, self._health, self._door, port=port, keeper=self._keeper)
        self._server = Server(self._pages.app())
        self._board.open()
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="edgenn-web", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        self._board.write(result)

    def event(self, event: Event) -> None:
        self._board.event(event)

    @property
    def watched(self) -> bool:
        """Whether somebody looks at the picture at present."""
        return self._pages is not None and time.monotonic() - self._pages.looked < _WATCHED

    def state(self) -> dict[str, Any]:
        """JSON-able: the page's address, how many are open; "error" when it is served no more."""
        said = {"url": self.url, "watchers": self._pages.watchers if self._pages else 0}
        return {**said, "error": self._error} if self._error else said

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._board.close()
        self._server.end()
        thread.join(_PATIENCE)
        if self._pages is not None:
            self._pages.close()

    def _serve(self, listener: socket.socket) -> None:
        try:
            with listener, asyncio.Runner() as runner:
                runner.run(self._server.serve([listener]))
        except Exception as error:
            self._error = f"the page is served no more: {error or type(error).__name__}"
            _log.exception("%s", self._error)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=64)
    except (OSError, OverflowError, UnicodeError) as error:
        # The words of create_server() repeat the address as Python writes it.
        reason = (error.strerror or str(error)).partition(" (while")[0] if isinstance(error, OSError) else error
        if isinstance(error, UnicodeError):
            reason = "no host has such a name"
        raise EdgennError(f"the page cannot be served at {host}:{port} ({reason}): choose another HOST:PORT") from None
