"""A camera that is not there: drawn garments before a hand-held camera, one after the other, without end.

Every frame knows its true label. It stands in for a camera where there is none (a first try, a soak test); it says
nothing about how good a model is on real photos.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from ..errors import EdgennError
from ..garments import LABELS, frame_size, seed_in
from ..garments.moving import Moving
from .base import Frame, Source

# Seconds for which a garment is shown: long enough for averaged scores to settle, short enough to watch.
_SHOWN = (3.0, 6.0)
# (height, width) of the frames in pixels.
SIZE = (240, 320)


class SyntheticSource(Source):
    """Garments drawn by seed.

    Args:
      seed: 0 or above; the same seed gives the same frames.
      size: (height, width) of the frames in pixels, or one number for both.
      fps: frames a second.
      fast: False paces the frames and is `live`; True gives every frame as fast as it is drawn, and none is dropped.
      clock, wait: the time in seconds, and what sleeps for some seconds; for tests.

    Raises:
      EdgennError: a seed below 0, or a size or pace that no camera has.
    """

    continuous = True

    def __init__(
        self,
        *,
        seed: int = 0,
        size: int | tuple[int, int] = SIZE,
        fps: float = 30.0,
        fast: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        if not 0 < fps <= 1000:
            raise EdgennError(f"{fps} frames a second are not possible: give more than 0 and at most 1000")
        if seed < 0:
            raise EdgennError(f"seed {seed} is below 0: give one of 0 or above")
        self.name = "synthetic"
        self.live = not fast
        self._seed = seed
        self._size = frame_size(size)
        self._interval = 1 / fps
        self._clock = clock
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._rng = np.random.default_rng(seed)
        self._scenes = 0
        self._scene: Moving | None = None
        self._label = -1
        self._since = 0
        self._until = 0
        self._index = 0
        self._began: float | None = None

    def open(self) -> None:
        """Nothing to open: the first scene is drawn, so that the first frame is as prompt as the others."""
        if self._scene is None:
            self._next_scene()

    def read(self) -> Frame | None:
        if self._closed.is_set():
            return None
        if self._scene is None or self._index >= self._until:
            self._next_scene()
        assert self._scene is not None
        image = self._scene.view((self._index - self._since) * self._interval)
        if self.live:
            self._wait_until_due()
            if self._closed.is_set():
                return None
        moment = None if self.live else self._index * self._interval
        frame = Frame(image, self._clock(), self._index, truth=self._scene.label, moment=moment)
        self._index += 1
        return frame

    def close(self) -> None:
        self._closed.set()

    def _next_scene(self) -> None:
        """Another garment than the one before, for some seconds."""
        others = [label for label in range(len(LABELS)) if label != self._label]
        self._label = others[int(self._rng.integers(len(others)))]
        # After a million scenes (some fifty days of frames) they begin again.
        self._scene = Moving(self._label, seed_in("live", self._seed, self._scenes % 1_000_000), self._size)
        self._scenes += 1
        self._since = self._index
        self._until = self._index + max(1, round(self._rng.uniform(*_SHOWN) / self._interval))

    def _wait_until_due(self) -> None:
        """Keep the pace; after a delay go on from there instead of catching up in a burst."""
        now = self._clock()
        if self._began is None:
            self._began = now - self._index * self._interval
        due = self._began + self._index * self._interval
        if now < due:
            self._wait(due - now)
        elif now - due > self._interval:
            self._began += now - due
