"""HTTP MJPEG against a real server in a thread: each connection is answered by a script of the test."""

import base64
import hashlib
import io
import logging
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn_device.cameras import mjpeg, open_source, reconnecting
from edgenn_device.cameras.mjpeg import MAX_PICTURE, MjpegSource, Parts
from edgenn_device.cameras.reconnecting import Lost
from edgenn_device.errors import EdgennError

SOON = 30.0  # for waits that end at once unless the code is broken
Script = Callable[[BaseHTTPRequestHandler], None]
MULTIPART = "multipart/x-mixed-replace; boundary=frame"


def jpeg(value: int) -> bytes:
    """A small JPEG; no two values give the same bytes."""
    return cv2.imencode(".jpg", np.full((8, 8, 3), value, np.uint8))[1].tobytes()


def value_of(picture: bytes) -> int:
    return round(float(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).mean()))


def part(body: bytes, *, length: bool = True, delimiter: bytes = b"--frame") -> bytes:
    header = b"Content-Type: image/jpeg\r\n" + (b"Content-Length: %d\r\n" % len(body) if length else b"")
    return delimiter + b"\r\n" + header + b"\r\n" + body + b"\r\n"


class Camera(ThreadingHTTPServer):
    """Answers connection number n with the n-th script; the last one stays for all that follow."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.connections = 0
        self.hold = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/stream.mjpg"


class Handler(BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        script = self.server.scripts[min(self.server.connections, len(self.server.scripts) - 1)]
        self.server.connections += 1
        try:
            script(self)
        except OSError:
            pass  # the reader has hung up

    def log_message(self, *_: object) -> None:
        pass


def answer(*pieces: bytes, kind: str = MULTIPART, hold: bool = False) -> Script:
    """Headers and pieces; then the connection is dropped, or held open in silence until the test ends."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
        if hold:
            handler.server.hold.wait()

    return script


def status(code: int) -> Script:
    return lambda handler: handler.send_error(code)


def login(*challenges: str) -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(401)
        for challenge in challenges:
            handler.send_header("WWW-Authenticate", challenge)
        handler.end_headers()

    return script


def moved(to: str, code: int = 302) -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Location", to)
        handler.end_headers()

    return script


def without_end(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", MULTIPART)
    handler.end_headers()
    handler.wfile.write(b"--frame\r\n")
    while True:
        handler.wfile.write(b"X-Field: more\r\n" * 100)


def header_without_end(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-Field: " + b"y" * 10_000 + b"\r\n")


@pytest.fixture
def camera() -> Iterator[Camera]:
    server = Camera()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """Back-off in milliseconds: the order of things is under test, not their duration."""
    monkeypatch.setattr(reconnecting, "_SHORTEST_WAIT", 0.001)
    monkeypatch.setattr(reconnecting, "_LONGEST_WAIT", 0.01)


PICTURES = [jpeg(value) for value in (40, 90, 140)]


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([part(each) for each in PICTURES], MULTIPART),  # as it should be
        ([part(each, length=False) for each in PICTURES] + [b"--frame"], MULTIPART),  # without Content-Length
        ([part(each, length=False) for each in PICTURES], MULTIPART),  # the last one ends by its own end marker
        ([b"noise\r\n\r\n" + part(each) + b"\x00\xff\xd8rest\r\n" for each in PICTURES], MULTIPART),  # garbage between
        ([bytes([byte]) for each in PICTURES for byte in part(each)], MULTIPART),  # byte by byte
        ([b"".join(part(each) for each in PICTURES)], MULTIPART),  # all at once
        ([part(each).replace(b"\r\n\r\n", b"\n\n", 1) for each in PICTURES], MULTIPART),  # bare line feeds
        ([part(each) for each in PICTURES], 'multipart/x-mixed-replace;boundary="frame"'),  # quoted
        ([part(each) for each in PICTURES], "multipart/x-mixed-replace; boundary=--frame"),  # dashes counted in
        ([part(each, delimiter=b"----frame") for each in PICTURES], "multipart/x-mixed-replace; boundary=--frame"),
        ([part(each, delimiter=b"frame") for each in PICTURES], MULTIPART),  # dashes left out
        (
            [part(each, delimiter=b"frame", length=False) for each in PICTURES],
            "multipart/x-mixed-replace; boundary=--frame",
        ),
        (
            [part(each, delimiter=b"--a.film", length=False) for each in PICTURES],
            "multipart/x-mixed-replace; boundary=a.film",
        ),
        ([part(each).replace(b"Content-Length", b"content-length") for each in PICTURES], MULTIPART),  # lower case
        ([part(b"") + part(each) for each in PICTURES], MULTIPART),  # empty parts
    ],
)
def test_pictures_come_as_they_were_sent(camera, pieces, kind):
    camera.scripts = [answer(*pieces, kind=kind, hold=True)]
    with open_source(camera.url) as source:
        frames = [source.read() for _ in PICTURES]
    assert [frame.image for frame in frames] == PICTURES
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].time <= frames[1].time <= frames[2].time
    assert source.live
    assert source.continuous


