import numpy as np
import pytest

from edgenn import networks
from edgenn.training.augment import augment
from edgenn.training.fit import Photos, batches, fit
from edgenn.training.recipe import Augmentation, Recipe
from edgenn_device.errors import EdgennError
from tests.conftest import CLASSES, draw

STILL = Augmentation(False, 0, 0, 0, 0, 0, 0, 0)


def shapes(each: int, first: int) -> Photos:
    tensors = [draw(name, first + 1000 * k + i) for k, name in enumerate(CLASSES) for i in range(each)]
    return Photos(np.stack(tensors), np.repeat(np.arange(len(CLASSES)), each))


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
    epochs = fit(model, train, validation, Recipe(size=32, epochs=6, batch=16, learning_rate=0.05, warmup=0))
    scores = model.predict(validation.tensors.astype("float32"), verbose=0)
    assert np.mean(scores.argmax(1) == validation.labels) == pytest.approx(max(e.val_accuracy for e in epochs))


def test_patience_ends_a_run_that_gains_nothing(keras):
    train, validation = shapes(8, 0), shapes(6, 500)
    # A rate this low changes no label, so no epoch is better in accuracy; the loss still falls, and that must not count
    # for ever: the best epoch is the one with the lowest loss, so patience is measured from there.
    epochs = fit(network(keras), train, validation, Recipe(size=32, epochs=30, batch=8, learning_rate=1e-9, patience=3))
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
        fit(model, train, validation, Recipe(size=32, epochs=5, batch=8), on_epoch=after_second_epoch)
    scores = model.predict(validation.tensors.astype("float32"), verbose=0)
    assert np.isfinite(scores).all()
    assert np.mean(scores.argmax(1) == validation.labels) == pytest.approx(poison["good"])


def test_a_seed_gives_the_same_batches_and_another_seed_others(keras):
    train = shapes(8, 0)

    def first_two_epochs(seed):
        stream = batches(train, 3, Recipe(size=32, batch=8, seed=seed), shuffled=True)
        return [photos.numpy() for _ in range(2) for photos, _ in stream]

    once, again, other = first_two_epochs(1), first_two_epochs(1), first_two_epochs(2)
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(once, other, strict=True))
    assert not np.array_equal(once[0], once[len(once) // 2]), "the second epoch repeats the first"


def test_every_photo_comes_once_an_epoch_with_its_own_label(keras):
    train = shapes(7, 0)
    stream = batches(train, 3, Recipe(size=32, batch=4, augmentation=STILL), shuffled=True)
    pairs = [pair for batch in stream for pair in zip(*map(np.array, batch), strict=True)]
    seen = [(photo.tobytes(), int(label.argmax())) for photo, label in pairs]
    expected = [(x.astype("float32").tobytes(), int(y)) for x, y in zip(train.tensors, train.labels, strict=True)]
    assert sorted(seen) == sorted(expected)


def test_no_augmentation_changes_nothing(keras):
    photos = shapes(3, 0).tensors.astype("float32")
    assert np.array_equal(augment(photos, np.array([1, 2]), STILL).numpy(), photos)


def test_augmented_photos_stay_photos(keras):
    photos = shapes(10, 0).tensors.astype("float32")
    varied = augment(photos, np.array([3, 4]), Augmentation(True, 90, 0.4, 0.6, 0.9, 0.9, 0.9, 0.5)).numpy()
    assert varied.shape == photos.shape
    assert varied.min() >= 0
    assert varied.max() <= 255
    assert not np.array_equal(varied, photos)


def test_flip_mirrors_left_and_right_and_nothing_else(keras):
    photos = shapes(20, 0).tensors.astype("float32")
    varied = augment(photos, np.array([5, 6]), Augmentation(True, 0, 0, 0, 0, 0, 0, 0)).numpy()
    kept = [np.allclose(v, p, atol=1e-2) for v, p in zip(varied, photos, strict=True)]
    mirrored = [np.allclose(v, p[:, ::-1], atol=1e-2) for v, p in zip(varied, photos, strict=True)]
    assert all(k or m for k, m in zip(kept, mirrored, strict=True))
    assert 10 < sum(mirrored) < 50
