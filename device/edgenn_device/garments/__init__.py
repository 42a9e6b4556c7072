"""Garments drawn by seed: photographs of jackets, shirts and T-shirts that need no download and no files.

They stand in for a data set and for a camera, and are hard enough that a small network does not get all of them right.
They are drawings: figures measured on them say nothing about real photos.

>>> draw("shirt", seed=3).shape
(240, 320, 3)
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import EdgennError
from .scene import CUTS, camera, still

__all__ = ["LABELS", "SPACES", "draw", "seed_in"]

LABELS: tuple[str, ...] = tuple(sorted(CUTS))

# Pictures of different spaces never share a garment: what a network is tested on it has not seen.
SPACES = ("train", "validation", "test", "live")
_PER_SPACE = 1_000_000

# Below this many rows a picture is drawn larger and shrunk: seams and buttons need the room.
_LEAST = 160


def draw(label: str | int, seed: int, size: int | tuple[int, int] = (240, 320)) -> npt.NDArray[np.uint8]:
    """Photograph a garment.

    Args:
      label: one of `LABELS`, or its index.
      seed: 0 or above; every seed is another garment, background, light and camera.
      size: (height, width), or one number for both, in pixels, 16 to 4096.

    Returns:
      uint8 (height, width, 3), BGR. The same arguments give the same bytes with the same versions of NumPy and OpenCV.

    Raises:
      EdgennError: an unknown label, a negative seed or an impossible size.
    """
    index = index_of(label)
    height, width = frame_size(size)
    if seed < 0:
        raise EdgennError(f"seed {seed} is below 0: give one of 0 or above")
    rng = np.random.default_rng((seed, index))
    factor = max(1, -(-_LEAST // min(height, width)))
    picture, _ = still(rng, LABELS[index], height * factor, width * factor)
    if factor > 1:
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return camera(rng).taken(picture, rng)


def seed_in(space: str, seed: int, number: int) -> int:
    """The seed of picture `number` (0 to 999999) of a space; no two of (space, seed, number) share one."""
    if space not in SPACES or seed < 0 or not 0 <= number < _PER_SPACE:
        raise EdgennError(f"there is no picture {number} of seed {seed} in {space!r}: seeds are 0 or above")
    return (seed * len(SPACES) + SPACES.index(space)) * _PER_SPACE + number


def index_of(label: str | int) -> int:
    """The place of a label in `LABELS`.

    Raises:
      EdgennError: there is no such label.
    """
    if isinstance(label, str) and label in LABELS:
        return LABELS.index(label)
    if not isinstance(label, str) and 0 <= int(label) < len(LABELS):
        return int(label)
    raise EdgennError(f"there is no garment {label!r}: draw one of {', '.join(LABELS)}")


def frame_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size that may be one number.

    Raises:
      EdgennError: a side is not within 16 to 4096 pixels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if not (16 <= height <= 4096 and 16 <= width <= 4096):
        raise EdgennError(f"pictures of {height}x{width} pixels cannot be drawn: sides are 16 to 4096")
    return height, width
