import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn_device.decision import MARGIN, UNKNOWN, Decision
from edgenn_device.errors import EdgennError

LABELS = ("jacket", "shirt", "t-shirt")


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@st.composite
def distributions(draw):
    """Scores as a softmax gives them."""
    raw = np.array(draw(st.lists(st.floats(0.01, 1), min_size=3, max_size=3)))
    return (raw / raw.sum()).astype(np.float32)


steps = st.floats(0.001, 5)


def test_the_first_frame_is_taken_as_it_is():
    decided = Decision(LABELS).update(scores(0.1, 0.7, 0.2), time=100.0)
    assert (decided.label, decided.confidence) == ("shirt", pytest.approx(0.7))


def test_half_of_a_change_is_seen_after_one_half_life():
    decision = Decision(LABELS, half_life=0.4)
    decision.update(scores(1, 0, 0), time=5.0)
    assert decision.update(scores(0, 1, 0), time=5.4).scores == pytest.approx([0.5, 0.5, 0.0])


@given(distributions(), distributions(), steps, steps)
def test_how_many_frames_a_moment_was_cut_into_does_not_matter(before, after, first, second):
    once, twice = Decision(LABELS, half_life=0.5), Decision(LABELS, half_life=0.5)
    for decision in (once, twice):
        decision.update(before, time=0.0)
    twice.update(after, time=first)
    whole = once.update(after, time=first + second)
    assert twice.update(after, time=first + second).scores == pytest.approx(whole.scores, abs=1e-5)


@given(st.lists(st.tuples(distributions(), steps), min_size=1, max_size=20))
def test_an_average_of_distributions_is_a_distribution_within_their_bounds(frames):
    decision, time = Decision(LABELS), 0.0
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for each, step in frames:
        time += step
        low, high = np.minimum(low, each), np.maximum(high, each)
        decided = decision.update(each, time)
        assert decided.scores.sum() == pytest.approx(1, abs=1e-4)
        assert (decided.scores >= low - 1e-5).all()
        assert (decided.scores <= high + 1e-5).all()
        assert decided.scores.dtype == np.float32
        assert decided.confidence == decided.scores[LABELS.index(decided.label)]


@given(st.lists(st.floats(-0.49, 0.49), min_size=1, max_size=30))
def test_a_label_holds_while_no_other_leads_by_the_margin(leads):
    decision = Decision(LABELS)
    decision.update(scores(0.41, 0.4, 0.19), time=0.0)
    for number, lead in enumerate(leads, start=1):
        # "shirt" never gets ahead by more than half the margin, whatever the frames do.
        ahead = lead * MARGIN
        decided = decision.update(scores(0.4 - ahead / 2, 0.4 + ahead / 2, 0.2), time=0.1 * number)
        assert decided.label == "jacket"


def test_a_lead_beyond_the_margin_turns_the_label():
    decision = Decision(LABELS)
    decision.update(scores(0.5, 0.4, 0.1), time=0.0)
    assert decision.update(scores(0.4, 0.5, 0.1), time=60.0).label == "shirt"


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("s", "jacket"),  # one odd frame, however sure: at two frames a second it is most of the average
        ("sj", "jacket"),
        ("ss", "jacket"),
        ("sss", "shirt"),  # three of the same in a row
        ("ssts", "jacket"),  # another in between: counted anew
        ("sstsss", "shirt"),
        ("ssjsss", "shirt"),
    ],
)
def test_the_same_class_must_lead_in_some_frames_in_a_row(given, label):
    decision = Decision(LABELS, in_a_row=3)
    decision.update(scores(1, 0, 0), time=0.0)
    sure = {"j": scores(1, 0, 0), "s": scores(0, 1, 0), "t": scores(0, 0, 1)}
    for number, sign in enumerate(given, 1):
        decided = decision.update(sure[sign], time=10.0 * number)
    assert decided.label == label


def test_a_decision_for_another_model_has_the_same_rules_and_has_seen_nothing():
    decision = Decision(LABELS, half_life=7.0, margin=0.2, in_a_row=3, minimum_confidence=0.9)
    decision.update(scores(1, 0, 0), time=0.0)
    renewed = decision.renewed(("cat", "dog"), 0.5)
    assert (renewed.labels, renewed.minimum_confidence) == (("cat", "dog"), 0.5)
    assert (renewed.half_life, renewed.margin, renewed.in_a_row) == (7.0, 0.2, 3)
    assert renewed.update(scores(0.3, 0.7), time=0.0).label == "dog"


@given(st.lists(distributions(), min_size=1, max_size=10))
def test_without_a_half_life_every_frame_speaks_for_itself(frames):
    decision = Decision(LABELS, half_life=None)
    for each in frames:
        decided = decision.update(each, time=0.0)
        assert decided.label == LABELS[each.argmax()]
        assert decided.scores is each


@pytest.mark.parametrize(
    ("minimum", "label"),
    [
        (None, "shirt"),  # nothing asked: there is always a label
        (0.6, "shirt"),  # exactly reached
        (0.61, UNKNOWN),  # missed
    ],
)
def test_below_the_minimum_confidence_the_label_is_unknown(minimum, label):
    minimum = np.float32(minimum) if minimum else None
    decided = Decision(LABELS, minimum_confidence=minimum).update(scores(0.3, 0.6, 0.1), time=0.0)
    assert (decided.label, decided.confidence) == (label, pytest.approx(0.6))


def test_a_label_that_was_unknown_comes_back():
    decision = Decision(LABELS, minimum_confidence=0.5)
    assert decision.update(scores(0.4, 0.3, 0.3), time=0.0).label == UNKNOWN
    assert decision.update(scores(0.9, 0.05, 0.05), time=10.0).label == "jacket"


def test_a_clock_set_back_is_no_time_at_all():
    decision = Decision(LABELS)
    decision.update(scores(1, 0, 0), time=100.0)
    assert decision.update(scores(0, 1, 0), time=40.0).scores == pytest.approx([1, 0, 0])
    assert decision.update(scores(0, 1, 0), time=200.0).label == "shirt"


def test_scores_that_are_no_numbers_do_not_stay_in_the_average():
    decision = Decision(LABELS)
    decision.update(scores(np.nan, np.inf, 0.5), time=0.0)
    assert decision.update(scores(0.1, 0.8, 0.1), time=60.0).scores == pytest.approx([0.1, 0.8, 0.1])


def test_earlier_results_are_not_written_over():
    decision = Decision(LABELS)
    first = decision.update(scores(1, 0, 0), time=0.0)
    second = decision.update(scores(0, 1, 0), time=0.3)
    kept = second.scores.copy()
    decision.update(scores(0, 0, 1), time=9.0)
    assert first.scores == pytest.approx([1, 0, 0])
    assert (second.scores == kept).all()


def test_a_half_life_of_nothing_is_refused():
    with pytest.raises(EdgennError, match="above 0"):
        Decision(LABELS, half_life=0.0)
