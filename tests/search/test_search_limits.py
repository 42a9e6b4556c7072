"""Units are read strictly, and limits say by how much they are missed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.search.limits import Limits, duration, size
from edgenn_device.errors import EdgennError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("0.02s", 0.02),  # the same number to the bit, or a search could not be gone on with
        ("20 ms", 0.02),
        ("500us", 0.0005),
        ("90min", 5400.0),
        ("2h", 7200.0),
    ],
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("1MB", 1_000_000), ("500kB", 500_000), ("1.5MB", 1_500_000), ("512KiB", 524_288), ("7B", 7)]
)
def test_sizes(text, count):
    assert size(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "20",  # of what?
        "ms",
        "",
        "-5ms",
        "0ms",  # nothing is that fast
        "1e3ms",
        "20MS",
        "20 m",
        "inf s",
        "٢٠ms",  # digits of another script
        "9" * 40 + "h",
    ],
)
def test_what_is_no_duration_is_one_line_that_shows_how(text):
    with pytest.raises(EdgennError, match=r"--max-latency .* is not possible: give .*20ms or 0.02s") as error:
        duration(text, "--max-latency")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1mb", "1 megabyte", "1Mb", "0.2B", "500KB"])
def test_what_is_no_size(text):
    with pytest.raises(EdgennError, match="1MB or 500kB"):
        size(text)


@given(st.floats(1e-6, 10), st.floats(1e-6, 10), st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_limit_is_missed_exactly_when_its_excess_is_above_zero(latency, most, count, largest):
    excess = Limits(most, largest).excess(latency, count)
    assert (excess["latency"] > 0) == (latency > most) or math.isclose(latency, most)
    assert (excess["size"] > 0) == (count > largest) or math.isclose(count, largest)


def test_what_is_not_limited_or_not_known_has_no_excess():
    assert Limits().excess(1.0, 1) == {}
    assert Limits(0.02, 10).excess(None, None) == {}
    assert Limits(latency=0.01).excess(0.02, 99) == {"latency": pytest.approx(math.log(2))}
