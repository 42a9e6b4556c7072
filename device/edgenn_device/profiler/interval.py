"""How sure a median is: of independent runs, of runs that resemble their neighbours, and of two medians' ratio.

Latencies are skewed, have several modes and come in spells (a clock that drops, a neighbour that wakes), so nothing
here assumes a bell curve of single runs, and what is said of a whole measurement rests on its blocks. Decides nothing;
`compare` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, median, stdev

# Above this many observations the binomial is summed by its normal approximation: the rank then differs by one at
# most (compared with the exact sum from 60 to 2000), and the exact sum's cost grows with the square of n.
_EXACT_UP_TO = 1000
# Parts that a run is cut into to see how much it varies: enough that Student's t (2.36 for 7 degrees of freedom) costs
# little beside the normal's 1.96, few enough that a part lasts as long as a neighbour's spell of work.
PARTS = 8
# Averages of two grow with the square of the number: of this many they are 45 thousand, which take a slow board a tenth
# of a second to sort.
_MOST_MIDDLES = 300
# Pairs that the ratio of two medians is taken from at least: of 8, the signed-rank interval at 95% leaves out a few.
FEWEST_PAIRS = 8


def median_ranks(n: int, confidence: float = 0.95) -> tuple[int, int] | None:
    """Ranks (1 = smallest) of the two observations that bound the median with at least `confidence`.

    Source: H. A. David and H. N. Nagaraja, Order Statistics, 3rd edition, section 7.1: the number of observations
    below the median is binomial(n, ½), whatever the distribution.

    Args:
      n: number of independent observations.
      confidence: in 0..1.

    Returns:
      (low, high) with low + high = n + 1, or None where even the smallest and largest are not sure enough.
    """
    tail = (1 - confidence) / 2
    if n > _EXACT_UP_TO:
        low = math.floor(n / 2 - NormalDist().inv_cdf(1 - tail) * math.sqrt(n) / 2)
        return low, n + 1 - low
    # The largest rank `low` with P(binomial(n, ½) < low) <= tail.
    below, low = 0.0, 0
    while low < n // 2:
        below += math.comb(n, low) * 0.5**n
        if below > tail:
            break
        low += 1
    return (low, n + 1 - low) if low else None


def repeated_half_width(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """How far from this run's median another run's may lie, when nothing but the machine's moods differs.

    The run is cut into PARTS; their medians vary as those of whole runs do. It is not divided by the root of their
    number: a shared machine's latencies vary like 1/f noise, of which longer runs give no steadier mean (the Allan
    variance is flat), so an interval that shrinks with the number of runs is too narrow to be met again. With
    independent runs it is too wide by up to the root of PARTS. docs/profiling.md has the measurement behind the choice.

    Args:
      values: in the order in which they were observed.

    Returns:
      In the unit of the values; None for fewer than PARTS of them.
    """
    n = len(values)
    if n < PARTS:
        return None
    middles = [median(values[n * part // PARTS : n * (part + 1) // PARTS]) for part in range(PARTS)]
    return student(PARTS - 1, confidence) * stdev(middles)


def student(degrees: int, confidence: float = 0.95) -> float:
    """Student's t that `confidence` of the distribution lies within, for 4 degrees of freedom and more.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5; at 95% off by 0.3% at 4 degrees and by
    less than 0.1% from 6 on.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


def paired_shift(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float] | None:
    """(estimate, low, high) of the middle of differences between neighbours in time.

    The median of all averages of two, bounded by those averages that Wilcoxon's signed-rank test does not rule out.
    Source: J. L. Hodges and E. L. Lehmann, Estimates of location based on rank tests, Ann. Math. Statist. 34 (1963)
    598; M. Hollander and D. A. Wolfe, Nonparametric Statistical Methods, section 3.3. One difference far out moves
    neither by more than any other.

    Returns:
      In the unit of the differences; None for fewer than FEWEST_PAIRS.
    """
    if len(differences) < FEWEST_PAIRS:
        return None
    middles = _thinned(differences)
    n = len(middles)
    averages = sorted((middles[i] + middles[j]) / 2 for i in range(n) for j in range(i, n))
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    # Of the averages in order, 1 = smallest, by the normal approximation with its correction for continuity: compared
    # with the exact distribution from 8 to 120 pairs it covers 0.950 to 0.963.
    rank = max(1, math.floor(n * (n + 1) / 4 + 0.5 - z * math.sqrt(n * (n + 1) * (2 * n + 1) / 24)))
    return median(averages), averages[rank - 1], averages[-rank]


def separate_shift(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    """(estimate, low, high) of second - first, each given as (estimate, low, high) and found independently.

    Source: G. Y. Zou and A. Donner, Construction of confidence limits about effect measures: a general approach,
    Statistics in Medicine 27 (2008) 1693, which combines intervals that are not symmetric either.
    """
    a, a_low, a_high = first
    b, b_low, b_high = second
    return b - a, b - a - math.hypot(b - b_low, a_high - a), b - a + math.hypot(b_high - b, a - a_low)


def _thinned(values: Sequence[float]) -> list[float]:
    size = -(-len(values) // _MOST_MIDDLES)
    return [median(values[begin : begin + size]) for begin in range(0, len(values), size)]
