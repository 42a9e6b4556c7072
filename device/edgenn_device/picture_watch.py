"""Are a camera's pictures any good? Says so when they cannot be read or show nothing, for as long as that is so.

A picture shows nothing when it is of one colour all over: a lens cap, a sensor that is gone, a driver that fills its
buffers with green. A network would give it some label all the same. It judges nothing finer: dark or blurred pictures
are the network's business.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .card import InputSpec

# Seconds for which pictures that show nothing are taken for a fault in passing, before they are a state of their own.
BRIEF = 0.5
# A channel that spans no more than this (of 255) over the whole tensor shows nothing; noise was averaged away before.
_SPAN = 8
# Pixels a side of a tensor that are looked at.
_SAMPLE = 24
# Unreadable frames in a row that are worth a word; a single torn one is not.
_IN_A_ROW = 5

_log = logging.getLogger(__name__)


class PictureWatch:
    """For one thread; any may read `trouble`.

    Whether there are pictures at all is the source's to tell: one that is lost and comes back changes nothing here.

    Args:
      name: of the source, for the log.

    Attributes:
      trouble: what is wrong with the pictures now; "" while they are good. The log has a line when it changes.
    """

    def __init__(self, name: str = "the source") -> None:
        self.trouble = ""
        self._name = name
        self._size: tuple[int, int] | None = None
        self._unreadable = 0
        self._blank_since: float | None = None

    def unreadable(self, reason: str) -> None:
        """A frame could not be made into a tensor."""
        self._unreadable += 1
        if self._unreadable == _IN_A_ROW:
            self._note(f"its pictures cannot be read ({reason})")

    def shows_nothing(self, tensor: NDArray[Any], spec: InputSpec, time: float) -> bool:
        """Look at a tensor, shape (1, height, width, channels), made of a picture of moment `time` in seconds."""
        self._unreadable = 0
        if not shows_nothing(tensor, spec):
            self._blank_since = None
            self._note("")
            return False
        if self._blank_since is None:
            self._blank_since = time
        if not self.briefly(time):
            self._note("its pictures are of one colour all over: is the lens covered?")
        return True

    def of_size(self, width: int, height: int) -> None:
        """Take note of the size of a picture in pixels. Another one is no fault, but may be why labels are others."""
        before, self._size = self._size, (width, height)
        if before not in (None, self._size):
            _log.warning("%s: its pictures are %dx%d now, %dx%d before", self._name, width, height, *before)

    def briefly(self, time: float) -> bool:
        """Whether pictures have shown nothing for so short a time that it may be a fault in passing."""
        return self._blank_since is not None and time - self._blank_since < BRIEF

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            _log.warning("%s: %s", self._name, trouble or "its pictures are good again")


def shows_nothing(tensor: NDArray[Any], spec: InputSpec) -> bool:
    """Whether every channel is of one value all over, by some hundred pixels of it; a tiny picture may well be."""
    if spec.height < _SAMPLE or spec.width < _SAMPLE:
        return False
    sample = tensor[0, :: spec.height // _SAMPLE, :: spec.width // _SAMPLE].reshape(-1, spec.channels)
    span = sample.max(axis=0).astype(np.float32) - sample.min(axis=0)
    if spec.dtype == "float32":
        span *= spec.std
    return bool((span <= _SPAN).all())
