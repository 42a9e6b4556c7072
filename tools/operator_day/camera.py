"""A camera on the network for the day: a real HTTP server that sends JPEG after JPEG, and fails on demand.

Its scene shows one garment, then another, so that there are events all day. It is a server of this process, cheap
enough (pictures are encoded beforehand) that the device is not measured by it.
"""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import cv2
import numpy as np

from edgenn_device.cameras.synthetic import SyntheticSource

How = Literal["well", "frozen", "garbage", "covered", "large", "flood", "asks"]
# Frames a second: as much as a small emulated board classifies without a drop.
FPS = 6.0
# Seconds that a garment is shown.
_SHOWN = 2.5
# Pictures of each garment.
_COUNT = 12


class Camera:
    """Serves `url` from the start; `how` is how it behaves from now on, and `off` and `on` are its plug.

    How: "well"; "frozen" (connected, and no more pictures); "garbage" (parts that are no JPEG); "covered" (a lens cap);
    "large" (another resolution); "flood" (as fast as the network takes them); "asks" (for a password).
    """

    def __init__(self) -> None:
        self._well = [_garment(label) for label in (0, 2)]
        self._large = [[_scaled(jpeg, 3.0) for jpeg in garment] for garment in self._well]
        noise = np.random.default_rng(0).integers(0, 5, (240, 320, 3)).astype(np.uint8)
        self._covered = _jpeg(noise)
        self._how: How = "well"
        self._off = threading.Event()
        self._clients: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.on()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream.mjpg"

    def now(self, how: How) -> None:
        self._how = how
        if how == "asks":
            self._hang_up()

    def on(self) -> None:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera._serve(self)

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
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def off(self) -> None:
        self._off.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._hang_up()

    def _hang_up(self) -> None:
        for client in list(self._clients):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        if self._how == "asks":
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Basic realm="camera"')
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        self._clients.add(handler.connection)
        try:
            handler.send_response(200)
            handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            handler.end_headers()
            number = 0
            while not self._off.wait(0.0 if self._how == "flood" else 1 / FPS):
                if self._how == "frozen":
                    continue
                jpeg = self._picture(number)
                part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                handler.wfile.write(part + jpeg + b"\r\n")
                number += 1
        except OSError:
            pass
        finally:
            self._clients.discard(handler.connection)

    def _picture(self, number: int) -> bytes:
        if self._how == "covered":
            return self._covered
        if self._how == "garbage":
            return b"this is no picture " * 50
        scenes = self._large if self._how == "large" else self._well
        shown = scenes[int(time.monotonic() / _SHOWN) % len(scenes)]
        return shown[number % len(shown)]


def _garment(scene: int) -> list[bytes]:
    """Pictures of the synthetic camera's scene of that number."""
    found: list[bytes] = []
    with SyntheticSource(fast=True) as source:
        scenes, last = -1, None
        while len(found) < _COUNT * 4:
            frame = source.read()
            assert frame is not None
            scenes += frame.truth != last
            last = frame.truth
            if scenes == scene:
                assert isinstance(frame.image, np.ndarray)
                found.append(_jpeg(frame.image))
    return found[::4]


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _scaled(jpeg: bytes, by: float) -> bytes:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return _jpeg(cv2.resize(image, None, fx=by, fy=by))
