"""Quantization-aware training: the simulated int8 network learns, for a few epochs, to answer as the float one does.

Uses training's own feeds, teacher and loop, with a run's own augmentation; only the settings here are its own. Labels
choose the epoch and are not learnt from: the float network has learnt them, and what is to be mended is the rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgenn import data
from edgenn.extras import require
from edgenn.training.recipe import Recipe
from edgenn_device.card import InputSpec

EPOCHS = 3
# Chosen on clothing's validation photos (BENCHMARKS.md). The teacher has the whole of the loss: with labels for half of
# it, or for all, MobileNetV1 ended lower, and further from the float network's labels.
LEARNING_RATE = 1e-4
TEACHER = {"distill_weight": 1.0, "distill_temperature": 2.0}


def train(
    aware: Any,
    model: Any,
    spec: InputSpec,
    recipe: Recipe,
    dataset: data.Dataset,
    epochs: int,
    say: Callable[[str], None],
) -> None:
    """Train a simulated network in place; it is left with the weights of its best epoch on validation.

    The state in which it comes counts as an epoch, so that it is never left worse than it was.

    Args:
      aware: of `fake_quant.rewrite.quantization_aware`, calibrated.
      model: the float network that it simulates, its teacher.
      spec: how a photo becomes its input.
      recipe: gives augmentation and seed.
      dataset: its photos.
      epochs: how many; as many views of each photo are learnt from.

    Raises:
      EdgennError: the loss is not a number any more.
    """
    from edgenn.training import distill
    from edgenn.training.fit import Epoch, fit, predict
    from edgenn.training.photos import photo_feed

    recipe = recipe.replace(
        epochs=epochs,
        patience=epochs,
        views=epochs,
        learning_rate=LEARNING_RATE,
        warmup=0.2,
        mixup=0.0,
        ema=0.99,
        weight_decay=0.0,
        precision="float32",
        weights="none",
        distill="",
        **TEACHER,
    )
    classes = len(dataset.labels)
    photos, validation = (
        photo_feed(dataset.splits[split], spec, classes, recipe)[0] for split in ("train", "validation")
    )
    say(f"asking the float network for its answers to {epochs} views of {photos.count} photos")
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()
    answers = distill.answers(distill.Teacher(model, digest, spec, tuple(range(classes))), photos, recipe)

    def told(epoch: Epoch) -> None:
        say(
            f"epoch {epoch.epoch}  loss {epoch.loss:.3f}  validation accuracy {epoch.val_accuracy:.3f}  "
            f"{epoch.seconds:.0f} s"
        )

    with _without_dropout(aware):
        learner = _learner(aware)
        before, scores = aware.get_weights(), predict(learner, validation)
        right = scores[np.arange(len(scores)), validation.labels]
        began = np.mean(scores.argmax(1) == validation.labels), np.mean(np.log(np.maximum(right, 1e-7)))
        say(f"training with simulated int8 for {epochs} epochs, from validation accuracy {began[0]:.3f}")
        done = fit(learner, distill.TaughtFeed(photos, answers), validation, recipe, on_epoch=told)
        if began >= max(epoch.score for epoch in done):
            say("no epoch was better than what it began with, which is kept")
            aware.set_weights(before)


def _learner(aware: Any) -> Any:
    """The network without the rounding of its softmax.

    Rounded to 1/256 a small probability is zero, and neither its logarithm nor its gradient says how far off it is.
    """
    from .fake_quant.layers import FakeQuant

    last = aware.output._keras_history.operation
    rounds = isinstance(last, FakeQuant) and last.fixed
    return require("keras").Model(aware.input, last.input) if rounds else aware


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    """Within it nothing is dropped: the teacher has answered with all features, and so will the device."""
    layers = [(layer, layer.rate) for layer in model.layers if isinstance(layer, require("keras").layers.Dropout)]
    for layer, _ in layers:
        layer.rate = 0.0
    try:
        yield
    finally:
        for layer, rate in layers:
            layer.rate = rate
