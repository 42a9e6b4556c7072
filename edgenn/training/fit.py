"""The fitting of one network to photos that are already tensors: schedule, loop, early stopping, the best epoch kept.

Reads no files and writes none; what is shown and kept is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from .augment import augment
from .recipe import Recipe


@dataclass(frozen=True)
class Epoch:
    """One line of history.csv. Accuracies and losses are means over the epoch; `seconds` is its wall time."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Photos:
    """Tensors of a split: uint8 (n, height, width, channels) and int64 labels (n,)."""

    tensors: NDArray[np.uint8]
    labels: NDArray[np.int64]


def fit(
    model: Any,
    train: Photos,
    validation: Photos,
    recipe: Recipe,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Callable[[int, int, int, float, float], None] | None = None,
) -> list[Epoch]:
    """Train `model` in place and leave it with the weights of its best epoch on validation.

    Best is the highest validation accuracy, and of equal ones the lowest validation loss.

    Args:
      model: uncompiled keras.Model on pixels 0..255 ending in a softmax.
      on_epoch: called after every epoch.
      on_step: called after every step with (epoch, step, steps, loss, accuracy).

    Returns:
      The epochs, in order.

    Raises:
      EdgennError: the loss is not a number any more; the model keeps its best epoch so far.
    """
    keras = require("keras")

    steps = math.ceil(len(train.labels) / recipe.batch)
    optimizer = keras.optimizers.AdamW(
        _schedule(keras, recipe, steps), weight_decay=recipe.weight_decay, global_clipnorm=5.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    classes = model.output_shape[-1]
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    watch = _watch(keras, recipe, steps, on_epoch, on_step)
    try:
        model.fit(
            batches(train, classes, recipe, shuffled=True),
            validation_data=batches(validation, classes, recipe, shuffled=False),
            epochs=recipe.epochs,
            verbose=0,
            shuffle=False,
            callbacks=[watch],
        )
    finally:
        if watch.best_weights is not None:
            model.set_weights(watch.best_weights)
    if watch.diverged:
        raise EdgennError(
            f"the loss is not a number after epoch {len(watch.epochs)}: lower --learning-rate "
            f"(it was {recipe.learning_rate:g}) or raise --batch"
        )
    return list(watch.epochs)


def batches(photos: Photos, classes: int, recipe: Recipe, *, shuffled: bool) -> Any:
    """A tf.data.Dataset of (float32 photos 0..255, one-hot labels); if `shuffled`, in a new order and augmented."""
    tf = require("tensorflow")

    with tf.device("cpu"):
        tensors, labels = tf.constant(photos.tensors), tf.one_hot(photos.labels, classes)
    order = tf.data.Dataset.range(len(photos.labels))
    if not shuffled:
        return (
            order.batch(recipe.batch * 2)
            .map(lambda index: (tf.cast(tf.gather(tensors, index), tf.float32), tf.gather(labels, index)))
            .prefetch(2)
        )
    order = order.shuffle(len(photos.labels), seed=recipe.seed, reshuffle_each_iteration=True).batch(recipe.batch)
    seeds = tf.data.Dataset.random(recipe.seed, rerandomize_each_iteration=True).batch(2)

    def varied(index: Any, seed: Any) -> Any:
        chosen = tf.cast(tf.gather(tensors, index), tf.float32)
        return augment(chosen, seed, recipe.augmentation), tf.gather(labels, index)

    return tf.data.Dataset.zip(order, seeds).map(varied, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _schedule(keras: Any, recipe: Recipe, steps: int) -> Any:
    total = recipe.epochs * steps
    warm = min(int(recipe.warmup * steps), total // 2)
    if warm == 0:
        return keras.optimizers.schedules.CosineDecay(recipe.learning_rate, total)
    return keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 100, total - warm, warmup_target=recipe.learning_rate, warmup_steps=warm
    )


def _watch(keras: Any, recipe: Recipe, steps: int, on_epoch: Any, on_step: Any) -> Any:
    """The callback that keeps the best weights, stops early, and reports."""
    import time

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[Epoch] = []
            self.best: tuple[float, float] = (-1.0, 0.0)
            self.best_weights: list[Any] | None = None
            self.best_epoch = 0
            self.diverged = False

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if not math.isfinite(logs["loss"]):
                self.diverged = self.model.stop_training = True
            if on_step:
                on_step(len(self.epochs) + 1, batch + 1, steps, logs["loss"], logs["accuracy"])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if self.diverged or not math.isfinite(logs["val_loss"]):
                self.diverged = self.model.stop_training = True
                return
            done = Epoch(
                epoch + 1,
                logs["loss"],
                logs["accuracy"],
                logs["val_loss"],
                logs["val_accuracy"],
                float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
                time.perf_counter() - self.started,
            )
            self.epochs.append(done)
            score = (done.val_accuracy, -done.val_loss)
            if score > self.best:
                self.best, self.best_weights, self.best_epoch = score, self.model.get_weights(), done.epoch
            if on_epoch:
                on_epoch(done)
            if done.epoch - self.best_epoch >= recipe.patience:
                self.model.stop_training = True

    return Watch()
