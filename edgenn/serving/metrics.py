"""What Prometheus reads at /metrics: requests by answer, latencies, and how full the house is.

Every label takes few values known beforehand (never a path, a client or a class), so no client can make this grow.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

# Seconds. A picture takes 1 to 20 ms; with a full queue a tenth of a second, on a small board one.
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STAGES = ("wait", "preprocess", "invoke")


class Metrics:
    """Counters and histograms of one service, in a registry of their own.

    Args:
      queue_depth: gives the requests that wait for an interpreter.
      in_flight: gives the requests that were accepted and not yet answered.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, queue_depth: Callable[[], int], in_flight: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "edgenn_requests",
            "Requests answered, by endpoint and HTTP status.",
            ["endpoint", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "edgenn_request_seconds",
            "From the end of a request's headers to its answer, of requests answered 200.",
            ["endpoint"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        stages = Histogram(
            "edgenn_stage_seconds",
            "Waiting for an interpreter, picture to tensor, and the network itself.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.stages = {name: stages.labels(name) for name in STAGES}
        depth = Gauge("edgenn_queue_depth", "Requests that wait for an interpreter.", registry=self._registry)
        depth.set_function(queue_depth)
        flight = Gauge("edgenn_in_flight", "Requests accepted and not yet answered.", registry=self._registry)
        flight.set_function(in_flight)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
