"""The process: it binds, serves until SIGTERM or SIGINT, drains, and ends.

Draining: readiness turns false at once and new pictures are refused, the accepted ones are answered, then everything
is closed. What is not answered within `Limits.drain_time` is cut off, and that is the process's answer (exit 1).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from edgenn_device.errors import AnswerIsNo, EdgennError
from edgenn_device.model_file import load
from edgenn_device.token import is_loopback, stored_token

from . import access
from .app import Service
from .connection import Connection
from .limits import Limits

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Serving:
    """What is being served, told once the socket is open.

    Attributes:
      model: its name in answers and paths.
      url: where it listens.
      workers: interpreters.
      runtime: the description of one.
      token_file: where the token is that clients must show; None: nobody must.
    """

    model: str
    url: str
    workers: int
    runtime: str
    token_file: Path | None


def serve(
    model: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int | None = None,
    runtime: str = "auto",
    token_file: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    ready: Callable[[Serving], None] = lambda serving: None,
) -> None:
    """Serve a model over HTTP until SIGTERM or SIGINT.

    Args:
      model: path of a .tflite.
      labels: a file with one label a line, for a model that carries none.
      name: what the model is called; None takes its card's name, or the file's.
      host: address to listen on. Beyond this machine a token is demanded.
      port: 0 takes a free one.
      workers: interpreters, one thread each; None takes the cores.
      runtime: as for `Interpreter`.
      token_file: where the token is, or is to be stored; given, it is demanded on this machine too.
      limits: the bounds; None takes the defaults.
      ready: called once connections are accepted.

    Raises:
      EdgennError: the model cannot be used, the port is taken, the token file is not private.
      AnswerIsNo: requests were cut off because they were not answered within `limits.drain_time`.
    """
    limits = limits or Limits()
    path = Path(token_file) if token_file is not None else None
    if path is None and not is_loopback(host):
        path = access.default_token_file()
    loaded = load(model, labels=labels)
    name = name or (loaded.card.name if loaded.card else loaded.path.stem)
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise EdgennError(f"the name {name!r} cannot stand in an address: give another --name")
    service = Service(
        loaded,
        name=name,
        limits=limits,
        workers=workers or len(os.sched_getaffinity(0)),
        token=stored_token(path) if path is not None else None,
        runtime=runtime,
    )
    with _bound(host, port) as listener:
        address, taken = listener.getsockname()[:2]
        url = f"http://[{address}]:{taken}" if ":" in address else f"http://{address}:{taken}"
        told = Serving(service.name, url, service.pool.workers, service.pool.description, path)
        server = Server(service, lambda: ready(told))
        server.run(sockets=[listener])
    if server.cut_off:
        raise AnswerIsNo(f"{server.cut_off} requests were cut off: not answered within {limits.drain_time:g} s")


class Server(uvicorn.Server):
    """uvicorn's server with our connections, our draining, and exit status 0 after it.

    Args:
      service: what to serve.
      ready: called once connections are accepted.

    Attributes:
      cut_off: requests that were not answered when draining ended.
    """

    def __init__(self, service: Service, ready: Callable[[], None]) -> None:
        # They would write a line for every malformed request, which the answers and the metrics tell already.
        for library in ("uvicorn", "python_multipart"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        limits = service.limits
        protocol: Any = partial(Connection, limits=limits, metrics=service.metrics)
        super().__init__(
            uvicorn.Config(
                service.app(),
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(limits.idle_time) or 1,
                backlog=min(limits.connections, 1024),
            )
        )
        self.cut_off = 0
        self._service = service
        self._ready = ready
        self._drained_by = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if counter % 5 == 0:  # twice a second
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.sweep(now)
        if self._service.draining and (not self._service.in_flight or now > self._drained_by):
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        remaining = max(0.0, self._drained_by - time.monotonic())
        # Answers that are written and clients that read slowly; uvicorn's type is int, asyncio takes either.
        self.config.timeout_graceful_shutdown = remaining  # type: ignore[assignment]
        if remaining == 0.0:
            self.cut_off = self._service.in_flight
        await super().shutdown(sockets)
        await asyncio.to_thread(self._service.pool.close)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:  # asked twice: at once
            self.cut_off = self._service.in_flight
            self.should_exit = self.force_exit = True
            return
        self._service.draining = True
        self._drained_by = time.monotonic() + self._service.limits.drain_time

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again when all is done, and the exit status would be the signal's.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        # The words of create_server() repeat the address as Python writes it.
        reason = (error.strerror or str(error)).partition(" (while")[0] if isinstance(error, OSError) else error
        raise EdgennError(f"cannot listen on {host} port {port} ({reason}): choose another --port or --host") from None
    with listener:
        yield listener
