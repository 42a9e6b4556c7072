"""The motion gate: is this picture still the one that was classified last? Then what was decided still holds.

Compares small pictures, so that neither the camera's noise nor its compression is taken for motion, and always with the
last picture that was classified, never with the one before: a change too slow to be seen from frame to frame adds up.
It knows nothing of the network; that equal pictures have equal scores is all it relies on.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

# Rows and columns of the small pictures. One cell is 8x8 pixels of a frame of 512x384.
ROWS, COLUMNS = 48, 64
# By how much a cell may differ, of 255. Noise of a standard deviation of 10 in single pixels leaves 1.3 in a cell of
# 8x8, whose greatest of 9216 values is about 5. What smaller differences do to a label: tools/bench_gate.py.
THRESHOLD = 10.0
# For this many seconds after a change the network is still asked, though nothing moves: by then the average over time
# has forgotten what was before (decision.HALF_LIFE), and what is held is an average and not one noisy frame's scores.
SETTLE = 1.0
# While a scene is still it is looked at this often a second; the frames between are taken to be still. It costs a tenth
# of a second when something happens, a third of the time over which scores are averaged.
LOOKS = 10.0
# Rows that are averaged for one of the small picture are enough at this number: of a picture in full resolution the
# others are not even read.
_ROWS_PER_CELL = 4


class Gate:
    """Says of successive pictures of one camera whether anything has changed. For one thread.

    Args:
      threshold: by how much (of 255) any channel of any cell of the small picture must differ to be a change.
      looks: how often a second to look while the scene is still.
      settle: for how many seconds after a change to say that it is not; only where pictures come with their time.

    >>> gate = Gate()
    >>> scene = np.zeros((480, 640, 3), np.uint8)
    >>> gate.still(scene), gate.still(scene)
    (False, True)
    >>> scene[100:140, 200:240] = 60
    >>> gate.still(scene)
    False
    """

    # (height, width) in pixels that a picture needs at least to be looked at.
    cover = (ROWS, COLUMNS)

    def __init__(self, threshold: float = THRESHOLD, *, looks: float = LOOKS, settle: float = SETTLE) -> None:
        self.threshold = threshold
        self._settle = settle
        self._changed = -math.inf
        self._between = 1 / looks
        self._reference: NDArray[np.uint8] | None = None
        self._looked = -math.inf
        self._resting = False

    @property
    def resting(self) -> bool:
        """Whether the last picture that was looked at was still."""
        return self._resting

    def rests(self, time: float) -> bool:
        """Whether a picture of this moment (seconds, as a frame counts them) need not be looked at yet."""
        return self._resting and 0 <= time - self._looked < self._between

    def still(self, image: NDArray[np.uint8], time: float | None = None) -> bool:
        """Look at a picture.

        Args:
          image: uint8 (H, W, 3) or (H, W).
          time: its moment in seconds; without it a change is over at once, and `rests` never says so.

        Returns:
          Whether it shows what the reference shows, and has for a while. If not, it is the reference from now on:
          whoever asks is expected to classify it, or to `forget` it.
        """
        small = _small(image)
        reference = self._reference
        same = (
            reference is not None
            and reference.shape == small.shape
            and cv2.norm(reference, small, cv2.NORM_INF) <= self.threshold
        )
        if time is not None and (not same or time < self._changed):
            self._changed = time
        self._resting = same and (time is None or time - self._changed >= self._settle)
        if not self._resting:
            self._reference = small
        self._looked = -math.inf if time is None else time
        return self._resting

    def forget(self) -> None:
        """What was seen last was not classified, or by another model: the next picture is a change."""
        self._reference = None
        self._resting = False


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    step = max(1, image.shape[0] // (ROWS * _ROWS_PER_CELL))
    small: NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        image[::step], (COLUMNS, ROWS), interpolation=cv2.INTER_AREA
    )
    return small