def test_a_chunked_answer_is_read(camera):
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Content-Type", MULTIPART)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for each in PICTURES:
            data = part(each)
            for piece in (data[:50], data[50:]):
                handler.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        handler.server.hold.wait()

    camera.scripts = [chunked]
    with MjpegSource(camera.url) as source:
        assert [source.read().image for _ in PICTURES] == PICTURES


@pytest.mark.parametrize(
    "fault",
    [
        answer(part(PICTURES[0]), part(PICTURES[1])[:60]),  # in the middle of a picture
        answer(part(PICTURES[0]), b"--frame\r\nContent-Ty"),  # in the middle of a header
        answer(part(PICTURES[0]), b"--frame--\r\n"),  # the stream says that it ends
        answer(part(PICTURES[0]), b"--frame\r\nContent-Length: 99999999999\r\n\r\n", hold=True),  # an absurd length
    ],
)
def test_a_stream_that_drops_is_taken_up_again(camera, caplog, fault):
    camera.scripts = [fault, status(503), status(503), answer(part(PICTURES[1]), part(PICTURES[2]), hold=True)]
    told = []
    with caplog.at_level(logging.WARNING), MjpegSource(camera.url) as source:
        source.tell = lambda condition, reason: told.append((condition, "503" in reason))
        frames = [source.read() for _ in PICTURES]
    assert [frame.image for frame in frames] == PICTURES
    assert [frame.index for frame in frames] == [0, 1, 2]
    # Why it is away by now, and not only why it went.
    assert told == [("failed", False), ("failed", True), ("failed", True), ("ok", False)]
    said = [record.getMessage() for record in caplog.records]
    # One line for each reason, however many attempts, and one when it is back.
    assert [line.rpartition("; ")[2].rpartition(": ")[2][:10] for line in said] == ["trying aga"] * 2 + ["back after"]
    assert "503" in said[1]


def test_a_header_of_a_part_without_end_is_a_drop(camera):
    camera.scripts = [answer(part(PICTURES[0])), without_end, answer(part(PICTURES[1]), hold=True)]
    with MjpegSource(camera.url) as source:
        assert [source.read().image for _ in range(2)] == PICTURES[:2]


