"""Labels that were exchanged on purpose are found among features of which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgenn.evaluation.doubts import FOLDS, doubts, out_of_sample


def clouds(each, classes=4, size=24, spread=1.0, seed=0):
    """Features that lie around a place of their own for each class, and their classes."""
    random = np.random.default_rng(seed)
    centres = random.normal(0, 1.2, (classes, size))
    labels = np.repeat(np.arange(classes), each)
    return (centres[labels] + random.normal(0, spread, (len(labels), size))).astype(np.float32), labels


def exchanged(labels, share, seed=1):
    """Labels of which a share is another class, and which those are."""
    random = np.random.default_rng(seed)
    wrong = random.choice(len(labels), round(share * len(labels)), replace=False)
    given = labels.copy()
    given[wrong] = (given[wrong] + random.integers(1, labels.max() + 1, len(wrong))) % (labels.max() + 1)
    return given, set(wrong.tolist())


@pytest.mark.parametrize("size", [24, 300])  # fewer and more features than principal components are kept
def test_exchanged_labels_are_found(size):
    features, labels = clouds(100, size=size)
    given, wrong = exchanged(labels, 0.05)
    found = doubts(features, given)
    assert found.judged == len(labels)
    right = [place in wrong for place in found.places.tolist()]
    assert sum(right) >= 0.8 * len(wrong), "recall"
    assert np.mean(right) >= 0.8, "precision"
    assert all(right[:10]), "the most doubtful come first"
    named = {int(place): int(label) for place, label in zip(found.places, found.rather, strict=True)}
    assert np.mean([named[place] == labels[place] for place in wrong & set(named)]) > 0.9
    assert ((found.confidence > 0) & (found.confidence <= 1)).all()


def test_hardly_any_clean_label_is_doubted():
    features, labels = clouds(100)
    assert len(doubts(features, labels).places) <= 0.01 * len(labels)


def test_what_is_judged_was_not_learnt_from():
    """Features that say nothing: a regression that saw the labels it judges would know more than chance."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    chances = out_of_sample(random.normal(size=(120, 100)), labels)
    assert chances.sum(axis=1) == pytest.approx(1)
    assert np.mean(chances.argmax(axis=1) == labels) < 0.7


def test_the_same_seed_doubts_the_same():
    features, labels = clouds(30, spread=2.0)
    first, second = doubts(features, labels, 3), doubts(features, labels, 3)
    assert first.places.tolist() == second.places.tolist()


def test_classes_with_fewer_photos_than_folds_are_not_judged_and_places_stay_right():
    features, labels = clouds(40)
    given, wrong = exchanged(labels, 0.05)
    few = np.zeros((FOLDS - 1, features.shape[1]), np.float32)
    # The small class comes first and its number lies between the others.
    classes = np.concatenate([np.full(len(few), 2), np.where(given >= 2, given + 1, given)])
    found = doubts(np.concatenate([few, features]), classes)
    assert found.judged == len(labels)
    assert 2 not in found.rather
    assert sum(int(place) - len(few) in wrong for place in found.places) >= 0.7 * len(wrong)


@pytest.mark.parametrize(
    "labels",
    [
        [],  # nothing
        [0, 0, 0, 1, 1, 1],  # three photos of each class
        [0] * 20,  # one class
        [0] * 20 + [1] * 4,  # one class that is large enough
    ],
)
def test_too_few_photos_are_not_judged(labels):
    found = doubts(np.zeros((len(labels), 3), np.float32), np.array(labels, np.int64))
    assert (found.judged, len(found.places)) == (0, 0)


@pytest.mark.parametrize(
    "features",
    [
        np.zeros((40, 3)),  # they never vary
        np.random.default_rng(0).normal(size=(40, 20)),  # they say nothing of the class
    ],
)
def test_who_knows_less_than_the_labels_does_not_doubt_them(features):
    found = doubts(features.astype(np.float32), np.repeat([0, 1], 20))
    assert (found.judged, len(found.places)) == (0, 0)
