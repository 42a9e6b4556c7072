"""The median stopping rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.search.stopping import FEWEST, falls_behind

FLAT = dict.fromkeys(range(1, 11), 0.5)
CURVES = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=10).map(lambda v: dict(enumerate(v, 1))), max_size=8)


def flat(value, until):
    return dict.fromkeys(range(1, until + 1), value)


@pytest.mark.parametrize(
    ("curve", "others", "stopped"),
    [
        (flat(0.4, 5), [FLAT] * 4, True),
        (flat(0.6, 5), [FLAT] * 4, False),
        (flat(0.5, 5), [FLAT] * 4, False),  # as good as the median is not worse
        (flat(0.4, 3), [FLAT] * 4, False),  # too early to say
        (flat(0.4, 4), [FLAT] * 4, True),
        (flat(0.4, 10), [FLAT] * 4, False),  # it is done anyway
        (flat(0.4, 5), [FLAT] * 3, False),  # too few to compare with
        (flat(0.4, 5), [FLAT] * 3 + [flat(0.9, 4)], False),  # one of them never came as far
        ({**flat(0.4, 5), 2: 0.7}, [FLAT] * 4, False),  # its best counts, not its last
        (flat(0.4, 5), [flat(0.3, 5) | {9: 0.9}] * 4, False),  # what others reached later does not count
    ],
)
def test_the_rule(curve, others, stopped):
    assert falls_behind(curve, others, 10) is stopped


@given(CURVES)
def test_at_most_half_of_equally_old_trials_are_behind_and_the_best_never(curves):
    full = [curve for curve in curves if max(curve) == 10]
    behind = []
    for curve in full:
        others = [other for other in full if other is not curve]
        so_far = {epoch: curve[epoch] for epoch in range(1, 6)}
        if falls_behind(so_far, others, 10):
            behind.append(curve)
    if full:
        assert max(full, key=lambda curve: max(curve[epoch] for epoch in range(1, 6))) not in behind
    if len(full) <= FEWEST:
        assert not behind
