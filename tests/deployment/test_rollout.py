"""Canaries, waves and the number of failures that is put up with, over fleets in which anything may happen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.deployment.rollout import Rolled, Verdict, roll_out, share
from edgenn_device.errors import EdgennError

fleets = st.lists(st.sampled_from(["ok", "failed", "unreachable"]), max_size=60)


class Fleet:
    """Devices are their numbers; each answers with its verdict, and every wave is written down."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        self.verdicts = verdicts
        self.waves: list[tuple[int, ...]] = []

    def deploy(self, wave: Sequence[int]) -> list[int]:
        self.waves.append(tuple(wave))
        return list(wave)

    def verdict(self, answer: int) -> Verdict:
        return self.verdicts[answer]

    def roll_out(self, **options: str | int) -> Rolled[int, int]:
        return roll_out(range(len(self.verdicts)), self.deploy, self.verdict, **options)  # type: ignore[arg-type]


@given(fleets, st.integers(0, 10), st.integers(0, 10), st.integers(1, 7))
def test_every_device_is_tried_once_at_most_and_none_is_forgotten(
    verdicts: list[Verdict], canary: int, max_failures: int, at_once: int
) -> None:
    fleet = Fleet(verdicts)
    rolled = fleet.roll_out(canary=canary, max_failures=max_failures, at_once=at_once)
    assert [*rolled.done, *rolled.left] == list(range(len(verdicts)))
    assert [device for wave in fleet.waves for device in wave] == list(rolled.done)
    assert bool(rolled.left) == bool(rolled.stopped)
    assert all(0 < len(wave) <= at_once for wave in fleet.waves)


@given(fleets, st.integers(1, 10), st.integers(0, 60))
def test_nothing_but_canaries_is_touched_before_they_hold(
    verdicts: list[Verdict], canary: int, max_failures: int
) -> None:
    fleet = Fleet(verdicts)
    rolled = fleet.roll_out(canary=canary, max_failures=max_failures)
    before = 0
    for wave in fleet.waves:
        held = sum(verdicts[device] == "ok" for device in range(before))
        if held < canary:
            assert len(wave) <= canary - held
            # A canary that failed was the end.
            assert "failed" not in verdicts[:before]
        before += len(wave)
    # Devices that cannot be reached stop nobody.
    if "failed" not in verdicts:
        assert not rolled.left


@given(fleets, st.integers(0, 10), st.integers(1, 7))
def test_it_stops_once_too_many_have_failed_and_never_before(
    verdicts: list[Verdict], max_failures: int, at_once: int
) -> None:
    fleet = Fleet(verdicts)
    rolled = fleet.roll_out(max_failures=max_failures, at_once=at_once)
    last = len(fleet.waves[-1]) if fleet.waves else 0
    failed = [verdicts[device] == "failed" for device in rolled.done]
    assert sum(failed[: len(failed) - last]) <= max_failures
    if rolled.left:
        assert sum(failed) > max_failures


def test_one_canary_of_twenty_fails() -> None:
    fleet = Fleet(["failed", *["ok"] * 19])
    rolled = fleet.roll_out(canary="5%", max_failures=20)
    assert fleet.waves == [(0,)]
    assert rolled.stopped == "a canary did not hold the release: 19 left alone"


def test_an_unreachable_canary_is_replaced() -> None:
    fleet = Fleet(["unreachable", "ok", "ok", "ok", "ok"])
    assert fleet.roll_out(canary=2).left == ()
    assert fleet.waves == [(0, 1), (2,), (3, 4)]


def test_failures_that_are_put_up_with() -> None:
    fleet = Fleet(["ok", "failed", "ok", "failed", "ok", "ok"])
    rolled = fleet.roll_out(max_failures=1, at_once=2)
    assert (rolled.done, rolled.left) == ((0, 1, 2, 3), (4, 5))
    assert rolled.stopped == "2 devices did not hold the release: 2 left alone"
    assert not Fleet(["ok", "failed", "ok"]).roll_out(max_failures="40%").left


@pytest.mark.parametrize(
    ("text", "total", "at_least", "number"),
    [
        ("5%", 20, 1, 1),
        ("5%", 21, 1, 2),  # rounded up: more canaries, not fewer
        ("5%", 10, 1, 1),
        ("5%", 10, 0, 0),  # rounded down: fewer failures, not more
        ("10%", 30, 1, 3),  # 3.0000000000000004 is three
        ("100%", 7, 0, 7),
        ("3", 2, 0, 2),
        (3, 9, 0, 3),
        ("0", 9, 0, 0),
        ("5%", 0, 1, 0),
    ],
)
def test_a_share(text: str | int, total: int, at_least: int, number: int) -> None:
    assert share(text, total, at_least=at_least) == number


@pytest.mark.parametrize("text", ["", "five", "-1", "101%", "2.5", "%", "5 %%"])
def test_no_share(text: str) -> None:
    with pytest.raises(EdgennError, match="such as 2 or 5%"):
        share(text, 10)
