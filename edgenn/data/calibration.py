"""Which pictures the ranges of activations are measured on at quantization: every class alike, and always the same."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import chain, zip_longest

from edgenn_device.errors import EdgennError

from .dataset import Picture


def calibration(pictures: Sequence[Picture], n: int, seed: int = 0) -> tuple[Picture, ...]:
    """A stratified choice of `n` pictures.

    One picture of each class in turn, within a class in the order of a hash of seed and content, so that neither
    file names nor the order of `pictures` matter.

    Args:
      pictures: to choose from; pictures of training, not of validation.
      n: how many, at least 1; all are returned if there are fewer.
      seed: another seed gives another choice.

    Raises:
      EdgennError: n is below 1.
    """
    if n < 1:
        raise EdgennError(f"{n} calibration pictures are not possible: take at least 1, better 100 or more")
    queues: dict[int, list[Picture]] = {}
    for picture in sorted(pictures, key=lambda picture: sha256(f"{seed} {picture.sha256}".encode()).digest()):
        queues.setdefault(picture.label, []).append(picture)
    turns = chain.from_iterable(zip_longest(*(queues[label] for label in sorted(queues))))
    return tuple([picture for picture in turns if picture is not None][:n])
