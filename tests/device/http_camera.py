"""A real HTTP server that sends MJPEG as a camera does, and fails as the test tells it to."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

RANDOM = np.random.RandomState(0)


def picture(height: int = 240, width: int = 320) -> bytes:
    """A JPEG that nobody takes for a lens cap."""
    small = RANDOM.randint(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


SCENE = picture()
BLACK = cv2.imencode(".jpg", RANDOM.randint(0, 4, (240, 320, 3)).astype(np.uint8))[1].tobytes()
TORN = SCENE[: len(SCENE) // 2]
# Its header says 320x240, its data are another picture's and end too soon; no decoder notices.
MIXED = SCENE[: len(SCENE) // 3] + b"\xff\xd9"
SMALL = picture(2, 2)
LARGE = picture(1080, 1920)


class HttpCamera:
    """Sends `image` over and over; `frozen` stops it without ending the connection."""

    def __init__(self, pace: float = 0.005) -> None:
        self.image = SCENE
        self.frozen = threading.Event()
        self.pace = pace
        self.connections = 0
        self._off = threading.Event()
        self._clients: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.switch_on()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream.mjpg"

    def switch_on(self) -> None:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera._stream(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                pass

        self._off.clear()
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def switch_off(self) -> None:
        """As when the cable is pulled out of its power: connections end, and nobody answers."""
        self._off.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        for client in list(self._clients):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _stream(self, handler: BaseHTTPRequestHandler) -> None:
        self.connections += 1
        self._clients.add(handler.connection)
        try:
            handler.send_response(200)
            handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            handler.end_headers()
            while not self._off.wait(self.pace):
                if self.frozen.is_set():
                    continue
                image = self.image
                handler.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(image))
                handler.wfile.write(image + b"\r\n")
        except OSError:
            pass
        finally:
            self._clients.discard(handler.connection)
