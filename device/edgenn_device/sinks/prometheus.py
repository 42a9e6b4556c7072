"""Prometheus: figures of the run on a small HTTP server of its own, for whoever comes to fetch them.

Counts with plain numbers, a microsecond a frame on the thread that invokes, and makes metrics of them only when
somebody asks. Sends nothing, shows no picture, and listens on this machine alone unless a host is given.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .. import extras
from ..decision import UNKNOWN
from ..errors import EdgennError
from ..events import Event
from ..pipeline import Result
from .base import About, Sink

# Seconds. From a small model on an Edge TPU to a large one on a Pi Zero 2; cameras give a frame every 0.033.
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.066, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_STATES = ("starting", "ok", "degraded", "failed")
# Seconds within which the server notices that it is to end.
_NOTICE = 0.2
# Seconds after which a client that neither asks nor reads is put out.
_TIMEOUT = 5.0
# Clients that are answered at the same time; a service has 256 threads in all (TasksMax=).
_MOST = 16

_log = logging.getLogger(__name__)


class Prometheus(Sink):
    """Serves http://HOST:PORT/metrics.

    Args:
      place: "[HOST:]PORT"; without a host 127.0.0.1. Port 0 takes a free one, which `port` then names.
      about: shown as the labels of edgenn_info.
      health: `Health.snapshot`; without it dropped frames are told from the gaps between frame numbers, and there is
        no health.

    Raises:
      EdgennError: `place` is none, or prometheus-client is missing; on entering: the port is taken.
    """

    def __init__(self, place: str, about: About, *, health: Callable[[], dict[str, Any]] | None = None) -> None:
        self._client = extras.require("prometheus_client")
        self._families = extras.require("prometheus_client.core")
        self.host, self.port = _place(place)
        self.name = f"prometheus:{place}"
        self._about = about
        self._health = health
        self._lock = threading.Lock()
        self._frames = 0
        self._first_index = self._last_index = 0
        self._latency = [0] * (len(BUCKETS) + 1)
        self._latency_sum = 0.0
        self._label: str | None = None
        self._confidence = 0.0
        self._last_frame = 0.0
        self._events = dict.fromkeys((*about.labels, UNKNOWN), 0)
        self._server: _Server | None = None

    def open(self) -> None:
        registry = self._client.CollectorRegistry()
        registry.register(self)
        handler = type("Handler", (self._client.MetricsHandler.factory(registry),), {"timeout": _TIMEOUT})
        try:
            self._server = _Server((self.host, self.port), handler)
        except OSError as error:
            raise EdgennError(
                f"{self.name}: {self.host} port {self.port} is not to be had ({error.strerror}): give another"
            ) from None
        self.port = self._server.server_address[1]
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(_NOTICE,), name="edgenn-prometheus", daemon=True).start()

    def write(self, result: Result) -> None:
        with self._lock:
            if self._frames == 0:
                self._first_index = result.frame.index
            self._frames += 1
            self._last_index = result.frame.index
            self._latency[bisect.bisect_left(BUCKETS, result.latency)] += 1
            self._latency_sum += result.latency
            self._label = result.classification.label
            self._confidence = result.classification.confidence
            self._last_frame = result.frame.time

    def event(self, event: Event) -> None:
        if event.ended is None:
            with self._lock:
                self._events[event.label] = self._events.get(event.label, 0) + 1

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks of a collector: the metrics as they are now."""
        families = self._families
        with self._lock:
            frames, gap = self._frames, self._last_index - self._first_index + 1 - self._frames
            counts, total = list(itertools.accumulate(self._latency)), self._latency_sum
            label, confidence, last_frame = self._label, self._confidence, self._last_frame
            events = dict(self._events)
        health = self._health() if self._health is not None else None

        about = {name: getattr(self._about, name) for name in ("device", "model", "runtime", "source", "version")}
        yield families.InfoMetricFamily("edgenn", "What runs here.", about)
        yield families.CounterMetricFamily("edgenn_frames", "Frames classified.", frames)
        dropped = max(0, gap) if health is None else health["dropped"]
        yield families.CounterMetricFamily("edgenn_dropped_frames", "Frames that a newer one displaced.", dropped)
        edges = [*map(str, BUCKETS), "+Inf"]
        yield families.HistogramMetricFamily(
            "edgenn_latency_seconds",
            "From a frame's capture to its result.",
            buckets=list(zip(edges, counts, strict=True)),
            sum_value=total,
        )
        seen = families.CounterMetricFamily("edgenn_events", "Events that have begun, by label.", labels=["label"])
        for name, count in events.items():
            seen.add_metric([name], count)
        yield seen
        if label is not None:
            present = families.GaugeMetricFamily("edgenn_label_info", "1 for the present label.", labels=["label"])
            present.add_metric([label], 1)
            yield present
            yield families.GaugeMetricFamily("edgenn_confidence", "Of the present label, averaged, 0..1.", confidence)
            yield families.GaugeMetricFamily(
                "edgenn_last_frame_age_seconds", "Since the latest frame's capture.", time.monotonic() - last_frame
            )
        if health is not None:
            yield families.CounterMetricFamily("edgenn_bad_frames", "Frames that could not be read.", health["bad"])
            state = families.GaugeMetricFamily("edgenn_health_state", "1 for the present state.", labels=["state"])
            for word in _STATES:
                state.add_metric([word], int(health["state"] == word))
            yield state
            yield from self._parts(health)
            if health.get("temperature_c") is not None:
                yield families.GaugeMetricFamily(
                    "edgenn_temperature_celsius", "Of the processor.", health["temperature_c"]
                )

    def _parts(self, health: dict[str, Any]) -> Iterator[Any]:
        """What an alert names: the part that is not well, and what a sink could not keep."""
        families = self._families
        well = families.GaugeMetricFamily(
            "edgenn_part_ok", "1 while the source, the model, the delegate or a sink is well.", labels=["part"]
        )
        for part, word in health["parts"].items():
            well.add_metric([part], int(word == "ok"))
        yield well
        waiting = families.GaugeMetricFamily("edgenn_sink_waiting", "Not yet written or sent.", labels=["sink"])
        lost = families.CounterMetricFamily(
            "edgenn_sink_dropped", "Given up because too much was waiting.", labels=["sink"]
        )
        for name, said in health["sinks"].items():
            if "queued" in said:
                waiting.add_metric([name], sum(said["queued"].values()) + said.get("spooled", 0))
                lost.add_metric([name], sum(said["dropped"].values()) + said.get("spool_dropped", 0))
        yield waiting
        yield lost


class _Server(socketserver.ThreadingTCPServer):
    """A thread a request, none of which keeps the process alive. Resolves no names, which can take half a minute.

    Clients that send a byte now and then hold `_MOST` threads at the most, and each until somebody asks `_TIMEOUT`
    seconds after it.
    """

    daemon_threads = True
    allow_reuse_address = True
    # Connections that wait to be taken; with the 5 of the standard library a burst has to come back a second later.
    request_queue_size = 64

    def __init__(self, place: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        self._lock = threading.Lock()
        self._since: dict[Any, float] = {}
        super().__init__(place, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        now = time.monotonic()
        with self._lock:
            for other in [one for one, since in self._since.items() if now - since > _TIMEOUT]:
                del self._since[other]
                _hang_up(other)
            full = len(self._since) >= _MOST
            if not full:
                self._since[request] = now
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle of it is no news."""
        _log.debug("a client of the metrics went away", exc_info=True)


def _hang_up(request: socket.socket) -> None:
    """Let the read that a thread is blocked in return."""
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise EdgennError(f"prometheus:{text} names no port: use prometheus:[HOST:]PORT, as in prometheus:9100")
    return host or "127.0.0.1", int(port)
