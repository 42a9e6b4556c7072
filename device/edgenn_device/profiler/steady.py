"""The timing loop: warm up, then call again and again in short blocks, until the median is known or the time is over.

Several things are timed in turns, a block of each in every round, and every round begins with another one, so that
heat, clock and neighbours hit all alike and rounds can be compared in pairs. The clock is read right before and right
after each call, and everything else is done outside of the two. Nothing is tuned for a better figure: no governor is
set, no core is pinned, garbage collection stays on, because none of that holds in the field either.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from . import SECONDS
from .histogram import Histogram
from .interval import PARTS, repeated_half_width

# A slow model (a Pi Zero takes half a second) is run at least this often, whatever the seconds say.
FEWEST_RUNS = 20
# The median is known well enough when its 95% interval is this narrow, relative to it, and not before LEAST_SECONDS:
# a spell of good luck should not end the measurement, and p99.9 of a fast model should rest on a few runs.
WIDTH = 0.01
LEAST_SECONDS = 1.0
# Seconds of a block: long against a change of the CPU's clock (10 ms), short against what neighbours do (seconds).
_BLOCK = 0.05
# Warm-up: groups of calls until one is no longer this much faster than the best before it, and for no longer than
# this share of the seconds. The first ones fill caches, wake cores and raise the clock.
_GROUP = 5
_GAIN = 0.03
_WARM_UP_SHARE = 0.25
# A call shorter than this is made once, uncounted, after something else has used the caches; a longer one does not
# notice (refilling 2 MB of cache takes under a millisecond).
_NOTICES = 0.02
# The interval is looked at when this much more has been measured than the last time: looking costs time, and each look
# is a chance to stop on good luck.
_GROWTH = 1.15
# A drift is only spoken of with this many blocks in each quarter of the run.
_DRIFT_BLOCKS = 6


@dataclass(frozen=True)
class Block:
    """Runs of one thing without anything between them.

    Attributes:
      began: seconds since the loop began.
      latencies: of its runs.
    """

    began: float
    latencies: Histogram

    @cached_property
    def median(self) -> float:
        """In seconds."""
        return self.latencies.percentile(50)


@dataclass(frozen=True)
class Steady:
    """Latencies after warm-up.

    Attributes:
      latencies: all of them.
      warm_up: runs made before, and not counted.
      ended_by: "interval" (the median is known to 1%), "seconds" (the budget is spent) or "runs" (as many as were asked
        for).
      blocks: the same runs in the order in which they were made; block k of two things timed in turns are neighbours.
    """

    latencies: Histogram
    warm_up: int
    ended_by: str
    blocks: tuple[Block, ...] = ()

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Bounds of the median in seconds, at 95%; None where there are too few runs to say (fewer than 6).

        The wider of two: from order statistics of all runs, which holds when each is independent of the last, and from
        how the median wanders in the course of the measurement, which holds when they come in spells.
        """
        independent = self.latencies.median_interval()
        middles = [block.median for block in self.blocks]
        if independent is None or len(middles) < PARTS or min(middles) <= 0:
            return independent
        half = repeated_half_width([math.log(middle) for middle in middles]) or 0.0
        middle = self.latencies.percentile(50)
        return min(independent[0], middle * math.exp(-half)), max(independent[1], middle * math.exp(half))

    @property
    def width(self) -> float | None:
        """Of the interval, relative to the median."""
        middle = self.latencies.percentile(50)
        return (self.interval[1] - self.interval[0]) / middle if self.interval and middle else None

    @cached_property
    def drift(self) -> float | None:
        """Median of the last quarter over that of the first, minus 1; None where their intervals overlap, so that no
        drift is shown."""
        quarter = len(self.blocks) // 4
        if quarter < _DRIFT_BLOCKS:
            return None
        first, last = (
            Histogram(block.median for block in part) for part in (self.blocks[:quarter], self.blocks[-quarter:])
        )
        early, late = first.median_interval(), last.median_interval()
        if early is None or late is None or (early[0] <= late[1] and late[0] <= early[1]):
            return None
        return last.percentile(50) / first.percentile(50) - 1 if first.percentile(50) else None


