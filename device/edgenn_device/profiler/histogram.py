"""Latencies, counted in log-linear buckets: constant memory for any number of them, and every percentile to 0.1%.

The layout is that of HdrHistogram (G. Tene, hdrhistogram.org) with 3 significant digits: whole nanoseconds, exact below
2048 ns, above that 1024 buckets to each power of two, so no bucket is wider than 1/1024 of the values in it. Count,
sum, sum of squares, minimum and maximum are kept exactly. It forgets the order of what it recorded; a drift over time
is `measure`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .interval import median_ranks

# 2**11 buckets before the width first doubles: half of them (1024) resolve each further power of two, which is the
# least that tells values apart by one part in a thousand.
_EXACT_BITS = 11
# A bucket holds values up to 1/1024 of them apart and is reported by its middle, so a percentile errs by half of that.
RELATIVE_ERROR = 2.0**-(_EXACT_BITS)


class Histogram:
    """Counts of durations. Not locked: one thread records, and `merge` brings several threads' together.

    >>> latencies = Histogram([0.010, 0.011, 0.012])
    >>> round(latencies.percentile(50), 4)
    0.011
    """

    __slots__ = ("_counts", "_maximum", "_minimum", "_squares", "_sum", "count")

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts: dict[int, int] = {}
        self._sum = 0
        self._squares = 0
        self._minimum = -1
        self._maximum = -1
        self.count = 0
        for duration in seconds:
            self.record(duration)

    def record(self, seconds: float) -> None:
        """Count a duration in seconds. Negative ones (a clock set back) count as 0."""
        self.record_ns(int(seconds * 1e9))

    def record_ns(self, nanoseconds: int) -> None:
        """Count a duration in whole nanoseconds, as `time.perf_counter_ns` differences are."""
        if nanoseconds < 0:
            nanoseconds = 0
        index = _index(nanoseconds)
        self._counts[index] = self._counts.get(index, 0) + 1
        self._sum += nanoseconds
        self._squares += nanoseconds * nanoseconds
        if nanoseconds > self._maximum:
            self._maximum = nanoseconds
        if nanoseconds < self._minimum or not self.count:
            self._minimum = nanoseconds
        self.count += 1

    def percentile(self, p: float) -> float:
        """The smallest recorded duration, in seconds, that at least `p` percent of all do not exceed (nearest rank).

        Off by at most `RELATIVE_ERROR`; 0.0 when nothing was recorded.

        Raises:
          ValueError: `p` is outside 0..100.
        """
        if not 0 <= p <= 100:
            raise ValueError(f"percentile {p} is outside 0..100")
        # p * count / 100 may come out a hair above a whole number; the rank it stands for is that number.
        return self._at_rank(math.ceil(p * self.count / 100 - 1e-9))

    @property
    def mean(self) -> float:
        """Arithmetic mean in seconds, exact; 0.0 when nothing was recorded."""
        return self._sum / self.count / 1e9 if self.count else 0.0

    @property
    def std(self) -> float:
        """Standard deviation of what was recorded, in seconds (divisor: count), exact."""
        if not self.count:
            return 0.0
        # Whole numbers of any size: no cancellation, whatever the mean.
        return math.sqrt(self.count * self._squares - self._sum * self._sum) / self.count / 1e9

    @property
    def min(self) -> float:
        """Shortest duration in seconds, exact; 0.0 when nothing was recorded."""
        return max(0, self._minimum) / 1e9

    @property
    def max(self) -> float:
        """Longest duration in seconds, exact; 0.0 when nothing was recorded."""
        return max(0, self._maximum) / 1e9

    @property
    def total(self) -> float:
        """Sum of all durations in seconds, exact."""
        return self._sum / 1e9

    def median_interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Bounds of the median in seconds, from order statistics: no assumption on the distribution's shape.

        It assumes that the durations are independent; a machine that heats up or has a busy neighbour makes
        neighbouring ones alike, and then the truth is wider.

        Returns:
          (low, high), or None where there are too few durations to say (fewer than 6 at 95%).
        """
        ranks = median_ranks(self.count, confidence)
        return (self._at_rank(ranks[0]), self._at_rank(ranks[1])) if ranks else None

    def merge(self, other: Histogram) -> None:
        """Add all that `other` recorded, as if it had been recorded here."""
        if not other.count:
            return
        for index, count in other._counts.items():
            self._counts[index] = self._counts.get(index, 0) + count
        self._minimum = min(self._minimum, other._minimum) if self.count else other._minimum
        self._maximum = max(self._maximum, other._maximum)
        self._sum += other._sum
        self._squares += other._squares
        self.count += other.count

    def buckets(self) -> list[tuple[float, float, int]]:
        """(from, to, count) of every bucket that holds something, in seconds, rising; `to` belongs to the next one."""
        edges = ((_edges(index), count) for index, count in sorted(self._counts.items()))
        return [(low / 1e9, high / 1e9, count) for (low, high), count in edges]

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON's types: {"significant_digits": 3, "unit": "ns", "counts": {BUCKET: COUNT}, …}."""
        return {
            "unit": "ns",
            "significant_digits": 3,
            "minimum": self._minimum,
            "maximum": self._maximum,
            "sum": self._sum,
            # Beyond 2**53, where readers that know only floating point would lose digits: as text.
            "squares": str(self._squares),
            "counts": {str(index): count for index, count in sorted(self._counts.items())},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Histogram:
        """The histogram that `to_dict` described.

        Raises:
          ValueError: the values are not of a histogram with this layout.
        """
        if values.get("unit") != "ns" or values.get("significant_digits") != 3:
            raise ValueError("not a histogram of nanoseconds with 3 significant digits")
        histogram = cls()
        try:
            histogram._counts = {int(index): int(count) for index, count in values["counts"].items()}
            histogram._minimum, histogram._maximum = int(values["minimum"]), int(values["maximum"])
            histogram._sum, histogram._squares = int(values["sum"]), int(values["squares"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"an incomplete histogram: {error}") from None
        if any(index < 0 or count < 1 for index, count in histogram._counts.items()):
            raise ValueError("a histogram with a bucket or a count below its least")
        histogram.count = sum(histogram._counts.values())
        return histogram

    def _at_rank(self, rank: int) -> float:
        """The duration at `rank` (1 = shortest) in rising order, in seconds."""
        if rank <= 1:
            return self.min
        if rank >= self.count:
            return self.max
        passed = 0
        for index in sorted(self._counts):
            passed += self._counts[index]
            if passed >= rank:
                low, high = _edges(index)
                return min(max((low + high - 1) / 2e9, self.min), self.max)
        return self.max


def _index(nanoseconds: int) -> int:
    shift = nanoseconds.bit_length() - _EXACT_BITS
    return nanoseconds if shift <= 0 else (shift << (_EXACT_BITS - 1)) + (nanoseconds >> shift)


def _edges(index: int) -> tuple[int, int]:
    """First value of a bucket and first value of the next one, in nanoseconds."""
    if index < 1 << _EXACT_BITS:
        return index, index + 1
    half = 1 << (_EXACT_BITS - 1)
    shift = index // half - 1
    low = (index - shift * half) << shift
    return low, low + (1 << shift)
