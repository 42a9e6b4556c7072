"""Limits for build servers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edgenn_device.errors import EdgennError
from edgenn_device.profiler import limits
from edgenn_device.profiler.histogram import Histogram


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99=30ms", ("p99", 0.030)),
        ("p99.9=1.5s", ("p99.9", 1.5)),
        (" mean = 250us ", ("mean", 250e-6)),
        ("max=.5µs", ("max", 0.5e-6)),  # micro sign
        ("p50=7\u03bcs", ("p50", 7e-6)),  # Greek mu
    ],
)
def test_a_limit(text: str, expected: tuple[str, float]) -> None:
    assert limits.parse(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["p99", "p99=30", "p98=30ms", "p99=-3ms", "p99=30 parsecs", "p99<30ms", "=3ms", ""])
def test_no_limit(text: str) -> None:
    with pytest.raises(EdgennError, match="p99=30ms"):
        limits.parse(text)


@dataclass
class Steady:
    latencies: Histogram


@dataclass
class Variant:
    steady: Steady
    model: str = "m.tflite"
    description: str = "litert, 1 thread"


@dataclass
class Profile:
    variants: tuple[Variant, ...]


def profile(*latencies: list[float]) -> Profile:
    return Profile(tuple(Variant(Steady(Histogram(values))) for values in latencies))


def test_what_exceeds_is_named_and_what_keeps_it_is_not() -> None:
    quick, slow = [0.010] * 200, [0.010] * 190 + [0.050] * 10
    assert limits.exceeded(profile(quick), [("p99", 0.030), ("max", 0.030)]) == []
    told = limits.exceeded(profile(quick, slow), [("p99", 0.030), ("p50", 0.030), ("mean", 0.0119)])
    assert len(told) == 2
    assert told[0].startswith("p99 of invoke is 49.9")
    assert told[1].startswith("mean of invoke is 12.000 ms, above 11.9 ms")


@pytest.mark.parametrize(("measure", "runs"), [("p99", 100), ("p99.9", 1000), ("p90", 10), ("p50", 2)])
def test_a_percentile_needs_runs_beyond_it(measure: str, runs: int) -> None:
    assert limits.enough_runs(float(measure[1:])) == runs
    assert limits.exceeded(profile([0.01] * runs), [(measure, 1.0)]) == []
    with pytest.raises(EdgennError, match=f"{measure} needs {runs} runs"):
        limits.exceeded(profile([0.01] * (runs - 1)), [(measure, 1.0)])
