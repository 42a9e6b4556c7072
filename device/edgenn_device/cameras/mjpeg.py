"""Cameras that send JPEG after JPEG over HTTP (multipart/x-mixed-replace). The pictures are handed over undecoded.

The parser trusts nothing: parts with and without Content-Length, whatever stands between them, servers that stop in the
middle or never come to an end. No part of a stream can make it keep more than one picture of `MAX_PICTURE` bytes, or
wait longer than `SILENCE` for one.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import Any, Protocol

from ..addresses import hidden, shown, without_account
from ..errors import EdgennError
from .base import Image
from .login import Login
from .reconnecting import SILENCE, Lost, ReconnectingSource

# Bytes. A 12-megapixel JPEG of best quality has about 10 MB; more than this is not a picture.
MAX_PICTURE = 32 << 20
# Bytes. Part headers are a type, a length and a time stamp.
_MAX_HEADERS = 16 << 10
_CHUNK = 64 << 10
# A camera on the local network answers within a fraction of this.
_OPEN_TIMEOUT = 5.0


class MjpegSource(ReconnectingSource):
    """JPEG frames of an HTTP stream.

    Args:
      url: http(s)://[NAME:PASSWORD@]HOST[:PORT]/PATH; see `login`. No proxy is used: a camera is on the local
        network.
    """

    def __init__(self, url: str) -> None:
        super().__init__(shown(url))
        self._url = without_account(url)
        self._login = Login(url)
        self._socket: socket.socket | None = None
        self._response: Any = None
        self._parts: Parts | None = None

    def connect(self) -> None:
        # A server that drips its header byte by byte never runs into the socket's timeout.
        watch = threading.Timer(SILENCE, self._hang_up)
        watch.daemon = True
        try:
            watch.start()
        except RuntimeError as error:  # no memory for a thread, or as many of them as there may be: it is tried again
            raise Lost(f"{self.name}: {error}") from None
        try:
            response = _opener(self._login, self._remember).open(self._url, timeout=_OPEN_TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            raise _refused(self.name, error, self._login) from None
        except ssl.SSLError as error:
            raise EdgennError(f"{self.name}: {error.reason or error}; use http:// if the camera offers it") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise EdgennError(f"{self.name}: its certificate is not trusted; use http:// for it") from None
            raise Lost(
                f"{self.name} does not answer ({_reason(error.reason)}): is the camera on, the address right?"
            ) from None
        except (ValueError, http.client.InvalidURL):
            raise EdgennError(f"{self.name} is not an address that can be opened: http://HOST[:PORT]/PATH") from None
        except (OSError, http.client.HTTPException) as error:
            raise Lost(f"{self.name} does not answer as a web server does ({_reason(error)})") from None
        finally:
            watch.cancel()
            watch.join()
        self._response = response
        if self._socket is not None:
            self._socket.settimeout(SILENCE)
        self._parts = Parts(response, _boundary(self.name, response.headers))

    def grab(self) -> tuple[Image, float]:
        if self._parts is None:
            raise Lost(f"{self.name} is not connected")
        try:
            return self._parts.next()
        except Lost as error:
            raise Lost(f"{self.name}: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Lost(f"{self.name}: {_reason(error)}") from None
        except (ValueError, AttributeError):
            # What http.client's objects raise when another thread closes them in the middle of a read.
            raise Lost(f"{self.name} was closed") from None

    def disconnect(self) -> None:
        self._hang_up()
        if self._response is not None:
            self._response.close()

    def _remember(self, connected: socket.socket) -> None:
        self._socket = connected
        if self._closed.is_set():
            self._hang_up()

    def _hang_up(self) -> None:
        """End the conversation under a thread that is blocked in it; its read returns at once."""
        if self._socket is not None:
            try:
                # Of the plain class: an SSL socket's own `shutdown` takes its state away from the reading thread.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                pass


class Chunks(Protocol):
    """What `Parts` reads from: some bytes, at most `size`, or none at the end."""

    def read1(self, size: int, /) -> bytes: ...


class Parts:
    """The pictures of a multipart stream.

    Args:
      stream: the body of the response.
      boundary: as the Content-Type gives it. Some cameras count the leading dashes in, some do not, and some leave them
        out between the pictures too, where it is alone in its line: each is found.
    """

    def __init__(self, stream: Chunks, boundary: str, *, max_picture: int = MAX_PICTURE, patience: float = SILENCE):
        self._stream = stream
        name = boundary.strip("-").encode("latin-1")
        # Begins with what it looks for: so it is searched for as fast as it can be.
        self._delimiter = re.compile(rb"%b(?:(?<=--%b)|(?<=\n%b)(?=\r?\n))" % ((re.escape(name),) * 3))
        # Bytes of a delimiter before it is known for one: all but the last line feed.
        self._longest = len(b"\n" + name + b"\r")
        self._separated = False
        self._max = max_picture
        self._patience = patience
        self._deadline = 0.0
        self._data = bytearray()

    def next(self) -> tuple[bytes, float]:
        """The next picture and the `time.monotonic()` at which it began to arrive.

        Raises:
          Lost: the stream ended, or is not one of pictures.
          OSError: the connection failed.
        """
        self._deadline = time.monotonic() + self._patience
        while True:
            self._skip_to_part()
            headers = self._headers()
            began = time.monotonic()
            length = re.search(rb"(?im)^content-length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?$", headers)
            body = self._exactly(int(length[1])) if length else self._until_end()
            if body:
                return body, began

    def _skip_to_part(self) -> None:
        """Drop everything up to and including the next delimiter."""
        # At the beginning and behind a picture it need not be told that a line begins.
        self._data[:0] = b"\n"
        while not (found := self._delimiter.search(self._data)):
            # The delimiter may have come in part.
            del self._data[: -self._longest]
            self._more("" if self._separated else ": its parts are not separated by the boundary that it announced")
        del self._data[: found.end()]
        self._separated = True

    def _headers(self) -> bytes:
        """The header lines of a part, from the rest of the delimiter's line to the empty line that ends them."""
        while not (end := re.search(rb"\r?\n\r?\n", self._data)):
            if len(self._data) > _MAX_HEADERS:
                raise Lost("the header of a picture has no end")
            self._more()
        return self._take(end.start(), end.end())

    def _exactly(self, length: int) -> bytes:
        if length > self._max:
            raise Lost(f"a picture of {length} bytes is announced; the most is {self._max}")
        while len(self._data) < length:
            self._more()
        return self._take(length, length)

    def _until_end(self) -> bytes:
        """A picture of unknown length: up to its own end marker, or to the next delimiter for what is no JPEG.

        Waiting for the delimiter alone would cost a frame's time, because many servers send it with the next picture.
        """
        searched = 0
        scan = 0
        while True:
            scan = scan or _scan_of_jpeg(self._data)
            found = self._delimiter.search(self._data, max(0, searched - self._longest))
            # A marker after the delimiter is another picture's: this one was cut off.
            last = found.start() if found else len(self._data)
            if scan and (end := self._data.find(b"\xff\xd9", max(scan, searched - 1), last) + 2) > 1:
                return self._take(end, end)
            if found:
                return self._take(last, last).rstrip(b"\r\n-")
            searched = len(self._data)
            if searched > self._max:
                raise Lost(f"a picture has no end within {self._max} bytes")
            self._more()

    def _take(self, end: int, drop: int) -> bytes:
        """The first `end` bytes; the first `drop` are gone."""
        taken = bytes(memoryview(self._data)[:end])
        del self._data[:drop]
        return taken

    def _more(self, why: str = "") -> None:
        if time.monotonic() > self._deadline:
            raise Lost(f"no whole picture in {self._patience:g} s{why}")
        chunk = self._stream.read1(_CHUNK)
        if not chunk:
            raise Lost("the camera ended the stream")
        self._data += chunk


