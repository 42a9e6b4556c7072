"""Whether two measurements differ: on made-up latencies whose truth is known."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn_device.errors import EdgennError
from edgenn_device.profiler import compare, interval
from edgenn_device.profiler.histogram import Histogram
from edgenn_device.profiler.report import SCHEMA, variant_dict
from edgenn_device.profiler.steady import Block, Steady
from edgenn_device.profiler.sweep import Variant


def moods(seed: int, blocks: int = 80) -> list[float]:
    """How much slower the machine is, block by block: spells, and a slow walk, as on a shared machine."""
    chance = random.Random(seed)
    level, walk = 1.0, []
    for _ in range(blocks):
        level *= math.exp(chance.gauss(0, 0.01))
        walk.append(level * (1.4 if chance.random() < 0.1 else 1.0))
    return walk


def variant(seed: int, slower: float = 1.0, mood: list[float] | None = None, threads: int = 1) -> Variant:
    chance = random.Random(seed)
    blocks = tuple(
        Block(number * 0.05, Histogram(0.010 * slower * now * math.exp(chance.gauss(0, 0.01)) for _ in range(5)))
        for number, now in enumerate(mood or moods(seed))
    )
    latencies = Histogram()
    for block in blocks:
        latencies.merge(block.latencies)
    steady = Steady(latencies, 5, "seconds", blocks)
    return Variant("m.tflite", "0" * 64, "litert", "2.3", "xnnpack", threads, f"litert, {threads} threads", steady)


def document(*variants: Variant, session: str = "one", **environment: Any) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "session": session,
        "disturbances": [],
        "environment": {"cpu": "Cortex-A72", "clock_mhz": 1500, **environment},
        "variants": [variant_dict(one) for one in variants],
    }


def in_turns(seed: int, slower: float) -> compare.Difference:
    mood = moods(seed)
    both = document(variant(2 * seed, mood=mood), variant(2 * seed + 1, slower, mood=mood))
    return compare.difference(*both["variants"], paired=True)


def test_in_turns_five_percent_are_found_and_nothing_else() -> None:
    found = [in_turns(seed, 1.05) for seed in range(20)]
    assert sum(one.verdict == "slower" for one in found) >= 18
    assert sum(one.low <= 0.05 <= one.high for one in found) >= 17
    assert sum(in_turns(seed, 1.0).verdict != "no difference shown" for seed in range(20)) <= 1
    assert in_turns(3, 0.9).verdict == "faster"


def test_one_after_the_other_no_false_alarm_though_the_machine_wanders() -> None:
    """Order statistics of all runs would call most of these different: the machine changed between the two."""
    alarms = 0
    for seed in range(20):
        walk = moods(seed, 160)
        first, second = variant(seed, mood=walk[:80]), variant(100 + seed, mood=walk[80:])
        found = compare.compare(document(first), document(second, session="two")).differences[0][1]
        assert not found.paired
        alarms += found.verdict != "no difference shown"
    assert alarms <= 1


def test_one_after_the_other_on_a_quiet_machine_five_percent_are_found() -> None:
    quiet = [1.0] * 80
    found = compare.compare(
        document(variant(1, mood=quiet)), document(variant(2, 1.05, mood=quiet), session="two")
    ).differences[0][1]
    assert found.verdict == "slower"
    assert found.change == pytest.approx(0.05, abs=0.01)
    back = compare.compare(document(variant(2, 1.05, mood=quiet)), document(variant(1, mood=quiet), session="two"))
    assert back.differences[0][1].verdict == "faster"
    assert "faster" in back.to_text()


def test_less_than_a_percent_is_no_difference() -> None:
    """Two interpreters of one model differ as much."""
    quiet = [1.0] * 80
    both = document(variant(1, mood=quiet), variant(1, 1.005, mood=quiet))
    found = compare.difference(*both["variants"], paired=True)
    assert found.low > 0
    assert found.verdict == "no difference shown"


def test_what_differs_is_said_and_what_is_of_the_moment_is_not() -> None:
    first = document(variant(1), governor="performance")
    second = document(variant(2, threads=2), session="two", governor="ondemand", clock_mhz=600, load_average=3.0)
    second["disturbances"] = ["The board slowed itself down (throttled): cool the board."]
    found = compare.compare(first, second)
    assert found.unlike == ("threads: 1, then 2", "governor: performance, then ondemand")
    text = found.to_text()
    assert text.index("! second: The board slowed itself down") < text.index("! Not measured alike") < text.index("ms,")
    assert found.to_dict()["unlike"] == list(found.unlike)


def test_another_model_is_compared_and_named() -> None:
    first, second = document(variant(1)), document(variant(2), session="two")
    second["variants"][0] |= {"model": "other.tflite", "model_sha256": "f" * 64}
    assert compare.compare(first, second).unlike == (
        "model: m.tflite, then other.tflite",
        "model_sha256: 0000000000000000…, then ffffffffffffffff…",
    )


def test_a_sweep_is_compared_thread_by_thread() -> None:
    first = document(variant(1, threads=1), variant(2, threads=2), variant(3, threads=4))
    second = document(variant(4, threads=2), variant(5, threads=1), session="two")
    assert [what for what, _ in compare.compare(first, second).differences] == [
        "litert, 1 threads",
        "litert, 2 threads",
    ]


def test_too_few_runs_show_nothing() -> None:
    short = [1.0] * 3
    both = document(variant(1, mood=short), variant(2, 2.0, mood=short))
    found = compare.difference(*both["variants"], paired=True)
    assert (found.low, found.high, found.verdict) == (None, None, "no difference shown")
    assert "no difference shown" in found.to_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 99}, "schema 99"),
        ({"variants": []}, "is no profile"),  # an estimate, or somebody's JSON
        ({"variants": None}, "is no profile"),
        ({"session": None}, "lacks session"),
    ],
)
def test_what_is_no_profile(change: dict[str, Any], words: str) -> None:
    good, bad = document(variant(1)), document(variant(2))
    for key, value in change.items():
        if key == "session":
            del bad[key]
        else:
            bad[key] = value
    with pytest.raises(EdgennError, match=words):
        compare.compare(good, bad)
    unchanged = copy.deepcopy(good)
    compare.compare(good, unchanged)
    assert good == unchanged


def test_student_as_in_the_tables() -> None:
    # Two-sided 95%: NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2.
    for degrees, expected in [(4, 2.776), (7, 2.365), (10, 2.228), (30, 2.042), (100, 1.984)]:
        assert interval.student(degrees) == pytest.approx(expected, rel=0.004)


def test_paired_shift_as_in_the_book() -> None:
    # Hollander and Wolfe, example 3.1 (depression scores of nine patients): estimate -0.46, the 96% interval
    # -0.786 to -0.010.
    differences = [-0.952, 0.147, -1.022, -0.430, -0.620, -0.590, -0.490, 0.080, -0.010]
    estimate, low, high = interval.paired_shift(differences)
    assert estimate == pytest.approx(-0.46, abs=0.005)
    assert low == pytest.approx(-0.786, abs=0.005)
    assert high == pytest.approx(-0.010, abs=0.005)


@pytest.mark.parametrize("n", range(8, 41))
def test_paired_shift_covers_what_it_says(n: int) -> None:
    """By the exact distribution of the signed-rank statistic: of averages that are all different, 1 to n(n+1)/2."""
    ways = [1]  # how many of the 2^n choices of signs give each sum of ranks
    for rank in range(1, n + 1):
        ways = [
            (ways[total] if total < len(ways) else 0) + (ways[total - rank] if total >= rank else 0)
            for total in range(len(ways) + rank)
        ]
    differences = [2.0**place for place in range(n)]
    averages = sorted((differences[i] + differences[j]) / 2 for i in range(n) for j in range(i, n))
    _, low, high = interval.paired_shift(differences)
    below = averages.index(low)  # so many averages lie below; as many as there are sums that the test rules out
    assert averages.index(high) == len(averages) - 1 - below
    assert 0.95 <= 1 - 2 * sum(ways[: below + 1]) / 2**n < 0.965


@given(st.lists(st.floats(-10, 10), min_size=8, max_size=700), st.floats(-5, 5))
def test_a_shift_of_all_differences_shifts_the_answer(differences: list[float], by: float) -> None:
    estimate, low, high = interval.paired_shift(differences)
    assert low <= estimate <= high
    shifted = interval.paired_shift([value + by for value in differences])
    assert shifted == pytest.approx((estimate + by, low + by, high + by), abs=1e-6)
