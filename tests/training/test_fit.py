import numpy as np
import pytest

from edgenn import networks
from edgenn.training.fit import fit, predict
from edgenn_device.errors import EdgennError
from tests.training.samples import STILL, recipe, shapes


def network(keras, seed=0):
    keras.utils.set_random_seed(seed)
    return networks.build("simple_cnn", (32, 32, 3), 3, width=4, depth=2, dropout=0.0)


@pytest.fixture(scope="module")
def keras():
    from edgenn.extras import require

    return require("keras")


def test_the_kept_weights_are_those_of_the_best_epoch(keras):
    train, validation = shapes(20, 0), shapes(15, 500)
    model = network(keras)
    # A rate this high makes validation jump up and down, so that the last epoch is rarely the best.
    epochs = fit(model, train, validation, recipe(epochs=6, batch=16, learning_rate=0.05, warmup=0))
    scores = predict(model, validation)
    assert np.mean(scores.argmax(1) == validation.labels) == pytest.approx(max(e.val_accuracy for e in epochs))


def test_patience_ends_a_run_that_gains_nothing(keras):
    train, validation = shapes(8, 0), shapes(6, 500)
    # A rate this low changes no label, so no epoch is better in accuracy; the loss still falls, and that must not count
    # for ever: the best epoch is the one with the lowest loss, so patience is measured from there.
    epochs = fit(network(keras), train, validation, recipe(epochs=30, batch=8, learning_rate=1e-9, patience=3))
    assert len(epochs) < 30


def test_a_loss_that_is_not_a_number_says_what_to_change_and_keeps_the_best_epoch(keras):
    train, validation = shapes(8, 0), shapes(6, 500)
    model = network(keras)
    kernel = model.get_layer("scores")
    poison = {"epoch": 0}

    def after_second_epoch(epoch):
        poison["epoch"] = epoch.epoch
        if epoch.epoch == 2:
            poison["good"] = max(poison["history"] + [epoch.val_accuracy])
            kernel.kernel.assign(kernel.kernel * np.nan)
        else:
            poison.setdefault("history", []).append(epoch.val_accuracy)

    with pytest.raises(EdgennError, match="not a number after epoch 2: lower --learning-rate"):
        fit(model, train, validation, recipe(epochs=5, batch=8), on_epoch=after_second_epoch)
    scores = predict(model, validation)
    assert np.isfinite(scores).all()
    assert np.mean(scores.argmax(1) == validation.labels) == pytest.approx(poison["good"])


def test_averaged_weights_are_what_is_measured_and_kept(keras):
    # At this rate the weights themselves jump about; their average does not, statistics of normalisation included.
    how = recipe(epochs=4, batch=8, learning_rate=0.05, warmup=0, ema=0.9)
    train, validation = shapes(16, 0, how), shapes(15, 500, how)
    model = network(keras)
    epochs = fit(model, train, validation, how)
    best = max(epochs, key=lambda epoch: epoch.score)
    scores = predict(model, validation)
    assert np.mean(scores.argmax(1) == validation.labels) == pytest.approx(best.val_accuracy)
    assert -np.log(scores[np.arange(45), validation.labels]).mean() == pytest.approx(best.val_loss, rel=1e-3)


def test_the_average_follows_its_formula(keras):
    from edgenn.extras import require
    from edgenn.training.average import Average

    tf = require("tensorflow")
    model = network(keras)
    average, expected = Average(model, 0.5, tf.distribute.get_strategy()), None
    # A kernel, and a mean of batch normalisation: measured with one averaged and the other not, both would be wrong.
    moving = [model.weights[0], next(w for w in model.weights if "moving_mean" in w.path)]
    expected = [weight.numpy() for weight in moving]
    for t in range(4):
        for weight in moving:
            weight.assign(weight.numpy() + 1)
        average.update()
        keep = min(0.5, (1 + t) / (10 + t))
        expected = [keep * e + (1 - keep) * weight.numpy() for e, weight in zip(expected, moving, strict=True)]
    current = [weight.numpy() for weight in moving]
    with average.in_place():
        for weight, value in zip(moving, expected, strict=True):
            assert weight.numpy() == pytest.approx(value, abs=1e-5)
    assert all(np.array_equal(weight.numpy(), value) for weight, value in zip(moving, current, strict=True))


