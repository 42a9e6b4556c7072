"""A real server in a thread of the test's process, on a free port, with limits of the test's own."""

from __future__ import annotations

import http.client
import json
import queue
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgenn.serving.app import Service
from edgenn.serving.limits import Limits
from edgenn.serving.server import Server
from edgenn_device.model_file import load


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Running:
    """A server, and a client of it."""

    service: Service
    server: Server
    port: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, body: Any, path: str = "/classify", **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def metric(self, line: str) -> float:
        """The value of a line of /metrics, given its beginning; 0 if there is none."""
        found = re.search(rf"^{re.escape(line)} (\S+)$", self.service.metrics.text().decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """All interpreters are taken: what is admitted waits until the block ends."""
        pool = self.service.pool
        taken = [pool._free.get() for _ in range(pool.workers)]
        try:
            yield
        finally:
            for classifier in taken:
                pool._free.put(classifier)


def until(true: Callable[[], Any]) -> None:
    """Wait for something that another thread or process is about to make true."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def model(tiny: Path) -> Path:
    return tiny / "run" / "model.tflite"


@pytest.fixture(scope="session")
def picture(tiny: Path) -> bytes:
    return (tiny / "photos" / "square" / "00.png").read_bytes()


@pytest.fixture(scope="session")
def start(model: Path) -> Callable[..., Any]:
    """start(token=None, workers=2, **limits): a context with a running server."""

    @contextmanager
    def running(token: str | None = None, workers: int = 2, **limits: Any) -> Iterator[Running]:
        service = Service(load(model), name="tiny", limits=Limits(**limits), workers=workers, token=token)
        ready: queue.Queue[None] = queue.Queue()
        server = Server(service, lambda: ready.put(None))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                ready.get(timeout=60)
                yield Running(service, server, port)
            finally:
                server.handle_exit(signal.SIGTERM, None)
                thread.join(60)
                assert not thread.is_alive()

    return running


@pytest.fixture(scope="session")
def server(start: Callable[..., Any]) -> Iterator[Running]:
    """A server with the default limits, for tests that leave it as it is."""
    with start() as running:
        yield running