def steady_state(
    invoke: Callable[[], object],
    *,
    runs: int | None = None,
    seconds: float = SECONDS,
    fewest: int = FEWEST_RUNS,
    width: float | None = WIDTH,
    between: Callable[[], bool] | None = None,
) -> Steady:
    """Warm up, then time `invoke` again and again: `in_turns` with one thing."""
    return in_turns([invoke], runs=runs, seconds=seconds, fewest=fewest, width=width, between=between)[0]


def in_turns(
    invokes: Sequence[Callable[[], object]],
    *,
    runs: int | None = None,
    seconds: float = SECONDS,
    fewest: int = FEWEST_RUNS,
    width: float | None = WIDTH,
    between: Callable[[], bool] | None = None,
) -> list[Steady]:
    """Time several things, a block of each in every round.

    Args:
      invokes: what is called, without arguments.
      runs: how many calls of each are counted; None: until `width` is reached or `seconds` are over.
      seconds: the budget of each.
      fewest: calls of each that are made even when the seconds are over.
      width: end when the interval of every median is at most so wide, relative to it; None: never for that reason.
      between: called between rounds; True when it did something that the caches will have noticed.

    Returns:
      What was measured of each, in the same order.
    """
    typical, warmed = zip(*(_warm_up(invoke, seconds * _WARM_UP_SHARE) for invoke in invokes), strict=True)
    blocks: list[list[Block]] = [[] for _ in invokes]
    counts = [0] * len(invokes)
    began = time.perf_counter()
    deadline = began + seconds * len(invokes)
    earliest = began + min(seconds, LEAST_SECONDS) * len(invokes)
    look = 2 * PARTS
    ended_by = "seconds" if runs is None else "runs"
    rounds = 0
    while True:
        disturbed = between() if between is not None and rounds else False
        for turn in range(len(invokes)):
            place = (turn + rounds) % len(invokes)
            settle = (disturbed or len(invokes) > 1) and typical[place] < _NOTICES
            wanted = None if runs is None else runs - counts[place]
            if wanted != 0:
                block = _block(invokes[place], began, wanted, settle)
                blocks[place].append(block)
                counts[place] += block.latencies.count
        rounds += 1
        now = time.perf_counter()
        if runs is not None:
            if min(counts) >= runs:
                break
        elif min(counts) >= fewest:
            if now >= deadline:
                break
            if width is not None and rounds >= look and now >= earliest:
                look = math.ceil(rounds * _GROWTH)
                widths = [_summed(part).width for part in blocks]
                if all(found is not None and found <= width for found in widths):
                    ended_by = "interval"
                    break
    return [_summed(part, warm_up, ended_by) for part, warm_up in zip(blocks, warmed, strict=True)]


def _block(invoke: Callable[[], object], origin: float, wanted: int | None, settle: bool) -> Block:
    latencies = Histogram()
    clock, record = time.perf_counter_ns, latencies.record_ns
    if settle:
        invoke()
    began = clock()
    deadline = began + int(_BLOCK * 1e9)
    end = began
    while not latencies.count or (end < deadline and latencies.count != wanted):
        begin = clock()
        invoke()
        end = clock()
        record(end - begin)
    return Block(began / 1e9 - origin, latencies)


def _summed(blocks: Sequence[Block], warm_up: int = 0, ended_by: str = "") -> Steady:
    latencies = Histogram()
    for block in blocks:
        latencies.merge(block.latencies)
    return Steady(latencies, warm_up, ended_by, tuple(blocks))


def _warm_up(invoke: Callable[[], object], seconds: float) -> tuple[float, int]:
    """Call until it gets no faster: (seconds of a call in the end, how many calls that took)."""
    calls = 0
    best = math.inf
    began = time.perf_counter()
    while True:
        spent = []
        for _ in range(_GROUP):
            begin = time.perf_counter()
            invoke()
            spent.append(time.perf_counter() - begin)
            calls += 1
            if time.perf_counter() - began > seconds:
                return median(spent), calls
        middle = median(spent)
        if middle > best * (1 - _GAIN):
            return middle, calls
        best = middle
