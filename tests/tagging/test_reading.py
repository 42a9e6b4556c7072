"""The bytes behind a URL, or the reason in one line why there are none."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgenn.tagging import reading
from edgenn.tagging.listing import pictures
from edgenn.tagging.reading import picture_bytes
from edgenn_device.errors import EdgennError

pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def web():
    """A server that answers /500 with that status, and /loop with itself; its host and port."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path[1:]
            if name.isdigit():
                self.send_error(int(name))
                return
            self.send_response(302 if name == "loop" else 200)
            self.send_header("Location", "/loop")
            self.end_headers()
            self.wfile.write(b"a picture")

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def port():
    """A port that takes no connection as long as the test lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://{web}/404", "does not exist: check the URL"),  # the only one that says so
        ("http://{web}/403", "the server answered 403 (Forbidden)"),
        ("http://{web}/500", "the server answered 500 (Internal Server Error)"),
        ("http://{web}/loop", "redirects without end: check the URL"),
        ("http://127.0.0.1:{port}/a", "no connection to 127.0.0.1:{port} (refused)"),  # nobody listens
        ("http://no.where/a", "no connection to no.where:80 (Name or service not known)"),  # no such host
    ],
)
def test_a_picture_that_the_web_does_not_give_says_why(web, port, monkeypatch, url, reason):
    resolve = socket.getaddrinfo

    def without_asking(host, *arguments, **options):
        if host == "no.where":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", without_asking)
    with pytest.raises(EdgennError) as raised:
        picture_bytes(url.format(web=web, port=port))
    assert str(raised.value) == reason.format(port=port)


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(reading, "_ANSWER", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(EdgennError) as raised:
        picture_bytes(f"http://127.0.0.1:{silent.getsockname()[1]}/a.jpg")
    assert str(raised.value) == "did not answer within 0.05 s"


def test_a_scheme_may_be_in_capitals(web):
    url = f"HTTP://{web}/a::b[1].jpg"
    assert [*pictures([url])] == [url]
    assert picture_bytes(url) == b"a picture"