@pytest.mark.parametrize(
    ("script", "said", "attempts"),
    [
        (status(404), "404", 1),  # the wrong path: no use in asking again
        (status(401), "NAME:PASSWORD@", 1),  # a camera with a password
        (login("Negotiate"), "asks for a login that edgenn does not know .*: choose basic", 1),
        (login("Bearer realm=x"), "asks for a login that edgenn does not know .*: choose basic", 1),
        (login("Digest realm=x"), "does not know .'digest'.: choose basic", 1),  # one that cannot be answered
        (
            login('Digest realm=x, nonce=y, algorithm=MD5-sess, Digest realm=x, nonce=y, qop="auth-int"'),
            "MD5-sess, di",
            1,
        ),
        (moved("/stream.mjpg"), "answers 302 .* infinite loop", 5),  # round and round
        (moved("rtsp://anna:se#cret@camera"), "answers 302 [^@]*…@camera' is not allowed", 1),  # a password of its own
        (moved("http://anna:secret@127.0.0.1/"), "is not an address that can be opened", 1),
        (status(503), "503", 3),  # a camera that is starting up is asked again
        (answer(PICTURES[0], kind="image/jpeg"), "single picture", 1),  # a snapshot address
        (answer(b"<html>", kind="text/html"), "text/html", 1),  # the camera's own page
        (answer(b"", kind="multipart/x-mixed-replace"), "not with an MJPEG stream", 1),  # no boundary
        (answer(), "ended the stream", 3),  # not one picture
        (header_without_end, "does not answer as a web server does", 3),  # headers that go on for ever
        (without_end, "has no end", 3),  # likewise those of the first part
    ],
)
def test_a_source_that_does_not_open_is_one_line(camera, script, said, attempts):
    camera.scripts = [script]
    source = MjpegSource(camera.url)
    with pytest.raises(EdgennError, match=said) as raised:
        source.open()
    assert "\n" not in str(raised.value)
    assert "cret@" not in str(raised.value)
    assert camera.connections == attempts


def test_a_camera_that_is_off_is_one_line(camera):
    url = camera.url
    camera.socket.close()
    with pytest.raises(EdgennError, match="refused"):
        MjpegSource(url).open()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:port/x", "http://[::1/x", "http:///x", "http://exa mple/x"]
)  # a port, a bracket, a host that is none, a blank
def test_an_address_that_is_none_is_one_line(url):
    with pytest.raises(EdgennError):
        open_source(url).open()


NAME, PASSWORD = "anna é", 'p@ss:w"o%rd ü'


def guarded(*offers: str, takes: str, then: Script | None = None) -> Script:
    """Says `offers` until a right answer to the `takes`th kind of them comes: "Basic", "MD5" or "SHA-256"."""

    def answered(said: str) -> bool:
        scheme, _, rest = said.partition(" ")
        if takes == "Basic":
            return said == "Basic " + base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
        given = {key: value.strip('"') for key, value in re.findall(r'(\w+)=("[^"]*"|[^, ]*)', rest)}
        hash = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}[takes]

        def hashed(text: str) -> str:
            return hash(text.encode()).hexdigest()

        middle = [given[key] for key in ("nc", "cnonce", "qop") if key in given]
        account = hashed(f"{NAME}:a, camera:{PASSWORD}")
        proof = hashed(":".join([account, "n1", *middle, hashed("GET:/stream.mjpg")]))
        return scheme == "Digest" and given["response"] == proof and given["uri"] == "/stream.mjpg"

    def script(handler: BaseHTTPRequestHandler) -> None:
        right = answered(handler.headers.get("Authorization", ""))
        (then or answer(part(PICTURES[0]), hold=True) if right else login(*offers))(handler)

    return script


def with_account(url: str, name: str = NAME, password: str = PASSWORD) -> str:
    return url.replace("://", f"://{quote(name, safe='')}:{quote(password, safe='')}@", 1)


BASIC = 'Basic realm="a, camera"'
MD5 = 'Digest realm="a, camera", nonce="n1", qop="auth", algorithm=MD5, opaque="o"'
SHA = MD5.replace("MD5", "SHA-256")


@pytest.mark.parametrize(
    ("offers", "takes"),
    [
        ([BASIC], "Basic"),
        (["BASIC"], "Basic"),  # without a realm, shouting
        ([MD5], "MD5"),
        (['Digest realm="a, camera", nonce="n1"'], "MD5"),  # as before RFC 2617
        ([MD5.replace("=MD5", '="md5"').replace('"auth"', '"auth-int, auth"')], "MD5"),  # quoted; several qualities
        (['Digest realm = "a, camera" nonce=n1,, qop=auth'], "MD5"),  # written otherwise
        ([SHA], "SHA-256"),
        ([SHA, MD5], "MD5"),  # which cameras have known longest
        ([SHA, BASIC], "SHA-256"),
        ([SHA.replace("SHA-256", "SHA-512-256"), MD5], "MD5"),
        ([SHA.replace("SHA-256", "SHA-512-256"), BASIC], "Basic"),
        ([BASIC, MD5], "MD5"),  # digest, which does not show the password to whoever listens
        (["Negotiate", BASIC], "Basic"),
        (["Negotiate YII=, Bearer realm=x", MD5], "MD5"),
        ([f"Negotiate, {BASIC}, {MD5}"], "MD5"),  # all in one line
        ([f"{MD5}, NTLM, {BASIC}"], "MD5"),
    ],
)
def test_of_several_logins_one_that_is_known_is_taken(camera, offers, takes):
    camera.scripts = [guarded(*offers, takes=takes)]
    with MjpegSource(with_account(camera.url)) as source:
        assert source.read().image == PICTURES[0]
        assert source.name == camera.url
    assert camera.connections == 2  # nothing is sent before it is asked for, and then it is right