def test_every_epoch_has_a_seed_of_its_own_and_a_run_always_the_same(keras, monkeypatch):
    train, seeds = shapes(4, 0), []
    batches = type(train).batches

    def recorded(self, batch, *, training, seed=0, part=(0, 1)):
        seeds.extend([seed] if training else [])
        return batches(self, batch, training=training, seed=seed, part=part)

    monkeypatch.setattr(type(train), "batches", recorded)
    for seed in (0, 0, 1):
        fit(network(keras), train, shapes(3, 500), recipe(epochs=3, batch=8, seed=seed))
    assert seeds[:3] == seeds[3:6]
    assert len(set(seeds)) == 6


def test_a_frozen_layer_stays_as_it_is_statistics_included(keras):
    how = recipe(epochs=2, batch=8, ema=0.9)
    model = network(keras)
    for layer in model.layers[:6]:
        layer.trainable = False
    before = [[np.array(w) for w in layer.get_weights()] for layer in model.layers]
    fit(model, shapes(8, 0, how), shapes(6, 500, how), how)
    for index, layer in enumerate(model.layers):
        for old, new in zip(before[index], layer.get_weights(), strict=True):
            assert np.array_equal(old, new) == (index < 6), layer.name


def test_mixed_precision_trains_and_leaves_a_float32_network(keras):
    how = recipe(epochs=2, batch=8, precision="mixed")
    model = network(keras)
    before = [w.copy() for w in model.get_weights()]
    epochs = fit(model, shapes(8, 0, how), shapes(6, 500, how), how)
    assert np.isfinite(epochs[-1].loss)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert {w.dtype.name for w in model.get_weights()} == {"float32"}
    assert not any(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True) if a.ndim == 4)


def test_rare_classes_are_learnt_when_balanced(keras):
    """Nine tenths are of one class: unbalanced, a short training calls everything that; balanced, it does not."""
    named = {}
    for balance in ("none", "weights", "sampling"):
        how = recipe(epochs=6, batch=16, balance=balance, learning_rate=0.01, warmup=1, augmentation=STILL)
        train, validation = shapes((108, 6, 6), 0, how), shapes(20, 5000, how)
        model = network(keras)
        fit(model, train, validation, how)
        named[balance] = np.mean(predict(model, validation).argmax(1) != 0)
    assert named["weights"] > named["none"] + 0.1
    assert named["sampling"] > named["none"] + 0.1


def test_a_photo_that_goes_away_during_training_is_one_line(keras, tmp_path, photos):
    from edgenn import data
    from edgenn.data.store import Stored
    from edgenn.training.photos import StoreFeed

    how = recipe(epochs=2, batch=8)
    pictures = data.scan(photos).splits["train"]
    feed = StoreFeed(Stored(pictures, how.input, folder=tmp_path / "store", most=0), 3, how)
    pictures[3].path.unlink()
    with pytest.raises(EdgennError, match="cannot be read any more"):
        fit(network(keras), feed, shapes(3, 0, how), how)


def test_from_the_store_it_is_the_same_training_as_from_memory(keras, tmp_path, photos, monkeypatch):
    from edgenn import data
    from edgenn.training.photos import ArrayFeed, StoreFeed, photo_feed

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    how = recipe(epochs=1, batch=8)
    pictures = data.scan(photos).splits["train"]
    feeds = [photo_feed(pictures, how.input, 3, how, in_memory=size)[0] for size in (1 << 30, 0)]
    assert [type(feed) for feed in feeds] == [ArrayFeed, StoreFeed]
    batches = [list(feed.batches(8, training=True, seed=2)) for feed in feeds]
    for one, other in zip(*batches, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_that_cannot_be_shared_by_all_processors_says_so(keras, monkeypatch):
    class Three:
        num_replicas_in_sync = 3

    model = network(keras)
    monkeypatch.setattr(type(model), "distribute_strategy", property(lambda self: Three))
    with pytest.raises(EdgennError, match="a batch of 8 cannot be shared by 3 processors"):
        fit(model, shapes(3, 0), shapes(3, 0), recipe(batch=8))
