import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn.training.feed import class_weights
from tests.training.samples import STILL, recipe, shapes


def collected(feed, batch, **given):
    return [[part.numpy() for part in element] for element in feed.batches(batch, **given)]


def test_a_seed_gives_the_same_batches_and_another_seed_others():
    feed = shapes(8, 0)
    once, again, other = (collected(feed, 8, training=True, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(once, again, strict=True))
    assert not any(np.array_equal(a[0], b[0]) for a, b in zip(once, other, strict=True))


def test_every_photo_comes_once_an_epoch_with_its_own_label():
    feed = shapes(7, 0, recipe(augmentation=STILL, label_smoothing=0.0))
    batches = collected(feed, 4, training=True, seed=5)
    assert {len(x) for x, _, _ in batches} == {4}, "the last batch is filled up"
    rows = [row for batch in batches for row in zip(*batch, strict=True) if row[2] > 0]
    seen = [(photo.tobytes(), int(label.argmax())) for photo, label, _ in rows]
    expected = [(x.astype("float32").tobytes(), int(y)) for x, y in zip(feed.tensors, feed.labels, strict=True)]
    assert sorted(seen) == sorted(expected)


def test_without_training_photos_come_in_order_and_as_they_are():
    feed = shapes(3, 0)
    batches = collected(feed, 4, training=False)
    photos = np.concatenate([x for x, _, _ in batches])[:9]
    labels = np.concatenate([y for _, y, _ in batches])[:9]
    assert np.array_equal(photos, feed.tensors.astype("float32"))
    assert np.array_equal(labels, np.eye(3)[feed.labels])


@settings(deadline=None, max_examples=12)
@given(count=st.integers(1, 40), batch=st.integers(1, 5), of=st.integers(1, 3))
def test_the_parts_of_all_machines_make_up_the_whole(count, batch, of):
    feed = shapes((count, 1, 1), 0, recipe(augmentation=STILL))
    whole = collected(feed, batch * of, training=True, seed=3)
    parts = [collected(feed, batch * of, training=True, seed=3, part=(i, of)) for i in range(of)]
    assert len(whole) == math.ceil(feed.count / (batch * of))
    for step, (x, y, weight) in enumerate(whole):
        assert np.array_equal(np.concatenate([part[step][0] for part in parts]), x)
        assert np.array_equal(np.concatenate([part[step][1] for part in parts]), y)
        assert np.array_equal(np.concatenate([part[step][2] for part in parts]), weight)


def test_class_weights_make_every_class_count_alike():
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = class_weights(labels, 4)
    assert np.bincount(labels, weights[labels], 4) == pytest.approx([10 / 3, 10 / 3, 0, 10 / 3])


@pytest.mark.parametrize("balance", ["none", "weights", "sampling"])
def test_balance_gives_rare_classes_their_share(balance):
    feed = shapes((40, 10, 10), 0, recipe(augmentation=STILL, balance=balance))
    batches = collected(feed, 8, training=True, seed=1)
    labels = np.concatenate([y.argmax(1) for _, y, _ in batches])
    weights = np.concatenate([w for _, _, w in batches])
    shares = np.bincount(labels, weights) / weights.sum()
    assert shares == pytest.approx([4 / 6, 1 / 6, 1 / 6] if balance == "none" else [1 / 3] * 3)
    if balance == "sampling":
        assert set(weights) == {0.0, 1.0}, "nothing is weighed as well"


def test_smoothing_spreads_the_label_and_only_when_training():
    feed = shapes(2, 0, recipe(label_smoothing=0.3))
    trained = np.concatenate([y for _, y, _ in collected(feed, 6, training=True, seed=1)])
    assert np.sort(trained, 1) == pytest.approx(np.broadcast_to([0.1, 0.1, 0.8], (6, 3)))
    assert collected(feed, 6, training=False)[0][1].max() == 1