@pytest.mark.parametrize(
    "script",
    [
        guarded(BASIC, takes="Basic"),
        guarded(MD5, takes="MD5"),
        status(401),  # one that does not say which login it takes
        status(403),  # a name that may not look
    ],
)
def test_a_wrong_password_is_not_called_a_missing_one(camera, script):
    camera.scripts = [script]
    with pytest.raises(EdgennError, match=r"refuses this name and password \(40[13] ") as raised:
        MjpegSource(with_account(camera.url, password="hunter2")).open()
    assert "hunter2" not in str(raised.value)
    assert camera.connections <= 2  # cameras lock out who tries too often


@pytest.mark.parametrize(
    "scripts",
    [
        [moved("/stream.mjpg"), guarded(BASIC, takes="Basic")],  # before the login
        [guarded(BASIC, takes="Basic", then=moved("/stream.mjpg"))] * 2 + [guarded(MD5, takes="MD5")],  # and after it
    ],
)
def test_a_login_holds_wherever_its_camera_redirects_on_itself(camera, scripts):
    camera.scripts = scripts
    with MjpegSource(with_account(camera.url.replace("stream.mjpg", "first"))) as source:
        assert source.read().image == PICTURES[0]


def test_another_host_never_gets_the_login(camera):
    asked: list[str | None] = []

    def listening(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers.get("Authorization"))
        login(BASIC)(handler)

    elsewhere = camera.url.replace("127.0.0.1", "localhost")
    camera.scripts = [moved(elsewhere), listening]
    with pytest.raises(EdgennError, match=f"sends us on to {elsewhere}, which asks for a name and a password"):
        MjpegSource(with_account(camera.url)).open()
    assert asked == [None]


def test_a_reader_blocked_in_silence_is_woken_by_close(camera, monkeypatch):
    monkeypatch.setattr(mjpeg, "SILENCE", 3600.0)  # it is not the timeout that wakes it
    camera.scripts = [answer(part(PICTURES[0]), hold=True)]
    source = MjpegSource(camera.url)
    source.open()
    assert source.read().image == PICTURES[0]
    given: list[object] = []
    reader = threading.Thread(target=lambda: given.append(source.read()), daemon=True)
    closer = threading.Thread(target=source.close, daemon=True)
    for thread in (reader, closer):
        thread.start()
    for thread in (reader, closer):
        thread.join(SOON)
        assert not thread.is_alive()
    assert given == [None]
    source.close()


def test_a_reader_that_waits_for_a_lost_camera_is_woken_by_close(camera, monkeypatch):
    gone = threading.Event()

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        gone.set()
        handler.send_error(503)

    camera.scripts = [answer(part(PICTURES[0])), refuse]
    source = MjpegSource(camera.url)
    source.open()
    source.read()
    monkeypatch.setattr(reconnecting, "_wait", lambda _: 3600.0)
    reader = threading.Thread(target=source.read, daemon=True)
    reader.start()
    # The connection was lost, so the thread is in its hour of back-off, or about to be.
    source.close()
    reader.join(SOON)
    assert not reader.is_alive()
    assert not gone.is_set()


