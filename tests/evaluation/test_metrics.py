"""The figures: by hand on small cases, and by invariants on any."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.evaluation import metrics


@st.composite
def answers(draw):
    """(truth, predicted, classes) of 1 to 60 pictures and 1 to 6 classes."""
    classes = draw(st.integers(1, 6))
    pictures = draw(st.integers(1, 60))
    one = st.lists(st.integers(0, classes - 1), min_size=pictures, max_size=pictures)
    return np.array(draw(one)), np.array(draw(one)), classes


TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 1, 1, 0, 1])


def test_a_confusion_matrix_counted_by_hand():
    matrix = metrics.confusion(TRUTH, PREDICTED, 4)
    assert matrix.tolist() == [[2, 2, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    figures = metrics.class_figures(matrix)
    np.testing.assert_allclose(figures.precision, [2 / 3, 2 / 5, np.nan, np.nan])
    np.testing.assert_allclose(figures.recall, [1 / 2, 2 / 3, 0, np.nan])
    np.testing.assert_allclose(figures.f1, [4 / 7, 4 / 8, 0, np.nan])
    assert figures.pictures.tolist() == [4, 3, 1, 0]


def test_the_most_confused_pairs_come_first():
    pairs = metrics.confused_pairs(metrics.confusion(TRUTH, PREDICTED, 3))
    assert [(pair.true, pair.predicted, pair.count) for pair in pairs] == [(0, 1, 2), (2, 1, 1), (1, 0, 1)]
    assert [pair.share for pair in pairs] == [1 / 2, 1.0, 1 / 3]
    assert metrics.confused_pairs(metrics.confusion(TRUTH, PREDICTED, 3), most=1) == pairs[:1]


@given(answers())
def test_a_confusion_matrix_holds_every_picture_once(case):
    truth, predicted, classes = case
    matrix = metrics.confusion(truth, predicted, classes)
    assert matrix.sum() == len(truth)
    assert np.trace(matrix) / len(truth) == pytest.approx(metrics.accuracy(truth, predicted))
    assert (metrics.confusion(predicted, truth, classes) == matrix.T).all()
    figures = metrics.class_figures(matrix)
    # Recall weighted by pictures is accuracy, and so is precision weighted by how often a class was predicted.
    assert np.nansum(figures.recall * figures.pictures) / len(truth) == pytest.approx(np.mean(truth == predicted))
    assert np.nansum(figures.precision * matrix.sum(axis=0)) / len(truth) == pytest.approx(np.mean(truth == predicted))
    assert sum(pair.count for pair in metrics.confused_pairs(matrix)) == np.sum(truth != predicted)


@pytest.mark.parametrize(
    ("right", "pictures", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # the example of Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),  # the same table
        (0, 20, 0.0, 0.1611),  # the same table
        (1, 29, 0.0061, 0.1718),  # the same table
    ],
)
def test_wilson_equals_published_values(right, pictures, low, high):
    assert metrics.wilson_interval(right, pictures) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_narrows_with_more_pictures(case):
    right, pictures = case
    low, high = metrics.wilson_interval(right, pictures)
    assert 0 <= low <= right / pictures <= high <= 1
    assert low < high
    mirrored = metrics.wilson_interval(pictures - right, pictures)
    assert mirrored == pytest.approx((1 - high, 1 - low))
    wide, narrow = high - low, np.diff(metrics.wilson_interval(4 * right, 4 * pictures))[0]
    assert narrow < wide


def mcnemar_by_enumeration(only_first, only_second):
    """Sum the probability of every outcome of fair coins that is at least as lopsided."""
    trials = only_first + only_second
    lopsided = abs(only_first - only_second)
    return sum(abs(2 * sum(coins) - trials) >= lopsided for coins in product((0, 1), repeat=trials)) / 2**trials


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (0, 5), (3, 9), (6, 6), (2, 8)])
def test_mcnemar_equals_enumeration(only_first, only_second):
    # Besides the pictures that tell the models apart: three that both get right, two that both get wrong.
    truth = np.zeros(only_first + only_second + 5, int)
    first = np.array([0] * only_first + [1] * only_second + [0] * 3 + [1] * 2)
    second = np.array([1] * only_first + [0] * only_second + [0] * 3 + [2] * 2)
    expected = mcnemar_by_enumeration(only_first, only_second)
    assert metrics.mcnemar(truth, first, second) == pytest.approx(expected)
    assert metrics.mcnemar(truth, second, first) == pytest.approx(expected)


def test_mcnemar_of_very_many_pictures_is_still_a_number():
    truth = np.zeros(20_000, int)
    first = np.arange(20_000) % 2
    assert metrics.mcnemar(truth, first, 1 - first) == 1.0
    assert metrics.mcnemar(truth, truth, np.ones(20_000, int)) == pytest.approx(0, abs=1e-300)


@given(answers())
def test_agreement_is_symmetric_and_whole_with_itself(case):
    first, second, _ = case
    assert metrics.agreement(first, second) == metrics.agreement(second, first)
    assert metrics.agreement(first, first) == 1.0


def test_calibration_error_of_known_cases():
    sure = np.eye(2)[[0, 1, 0, 1]]
    assert metrics.calibration_error(sure, [0, 1, 0, 1]) == 0  # sure and right
    assert metrics.calibration_error(sure, [1, 0, 1, 0]) == 1  # sure and wrong
    four_fifths = np.tile([0.8, 0.2], (5, 1))
    assert metrics.calibration_error(four_fifths, [0, 0, 0, 0, 1]) == pytest.approx(0)  # 80 % sure, 4 of 5 right
    # Two bins, each weighted by its pictures: 2/3 * |1/2 - 0.9| + 1/3 * |1 - 0.6|.
    mixed = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    assert metrics.calibration_error(mixed, [0, 1, 0]) == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.4)


def test_reliability_of_a_known_case():
    mixed = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    diagram = metrics.reliability(mixed, [0, 1, 0], bins=4)  # up to 25, 50, 75 and 100 % sure
    assert diagram.pictures.tolist() == [0, 0, 1, 2]
    assert diagram.accuracy[2:].tolist() == [1.0, 0.5]
    assert diagram.confidence[2:] == pytest.approx([0.6, 0.9])
    assert np.isnan(diagram.accuracy[:2]).all()


def test_figures_of_a_class_have_intervals_where_they_are_defined():
    figures = metrics.class_figures(np.array([[3, 1], [0, 0]]))
    assert figures.recall_interval[0] == pytest.approx(metrics.wilson_interval(3, 4))
    assert figures.precision_interval[0] == pytest.approx(metrics.wilson_interval(3, 3))
    assert np.isnan(figures.recall_interval[1]).all()


@given(answers(), st.integers(0, 2**32 - 1))
def test_calibration_error_is_bounded_by_the_whole_gap(case, seed):
    truth, _, classes = case
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(classes), len(truth))
    error = metrics.calibration_error(probabilities, truth)
    gap = abs(np.mean(probabilities.argmax(axis=1) == truth) - probabilities.max(axis=1).mean())
    assert gap - 1e-9 <= error <= 1
    assert metrics.calibration_error(probabilities, truth, bins=1) == pytest.approx(gap)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: metrics.accuracy([], []),  # no pictures: there is no accuracy
        lambda: metrics.accuracy([0, 1], [0]),  # not the same pictures
        lambda: metrics.confusion([0, 3], [0, 1], 3),  # a class that does not exist
        lambda: metrics.confusion([0, -1], [0, 1], 3),  # would wrap round
        lambda: metrics.wilson_interval(3, 2),
        lambda: metrics.wilson_interval(0, 0),
    ],
)
def test_senseless_input_is_refused(wrong):
    with pytest.raises(ValueError, match=r"shapes|outside|right of"):
        wrong()


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=40), st.randoms())
def test_the_minimum_confidence_is_the_best_there_is_in_whatever_order(pictures, random):
    """Against all thresholds, with scores of which many are equal."""
    scores, right = ([one[part] for one in pictures] for part in (0, 1))
    found = metrics.minimum_confidence(np.array(scores) / 256, right)
    random.shuffle(pictures)
    assert found == metrics.minimum_confidence([score / 256 for score, _ in pictures], [ok for _, ok in pictures])
    if found is None:
        return

    def gain(least):
        return sum(-1 if ok else 1 for score, ok in pictures if score / 256 < least)

    assert gain(found) == max(gain(score / 256) for score in range(14))
    assert 5 <= sum(score / 256 < found for score in scores) < len(scores)


def test_no_figure_is_a_silent_zero():
    assert math.isnan(metrics.class_figures(np.zeros((1, 1), np.int64)).precision[0])


@pytest.mark.parametrize(
    ("right", "least"),
    [
        ("xxxxx" + "r" * 15, 0.225),  # the five least sure are all wrong, and no other
        ("xxrxxxx" + "r" * 13, 0.325),  # one of the seven least sure is right: still better to say nothing
        ("xxxxxrrx" + "r" * 12, 0.225),  # a wrong one among right ones is no reason to give those up
        ("xrxrxr" + "r" * 14, None),  # as many right as wrong: nothing is gained
        ("xxxx" + "r" * 16, None),  # too few to tell
        ("x" * 20, None),  # wrong wherever: no score parts them
        ("", None),  # no pictures
    ],
)
def test_the_minimum_confidence_is_where_answers_are_no_better_than_a_guess(right, least):
    # Scores 0, 0.05, 0.1 … in an order that does not matter.
    scores = np.arange(len(right)) * 0.05
    order = np.random.default_rng(0).permutation(len(right))
    found = metrics.minimum_confidence(scores[order], np.array([sign == "r" for sign in right])[order])
    assert found == (least if least is None else pytest.approx(least))
