"""The routes: who asks, may it, what for; and the answer. Every answer is short, whole and of bounded size.

A page polls: it asks for what is newer than it has seen, and the answer comes when there is something newer, or after
some seconds without. So a slow reader gets fewer pictures and never older ones, a page that is not looked at asks for
nothing, and after an interruption the next question goes on by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import EdgennError
from ..events import thumbnail
from ..health import Health
from ..picture_header import read_header
from ..sinks.base import About
from ..uncertain import Keeper, Kept
from .access import OURS, Door, Stranger
from .board import PERIOD, Board, event_as_json

# Pages that are open at the same time: each costs some 10 pictures a second on the way, all together one encoder.
MOST_WATCHERS = 8
# Seconds without a question after which a page counts as closed.
_GONE = 5.0
# Seconds between two pictures: at 10 a second movement is seen, and a Pi spends a tenth of one core on encoding.
_PACE = 0.1
# Pixels of the longer side: sharp on a telephone, good on a desktop.
_LONGEST = 960
# Bytes up to which a camera's own JPEG of that size is passed on as it is.
_SMALL = 160 << 10
# Seconds that a question waits for something newer.
_PATIENCE = 10.0
_STATE_PATIENCE = 1.0
# Seconds for which one state document serves every page.
_STATE_PACE = 0.1
# Frames that the label view gets at once.
_MOST_FRAMES = 200
_MOST_BODY = 4096
_YEAR = 365 * 24 * 3600

# A page of ours loads from where it came from and from nowhere else, and nobody may put it into a frame.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # Not "no-referrer", with which browsers send the token's form without an origin.
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# Shown to whoever has no token: they say nothing of the device.
_PUBLIC = ("/page.css", "/icon.svg")

_log = logging.getLogger(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]


class Pages:
    """The application.

    Args:
      board: what the page shows.
      about: who is speaking.
      health: asked for every state document.
      door: who may look.
      port: names the cookie; cookies do not tell ports apart.
      keeper: frames to be labelled, or None.
    """

    def __init__(
        self, board: Board, about: About, health: Health, door: Door, *, port: int, keeper: Keeper | None
    ) -> None:
        self._board, self._about, self._health, self._door, self._keeper = board, about, health, door, keeper
        self._cookie = f"edgenn_{port}"
        self._watchers: dict[str, float] = {}
        self._painter = ThreadPoolExecutor(1, "edgenn-web-picture")
        self._painting = asyncio.Lock()
        self._picture = (0.0, "", b"")
        self._state = (0.0, "", b"")
        self._defects: set[tuple[str, type[Exception]]] = set()
        self.looked = -math.inf

    @property
    def watchers(self) -> int:
        """Pages that are open."""
        now = time.monotonic()
        return sum(now - seen < _GONE for seen in tuple(self._watchers.values()))

    def app(self) -> Starlette:
        """The ASGI application."""
        get = {
            "/": self._page("live.html"),
            "/live.js": self._page("live.js"),
            "/page.css": self._page("page.css"),
            "/icon.svg": self._page("icon.svg"),
            "/picture.jpg": self._get_picture,
            "/state.json": self._get_state,
            "/health": self._get_health,
            "/events.json": self._get_events,
            "/events/{id}.jpg": self._get_thumbnail,
        }
        post: dict[str, Endpoint] = {"/enter": self._enter}
        if self._keeper is not None:
            get |= {
                "/label": self._page("label.html"),
                "/label.js": self._page("label.js"),
                "/unlabelled.json": self._get_unlabelled,
                "/unlabelled/{name}.jpg": self._get_frame,
            }
            post |= {"/unlabelled/{name}": self._label, "/undo": self._undo}
        routes = [Route(path, self._guarded(path, answer), methods=["GET"]) for path, answer in get.items()]
        routes += [Route(path, self._guarded(path, answer), methods=["POST"]) for path, answer in post.items()]
        handlers: Any = {HTTPException: self._no_route}
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return app

    def close(self) -> None:
        self._painter.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, path: str, answer: Endpoint) -> Endpoint:
        """`answer` with what all have in common: the door, errors as one line, the headers."""

        async def endpoint(request: Request) -> Response:
            try:
                response = self._stopped(request) or await answer(request)
            except Stranger as stranger:
                response = _error(stranger.status, str(stranger))
            except EdgennError as error:
                response = _error(409, str(error))
            except ClientDisconnect:
                response = _error(400, "the request ended early")
            except Exception as error:
                # Once: whoever can bring one about must not be able to fill a disk.
                if (path, type(error)) not in self._defects:
                    self._defects.add((path, type(error)))
                    _log.exception("a defect in edgenn, at %s", path)
                response = _error(500, f"a defect in edgenn: {type(error).__name__}")
            response.headers.update(_HEADERS)
            return response

        return endpoint

    def _stopped(self, request: Request) -> Response | None:
        """The answer to who may not pass, or has just been let in; None for who may."""
        path, method = request.url.path, request.method
        self._door.check_origin(method, request.headers)
        if path in _PUBLIC or path == "/enter":
            return None
        given = request.query_params.get("token") if path == "/" else None
        if given is not None and self._door.knows(given):
            # Not a redirect: a link from another site would arrive without the cookie that it has just got.
            return self._let_in(_file("entered.html"))
        if not self._door.admits(request.headers, request.cookies.get(self._cookie)):
            if path in ("/", "/label"):
                return _refused(again=given is not None)
            return _error(401, "the token is missing or wrong")
        if method not in ("GET", "HEAD") and OURS not in request.headers:
            raise Stranger(403, f"a change needs the header {OURS}, which this page sends and other sites cannot")
        return None

    async def _enter(self, request: Request) -> Response:
        form = parse_qs((await _body(request)).decode("utf-8", "replace"))
        if not self._door.knows(form.get("token", [""])[0].strip()):
            return _refused(again=True)
        return self._let_in(Response(status_code=303, headers={"location": "/"}))

    def _let_in(self, response: Response) -> Response:
        response.set_cookie(self._cookie, self._door.cookie, max_age=_YEAR, httponly=True, samesite="strict")
        return response

    def _page(self, name: str) -> Endpoint:
        content = _file(name)

        async def page(request: Request) -> Response:
            return Response(content.body, media_type=content.media_type)

        return page

    async def _get_picture(self, request: Request) -> Response:
        """The newest picture, newer than ?seen=; 204 if none comes."""
        self._count(request)
        self.looked = time.monotonic()
        seen, board = request.query_params.get("seen", ""), self._board
        if not await board.until(lambda: board.result is not None and board.tag != seen, _PATIENCE):
            return Response(status_code=204)
        async with self._painting:
            drawn_at, tag, data = self._picture
            if tag == seen or tag != board.tag:
                # Held while waiting, so that the pace is that of all pages together.
                await asyncio.sleep(drawn_at + _PACE - time.monotonic())
                result, tag = board.result, board.tag
                if result is not None:
                    loop = asyncio.get_running_loop()
                    data = await loop.run_in_executor(self._painter, _shown, result.frame.image)
                    self._picture = (time.monotonic(), tag, data)
        self.looked = time.monotonic()
        if not data:
            return Response(status_code=204, headers={"x-tag": tag})
        return Response(data, headers={"x-tag": tag}, media_type="image/jpeg")

    async def _get_state(self, request: Request) -> Response:
        """All that the page says beside the picture, newer than ?seen= or a second later."""
        self._count(request)
        seen, board = request.query_params.get("seen", ""), self._board
        await board.until(lambda: board.tag != seen, _STATE_PATIENCE)
        made_at, tag, body = self._state
        if time.monotonic() - made_at > _STATE_PACE or tag == seen:
            tag, body = board.tag, _json(self._document())
            self._state = (time.monotonic(), tag, body)
        return Response(body, headers={"x-tag": tag}, media_type="application/json")

    def _document(self) -> dict[str, Any]:
        about, result, keeper = self._about, self._board.result, self._keeper
        document: dict[str, Any] = {
            "device": about.device,
            "model": about.model,
            "source": about.source,
            "runtime": about.runtime,
            "version": about.version,
            "health": self._health.snapshot(),
            "latencies_ms": [round(latency * 1000, 2) for latency in self._board.latencies()],
            "period_s": PERIOD,
            "events": self._board.events_tag,
            "unlabelled": None if keeper is None else keeper.count,
            "watchers": self.watchers,
            "result": None,
        }
        if result is not None:
            said = result.classification
            document["result"] = {
                "label": said.label,
                "confidence": said.confidence,
                "top": said.top,
                "latency_ms": round(result.latency * 1000, 2),
                "age_s": round(time.monotonic() - result.frame.time, 2),
                "skipped": result.skipped,
            }
        return document

    async def _get_health(self, request: Request) -> Response:
        snapshot = self._health.snapshot()
        # Degraded is still at work: a supervisor that restarted it would make it worse.
        return _answer(snapshot, 200 if snapshot.get("state") in ("ok", "degraded") else 503)

    async def _get_events(self, request: Request) -> Response:
        events = [event_as_json(event) for event in self._board.events()]
        return _answer({"tag": self._board.events_tag, "now": time.time(), "events": events})

    async def _get_thumbnail(self, request: Request) -> Response:
        data = self._board.thumbnail(request.path_params["id"])
        return _jpeg(data, "there is no picture of such an event")

    async def _get_unlabelled(self, request: Request) -> Response:
        keeper = self._labelling()
        try:
            first = max(0, int(request.query_params.get("from", "0")))
        except ValueError:
            return _error(400, "from is a number: of frames to leave out")
        waiting = await asyncio.to_thread(keeper.waiting)
        frames = [_waiting(kept) for kept in waiting[first : first + _MOST_FRAMES]]
        return _answer({"classes": keeper.classes, "waiting": len(waiting), "frames": frames})

    async def _get_frame(self, request: Request) -> Response:
        data = await asyncio.to_thread(self._labelling().picture, request.path_params["name"])
        return _jpeg(data, "this frame no longer waits for a label")

    async def _label(self, request: Request) -> Response:
        try:
            label = json.loads(await _body(request))["label"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return _error(400, 'send {"label": "…"}, or null for a picture of none of them')
        if not (label is None or isinstance(label, str)):
            return _error(400, "a label is text, or null for a picture of none of them")
        keeper = self._labelling()
        await asyncio.to_thread(keeper.label, request.path_params["name"], label)
        return _answer({"waiting": keeper.count})

    async def _undo(self, request: Request) -> Response:
        try:
            name = json.loads(await _body(request))["name"]
        except (ValueError, KeyError, TypeError, RecursionError):
            name = None
        if not isinstance(name, str):
            return _error(400, 'send {"name": "…"} of the frame whose label is to be taken back')
        keeper = self._labelling()
        kept = await asyncio.to_thread(keeper.undo, name)
        return _answer({"frame": _waiting(kept), "waiting": keeper.count})

    async def _no_route(self, request: Request, error: Exception) -> Response:
        async def answer(request: Request) -> Response:
            status = error.status_code if isinstance(error, HTTPException) else 500
            return _error(status, "there is nothing here: the page is at /")

        return await self._guarded("no page", answer)(request)

    def _labelling(self) -> Keeper:
        assert self._keeper is not None  # its routes are not there without
        return self._keeper

    def _count(self, request: Request) -> None:
        """Note that a page is open; one too many is refused, and told why."""
        client = request.client.host if request.client else ""
        name, now = request.query_params.get("page", client)[:40], time.monotonic()
        if name not in self._watchers:
            for other in [other for other, seen in self._watchers.items() if now - seen > _GONE]:
                del self._watchers[other]
            if len(self._watchers) >= MOST_WATCHERS:
                raise Stranger(503, f"{MOST_WATCHERS} pages are watching already: close one")
        self._watchers[name] = now


def _waiting(kept: Kept) -> dict[str, Any]:
    return {"name": kept.name, **kept.said}


def _shown(image: Any) -> bytes:
    """A JPEG to look at; empty for what is no picture."""
    if isinstance(image, bytes) and len(image) <= _SMALL:
        try:
            header = read_header(image)
        except EdgennError:
            return b""
        if header.format == "JPEG" and max(header.width, header.height) <= _LONGEST:
            return image
    return thumbnail(image, _LONGEST) or b""


def _file(name: str) -> Response:
    kind, folder = name.rpartition(".")[2], files(__package__).joinpath("static")
    # A page's file begins within its <head>; what all pages have before that stands in one place.
    before = folder.joinpath("head.html").read_bytes() if kind == "html" else b""
    return Response(before + folder.joinpath(name).read_bytes(), media_type=_KINDS[kind])


def _refused(again: bool) -> Response:
    page = _file("token.html")
    shown = bytes(page.body).replace(b"<!--again-->", b'<p role="alert">That is not the token.</p>' if again else b"")
    return Response(shown, 401, media_type="text/html")


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY:
            raise Stranger(413, "that is more than is read here")
    return body


def _jpeg(data: bytes | None, otherwise: str) -> Response:
    return _error(404, otherwise) if data is None else Response(data, media_type="image/jpeg")


def _answer(content: Any, status: int = 200) -> Response:
    return Response(_json(content), status, media_type="application/json")


def _error(status: int, reason: str) -> Response:
    return _answer({"error": " ".join(reason.split())}, status)


def _json(content: Any) -> bytes:
    try:
        return json.dumps(content, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(content), allow_nan=False).encode()


def _finite(content: Any) -> Any:
    """The same with null for what JSON has no number for: a broken model's scores."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
