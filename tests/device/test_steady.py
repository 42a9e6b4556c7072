"""The timing loop under a clock that the tests turn."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from edgenn_device.profiler import steady
from edgenn_device.profiler.steady import in_turns, steady_state


class Clock:
    """Stands in for the module `time`: moves on only when an inference is made."""

    def __init__(self) -> None:
        self.nanoseconds = 10**9

    def perf_counter_ns(self) -> int:
        return self.nanoseconds

    def perf_counter(self) -> float:
        return self.nanoseconds / 1e9


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], Callable[[], object]]:
    """turned(duration): an inference whose n-th call takes duration(n) seconds."""
    clock = Clock()
    monkeypatch.setattr(steady, "time", clock)

    def inference(duration: Callable[[int], float]) -> Callable[[], object]:
        calls = iter(range(10**6))

        def invoke() -> None:
            clock.nanoseconds += round(duration(next(calls)) * 1e9)

        return invoke

    return inference


def test_as_many_runs_as_asked_for_and_no_warm_up_among_them(turned) -> None:
    measured = steady_state(turned(lambda call: 0.1 if call < 5 else 0.010), runs=30, seconds=10)
    assert (measured.latencies.count, measured.ended_by) == (30, "runs")
    assert (measured.latencies.min, measured.latencies.max) == (0.010, 0.010)
    assert measured.warm_up == 15  # two groups that got faster, and one that did not
    assert measured.drift is None


@pytest.mark.parametrize("runs", [1, 3, 7, 20, 101])
def test_runs_that_no_block_divides(turned, runs: int) -> None:
    assert steady_state(turned(lambda call: 0.001), runs=runs).latencies.count == runs


def test_it_ends_when_the_median_is_known(turned) -> None:
    measured = steady_state(turned(lambda call: 0.010 + call % 2 * 1e-6), seconds=30)
    assert measured.ended_by == "interval"
    assert measured.width <= steady.WIDTH
    # Not before a second was measured, and long before thirty.
    assert 100 <= measured.latencies.count < 300


def test_it_ends_with_the_seconds_when_the_median_wanders(turned) -> None:
    measured = steady_state(turned(lambda call: 0.010 if call // 20 % 2 else 0.013), seconds=2)
    assert measured.ended_by == "seconds"
    assert measured.latencies.total == pytest.approx(2, abs=0.1)
    assert measured.width > steady.WIDTH
    # Order statistics alone would have called that median known.
    low, high = measured.interval
    inner = measured.latencies.median_interval()
    assert low <= inner[0] <= inner[1] <= high


def test_without_a_width_the_seconds_are_kept(turned) -> None:
    measured = steady_state(turned(lambda call: 0.010), seconds=2, width=None)
    assert (measured.latencies.count, measured.ended_by) == (200, "seconds")


def test_a_slow_model_is_run_often_enough_all_the_same(turned) -> None:
    measured = steady_state(turned(lambda call: 1.0), seconds=2)
    assert measured.latencies.count == 20
    assert measured.warm_up == 1  # half a second's patience is over after the first


def test_a_least_number_of_runs_outlasts_the_seconds(turned) -> None:
    measured = steady_state(turned(lambda call: 0.010), seconds=2, fewest=1024, width=None)
    assert 1024 <= measured.latencies.count < 1030


def test_a_run_that_gets_slower_is_found_out(turned) -> None:
    measured = steady_state(turned(lambda call: 0.010 if call < 260 else 0.013), runs=500)
    assert measured.drift == pytest.approx(0.3, abs=0.01)
    # Noise of the same size is no drift.
    chance = random.Random(1)
    noisy = steady_state(turned(lambda call: chance.choice((0.010, 0.013))), runs=500)
    assert noisy.drift is None


def test_turns_befall_all_alike(turned) -> None:
    """The machine slows down by half in the middle: neither of two equals looks slower for it."""
    made = iter(range(10**6))
    pace = lambda call: 0.010 if next(made) < 200 else 0.015  # noqa: E731
    first, second = in_turns([turned(pace), turned(pace)], seconds=2, width=None)
    assert len(first.blocks) == len(second.blocks)
    assert first.latencies.percentile(50) == second.latencies.percentile(50)
    # Each begins every other round.
    begins = [a.began < b.began for a, b in zip(first.blocks, second.blocks, strict=True)]
    assert begins[:4] == [True, False, True, False]


def test_what_happens_between_rounds_is_not_counted(turned) -> None:
    """A look at the machine's state leaves cold caches: the next call is slow and left out."""
    cold = [False]

    def look() -> bool:
        cold[0] = True
        return True

    def pace(call: int) -> float:
        slow, cold[0] = cold[0], False
        return 0.015 if slow else 0.010

    measured = steady_state(turned(pace), seconds=1, between=look)
    assert measured.latencies.max == 0.010


def test_blocks_are_the_runs_in_order(turned) -> None:
    measured = steady_state(turned(lambda call: 0.010), runs=42)
    assert sum(block.latencies.count for block in measured.blocks) == 42
    began = [block.began for block in measured.blocks]
    assert began == sorted(began)
    assert measured.blocks[0].median == 0.010
