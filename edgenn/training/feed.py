"""Where samples come from, a batch at a time: the only thing that `fit` knows of data.

A feed knows how to make the samples of some indices; order, sharing among machines, balance of classes, label
smoothing and mixup are the same for all feeds and stand here. Nothing but the order (8 bytes a sample) is held for
shuffling. Every batch has the same size: the last one is filled up with samples that weigh nothing, so that the graph
is traced once and no batch normalisation sees a batch of one.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from .augment import mixup
from .recipe import Recipe


class Feed(ABC):
    """Samples with labels.

    Attributes:
      labels: int64 (count,).
      classes: number of classes.
      recipe: resolved; its balance, label_smoothing and mixup are applied when training.
      failure: why samples could not be made, if they could not; TensorFlow itself passes on only a text.
    """

    def __init__(self, labels: NDArray[np.int64], classes: int, recipe: Recipe) -> None:
        self.labels = np.asarray(labels, np.int64)
        self.classes = classes
        self.recipe = recipe
        self.failure: EdgennError | None = None
        self._functions: dict[tuple[int, bool], Any] = {}

    @property
    def count(self) -> int:
        """Samples, which are as many as come in an epoch."""
        return len(self.labels)

    def steps(self, batch: int) -> int:
        """Batches an epoch."""
        return math.ceil(self.count / batch)

    @abstractmethod
    def take(self, index: Any, seed: Any, training: bool) -> Any:
        """Make samples, inside a TensorFlow graph.

        Args:
          index: int64 tensor (batch,).
          seed: int32 tensor (2,), another one for each batch.
          training: whether samples are to be varied.

        Returns:
          x, float32 (batch, …), as the network takes it; or (x, soft), soft float32 (batch, classes): probabilities
          that a teacher gave to these very samples.
        """

    def batches(self, batch: int, *, training: bool, seed: int = 0, part: tuple[int, int] = (0, 1)) -> Any:
        """A tf.data.Dataset of one epoch.

        Args:
          batch: samples in a batch, over all parts together.
          training: shuffled, varied, balanced, smoothed and mixed by `recipe`; otherwise in order and as they are.
          seed: of everything random; another one for each epoch.
          part: (index, of how many): this machine's share of every batch; `batch` must be a multiple of how many.

        Returns:
          (x, y, weight) a batch: x float32 (batch, …), y float32 (batch, classes) (one-hot, smoothed, mixed), weight
          float32 (batch,); with a teacher (x, y, weight, soft), soft as y.
        """
        tf = require("tensorflow")
        steps, (index, of) = self.steps(batch), part
        order, weight = self._order(training, seed), np.ones(self.count, np.float32)
        if training and self.recipe.balance == "weights":
            weight = class_weights(self.labels, self.classes)[self.labels[order]]
        missing = steps * batch - self.count
        order = np.concatenate([order, np.resize(order, missing)])
        weight = np.concatenate([weight, np.zeros(missing, np.float32)])
        mine = batch // of
        share = slice(index * mine, (index + 1) * mine)
        order, weight = order.reshape(steps, batch)[:, share], weight.reshape(steps, batch)[:, share]
        seeds = np.stack([np.full(steps, seed), np.arange(steps) * of + index], 1).astype(np.int32)
        # Autotune's thread sleeps up to ten seconds before it sees that its dataset is done, and the end of an epoch
        # waits for it: every other epoch of ten seconds took twenty.
        options = tf.data.Options()
        options.autotune.enabled = False
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return (
            tf.data.Dataset.from_tensor_slices((order, weight, seeds))
            .map(self._function(mine, training), num_parallel_calls=processors, deterministic=True)
            .prefetch(2)
            .with_options(options)
        )

    def _order(self, training: bool, seed: int) -> NDArray[np.int64]:
        """Which samples come when: each once, or (balance = "sampling") each class equally often."""
        if not training:
            return np.arange(self.count)
        random = np.random.default_rng(seed)
        if self.recipe.balance != "sampling":
            return random.permutation(self.count)
        present = np.unique(self.labels)
        each = math.ceil(self.count / len(present))
        turns = []
        for label in present:
            own = np.flatnonzero(self.labels == label)
            turns.append(np.concatenate([random.permutation(own) for _ in range(math.ceil(each / len(own)))])[:each])
        return random.permutation(np.concatenate(turns))[: self.count]

    def _function(self, batch: int, training: bool) -> Any:
        """What makes a batch, traced once and not for every epoch."""
        tf = require("tensorflow")
        key = batch, training
        if key not in self._functions:
            with tf.device("cpu"):
                labels = tf.constant(self.labels)
            smoothing = float(self.recipe.label_smoothing or 0.0) if training else 0.0
            alpha = float(self.recipe.mixup or 0.0) if training else 0.0

            def make(index: Any, weight: Any, seed: Any) -> Any:
                index, weight = tf.ensure_shape(index, (batch,)), tf.ensure_shape(weight, (batch,))
                taken = self.take(index, seed, training)
                x, *soft = taken if isinstance(taken, tuple) else (taken,)
                y = tf.one_hot(tf.gather(labels, index), self.classes)
                y = y * (1 - smoothing) + smoothing / self.classes
                return mixup(x, y, weight, soft, seed, alpha) if alpha else (x, y, weight, *soft)

            self._functions[key] = tf.function(make, autograph=False)
        return self._functions[key]


def class_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """A weight for each class, inverse to its number of samples, such that the mean over all samples is 1: (classes,).

    King and Zeng 2001, "Logistic Regression in Rare Events Data", section 4.2.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes, np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights
