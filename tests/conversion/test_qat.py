"""Training with simulated int8: towards the float network's answers, and never to something worse."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgenn import data
from edgenn.conversion import calibrate, qat, quantization_aware
from edgenn.conversion.fake_quant import ranges
from edgenn.extras import require
from edgenn.training.fit import fit
from edgenn.training.recipe import Recipe
from tests.conftest import write_photos
from tests.training.samples import STILL

keras = require("keras")
layers = keras.layers
CLASSES = 3


@pytest.fixture
def road(tmp_path):
    """Photos, a float network with dropout for them, and its int8 simulation, calibrated."""
    write_photos(tmp_path / "photos", each=20)
    recipe = Recipe(size=16, batch=16, augmentation=STILL).resolved()
    dataset = data.scan(tmp_path / "photos")
    keras.utils.set_random_seed(3)
    pictures = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(layers.Rescaling(1 / 255)(pictures))
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    model = keras.Model(pictures, layers.Dense(CLASSES, activation="softmax")(x))
    head = model.layers[-1]
    head.kernel.assign(8 * head.kernel)  # scores that differ between pictures
    seen = data.load(dataset.splits["train"], recipe.input)
    aware = quantization_aware(model)
    calibrate(aware, seen.tensors)

    def train(epochs=2):
        lines = []
        qat.train(aware, model, recipe.input, recipe, dataset, epochs, lines.append)
        return lines

    return SimpleNamespace(model=model, aware=aware, seen=seen, train=train)


def scores(model, pictures):
    return np.concatenate([values[0] for values in ranges.compute(model, [model.output], pictures)])


def distance(road):
    """Mean squared difference of the probabilities."""
    difference = scores(road.aware, road.seen.tensors) - road.model(road.seen.tensors.astype("float32")).numpy()
    return float((difference**2).mean())


def spoil(road):
    """Shake the weights of the simulation, much more than rounding does."""
    random = np.random.default_rng(5)
    dense = [layer for layer in road.aware.layers if isinstance(layer, layers.Dense)][-1]
    dense.kernel.assign(dense.kernel + random.normal(0, 0.5, dense.kernel.shape))


def test_it_learns_the_answers_of_the_float_network_and_not_the_labels(road, monkeypatch):
    """The float network was never trained: who learns the labels gets away from it, not nearer."""
    monkeypatch.setattr(qat, "LEARNING_RATE", 1e-2)
    spoil(road)
    # The last epoch is taken to be the best: which is kept is another test's business.
    monkeypatch.setattr("edgenn.training.fit.Epoch.score", property(lambda self: (self.epoch, 0.0)))
    before = distance(road)
    road.train(epochs=20)
    assert distance(road) < before / 4


def test_it_is_never_left_worse_than_it_was(road, monkeypatch):
    monkeypatch.setattr(qat, "LEARNING_RATE", 1.0)
    monkeypatch.setattr("edgenn.training.fit.Epoch.score", property(lambda self: (-1.0, 0.0)))
    before = road.aware.get_weights()
    lines = road.train(epochs=1)
    assert "no epoch was better than what it began with, which is kept" in lines
    for old, new in zip(before, road.aware.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_probabilities_are_learnt_from_as_they_are_and_not_as_they_are_rounded(road):
    """Rounded to 1/256 they would be zero where the float network says 0.001, and far off for the logarithm."""
    pictures = road.seen.tensors[:8].astype("float32")
    rounded = road.aware(pictures).numpy() * 256
    learner = qat._learner(road.aware)
    assert np.abs(rounded - np.round(rounded)).max() < 1e-4
    steps = learner(pictures).numpy() * 256
    assert np.abs(steps - np.round(steps)).max() > 0.01
    assert [weight.path for weight in learner.trainable_weights] == [w.path for w in road.aware.trainable_weights]


def test_dropout_is_off_in_training_and_back_afterwards(road, monkeypatch):
    rates = []
    [dropout] = [layer for layer in road.aware.layers if isinstance(layer, layers.Dropout)]

    def watched(*given, **more):
        rates.append(dropout.rate)
        return fit(*given, **more)

    monkeypatch.setattr("edgenn.training.fit.fit", watched)
    road.train(epochs=1)
    assert (rates, dropout.rate) == ([0.0], 0.5)
