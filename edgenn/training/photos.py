"""Photos as feeds: in one array where they fit comfortably in memory, else from the store on disk.

Nobody has to choose: a quarter of the free memory, and never more than `MOST_IN_MEMORY`, is comfortable. Above that the
store is as fast, because what is read from it again and again stays in the operating system's cache.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn import data
from edgenn.data.load import free_memory
from edgenn.data.store import Stored
from edgenn.extras import require
from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError

from .augment import augment
from .feed import Feed
from .recipe import Recipe

MOST_IN_MEMORY = 1 << 30
_SHARE_OF_MEMORY = 0.25


class PhotoFeed(Feed):
    """Photos, decoded to the network's input.

    Attributes:
      pictures: where each comes from.
      names: uint64 (count,), the first 8 bytes of the sha256 of each: what `augment.view_draws` takes.
      shape: (height, width, channels) of each.
    """

    shape: tuple[int, int, int]

    def __init__(self, pictures: Sequence[data.Picture], classes: int, recipe: Recipe) -> None:
        labels = np.fromiter((picture.label for picture in pictures), np.int64, len(pictures))
        super().__init__(labels, classes, recipe)
        self.pictures = pictures
        first = (int.from_bytes(picture.digest[:8], "big") for picture in pictures)
        self.names = np.fromiter(first, np.uint64, len(pictures))

    @abstractmethod
    def rows(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The photos of these places: uint8 (len(index), height, width, channels)."""

    def take(self, index: Any, seed: Any, training: bool) -> Any:
        """Photos as float32 of 0..255, varied by the recipe when training."""
        tf = require("tensorflow")
        pixels = tf.numpy_function(self._rows, [index], tf.uint8, stateful=False)
        photos = tf.cast(tf.ensure_shape(pixels, (index.shape[0], *self.shape)), tf.float32)
        return augment(photos, seed, self.recipe.augmentation) if training else photos

    def _rows(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        try:
            return self.rows(index)
        except EdgennError as error:
            self.failure = error
            raise


class ArrayFeed(PhotoFeed):
    """Photos in one array in memory: uint8 (count, height, width, channels)."""

    def __init__(
        self, tensors: NDArray[np.uint8], pictures: Sequence[data.Picture], classes: int, recipe: Recipe
    ) -> None:
        super().__init__(pictures, classes, recipe)
        self.tensors = tensors
        height, width, channels = tensors.shape[1:]
        self.shape = height, width, channels

    def rows(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.tensors[index]


class StoreFeed(PhotoFeed):
    """Photos in the store on disk (see `edgenn.data.store`)."""

    def __init__(self, stored: Stored, classes: int, recipe: Recipe) -> None:
        super().__init__(stored.pictures, classes, recipe)
        self.stored, self.shape = stored, stored.shape

    def rows(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.stored.rows(index)


def photo_feed(
    pictures: Sequence[data.Picture],
    spec: InputSpec,
    classes: int,
    recipe: Recipe,
    progress: data.Progress | None = None,
    in_memory: int | None = None,
) -> tuple[PhotoFeed, tuple[data.Problem, ...]]:
    """A feed of pictures, and those that cannot be decoded and are left out.

    Args:
      pictures: for instance one split of a `Dataset`.
      spec: what each is made into.
      in_memory: most bytes to hold in memory; None: what is comfortable here.

    Raises:
      EdgennError: there is no room for the store either.
    """
    if in_memory is None:
        free = free_memory()
        in_memory = MOST_IN_MEMORY if free is None else min(MOST_IN_MEMORY, int(_SHARE_OF_MEMORY * free))
    if len(pictures) * int(np.prod(spec.shape)) <= in_memory:
        loaded = data.load(pictures, spec, progress)
        return ArrayFeed(loaded.tensors, loaded.pictures, classes, recipe), loaded.problems
    stored = Stored(pictures, spec, progress)
    return StoreFeed(stored, classes, recipe), stored.problems
