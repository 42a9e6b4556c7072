"""Which trials are chosen: for every made-up set of them, the best keeps the limits and nothing beats it."""

from hypothesis import given
from hypothesis import strategies as st

from edgenn.search import outcome
from edgenn.search.limits import Limits
from tests.search.made_up import trial, trials

LIMITS = st.builds(
    Limits, st.sampled_from([None, 0.001, 0.002, 0.015, 1.0]), st.sampled_from([None, 9_999, 1_000_000, 2_000_000])
)


def keeps(one, limits):
    return (
        one.state == "done"
        and one.passed
        and (limits.latency is None or one.latency.median <= limits.latency)
        and (limits.size is None or one.bytes <= limits.size)
    )


@given(trials(), LIMITS)
def test_the_best_keeps_the_limits_and_none_that_keeps_them_is_more_accurate(made, limits):
    best = outcome.best(made, limits)
    allowed = [one for one in made if keeps(one, limits)]
    if best is None:
        assert not allowed
        return
    assert best in allowed
    assert best.accuracy == max(one.accuracy for one in allowed)
    equal = [one for one in allowed if one.accuracy == best.accuracy]
    assert best.latency.median == min(one.latency.median for one in equal)


@given(trials(), LIMITS)
def test_the_front_is_what_nothing_beats(made, limits):
    front = outcome.front(made, limits)
    allowed = [one for one in made if keeps(one, limits)]

    def beats(a, b):
        return (
            a.accuracy >= b.accuracy
            and a.latency.median <= b.latency.median
            and (a.accuracy, -a.latency.median) != (b.accuracy, -b.latency.median)
        )

    assert all(one in allowed and not any(beats(other, one) for other in allowed) for one in front)
    points = {(one.accuracy, one.latency.median) for one in front}
    assert len(points) == len(front)  # of equal ones one
    for one in allowed:
        unbeaten = not any(beats(other, one) for other in allowed)
        assert not unbeaten or (one.accuracy, one.latency.median) in points
    times = [one.latency.median for one in front]
    assert times == sorted(times)
    best = outcome.best(made, limits)
    assert (best is None) == (not front)
    assert best is None or best == front[-1]


@given(trials(), LIMITS)
def test_the_best_and_the_front_are_among_the_finalists(made, limits):
    kept = {one.number for one in outcome.finalists(made, limits, most=1)}
    assert {one.number for one in outcome.front(made, limits)} <= kept
    assert all(made[number].state == "done" for number in kept)


def test_one_that_is_a_little_too_slow_is_timed_again():
    made = [trial(0, 0.8, 0.010), trial(1, 0.9, 0.021), trial(2, 0.95, 0.050)]
    assert [one.number for one in outcome.finalists(made, Limits(latency=0.02))] == [0, 1]


def test_why_there_is_no_best():
    limits = Limits(0.02, 1_000_000)
    slow, large = trial(0, latency=0.03), trial(1, size=9_000_000)
    rejected = trial(2, 0.8, passed=False, reason="its answers differ")
    worse = trial(3, 0.7, passed=False, reason="others")
    why = outcome.why_none([slow, large], limits)
    assert why.startswith("none of 2 models keeps 20 ms and 1,000 kB; the nearest is simple_cnn ")
    assert why.endswith("30 ms is too slow")
    # Of one that keeps the limits it is not they that refuse it.
    why = outcome.why_none([slow, rejected, worse], limits)
    assert why.startswith("none of 2 models within 20 ms and 1,000 kB passes the check of edgenn convert; the nearest ")
    assert why.endswith(": its answers differ; train longer, or give more photos")
    assert outcome.why_none([rejected], Limits()).startswith("none of 1 model passes")


def test_why_a_model_is_not_within_the_limits():
    limits = Limits(0.02, 1_000_000)
    assert trial(0, latency=0.02, size=1_000_000).misses(limits) == []  # at the limit is within it
    assert trial(0, latency=0.03).misses(limits) == ["30 ms is too slow"]
    assert trial(0, size=2_500_000, passed=False, reason="its answers differ").misses(limits) == [
        "2,500 kB is too large",
        "its answers differ",
    ]
