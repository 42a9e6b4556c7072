"""Small photos as feeds, for the tests of training."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

from edgenn.data import Picture
from edgenn.training.photos import ArrayFeed
from edgenn.training.recipe import Augmentation, Recipe
from tests.conftest import CLASSES, draw

STILL = Augmentation(False, 0, 0, 0, 0, 0, 0, 0)


def recipe(**settings) -> Recipe:
    """A resolved recipe for pictures of 32 pixels."""
    return Recipe(**{"size": 32, **settings}).resolved()


def shapes(each: int | tuple[int, ...], first: int, how: Recipe | None = None) -> ArrayFeed:
    """So many photos of every class (or of each), drawn from seeds that begin at `first`."""
    counts = each if isinstance(each, tuple) else (each,) * len(CLASSES)
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    tensors = np.stack([draw(CLASSES[label], first + 1000 * label + i) for i, label in enumerate(labels)])
    pictures = [
        Picture(Path(f"{i}.png"), label, sha256(pixels.tobytes()).hexdigest())
        for i, (label, pixels) in enumerate(zip(labels, tensors, strict=True))
    ]
    return ArrayFeed(tensors, pictures, len(CLASSES), how or recipe())
