"""From trained weights to a network for these photos, at the price of the part that is trained.

A network that starts from trained weights is cut in two. What lies before the cut stays as it is, so what it makes of
each photo is computed once, for several augmented views, and kept on disk (`frozen`); what lies behind it is trained on
that by the same `fit` as everything else. Both share their layers with the whole network, which so becomes the result.
Where there is nothing frozen (`fine_tune_from` = "all") the whole network is trained on photos.

Batch normalisation is trained along where most of the network is and the weights hold real statistics; otherwise it
keeps its scale and its statistics. docs/training.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn import networks
from edgenn.extras import require
from edgenn.networks import weights
from edgenn.networks.registry import cut_points
from edgenn_device.errors import EdgennError

from .checkpoint import Checkpoint
from .distill import TaughtFeed
from .feed import Feed
from .fit import Epoch, fit
from .frozen import Features, FrozenPart, Views, default_folder, room
from .photos import PhotoFeed
from .recipe import Recipe
from .watcher import Watcher

HEAD, ALL = "head", "all"
# Where at most this share of the layers is frozen, the others change so much that statistics of photos seen elsewhere
# no longer fit: MobileNetV1 0.25 from conv_dw_6 on reaches .853 on clothing with batch normalisation trained and .809
# with it frozen (12 epochs). MobileNetV2 from block_13 on gains nothing (.924 and .924), and a step takes 1.7 times as
# long.
_MOST_FROZEN = 0.5
# An epoch has at least so many steps: fewer photos come several times in an epoch, each time in a view of their own. On
# 300 photos of clothing six epochs of once each reach .74 and twenty .83.
_LEAST_STEPS = 64


class FeatureFeed(Feed):
    """What a frozen part made of photos, one of several views of each, chosen at random each time.

    Attributes:
      views: float16 (photos, …), in memory or mapped.
      answers: a teacher's to the same views, float16 (views, photos, classes), or None.
    """

    def __init__(
        self,
        views: Sequence[Features],
        labels: NDArray[np.int64],
        classes: int,
        recipe: Recipe,
        answers: NDArray[np.float16] | None = None,
        times: int = 1,
    ) -> None:
        """A feed in which each photo comes `times` an epoch; `labels` is int64 (photos,)."""
        super().__init__(np.tile(labels, times), classes, recipe)
        self.views, self.answers = views, answers

    def take(self, index: Any, seed: Any, training: bool) -> Any:
        """Features as float32; when there is a teacher and samples are for training, with its answers."""
        tf = require("tensorflow")
        batch = index.shape[0]
        chosen = tf.zeros([batch], tf.int32)
        if training and len(self.views) > 1:
            chosen = tf.random.stateless_uniform([batch], seed, 0, len(self.views), tf.int32)
        rows = tf.numpy_function(self._rows, [index, chosen], tf.float16, stateful=False)
        features = tf.cast(tf.ensure_shape(rows, (batch, *self.views[0].shape[1:])), tf.float32)
        if self.answers is None or not training:
            return features
        soft = tf.numpy_function(self._answers, [index, chosen], tf.float32, stateful=False)
        return features, tf.ensure_shape(soft, (batch, self.classes))

    def _rows(self, index: NDArray[np.int64], chosen: NDArray[np.int32]) -> Features:
        photos = (index % len(self.views[0])).tolist()
        return np.stack([self.views[view][photo] for photo, view in zip(photos, chosen.tolist(), strict=True)])

    def _answers(self, index: NDArray[np.int64], chosen: NDArray[np.int32]) -> NDArray[np.float32]:
        assert self.answers is not None
        answers: NDArray[np.float32] = self.answers[chosen, index % self.answers.shape[1]].astype(np.float32)
        return answers


def fit_transfer(
    model: Any,
    photos: PhotoFeed,
    validation: PhotoFeed,
    recipe: Recipe,
    *,
    answers: NDArray[np.float16] | None = None,
    watcher: Watcher | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Epoch]:
    """Load trained weights into `model` and train it, in place; it is left with the weights of its best epoch.

    Args:
      model: uncompiled keras.Model, made by `networks.build` from `recipe`.
      photos: to train on.
      validation: to choose the epoch by.
      recipe: resolved, with `weights`.
      answers: a teacher's (see `distill.answers`), float16 (views, count, classes), or None.
      watcher: is told how far the frozen part and the training are.
      checkpoint: see `fit`.

    Returns:
      The epochs, in order.

    Raises:
      EdgennError: the weights do not fit, there is no such layer to train from, or the loss is not a number any more.
    """
    watcher = watcher or Watcher()
    network = networks.network(recipe.network)
    calibrated = weights.load(model, network, recipe.weights, recipe.network_options)
    cut = cut_behind(model, recipe)

    def train(trained: Any, feed: Feed, check: Feed) -> list[Epoch]:
        return fit(trained, feed, check, recipe, on_epoch=watcher.epoch, on_step=watcher.step, checkpoint=checkpoint)

    frozen = model.layers[: model.layers.index(model.get_layer(cut)) + 1] if cut else []
    adapts = calibrated and len(frozen) <= _MOST_FROZEN * len(model.layers)
    with _kept([*frozen, *([] if adapts else _normalisations(model))]):
        if cut:
            part, tail = parted(model, cut)
            views = _affordable(part, photos.count, validation.count, recipe.views)
            if views:
                first, second = _features(part, photos, validation, recipe, views, watcher.caching)
                times = math.ceil(_LEAST_STEPS / photos.steps(int(recipe.batch or 1)))
                feed = FeatureFeed(first, photos.labels, photos.classes, recipe, _some(answers, views), times)
                return train(tail, feed, FeatureFeed(second, validation.labels, validation.classes, recipe))
        return train(model, photos if answers is None else TaughtFeed(photos, answers), validation)


def cut_behind(model: Any, recipe: Recipe) -> str | None:
    """Name of the last layer that is not trained, or None if all are.

    Raises:
      EdgennError: `recipe.fine_tune_from` is no layer or block of the model, or its first.
    """
    wanted, network = recipe.fine_tune_from, networks.network(recipe.network)
    if wanted == "":
        return str(network.cut(**{**network.options, **recipe.network_options})) or None
    if wanted == ALL:
        return None
    points = cut_points(model)
    if wanted == HEAD:
        keras = require("keras")
        return [name for name in points if not isinstance(model.get_layer(name), keras.layers.Dropout)][-1]
    places = {layer.name: place for place, layer in enumerate(model.layers)}
    begins = [place for name, place in places.items() if name == wanted or name.startswith(f"{wanted}_")]
    before = [name for name in points if begins and places[name] < min(begins)]
    if not before:
        known = [model.layers[places[name] + 1].name for name in network.cuts(**_options(recipe, network))]
        raise EdgennError(
            f"{recipe.network} cannot be trained from {wanted!r} on: give {HEAD}, {ALL}, or one of {', '.join(known)}"
        )
    return before[-1]


def _options(recipe: Recipe, network: networks.Network) -> dict[str, Any]:
    return {**network.options, **recipe.network_options}


def parted(model: Any, cut: str) -> tuple[FrozenPart, Any]:
    """The part up to the layer `cut`, and a keras.Model of the rest that shares its layers with `model`."""
    keras = require("keras")
    between = model.get_layer(cut).output
    with model.distribute_strategy.scope():
        tail = keras.Model(between, model.output, name="tail")
        part = keras.Model(model.input, between, name="frozen")
    return FrozenPart(part), tail


def _affordable(part: FrozenPart, photos: int, validation: int, views: int) -> int:
    """So many views find room on the disk; 0 if not even one does."""
    free = room(default_folder()) // part.row - validation
    return max(0, min(views, free // photos))


def _features(
    part: FrozenPart,
    photos: PhotoFeed,
    validation: PhotoFeed,
    recipe: Recipe,
    views: int,
    told: Callable[[int, int], None],
) -> tuple[list[Features], list[Features]]:
    """Features of the views of each photo, and of each validation photo as it is."""
    before, total = validation.count, validation.count + views * photos.count
    second = Views(part, validation, recipe, [None], lambda done, _: told(done, total))
    first = Views(part, photos, recipe, range(views), lambda done, _: told(before + done, total))
    return first.features, second.features


def _some(answers: NDArray[np.float16] | None, views: int) -> NDArray[np.float16] | None:
    return None if answers is None else answers[:views]


def _normalisations(model: Any) -> list[Any]:
    layers = require("keras").layers
    return [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


@contextmanager
def _kept(layers: Sequence[Any]) -> Iterator[None]:
    """For the length of the block these layers are not trained."""
    before = [(layer, layer.trainable) for layer in layers]
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer, trainable in before:
            layer.trainable = trainable
