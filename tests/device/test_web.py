"""The live page with a real server, real sockets and, where it is installed, a real browser."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from edgenn_device import uncertain
from edgenn_device.cameras.base import Frame
from edgenn_device.classifier import Classification
from edgenn_device.errors import EdgennError
from edgenn_device.events import Event, thumbnail
from edgenn_device.health import Health
from edgenn_device.likeness import as_jpeg
from edgenn_device.pipeline import Result
from edgenn_device.sinks.base import About, Sink
from edgenn_device.sinks.queued import Queued
from edgenn_device.token import stored_token
from edgenn_device.uncertain import UNLABELLED, Keeper
from edgenn_device.web import Live, board, connection, pages
from edgenn_device.web.access import Door
from tools import chromium

LABELS = ("jacket", "shirt", "t-shirt")
TOKEN = "a-token-that-nobody-guesses"
# A label from a model file may be anything.
EVIL = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
ABOUT = About("porch", "garments", LABELS, "ai-edge-litert", "synthetic", "0.1.0")


def picture(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    patches = np.random.RandomState(seed).randint(0, 256, (8, 9, 3), np.uint8)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_NEAREST)


def result(index: int = 0, label: str = "shirt", image: Any = None, score: float = 0.9) -> Result:
    scores = np.array([(1 - score) / 2, score, (1 - score) / 2], np.float32)
    top = ((label, score), ("jacket", (1 - score) / 2), ("t-shirt", (1 - score) / 2))
    frame = Frame(picture(index) if image is None else image, time.monotonic(), index, f"{index}.jpg")
    return Result(frame, Classification(label, score, top, scores), {}, 0.012)


def event(number: int = 1, label: str = "shirt", ended: float | None = None) -> Event:
    return Event(f"{number:014x}-0123", label, 0.9, time.time() - 60, ended, 7, thumbnail(picture(number)))


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.content = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Running:
    def __init__(self, live: Live, health: Health, keeper: Keeper | None) -> None:
        self.live, self.health, self.keeper = live, health, keeper
        self.port = int(live.url.rstrip("/").rpartition(":")[2])

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            return Answer(client.getresponse())
        finally:
            client.close()

    def post(self, path: str, content: Any = None, **headers: str) -> Answer:
        return self.ask(path, "POST", json.dumps(content), **{"x_edgenn": "1", **headers})

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@contextmanager
def running(keeper: Keeper | None = None, **options: Any) -> Iterator[Running]:
    health = Health("porch", "0.1.0")
    with Live(ABOUT, health, **{"port": 0, "keeper": keeper, **options}) as live:
        thread = live._thread
        yield Running(live, health, keeper)
    assert thread is not None
    assert not thread.is_alive()


@pytest.fixture
def web() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """For tests that leave it as they found it."""
    with running() as made:
        made.live.write(result(1))
        yield made


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    """With three frames that wait for their label."""
    monkeypatch.setattr(uncertain, "_PACE", 0.0)
    with Keeper(tmp_path / "kept", LABELS, model="garments") as made:
        for index in range(3):
            made.take(result(index, score=0.36 + index / 100))
            until(lambda index=index: made.count == index + 1)
        yield made


# What is shown


def test_the_page_is_there_and_loads_nothing_from_elsewhere(shared: Running) -> None:
    for path, kind in (("/", "text/html"), ("/live.js", "text/javascript"), ("/page.css", "text/css")):
        answer = shared.ask(path)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(kind)
        assert b"http://" not in answer.content
        assert b"https://" not in answer.content
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_the_picture_is_the_newest_and_is_waited_for(web: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_PATIENCE", 600.0)
    answers: list[Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(web.ask("/picture.jpg")))
    waiting.start()
    until(lambda: web.live.watched)
    web.live.write(result(1))
    waiting.join(60)
    [first] = answers
    assert first.status == 200
    shown = cv2.imdecode(np.frombuffer(first.content, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(shown.astype(int) - picture(1)).mean() < 20  # another picture: 80
    web.live.write(result(2))
    web.live.write(result(3))
    second = web.ask(f"/picture.jpg?seen={first.headers['x-tag']}")
    shown = cv2.imdecode(np.frombuffer(second.content, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(shown.astype(int) - picture(3)).mean() < 20  # another picture: 80
    assert second.headers["x-tag"] != first.headers["x-tag"]


def test_without_a_new_picture_the_answer_is_empty(web: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_PATIENCE", 0.05)
    assert web.ask("/picture.jpg").status == 204
    web.live.write(result(1))
    seen = web.ask("/picture.jpg").headers["x-tag"]
    assert web.ask(f"/picture.jpg?seen={seen}").status == 204
    # A tag of another run, from before a restart, is not taken for one that is to come.
    assert web.ask("/picture.jpg?seen=00000000-99999").status == 200


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (picture(1, 1080, 1920), (540, 960)),  # pixels, made smaller
        (as_jpeg(picture(1, 1080, 1920)), (540, 960)),  # a camera's JPEG, decoded at its half
        (as_jpeg(picture(1, 100, 100)), (100, 100)),  # small enough as it is
        (cv2.imencode(".png", picture(1, 100, 100))[1].tobytes(), (100, 100)),
    ],
)
def test_the_picture_is_made_to_be_looked_at(shared: Running, image: Any, size: tuple[int, int]) -> None:
    shared.live.write(result(image=image))
    answer = shared.ask("/picture.jpg")
    assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR).shape == (*size, 3)
    if isinstance(image, bytes) and size == (100, 100) and image[:2] == b"\xff\xd8":
        assert answer.content == image


@pytest.mark.parametrize("image", [b"torn", np.zeros((0, 0, 3), np.uint8), as_jpeg(picture(1))[:500]])
def test_a_torn_frame_shows_nothing_and_the_next_one_does(web: Running, image: Any) -> None:
    web.live.write(result(image=image))
    answer = web.ask("/picture.jpg")
    assert answer.status == 204
    web.live.write(result(1))
    assert web.ask(f"/picture.jpg?seen={answer.headers['x-tag']}").status == 200


def test_nothing_is_encoded_for_nobody_and_once_for_all(web: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    real = pages._shown
    monkeypatch.setattr(pages, "_shown", lambda image: drawn.append(1) or real(image))
    for index in range(100):
        web.live.write(result(index))
    assert drawn == []
    askers = [threading.Thread(target=web.ask, args=(f"/picture.jpg?page={index}",)) for index in range(6)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    assert len(drawn) == 1


def test_the_state_says_it_all(web: Running) -> None:
    empty = web.ask("/state.json").json
    assert (empty["result"], empty["health"]["state"], empty["unlabelled"]) == (None, "starting", None)
    web.health.frame(result(1))
    web.health.set("delegate", "degraded", "the Edge TPU is gone")
    web.live.write(result(1))
    until(lambda: web.ask("/state.json").json["result"])  # one document serves all pages for a tenth of a second
    said = web.ask("/state.json").json
    assert said["device"] == "porch"
    assert said["result"]["label"] == "shirt"
    assert said["result"]["top"][0] == ["shirt", 0.9]
    assert said["latencies_ms"] == [12.0]
    assert said["health"]["reasons"] == ["delegate: the Edge TPU is gone"]


def test_scores_that_are_no_numbers_do_not_break_it(web: Running) -> None:
    web.live.write(result(1, score=float("nan")))
    assert web.ask("/state.json").json["result"]["confidence"] is None


def test_health_has_a_status_for_supervisors(web: Running) -> None:
    assert web.ask("/health").status == 503  # starting
    web.health.frame(result(1))
    assert (web.ask("/health").status, web.ask("/health").json["state"]) == (200, "ok")
    web.health.set("sink:mqtt", "degraded", "the broker is away")
    assert (web.ask("/health").status, web.ask("/health").json["state"]) == (200, "degraded")
    web.health.set("source", "failed", "the camera is gone")
    answer = web.ask("/health")
    assert answer.status == 503
    assert "source: the camera is gone" in answer.json["reasons"]


def test_events_are_the_last_ones_newest_first_and_change(web: Running) -> None:
    for number in range(board.MOST_EVENTS + 5):
        web.live.event(event(number))
    said = web.ask("/events.json").json
    assert len(said["events"]) == board.MOST_EVENTS
    newest = said["events"][0]
    assert (newest["id"], newest["ended"]) == (event(board.MOST_EVENTS + 4).id, None)
    assert web.ask(f"/{newest['thumbnail']}").content == event(board.MOST_EVENTS + 4).thumbnail
    assert web.ask(f"/events/{event(0).id}.jpg").status == 404
    web.live.event(event(board.MOST_EVENTS + 4, ended=time.time()))
    again = web.ask("/events.json").json
    assert again["tag"] != said["tag"]
    assert again["events"][0]["ended"] is not None
    assert len(again["events"]) == board.MOST_EVENTS


def test_the_sparkline_is_bounded_and_keeps_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    made = board.Board()
    clock = [0.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: clock[0])
    one = result()
    for index in range(2_000):
        clock[0] = index / 10
        made.write(one)
    assert len(made.latencies()) == board.POINTS


@pytest.mark.parametrize("path", ["/nothing", "/static/page.css", "/../../etc/passwd", "/label", "/unlabelled.json"])
def test_what_is_not_there_is_404(shared: Running, path: str) -> None:
    assert shared.ask(path).status == 404


# Who may look


def test_beyond_this_machine_a_token_is_demanded() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "porch.local"):
        with pytest.raises(EdgennError, match="token"):
            Live(ABOUT, Health(), host=host)
    with pytest.raises(EdgennError, match="can be guessed"):
        Live(ABOUT, Health(), host="0.0.0.0", token="short")
    Live(ABOUT, Health(), host="0.0.0.0", token=TOKEN)
    for host in ("127.0.0.1", "::1", "localhost"):
        Live(ABOUT, Health(), host=host)


PATHS = (
    "/", "/label", "/live.js", "/label.js", "/picture.jpg", "/state.json", "/health", "/events.json",
    f"/events/{event().id}.jpg", "/unlabelled.json",
)  # fmt: skip


@pytest.mark.parametrize("shown", [{}, {"authorization": "Bearer wrong"}, {"cookie": "edgenn_{port}=wrong"}])
def test_a_refused_token_shows_nothing(keeper: Keeper, shown: dict[str, str]) -> None:
    with running(keeper, host="0.0.0.0", token=TOKEN) as web:
        web.live.write(result(1, label="shirt"))
        web.live.event(event())
        headers = {name: value.format(port=web.port) for name, value in shown.items()}
        frame = f"/unlabelled/{keeper.waiting()[0].name}"
        for path in (*PATHS, "/?token=wrong", f"{frame}.jpg"):
            answer = web.ask(path, **headers)
            assert answer.status == 401, path
            for secret in (b"porch", b"garments", b"shirt", b"synthetic", b"\xff\xd8", TOKEN.encode()):
                assert secret not in answer.content, (path, secret)
            assert "set-cookie" not in answer.headers
        assert web.post(frame, {"label": "shirt"}, **headers).status == 401
        assert web.post("/undo", {}, **headers).status == 401
        assert web.ask("/enter", "POST", "token=wrong").status == 401
        assert keeper.count == 3
        assert not web.live.watched
        # Neither what is there nor what is not can be told.
        assert web.ask("/nothing").status == 401


def test_the_token_opens_by_header_by_address_and_by_form(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with running(host="0.0.0.0", token=TOKEN) as web:
        assert web.live.url == f"http://{socket.gethostname()}:{web.port}/"
        assert web.ask("/state.json", authorization=f"Bearer {TOKEN}").status == 200
        for answer in (web.ask(f"/?token={TOKEN}"), web.ask("/enter", "POST", f"token={TOKEN}")):
            cookie = answer.headers["set-cookie"]
            assert "httponly" in cookie.lower()
            assert "samesite=strict" in cookie.lower()
            assert TOKEN not in cookie
            assert TOKEN.encode() not in answer.content
            assert "porch" not in str(answer.content)
            assert web.ask("/state.json", cookie=cookie.partition(";")[0]).status == 200
    with running(host="0.0.0.0", token=TOKEN + "-another") as other:
        old = cookie.partition(";")[0].replace(str(web.port), str(other.port))
        assert other.ask("/state.json", cookie=old).status == 401
    assert TOKEN not in caplog.text


def test_a_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "web-token"
    made = stored_token(path)
    assert len(made) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stored_token(path) == made
    path.chmod(0o644)
    with pytest.raises(EdgennError, match="chmod 600"):
        stored_token(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(EdgennError, match="holds no token"):
        stored_token(path)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:1", True),
        ("localhost", True),
        ("LOCALHOST.:8080", True),
        ("[::1]:8080", True),
        ("192.168.1.7:8080", True),  # an address is what it says: no name server can point it elsewhere
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_a_name_that_others_can_point_here_is_refused(shared: Running, host: str, allowed: bool) -> None:
    for path in ("/", "/state.json", "/picture.jpg", "/page.css", "/nothing"):
        answer = shared.ask(path, Host=host)
        assert (answer.status != 421) is allowed
        assert allowed or b"porch" not in answer.content


def test_a_device_has_its_own_name_where_others_can_reach_it() -> None:
    name = socket.gethostname().lower().partition(".")[0]
    door = Door("0.0.0.0", TOKEN)
    for host in (name, f"{name}.local:8080", f"{name.upper()}"):
        door.check_origin("GET", {"host": host})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://{host}"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),  # no address
        ({"origin": "{host}"}, 403),  # no scheme
        ({"origin": "http://127.0.0.1:9"}, 403),  # another server on this machine
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"x_edgenn": None}, 403),  # a form of another site, from a browser that says nothing else
    ],
)
def test_other_sites_cannot_label(keeper: Keeper, headers: dict[str, str | None], status: int) -> None:
    with running(keeper) as web:
        name = keeper.waiting()[0].name
        sent = {"x_edgenn": "1", **headers}
        given = {key: value.format(host=f"127.0.0.1:{web.port}") for key, value in sent.items() if value is not None}
        answer = web.ask(f"/unlabelled/{name}", "POST", '{"label": "shirt"}', content_type="text/plain", **given)
        assert answer.status == status
        assert keeper.count == (2 if status == 200 else 3)


def test_a_defect_is_logged_once_however_often_it_is_asked_for(
    web: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("what is wrong")

    monkeypatch.setattr(Door, "check_origin", broken)
    for _ in range(3):
        for path in ("/health", "/nothing", "/neither"):
            assert web.ask(path).json == {"error": "a defect in edgenn: KeyError"}
    assert [record.getMessage() for record in caplog.records] == [
        "a defect in edgenn, at /health",
        "a defect in edgenn, at no page",
    ]
    assert all(record.exc_info for record in caplog.records)


def test_other_sites_may_link_but_not_embed(shared: Running) -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert shared.ask("/", **link).status == 200
    assert shared.ask("/", **{**link, "sec_fetch_dest": "iframe"}).status == 403
    picture_in_page = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}
    assert shared.ask("/picture.jpg", **picture_in_page).status == 403
    assert shared.ask("/picture.jpg", "OPTIONS", **picture_in_page).status == 403


# Labelling


def test_labelling_moves_files(keeper: Keeper) -> None:
    with running(keeper) as web:
        said = web.ask("/unlabelled.json").json
        assert said["classes"] == list(LABELS)
        assert said["waiting"] == 3
        first, second, _ = [it["name"] for it in said["frames"]]
        original = web.ask(f"/unlabelled/{first}.jpg").content
        assert web.post(f"/unlabelled/{first}", {"label": "t-shirt"}).json == {"waiting": 2}
        assert (keeper.folder / "t-shirt" / f"{first}.jpg").read_bytes() == original
        assert web.post(f"/unlabelled/{second}", {"label": None}).json == {"waiting": 1}
        assert not (keeper.folder / UNLABELLED / f"{second}.jpg").exists()
        assert web.ask(f"/unlabelled/{first}.jpg").status == 404
        for unclear in (None, [], {}, {"name": 3}):
            assert web.post("/undo", unclear).status == 400
        told = web.post("/undo", {"name": second}).json
        assert (told["frame"]["name"], told["waiting"]) == (second, 2)
        assert web.post("/undo", {"name": second}).status == 409
        assert web.ask(f"/unlabelled/{second}.jpg").status == 200
        assert web.ask("/state.json").json["unlabelled"] == 2
        again = web.post(f"/unlabelled/{first}", {"label": "shirt"})
        assert again.status == 409
        assert "no longer there" in again.json["error"]


def test_frames_are_told_from_any_one_on(keeper: Keeper) -> None:
    with running(keeper) as web:
        names = [it["name"] for it in web.ask("/unlabelled.json").json["frames"]]
        for first in (0, 1, 3, 400):
            told = web.ask(f"/unlabelled.json?from={first}").json
            assert [it["name"] for it in told["frames"]] == names[first:]
            assert told["waiting"] == 3
        assert web.ask("/unlabelled.json?from=-5").json["frames"][0]["name"] == names[0]
        assert web.ask("/unlabelled.json?from=x").status == 400


@pytest.mark.parametrize(
    "name", ["../secret", "..%2Fsecret", "%2Fetc%2Fpasswd", "..", "%2e%2e", "secret", "..%00", "a" * 3000]
)
def test_no_path_leads_out_of_the_folder(keeper: Keeper, name: str) -> None:
    (keeper.folder / "secret.jpg").write_bytes(b"secret")
    with running(keeper) as web:
        for answer in (web.ask(f"/unlabelled/{name}.jpg"), web.post(f"/unlabelled/{name}", {"label": "shirt"})):
            assert answer.status in (404, 405, 409)
            assert b"secret" not in answer.content.replace(b"secret.jpg", b"")
    assert (keeper.folder / "secret.jpg").exists()
    assert not (keeper.folder / "shirt").exists()


@pytest.mark.parametrize("label", ["../x", "/tmp/x", "trousers", "", ".", UNLABELLED, "a" * 5000])
def test_no_label_makes_a_folder_of_its_own(keeper: Keeper, label: str) -> None:
    before = sorted(keeper.folder.parent.rglob("*"))
    with running(keeper) as web:
        answer = web.post(f"/unlabelled/{keeper.waiting()[0].name}", {"label": label})
        assert answer.status in (409, 413)
    assert sorted(keeper.folder.parent.rglob("*")) == before


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"label": 3}', "rubbish", "[" * 4000])
def test_a_body_that_says_nothing_is_refused(keeper: Keeper, body: str) -> None:
    with running(keeper) as web:
        answer = web.ask(f"/unlabelled/{keeper.waiting()[0].name}", "POST", body, x_edgenn="1")
        assert answer.status == 400
        assert keeper.count == 3


def test_a_link_in_the_folder_is_not_followed(keeper: Keeper) -> None:
    name = keeper.waiting()[0].name
    place = keeper.folder / UNLABELLED / f"{name}.jpg"
    place.unlink()
    place.symlink_to("/etc/passwd")
    with running(keeper) as web:
        assert web.ask(f"/unlabelled/{name}.jpg").status == 404
        assert web.post(f"/unlabelled/{name}", {"label": "shirt"}).status == 409


# Clients that behave badly


def test_a_client_that_never_reads_is_bounded_and_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    noise = np.random.RandomState(0).randint(0, 256, (700, 960, 3), np.uint8)
    most = 0
    with running() as web, web.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        web.live.write(result(image=noise))
        deaf.sendall(b"GET /picture.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
        connections = web.live._server.server_state.connections
        until(lambda: connections)
        [held] = connections

        def cut_off() -> bool:
            nonlocal most
            web.live.write(result(image=noise))
            most = max(most, held.transport.get_write_buffer_size())
            return bool(held.transport.is_closing())

        until(cut_off)
        assert 0 < most < 2_000_000  # of 500 answers of half a megabyte
        until(lambda: not connections)
        web.live.write(result(1))
        assert web.ask("/picture.jpg").status == 200  # others are served


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"POST /enter HTTP/1.1\r\nHost: localhost\r\ncontent-length: 9\r\n\r\nab"]
)
def test_half_a_request_is_cut_off(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.1)
    with running() as web, web.socket() as slow:
        slow.sendall(sent)
        # Neither data nor an end would be a timeout, which is an error here.
        try:
            while slow.recv(1000):
                pass
        except ConnectionResetError:
            pass


def test_connections_are_bounded(web: Running) -> None:
    opened = [web.socket() for _ in range(connection.MOST_CONNECTIONS)]
    try:
        until(lambda: len(web.live._server.server_state.connections) == connection.MOST_CONNECTIONS)
        with web.socket() as one_too_many:
            assert one_too_many.recv(100).startswith(b"HTTP/1.1 503")
    finally:
        for each in opened:
            each.close()
    until(lambda: len(web.live._server.server_state.connections) == 0)
    assert web.ask("/").status == 200


def test_watchers_are_bounded(web: Running) -> None:
    for index in range(pages.MOST_WATCHERS):
        assert web.ask(f"/state.json?page={index}").status == 200
    refused = web.ask("/state.json?page=another")
    assert refused.status == 503
    assert "pages are watching" in refused.json["error"]
    assert web.ask("/state.json?page=0").status == 200
    assert web.live.state()["watchers"] == pages.MOST_WATCHERS


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /enter HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /enter HTTP/1.1\r\nHost: localhost\r\ncontent-length: 9999999\r\n\r\n" + b"x" * 100_000,
    ],
)
def test_rubbish_does_no_harm(shared: Running, sent: bytes) -> None:
    with shared.socket() as rude:
        try:
            rude.sendall(sent)
            rude.recv(1000)
        except OSError:
            pass
    assert shared.ask("/").status == 200


def test_writing_costs_nothing_that_a_client_decides(web: Running) -> None:
    """The picture thread hangs (a picture that takes for ever); the pipeline does not notice."""
    hold = threading.Event()
    real = pages._shown
    try:
        pages._shown = lambda image: b"" if hold.wait(60) else b"late"  # type: ignore[assignment]
        web.live.write(result(1))
        asker = threading.Thread(target=web.ask, args=("/picture.jpg",))
        asker.start()
        until(lambda: web.live.watched)
        for index in range(1000):
            web.live.write(result(index, image=b""))
            web.live.event(event(index))
        assert web.ask("/state.json").status == 200
    finally:
        hold.set()
        pages._shown = real
    asker.join(60)


# Beginning and end


def test_a_port_that_is_taken_is_one_line(web: Running) -> None:
    with pytest.raises(EdgennError, match=r"cannot be served at 127\.0\.0\.1:\d+ \(Address already in use\): choose"):
        Live(ABOUT, Health(), port=web.port).open()
    with pytest.raises(EdgennError, match="cannot be served"):
        Live(ABOUT, Health(), host="203.0.113.7", token=TOKEN, port=0).open()
    with pytest.raises(EdgennError, match=r"cannot be served at a\.\.b:0 \(no host has such a name\): choose"):
        Live(ABOUT, Health(), host="a..b", token=TOKEN, port=0).open()


def test_closing_is_prompt_with_pages_open_and_leaves_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    threads = threading.active_count()
    with running() as web:
        waiting = [web.socket() for _ in range(4)]
        for each in waiting:
            each.sendall(b"GET /picture.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: web.live.watched)
        web.live.close()
        web.live.close()
        for each in waiting:
            each.close()
    until(lambda: threading.active_count() == threads)
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_it_can_be_opened_again_after_it_was_closed() -> None:
    live = Live(ABOUT, Health(), port=0)
    for _ in range(2):
        with live:
            live.write(result(1))
            made = Running(live, Health(), None)
            assert made.ask("/picture.jpg").status == 200


# In a browser

needs_browser = pytest.mark.skipif(
    chromium.FOUND is None, reason="NO BROWSER: the page is not tested as a person sees it; apt-get install chromium"
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[chromium.Chromium]:
    with chromium.Chromium(tmp_path / "profile") as opened:
        yield opened


@needs_browser
def test_a_browser_shows_picture_label_and_events_and_a_label_is_only_text(browser: chromium.Chromium) -> None:
    with running() as web:
        web.live.write(result(1, label=EVIL))
        web.health.frame(result(1))
        web.live.event(event(1, label="jacket", ended=time.time() - 50))
        web.live.event(event(2, label=EVIL))
        browser.open(web.live.url)
        browser.until("document.querySelector('#picture').naturalWidth === 160")
        browser.until(f"document.querySelector('#label').textContent === {json.dumps(EVIL)}")
        browser.until("document.querySelectorAll('#events li img').length === 2")
        browser.until("[...document.querySelectorAll('#events img')].every(it => it.naturalWidth > 0)")
        assert browser.run("document.querySelector('#events li .title').innerText").startswith(EVIL)
        assert browser.run("document.querySelector('#top li').innerText").startswith(EVIL)
        assert "90%" in browser.text()
        assert browser.run("document.querySelectorAll('img[src=x], main script').length") == 0
        assert browser.run("document.title") == f"{EVIL} · porch"
        assert browser.run("document.querySelector('#health').textContent") == "ok"
        web.live.write(result(2, label="jacket"))
        web.health.set("delegate", "degraded", "the Edge TPU is gone")
        browser.until("document.querySelector('#label').textContent === 'jacket'")
        browser.until("document.querySelector('#reasons').innerText === 'delegate: the Edge TPU is gone'")
        assert browser.run("document.querySelector('#health').className") == "pill degraded"
        assert browser.log == []  # no errors, and nothing that the Content-Security-Policy had to stop


class Spooling(Sink):
    def __init__(self, name: str, **said: Any) -> None:
        self.name, self.said = name, said

    def write(self, result: Result) -> None:
        raise NotImplementedError  # its thread is never begun: what comes waits

    def state(self) -> dict[str, Any]:
        return self.said


@needs_browser
def test_a_browser_says_how_each_sink_is_doing(browser: chromium.Chromium) -> None:
    well = Queued(Spooling("csv"))
    late = Queued(Spooling("jsonl"), results=3)
    spooled = Queued(Spooling("mqtt", spooled=2000, spool_dropped=7))
    wrong = Queued(Spooling("webhook", spooled=5, error="the server is away"))
    for index in range(5):
        late.write(result(index))
    late.event(event(1))
    spooled.event(event(2))
    with running() as web:
        web.health.describe(sinks=(well, late, spooled, wrong, Spooling("prometheus"), web.live))
        browser.open(web.live.url)
        rows = "[...document.querySelectorAll('#facts dt')].map(it => [it.innerText, it.nextSibling.innerText])"
        facts = f"Object.fromEntries({rows})"
        browser.until(f"{facts}.csv")
        said = browser.run(facts)
        assert {name: said[name] for name in ("csv", "jsonl", "mqtt", "webhook", "prometheus")} == {
            "csv": "ok",
            "jsonl": "4 waiting, 2 dropped",  # results and events together
            "mqtt": "2001 waiting, 7 dropped",  # what is on the disk too
            "webhook": "the server is away",
            "prometheus": "ok",  # has no queue
        }
        assert "web" not in said
        assert browser.run("document.querySelectorAll('#facts .wrong').length") == 1


@needs_browser
def test_a_browser_says_that_the_connection_is_lost_and_goes_on(browser: chromium.Chromium) -> None:
    with running() as web:
        web.live.write(result(1))
        browser.open(web.live.url)
        browser.until("document.querySelector('#picture').naturalWidth === 160")
    browser.until("document.querySelector('#notice').innerText.includes('connection to the device is lost')")
    assert browser.run("document.querySelector('#frame').classList.contains('stale')")
    with running(port=web.port) as again:
        again.live.write(result(2, label="t-shirt"))
        browser.until("document.querySelector('#label').textContent === 't-shirt'")
        browser.until("document.querySelector('#notice').hidden")


@needs_browser
def test_a_browser_without_the_token_sees_nothing_and_gets_in_with_it(browser: chromium.Chromium) -> None:
    with running(host="0.0.0.0", token=TOKEN) as web:
        web.live.write(result(1, label="secret shirt"))
        address = f"http://127.0.0.1:{web.port}/"
        browser.open(address + "?token=wrong")
        browser.until("document.body && document.body.innerText.includes('not the token')")
        assert "secret" not in browser.run("document.documentElement.outerHTML")
        assert browser.run("document.images.length") == 0
        browser.run("document.querySelector('#token').value = " + json.dumps(TOKEN))
        browser.run("document.querySelector('form').requestSubmit()")
        browser.until("document.querySelector('#label')?.textContent === 'secret shirt'")
        browser.call("Network.clearBrowserCookies")
        browser.open(address + "?token=" + TOKEN)
        browser.until("document.querySelector('#label')?.textContent === 'secret shirt'")
        assert browser.run("location.href") == address  # the token does not stay in the address
        assert browser.run("document.cookie") == ""


@needs_browser
def test_a_browser_labels_by_key_and_by_button(keeper: Keeper, browser: chromium.Chromium) -> None:
    keeper.labels = ("jacket", EVIL.replace("/", ""), "t-shirt")
    first, second, third = [it.name for it in keeper.waiting()]
    with running(keeper) as web:
        browser.open(f"{web.live.url}label")
        shown = "document.querySelector('#picture').naturalWidth === 160 && document.querySelector('#picture').src"
        browser.until(f"({shown}).includes({json.dumps(quote(first))})")
        browser.key("3")
        browser.until(f"({shown}).includes({json.dumps(quote(second))})")
        assert (keeper.folder / "t-shirt" / f"{first}.jpg").exists()
        browser.key("ArrowRight")  # skip
        browser.until(f"({shown}).includes({json.dumps(quote(third))})")
        browser.run("document.querySelectorAll('#classes button')[1].click()")
        browser.until(f"({shown}).includes({json.dumps(quote(second))})")
        assert (keeper.folder / keeper.labels[1] / f"{third}.jpg").exists()
        browser.key("0")
        browser.until("document.body.innerText.includes('Nothing waits for a label')")
        assert keeper.count == 0
        browser.key("ArrowLeft")  # undo
        browser.until(f"({shown}).includes({json.dumps(quote(second))})")
        assert keeper.count == 1
        assert browser.run("document.title") == "edgenn label"
        assert browser.log == []


@needs_browser
def test_a_page_takes_its_own_label_back_and_says_what_it_cannot(keeper: Keeper, browser: chromium.Chromium) -> None:
    mine, theirs, _ = [it.name for it in keeper.waiting()]
    shown = "document.querySelector('#picture').src"
    with running(keeper) as web:
        browser.open(f"{web.live.url}label")
        browser.until(f"({shown}).includes({json.dumps(quote(mine))})")
        browser.key("1")
        browser.until("document.querySelector('#done').textContent === '1 labelled'")
        assert web.post(f"/unlabelled/{theirs}", {"label": LABELS[1]}).status == 200  # in another window
        browser.key("ArrowLeft")
        browser.until(f"({shown}).includes({json.dumps(quote(mine))})")
        assert {it.name for it in keeper.waiting()} >= {mine}
        assert (keeper.folder / LABELS[1] / f"{theirs}.jpg").exists()
        assert browser.run("document.querySelector('#undo').disabled") is True
        browser.key("ArrowLeft")  # there is nothing of its own
        browser.key("1")
        browser.until("document.querySelector('#done').textContent === '1 labelled'")
        assert (keeper.folder / LABELS[1] / f"{theirs}.jpg").exists()
        keeper._undo.clear()  # as after a restart of the run
        browser.key("ArrowLeft")
        browser.until("document.querySelector('#notice').innerText.includes('move the file by hand')")
        browser.until("document.querySelector('#undo').disabled")


@needs_browser
def test_skipping_leads_through_all_that_wait(
    keeper: Keeper, browser: chromium.Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_MOST_FRAMES", 2)  # of three
    names = [it.name for it in keeper.waiting()]
    with running(keeper) as web:
        browser.open(f"{web.live.url}label")
        for name in (*names, names[0]):
            browser.until(f"document.querySelector('#picture').src.includes({json.dumps(quote(name))})")
            browser.key("ArrowRight")
        assert keeper.count == 3


@needs_browser
def test_pictures_that_nobody_sends_are_not_skipped(keeper: Keeper, browser: chromium.Chromium) -> None:
    first, second, _ = [it.name for it in keeper.waiting()]
    picture = "document.querySelector('#picture')"
    shown = f"{picture}.naturalWidth === 160 && {picture}.src"
    with running(keeper) as web:
        port = web.port
        browser.open(f"{web.live.url}label")
        browser.until(f"({shown}).includes({json.dumps(quote(first))})")
        # Those that the page has not fetched beforehand will fail.
        browser.call("Network.setCacheDisabled", cacheDisabled=True)
    browser.key("ArrowRight")
    browser.until("document.querySelector('#notice').innerText.includes('does not answer')")
    browser.key("ArrowRight")
    browser.key("1")
    with running(keeper, port=port):
        browser.until(f"({shown}).includes({json.dumps(quote(second))})")
        browser.until("document.querySelector('#notice').hidden")
    assert keeper.count == 3
