"""Scores over time become one stable label: a moving average, hysteresis, frames in a row, "unknown" below a minimum.

Knows of scores and times only, not of pictures. For sources whose frames have nothing to do with each other it passes
the scores through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import EdgennError

UNKNOWN = "unknown"
# Seconds. After a change of scene the average has gone 90% of the way within log2(10) = 3.3 half-lives, that is a
# second: soon enough for a person who watches, and nine frames of a camera at 30 a second share one half-life.
HALF_LIFE = 0.3
# Score. Two classes that are level swap places with the noise of every frame; a lead of 5 points is seen as a change.
MARGIN = 0.05
# Frames. At 30 a second the average alone keeps one odd frame from turning the label; at 2 a second that frame is two
# thirds of the average.
IN_A_ROW = 2


@dataclass(frozen=True)
class Decided:
    """What the frames up to now say.

    Attributes:
      label: the class that holds, or "unknown".
      confidence: its averaged score; for "unknown" the highest one.
      scores: the averaged scores, float32 of shape (classes,).
    """

    label: str
    confidence: float
    scores: NDArray[np.float32]


class Decision:
    """A label that does not flicker, from the scores of successive frames.

    The average is exponential in time, not in frames: with s the average, x the new scores and d the seconds since the
    frame before, s += (1 - 2**(-d / half_life)) * (x - s). A frame's weight is halved every `half_life` seconds
    whatever the frame rate, and frames that were dropped change nothing of it.

    Args:
      labels: class names, in the order of the scores.
      half_life: seconds; None takes every frame by itself (no average, no hysteresis).
      minimum_confidence: averaged score below which the label is "unknown"; None: there is always a label.
      margin: by how much another class's average must exceed the present one's to take its place.
      in_a_row: in how many successive frames it must, the same class each time.

    Raises:
      EdgennError: `half_life` is not above 0, or `in_a_row` below 1.

    >>> decision = Decision(["cat", "dog"], half_life=0.3)
    >>> decision.update(np.array([0.9, 0.1], np.float32), time=0.0).label
    'cat'
    >>> decision.update(np.array([0.2, 0.8], np.float32), time=0.03).label  # one frame does not turn it
    'cat'
    >>> decision.update(np.array([0.2, 0.8], np.float32), time=1.0).label
    'dog'
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        half_life: float | None = HALF_LIFE,
        minimum_confidence: float | None = None,
        margin: float = MARGIN,
        in_a_row: int = 1,
    ) -> None:
        if in_a_row < 1:
            raise EdgennError(f"{in_a_row} frames in a row are not possible: 1 or more")
        if half_life is not None and not half_life > 0:
            raise EdgennError(f"a half-life of {half_life} s is not possible: it is above 0")
        self.labels = tuple(labels)
        self.half_life = half_life
        self.minimum_confidence = minimum_confidence
        self.margin = margin
        self.in_a_row = in_a_row
        self._average: NDArray[np.float32] | None = None
        self._time = 0.0
        self._present = 0
        # The class that leads, and in how many frames by now.
        self._leading = (0, 0)

    def renewed(self, labels: Sequence[str], minimum_confidence: float | None) -> Decision:
        """The same rules for another model's scores, with nothing seen yet."""
        return Decision(
            labels,
            half_life=self.half_life,
            minimum_confidence=minimum_confidence,
            margin=self.margin,
            in_a_row=self.in_a_row,
        )

    def update(self, scores: NDArray[np.float32], time: float) -> Decided:
        """Take in one frame.

        Args:
          scores: float32 of shape (classes,). Scores that are not finite (a float model can give them) count as 0.
          time: the frame's moment in its scene, in seconds. One before the last frame's counts as the same moment.
        """
        if not math.isfinite(scores.sum()):
            scores = np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
        if self.half_life is None:
            average, present = scores, int(scores.argmax())
        else:
            average, present = self._follow(scores, time, self.half_life)
        best = float(average.max())
        if self.minimum_confidence is not None and best < self.minimum_confidence:
            return Decided(UNKNOWN, best, average)
        return Decided(self.labels[present], float(average[present]), average)

    def _follow(self, scores: NDArray[np.float32], time: float, half_life: float) -> tuple[NDArray[np.float32], int]:
        if self._average is None:
            self._average, self._time, self._present = scores, time, int(scores.argmax())
            return scores, self._present
        elapsed = max(0.0, time - self._time)
        self._time += elapsed
        weight = np.float32(1.0 - 2.0 ** (-elapsed / half_life))
        # A new array: earlier ones have been handed out.
        self._average = self._average + weight * (scores - self._average)
        best = int(self._average.argmax())
        if self._average[best] > self._average[self._present] + self.margin:
            leader, frames = self._leading
            self._leading = (best, frames + 1 if best == leader else 1)
            if self._leading[1] >= self.in_a_row:
                self._present = best
                self._leading = (best, 0)
        else:
            self._leading = (best, 0)
        return self._average, self._present