def _scan_of_jpeg(data: bytearray) -> int:
    """Where the compressed data of a JPEG begins, 0 while unknown.

    An end marker before it belongs to a thumbnail in the headers; within it 0xFF is followed by 0 (ITU-T T.81, B.1.1.5)
    or by a restart marker.
    """
    if not data.startswith(b"\xff\xd8"):
        return 0
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xDA:
            return at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _boundary(name: str, headers: Message) -> str:
    kind = headers.get_content_type()
    if kind.startswith("image/"):
        raise EdgennError(f"{name} is a single picture ({kind}), not a stream: use the camera's MJPEG address")
    boundary = headers.get_param("boundary") if kind.startswith("multipart/") else None
    if not isinstance(boundary, str) or not boundary.strip('-" '):
        raise EdgennError(f"{name} answers with {kind} and not with an MJPEG stream: use the camera's MJPEG address")
    return boundary.strip('" ')


def _opener(login: Login, remember: Callable[[socket.socket], None]) -> urllib.request.OpenerDirector:
    """Opens http and https, and tells of each socket as it is connected: through it a blocked reader can be woken."""

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            remember(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            remember(self.sock)

    class OpenPlain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, request)

    class OpenSecure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, request, context=ssl.create_default_context())

    return urllib.request.build_opener(urllib.request.ProxyHandler({}), OpenPlain, OpenSecure, login)


def _refused(name: str, error: urllib.error.HTTPError, login: Login) -> EdgennError:
    # A camera that redirects may say where to.
    answer = f"{error.code} {hidden(' '.join(str(error.reason).split()))}"
    if error.code in (401, 403):
        here = login.is_for(error.url)
        if here and login.account is not None:
            return EdgennError(
                f"{name} refuses this name and password ({answer}): they are those of the camera's own page; "
                "a % in them is written %25"
            )
        asking = name if here else shown(error.url)
        address = asking.replace("://", "://NAME:PASSWORD@", 1)
        who = name if here else f"{name} sends us on to {asking}, which"
        return EdgennError(f"{who} asks for a name and a password ({answer}): --source {address}")
    # 5xx: a camera that is just starting up.
    kind = Lost if error.code >= 500 else EdgennError
    return kind(f"{name} answers {answer}: use the camera's MJPEG address")


def _reason(error: BaseException | str) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
