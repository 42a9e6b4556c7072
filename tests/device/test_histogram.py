"""Percentiles against NumPy, the bounds that the buckets promise, and the median's interval against the binomial."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn_device.profiler.histogram import RELATIVE_ERROR, Histogram
from edgenn_device.profiler.interval import median_ranks

DURATIONS = st.lists(st.integers(0, 4 * 10**12), min_size=1, max_size=300)
# Up to more than an hour, in nanoseconds; and the values around every change of bucket width.
EDGES = st.sampled_from([value for bit in range(9, 43) for value in ((1 << bit) - 1, 1 << bit, (1 << bit) + 1)])

# A busy machine may stop a test for longer than hypothesis has patience for.
relaxed = settings(deadline=None)


def filled(nanoseconds: list[int]) -> Histogram:
    histogram = Histogram()
    for value in nanoseconds:
        histogram.record_ns(value)
    return histogram


@relaxed
@given(DURATIONS, st.integers(0, 100))
def test_percentiles_are_numpys_within_the_promised_error(values: list[int], p: int) -> None:
    expected = float(np.percentile(np.array(values, np.float64), p, method="inverted_cdf"))
    assert filled(values).percentile(p) * 1e9 == pytest.approx(expected, rel=RELATIVE_ERROR, abs=0.51)


@relaxed
@given(st.lists(st.integers(0, 2047), min_size=1, max_size=300), st.integers(0, 100))
def test_below_two_microseconds_percentiles_are_exact(values: list[int], p: int) -> None:
    expected = int(np.percentile(values, p, method="inverted_cdf"))
    assert round(filled(values).percentile(p) * 1e9) == expected


@relaxed
@given(DURATIONS)
def test_mean_deviation_and_extremes_are_exact(values: list[int]) -> None:
    histogram = filled(values)
    assert histogram.count == len(values)
    assert histogram.mean == pytest.approx(np.mean(values) / 1e9, rel=1e-12)
    assert histogram.std == pytest.approx(np.std(np.array(values, np.float64)) / 1e9, rel=1e-6, abs=1e-12)
    assert (histogram.min, histogram.max) == (min(values) / 1e9, max(values) / 1e9)
    assert histogram.total == sum(values) / 1e9


@relaxed
@given(DURATIONS | st.just([]), DURATIONS | st.just([]))
def test_merging_is_recording_both(one: list[int], two: list[int]) -> None:
    merged = filled(one)
    merged.merge(filled(two))
    assert merged.to_dict() == filled(one + two).to_dict()


@relaxed
@given(st.lists(st.integers(0, 4 * 10**12), max_size=100))
def test_json_brings_everything_back(values: list[int]) -> None:
    histogram = filled(values)
    again = Histogram.from_dict(json.loads(json.dumps(histogram.to_dict())))
    assert again.to_dict() == histogram.to_dict()
    assert (again.count, again.mean, again.std) == (histogram.count, histogram.mean, histogram.std)
    assert again.percentile(90) == histogram.percentile(90)


@relaxed
@given(st.lists(EDGES | st.integers(0, 4 * 10**12), min_size=1, max_size=200))
def test_buckets_lie_side_by_side_and_hold_every_value(values: list[int]) -> None:
    buckets = filled(values).buckets()
    assert sum(count for _, _, count in buckets) == len(values)
    for (_, end, _), (begin, _, _) in itertools.pairwise(buckets):
        assert end <= begin
    for value in values:
        assert sum(round(low * 1e9) <= value < round(high * 1e9) for low, high, _ in buckets) == 1
    for low, high, _ in buckets:
        assert high - low <= max(1.01e-9, low / 1023)


def test_seconds_are_counted_in_nanoseconds_and_a_clock_set_back_counts_as_nothing() -> None:
    histogram = Histogram([0.001, -0.5])
    assert (histogram.min, histogram.max, histogram.count) == (0.0, 0.001, 2)


def test_an_empty_histogram_answers_zero() -> None:
    empty = Histogram()
    assert (empty.percentile(50), empty.mean, empty.std, empty.min, empty.max) == (0.0,) * 5
    assert empty.buckets() == []
    assert empty.median_interval() is None


@pytest.mark.parametrize("p", [-0.1, 100.1, math.nan])
def test_a_percentile_outside_0_to_100_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        Histogram([1.0]).percentile(p)


GOOD = Histogram([0.5]).to_dict()


@pytest.mark.parametrize(
    "values",
    [
        {},  # nothing
        {**GOOD, "unit": "ms"},  # another unit
        {**GOOD, "significant_digits": 2},  # another layout
        {**GOOD, "counts": [1, 2]},  # counts without buckets
        {**GOOD, "counts": {"3": 0}},  # a bucket that holds nothing
        {**GOOD, "counts": {"-1": 1}},  # a bucket before the first
        {key: value for key, value in GOOD.items() if key != "sum"},  # a part missing
    ],
)
def test_what_is_not_a_histogram_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        Histogram.from_dict(values)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, None),
        (5, None),  # 2 * ½**5 = 6%: even smallest and largest are not sure enough
        (6, (1, 6)),
        (9, (2, 8)),
        (10, (2, 9)),  # these five: table of David and Nagaraja, and of every textbook of order statistics
        (20, (6, 15)),
        (50, (18, 33)),
        (100, (40, 61)),
    ],
)
def test_ranks_around_the_median(n: int, expected: tuple[int, int] | None) -> None:
    assert median_ranks(n) == expected


@relaxed
@given(st.integers(6, 1500))
def test_the_interval_covers_the_median_as_often_as_promised(n: int) -> None:
    ranks = median_ranks(n)
    assert ranks is not None
    low, high = ranks
    assert low + high == n + 1
    term = missed = 1
    for k in range(1, low):
        term = term * (n - k + 1) // k
        missed += term
    # At least 95% by the exact sum for few observations; the normal approximation beyond may be off by a rank.
    assert Fraction(2 * missed, 2**n) <= (0.05 if n <= 1000 else 0.053)


def test_the_interval_holds_the_middle_of_what_was_recorded() -> None:
    histogram = filled(list(range(1000, 2000)))
    low, high = histogram.median_interval() or (0.0, 0.0)
    assert (low * 1e9, high * 1e9) == (pytest.approx(1468), pytest.approx(1531))
