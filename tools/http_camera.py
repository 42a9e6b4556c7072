"""A camera on the network: a real HTTP server that sends JPEG after JPEG, and can be switched off."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HttpCamera:
    """Serves MJPEG at `url` from the start; `off` and `on` are its plug. What it sends is a subclass's `picture`.

    Attributes:
      pace: seconds between pictures.
      asks: for a password, whoever comes.
      connections: that got pictures so far.
    """

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self.asks = False
        self.connections = 0
        self._off = threading.Event()
        self._clients: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.on()

    def picture(self, number: int) -> bytes | None:
        """What is sent as the next one, the `number`th of a connection, or None for nothing."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream.mjpg"

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
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def off(self) -> None:
        """As when the cable is pulled out of its power: connections end, and nobody answers."""
        self._off.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self.hang_up()

    def hang_up(self) -> None:
        """End all connections."""
        for client in list(self._clients):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        if self.asks:
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Basic realm="camera"')
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        self.connections += 1
        self._clients.add(handler.connection)
        try:
            handler.send_response(200)
            handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            handler.end_headers()
            number = 0
            while not self._off.wait(self.pace):
                jpeg = self.picture(number)
                if jpeg is None:
                    continue
                handler.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
                handler.wfile.write(jpeg + b"\r\n")
                number += 1
        except OSError:
            pass
        finally:
            self._clients.discard(handler.connection)
