"""Quantization-aware training: the simulated int8 network is trained on for a few epochs on the photos at hand.

Uses training's own feeds and loop, with a run's own augmentation; only the settings here are its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgenn import data
from edgenn.training.recipe import Recipe
from edgenn_device.card import InputSpec

EPOCHS = 3
# The network is trained already; rounding is a small disturbance that it is to get used to. Chosen on clothing's
# validation photos (BENCHMARKS.md).
LEARNING_RATE = 1e-4


def train(
    aware: Any, spec: InputSpec, recipe: Recipe, dataset: data.Dataset, epochs: int, say: Callable[[str], None]
) -> None:
    """Train a simulated network in place; it is left with the weights of its best epoch on validation.

    Args:
      aware: of `fake_quant.rewrite.quantization_aware`, calibrated.
      spec: how a photo becomes its input.
      recipe: gives augmentation and seed.
      dataset: its photos.
      epochs: how many.

    Raises:
      EdgennError: the loss is not a number any more.
    """
    from edgenn.training.fit import Epoch, fit
    from edgenn.training.photos import photo_feed

    recipe = recipe.replace(
        epochs=epochs,
        patience=epochs,
        learning_rate=LEARNING_RATE,
        warmup=0.2,
        mixup=0.0,
        ema=0.0,
        weight_decay=0.0,
        precision="float32",
        weights="none",
        distill="",
    )
    say(f"training with simulated int8 for {epochs} epochs")
    feeds = [
        photo_feed(dataset.splits[split], spec, len(dataset.labels), recipe)[0] for split in ("train", "validation")
    ]

    def told(epoch: Epoch) -> None:
        say(
            f"epoch {epoch.epoch}  loss {epoch.loss:.3f}  validation accuracy {epoch.val_accuracy:.3f}  "
            f"{epoch.seconds:.0f} s"
        )

    fit(aware, feeds[0], feeds[1], recipe, on_epoch=told)