def test_patience_ends_with_a_stream_that_drips():
    class Drip(io.RawIOBase):
        def read1(self, _: int) -> bytes:
            return b"x"

    with pytest.raises(Lost, match="no whole picture"):
        Parts(Drip(), "frame", patience=0.0).next()


@pytest.mark.parametrize("length", [True, False])
def test_a_picture_larger_than_any_is_not_collected(length):
    body = b"\xff\xd8" + bytes(5000)
    stream = io.BufferedReader(io.BytesIO(part(body, length=length)))
    with pytest.raises(Lost, match="bytes"):
        Parts(stream, "frame", max_picture=4000).next()
    assert MAX_PICTURE > 10 << 20


def test_the_end_marker_of_a_thumbnail_does_not_end_the_picture():
    thumbnail = jpeg(1)
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    picture = PICTURES[0][:2] + exif + PICTURES[0][2:]
    stream = io.BufferedReader(io.BytesIO(part(picture, length=False)))
    assert Parts(stream, "frame").next()[0] == picture


def test_the_name_of_the_boundary_in_a_picture_does_not_end_it():
    comment = b"\nframe by frame, a\nframe\n in the frame"
    # Not even alone in its line, where the length is known.
    pictures = [
        PICTURES[0][:2] + b"\xff\xfe" + (len(each) + 2).to_bytes(2, "big") + each + PICTURES[0][2:]
        for each in (comment, comment[:20])
    ]
    data = part(pictures[0]) + part(pictures[1], length=False)
    stream = Parts(io.BufferedReader(io.BytesIO(data)), "frame")
    assert [stream.next()[0] for _ in pictures] == pictures


def test_another_boundary_than_the_announced_is_said():
    data = part(PICTURES[0], delimiter=b"--other") * 100
    with pytest.raises(Lost, match=r"no whole picture in 0 s: its parts are not separated by the boundary that it ann"):
        Parts(InPieces(data, [50]), "frame", patience=0.0).next()


class InPieces(io.RawIOBase):
    """A stream that gives its bytes in pieces of the sizes asked for by the test."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes, self._turn = data, sizes, 0

    def read1(self, _: int) -> bytes:
        size = self._sizes[self._turn % len(self._sizes)]
        self._turn += 1
        piece, self._data = self._data[:size], self._data[size:]
        return piece


@given(
    st.lists(st.tuples(st.integers(0, 255), st.booleans(), st.binary(max_size=30)), min_size=1, max_size=5),
    st.lists(st.integers(1, 700), min_size=1, max_size=8),
    st.sampled_from([b"--frame", b"----frame", b"\nframe"]),
)
def test_however_a_stream_is_cut_the_same_pictures_come_out(parts, sizes, delimiter):
    # Noise is what may stand between parts: not the delimiter itself.
    data = b"".join(
        noise.replace(b"-", b"+") + part(jpeg(value), length=length, delimiter=delimiter)
        for value, length, noise in parts
    )
    stream = Parts(InPieces(data, sizes), "frame")
    assert [stream.next()[0] for _ in parts] == [jpeg(value) for value, _, _ in parts]
    with pytest.raises(Lost, match="ended"):
        stream.next()


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_picture_that_was_cut_off_does_not_swallow_the_next(size):
    cut = PICTURES[0][:-20]
    stream = Parts(InPieces(part(cut, length=False) + part(PICTURES[1], length=False), [size]), "frame")
    assert [stream.next()[0] for _ in range(2)] == [cut, PICTURES[1]]


@given(st.binary(max_size=600), st.lists(st.integers(1, 100), min_size=1, max_size=4))
def test_whatever_comes_it_ends(data, sizes):
    stream = Parts(InPieces(b"--frame\r\n" + data, sizes), "frame")
    with pytest.raises(Lost):
        list(iter(stream.next, None))


def test_a_machine_that_starts_no_thread_loses_the_camera_for_now(monkeypatch):
    def none(thread):
        raise RuntimeError("can't start new thread")

    source = MjpegSource("http://127.0.0.1:1/film")
    monkeypatch.setattr(threading.Thread, "start", none)
    with pytest.raises(Lost, match=r"127\.0\.0\.1:1/film: can't start new thread"):
        source.connect()
