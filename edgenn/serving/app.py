"""The routes: who asks, may it, what for; then a place in the pool, and the answer as JSON.

Whatever is wrong with a request becomes a status and {"error": one line}. Bodies are read here, within their bounds,
and everything that takes processor time (forms, JSON, decoding, the network) happens in the pool's threads, so that
health and refusals are answered at once however busy the interpreters are.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from edgenn_device.classifier import Classifier
from edgenn_device.decision import UNKNOWN
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile

from . import access, multipart, open_inference
from .connection import BACK_OFF, GONE
from .limits import Limits, Refusal, busy
from .metrics import Metrics
from .pool import Pool, Scored, score

_LOG = logging.getLogger("edgenn.serving")

Endpoint = Callable[[Request], Awaitable[Response]]


class Service:
    """One model, its pool, and what is known of the requests in the house.

    Args:
      model: a verified model file.
      name: what it is called in answers and in the protocol's paths.
      limits: the bounds.
      workers: interpreters, one thread each.
      token: what a client must show, None: nothing.
      runtime: as for `Interpreter`.

    Raises:
      EdgennError: no runtime here can execute the model.
    """

    def __init__(
        self,
        model: ModelFile,
        *,
        name: str,
        limits: Limits,
        workers: int,
        token: str | None = None,
        runtime: str = "auto",
    ) -> None:
        self.model = model
        self.name = name
        self.limits = limits
        self.pool = Pool(model, workers=workers, waiting=limits.queue, patience=limits.queue_time, runtime=runtime)
        self.in_flight = 0
        self.draining = False
        self.metrics = Metrics(lambda: self.pool.depth, lambda: self.in_flight)
        self._minimum = model.card.minimum_confidence if model.card else None
        self._token = token
        self._bodies = 0
        self._defects: set[tuple[str, type[Exception]]] = set()

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/classify", self._endpoint("classify", self._classify), methods=["POST"]),
            *self._model_routes("/v2/models/{model}"),
            *self._model_routes(f"/v2/models/{{model}}/versions/{open_inference.VERSION}"),
            Route("/v2", self._endpoint("metadata", self._server_metadata)),
            Route("/v2/health/live", self._endpoint("health", self._live, public=True)),
            Route("/v2/health/ready", self._endpoint("health", self._ready, public=True)),
            Route("/metrics", self._endpoint("metrics", self._metrics)),
        ]
        handlers: Any = {HTTPException: self._no_route}
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return app

    def _model_routes(self, path: str) -> list[Route]:
        return [
            Route(f"{path}/infer", self._endpoint("infer", self._infer), methods=["POST"]),
            Route(f"{path}/ready", self._endpoint("health", self._model_ready)),
            Route(path, self._endpoint("metadata", self._model_metadata)),
        ]

    def _endpoint(self, name: str, answer: Endpoint, public: bool = False) -> Endpoint:
        """`answer` with what all endpoints have in common: the token, errors as JSON, the count."""

        async def endpoint(request: Request) -> Response:
            began = time.perf_counter()
            try:
                if self._token is not None and not public:
                    self._authorize(request)
                response = await answer(request)
            except Refusal as refusal:
                response = _error(refusal.status, str(refusal), refusal.headers)
            except EdgennError as error:
                response = _error(400, str(error))
            except ClientDisconnect:
                response = _error(_left().status, str(_left()))
            except Exception as error:
                # Once: whoever can bring one about must not be able to fill a disk. The metrics count them all.
                if (name, type(error)) not in self._defects:
                    self._defects.add((name, type(error)))
                    debug = bool(os.environ.get("EDGENN_DEBUG"))
                    _LOG.error("a defect in edgenn, at %s: %s: %s", name, type(error).__name__, error, exc_info=debug)
                response = _error(500, f"a defect in edgenn: {type(error).__name__}")
            if response.status_code == 503:
                # The connection's own bound on clients that ask again at once.
                request.scope.get("extensions", {}).get(BACK_OFF, lambda: None)()
            if response.status_code == 200:
                self.metrics.seconds.labels(name).observe(time.perf_counter() - began)
            self.metrics.requests.labels(name, response.status_code).inc()
            return response

        return endpoint

    async def _classify(self, request: Request) -> Response:
        top_k = _top_k(request)
        content_type = request.headers.get("content-type")

        def work(body: bytes, classifier: Classifier) -> tuple[Scored, dict[str, Any]]:
            picture = multipart.picture(body, content_type or "") if multipart.is_form(content_type) else body
            scored = score(classifier, picture, self.limits.pixels)
            result = classifier.result(scored.scores, top_k)
            unknown = self._minimum is not None and result.confidence < self._minimum
            return scored, {
                "label": UNKNOWN if unknown else result.label,
                "confidence": result.confidence,
                "top": result.top,
                "model": self.name,
            }

        answer, seconds = await self._work(request, work)
        return _json(200, {**answer, "latency_ms": round(seconds * 1000, 3)})

    async def _infer(self, request: Request) -> Response:
        self._check_model(request)
        header_length = request.headers.get("inference-header-content-length")

        def work(body: bytes, classifier: Classifier) -> tuple[Scored, tuple[bytes, int | None]]:
            asked = open_inference.parse(body, header_length, self.model.input)
            scored = score(classifier, asked.content, self.limits.pixels)
            return scored, open_inference.response(self.name, asked, scored.scores, self.pool.labels)

        (body, json_length), _ = await self._work(request, work)
        if json_length is None:
            return Response(body, media_type="application/json")
        headers = {"Inference-Header-Content-Length": str(json_length)}
        return Response(body, headers=headers, media_type="application/octet-stream")

    async def _work(
        self, request: Request, work: Callable[[bytes, Classifier], tuple[Scored, Any]]
    ) -> tuple[Any, float]:
        """Read the body and do `work` in the pool: its answer, and the seconds from the body's end to it."""
        if self.draining:
            raise busy("the server is stopping: ask another one")
        if self.pool.full:  # before the body is read: it would be for nothing
            raise busy("the server is busy: try again in a second, or ask another one")
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Refusal(415, "compressed bodies are not read: send the picture as it is")
        gone: Callable[[], bool] = request.scope.get("extensions", {}).get(GONE, lambda: False)

        def wanted(classifier: Classifier) -> tuple[Scored, Any]:
            if gone():  # clients that lost their patience ask again: their first request must not cost a second time
                raise _left()
            return work(body, classifier)

        self.in_flight += 1
        held = 0
        try:
            body, held = await self._body(request)
            began = time.perf_counter()
            (scored, answer), waited = await self.pool.run(wanted)
        finally:
            self._bodies -= held
            self.in_flight -= 1
        for stage, seconds in (("wait", waited), ("preprocess", scored.preprocess), ("invoke", scored.invoke)):
            self.metrics.stages[stage].observe(seconds)
        return answer, time.perf_counter() - began

    async def _body(self, request: Request) -> tuple[bytes, int]:
        """The body and what it counts for in `_bodies`, which the caller gives back."""
        most = self.limits.body
        declared = request.headers.get("content-length", "")
        too_large = Refusal(413, f"the body is larger than {most / 1e6:.1f} MB: send a smaller picture")
        if declared.isdigit() and int(declared) > most:
            raise too_large
        chunks, size = [], 0
        try:
            async for chunk in request.stream():
                size += len(chunk)
                self._bodies += len(chunk)
                chunks.append(chunk)
                if size > most:
                    raise too_large
                if self._bodies > self.limits.bodies:
                    raise busy("too many bodies are being received: try again in a second")
        except BaseException:
            self._bodies -= size
            raise
        return b"".join(chunks), size

    async def _live(self, request: Request) -> Response:
        return _json(200, {"live": True})

    async def _ready(self, request: Request) -> Response:
        return _json(503 if self.draining else 200, {"ready": not self.draining})

    async def _model_ready(self, request: Request) -> Response:
        self._check_model(request)
        return _json(503 if self.draining else 200, {"name": self.name, "ready": not self.draining})

    async def _server_metadata(self, request: Request) -> Response:
        return _json(200, {"name": "edgenn", "version": _version(), "extensions": open_inference.EXTENSIONS})

    async def _model_metadata(self, request: Request) -> Response:
        self._check_model(request)
        return _json(200, open_inference.metadata(self.name, self.model.input, self.pool.labels))

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": self.metrics.content_type})

    async def _no_route(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        self.metrics.requests.labels("none", status).inc()
        if status == 405 and isinstance(error, HTTPException):
            return _error(405, f"{request.method[:20]} is not what this path takes", dict(error.headers or {}))
        return _error(status, "there is nothing at this path: POST a picture to /classify")

    def _authorize(self, request: Request) -> None:
        if not access.allows(request.headers.get("authorization"), self._token or ""):
            raise Refusal(
                401, "the token is missing or wrong: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
            )

    def _check_model(self, request: Request) -> None:
        if request.path_params["model"] != self.name:
            raise Refusal(404, f"there is no such model here: ask for {self.name}")


def _left() -> Refusal:
    # 499 is what nginx logs for a client that went away before its answer.
    return Refusal(499, "the client went away")


def _top_k(request: Request) -> int:
    text = request.query_params.get("top", "3")
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) > 0):
        raise Refusal(400, "top is the number of labels in the answer: 1 or more")
    return int(text)


def _json(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    return Response(body, status, headers, "application/json")


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return _json(status, {"error": " ".join(reason.split())}, headers)


def _version() -> str:
    try:
        return version("edgenn")
    except PackageNotFoundError:
        return "unknown"
