"""Limits that a latency must keep, as a build server asks for: `--fail-over p99=30ms`.

Judges the steady state of `invoke` alone, of every variant that was timed. Refuses to judge a percentile that rests on
too few runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ..errors import EdgennError
from .histogram import Histogram
from .measure import Profile

MEASURES = ("p50", "p90", "p99", "p99.9", "mean", "max")
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}
_LIMIT = re.compile(r"\s*([\w.]+)\s*=\s*([0-9]*\.?[0-9]+)\s*(s|ms|us|[µμ]s)\s*")


def parse(text: str) -> tuple[str, float]:
    """(measure, seconds) of a limit.

    >>> parse("p99=30ms")
    ('p99', 0.03)

    Raises:
      EdgennError: it is no limit.
    """
    found = _LIMIT.fullmatch(text)
    if found is None or found[1] not in MEASURES:
        raise EdgennError(f"{text!r} is no limit: --fail-over takes {', '.join(MEASURES)} and a time, as in p99=30ms")
    return found[1], float(found[2]) * _UNITS[found[3]]


def enough_runs(p: float) -> int:
    """Runs that a percentile must rest on, so that at least one of them is beyond it: 100 for p99."""
    return math.ceil(100 / (100 - p) - 1e-9)


def exceeded(profile: Profile, limits: Sequence[tuple[str, float]]) -> list[str]:
    """Sentences on limits that are exceeded by any variant; empty when all are kept.

    Args:
      limits: (measure, seconds); a measure is p50, p90, p99, p99.9, mean or max.

    Raises:
      EdgennError: there were too few runs for a percentile.
    """
    sentences = []
    for variant in profile.variants:
        latencies = variant.steady.latencies
        for measure, limit in limits:
            if measure.startswith("p") and latencies.count < enough_runs(float(measure[1:])):
                raise EdgennError(
                    f"{measure} needs {enough_runs(float(measure[1:]))} runs and {variant.description} made "
                    f"{latencies.count}: give more --seconds"
                )
            value = _measures(latencies)[measure]
            if value > limit:
                sentences.append(
                    f"{measure} of invoke is {value * 1e3:.3f} ms, above {limit * 1e3:g} ms "
                    f"({variant.model}, {variant.description})"
                )
    return sentences


def _measures(latencies: Histogram) -> dict[str, float]:
    named = {f"p{p:g}": latencies.percentile(p) for p in (50, 90, 99, 99.9)}
    return {**named, "mean": latencies.mean, "max": latencies.max}
