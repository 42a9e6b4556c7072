"""One garment before a hand-held camera: the view drifts, turns and comes closer while the light changes.

The scene is drawn once; a frame is a warp of it, a tone curve and noise, so that even a Pi gives 30 a second.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from . import LABELS, frame_size, index_of
from .fabric import Bytes, grain
from .scene import camera, still

# Of the frame's sides, drawn on every side beyond it: room for the view to drift in.
_MARGIN = 0.2
# A tremble of the hand and a slow sway, in hertz.
_RATES = (0.13, 0.31, 0.74)


class Moving:
    """A scene that is looked at over time.

    Args:
      label, seed, size: as for `draw`; the garment is the one that `draw` gives for this seed.

    Attributes:
      label: what is shown.
      style: its kind, in words ("bomber", "short sleeves").
    """

    def __init__(self, label: str | int, seed: int, size: int | tuple[int, int] = (240, 320)) -> None:
        index = index_of(label)
        self._height, self._width = frame_size(size)
        rng = np.random.default_rng((seed, index))
        self.label = LABELS[index]
        self._scene, self.style = still(rng, self.label, self._height, self._width, _MARGIN)
        # What moves through a stream of frames is not also smeared and compressed one by one.
        self._camera = replace(camera(rng), blur=0.0, motion=0.0, quality=None)
        self._phases = rng.uniform(0, 2 * math.pi, (6, len(_RATES)))
        self._noise = self._speckle(min(self._camera.noise, 3.0))

    def _speckle(self, deviation: float) -> Bytes:
        field = grain()
        rows, columns = -(-(self._height + 64) // len(field)), -(-(self._width + 64) // len(field))
        part = np.tile(field, (rows, columns))[: self._height + 64, : self._width + 64]
        return cv2.merge([cv2.convertScaleAbs(part, alpha=deviation, beta=128)] * 3)

    def _sway(self, which: int, seconds: float) -> float:
        """A smooth course through -1..1, another for each `which`."""
        first, second, third = (
            math.sin(2 * math.pi * rate * seconds + phase)
            for rate, phase in zip(_RATES, self._phases[which], strict=True)
        )
        return 0.55 * first + 0.35 * second + 0.1 * third

    def view(self, seconds: float) -> npt.NDArray[np.uint8]:
        """The frame at a time from the scene's beginning: uint8 (height, width, 3), BGR, the reader's own."""
        turn = 0.12 * self._sway(0, seconds)
        zoom = 1.0 + 0.1 * self._sway(1, seconds)
        c, s = math.cos(turn) / zoom, math.sin(turn) / zoom
        middle = np.array([self._scene.shape[1], self._scene.shape[0]]) / 2
        looked_at = middle + 0.08 * np.array(
            [self._width * self._sway(2, seconds), self._height * self._sway(3, seconds)]
        )
        # From the frame's pixel to the scene's: warpAffine takes the inverse as it is.
        half_width, half_height = self._width / 2, self._height / 2
        affine = np.array(
            [
                (c, -s, looked_at[0] - c * half_width + s * half_height),
                (s, c, looked_at[1] - s * half_width - c * half_height),
            ]
        )
        frame = cv2.warpAffine(
            self._scene,
            affine,
            (self._width, self._height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        brightness, warmth = 1 + 0.12 * self._sway(4, seconds), 0.05 * self._sway(5, seconds)
        blue, green, red = self._camera.gain
        gain = blue * brightness * (1 - warmth), green * brightness, red * brightness * (1 + warmth)
        frame = replace(self._camera, gain=gain).developed(frame)
        # Where in the noise field depends on the time alone, so that the same moment is the same picture.
        step = round(seconds * 1000)
        y, x = step * 29 % 64, step * 53 % 64
        noise = self._noise[y : y + self._height, x : x + self._width]
        return np.asarray(cv2.addWeighted(frame, 1, noise, 1, -128), np.uint8)
