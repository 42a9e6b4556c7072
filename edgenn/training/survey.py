"""One look at the photos of a run when it is done: what they look like, and what its network makes of them.

Time is bounded, whatever the number of photos, their size and the network: photos come in random order, and when the
time is up those seen so far are a random sample. Nothing is concluded here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn import data
from edgenn.data import audit
from edgenn.extras import require

from .photos import PhotoFeed

# Seconds after which the network is asked no more, and after which photos are looked at no more.
ASKING, LOOKING = 30.0, 60.0
# What the network makes of a photo is kept in memory (5 kB in MobileNetV2) and fitted to, of so many at most.
MOST_ASKED = 20_000
# Photos whose file is opened for its size.
MOST_MEASURED = 5_000
_BLOCK = 256
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Survey:
    """What was seen of n photos, in random order.

    Attributes:
      pictures: the photos.
      labels: int64 (n,).
      places: int64 (n,), of a photo in its feed.
      trained_on: bool (n,), whether a photo is in the training feed or in that of validation.
      looks: how they look.
      sides: int64 (k,), shorter side of the files of the first k; 0 where a file has gone.
      features: float32 (m, size), what the network's last layer is given of the first m.
      total: how many photos there are.
    """

    pictures: tuple[data.Picture, ...]
    labels: NDArray[np.int64]
    places: NDArray[np.int64]
    trained_on: NDArray[np.bool_]
    looks: audit.Looks
    sides: NDArray[np.int64]
    features: NDArray[np.float32]
    total: int


def survey(
    model: Any,
    training: PhotoFeed,
    validation: PhotoFeed,
    progress: data.Progress | None = None,
    *,
    seed: int = 0,
    asking: float = ASKING,
    looking: float = LOOKING,
) -> Survey:
    """Look at the photos of both feeds for a while.

    Args:
      model: keras.Model, trained; takes float32 pixels 0..255.
      progress: called with the number of photos looked at and of all.
      seed: of their order.
      asking, looking: seconds; at least one block of photos is looked at.
    """
    started, total = time.perf_counter(), training.count + validation.count
    order = np.random.default_rng(seed).permutation(total)
    answer = _features(model)
    looks: list[audit.Looks] = []
    sides: list[NDArray[np.int64]] = []
    features: list[NDArray[np.float32]] = []
    asked = done = 0
    for start in range(0, total, _BLOCK):
        places = order[start : start + _BLOCK]
        tensors = np.empty((len(places), *training.shape), np.uint8)
        old = places < training.count
        tensors[old] = training.rows(places[old])
        tensors[~old] = validation.rows(places[~old] - training.count)
        looks.append(audit.look(tensors))
        done += len(places)
        if start < MOST_MEASURED:
            sides.append(audit.shorter_sides([_picture(place, training, validation) for place in places]))
        if not features or (asked < MOST_ASKED and time.perf_counter() - started < asking):
            features += [answer(tensors[i : i + _BATCH]) for i in range(0, len(tensors), _BATCH)]
            asked += len(tensors)
        if progress:
            progress(done, total)
        if time.perf_counter() - started > looking:
            break
    seen = order[:done]
    if progress and done < total:
        progress(total, total)
    return Survey(
        pictures=tuple(_picture(place, training, validation) for place in seen),
        labels=np.concatenate([training.labels, validation.labels])[seen],
        places=np.where(seen < training.count, seen, seen - training.count),
        trained_on=seen < training.count,
        looks=audit.Looks.joined(looks),
        sides=np.concatenate(sides),
        features=np.concatenate(features),
        total=total,
    )


def _picture(place: int, training: PhotoFeed, validation: PhotoFeed) -> data.Picture:
    return training.pictures[place] if place < training.count else validation.pictures[place - training.count]


def _features(model: Any) -> Any:
    """uint8 (n, height, width, channels) -> what the last layer is given, float32 (n, size).

    Where the last layer is not a Dense of our kind (a network of one's own may end otherwise) it is the scores.
    """
    keras, tf = require("keras"), require("tensorflow")
    last = model.layers[-1]
    ends = isinstance(last, keras.layers.Dense) and len(last.input.shape) == 2
    inner = keras.Model(model.inputs, last.input) if ends else model
    graph = tf.function(lambda x: inner(tf.cast(x, tf.float32), training=False), autograph=False, reduce_retracing=True)

    def answer(tensors: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(graph(tf.constant(tensors)), np.float32)

    return answer
