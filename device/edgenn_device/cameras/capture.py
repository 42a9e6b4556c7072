"""A cv2.VideoCapture that one thread reads and any other may close, and that says nothing on a person's screen.

Releasing a VideoCapture inside another thread's read crashes the process, so whoever leaves it last releases it. It
does not raise and does not interpret: whether `opened` is False because a file is missing or a camera is busy is for
the source to say.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

# Read by OpenCV when it first opens a file through FFmpeg. -8 is AV_LOG_QUIET (libavutil/log.h).
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if "OPENCV_LOG_LEVEL" not in os.environ:
    # OpenCV 5 has it in cv2.utils.logging only, OpenCV 4 in cv2 always; 0 is silent in both.
    (getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(0)


class Capture:
    """An opened (or not: see `opened`) VideoCapture.

    Args:
      target: file, device path or URL.
      backend: cv2.CAP_FFMPEG, cv2.CAP_V4L2, …
      parameters: pairs of property and value, given to `open`.
    """

    def __init__(self, target: str | int, backend: int, parameters: Sequence[int] = ()) -> None:
        self._lock = threading.Lock()
        self._closing = False
        self._capture: Any = cv2.VideoCapture(target, backend, list(parameters))
        self.opened = bool(self._capture.isOpened())

    def grab(self) -> bool:
        """Wait for the next frame and take it; False when there is none (end, error, closed)."""
        return self._use(self._capture.grab, False)

    def retrieve(self) -> NDArray[np.uint8] | None:
        """The frame that `grab` took: (H, W, 3) BGR, or whatever the device gives when CONVERT_RGB is 0."""
        taken, image = self._use(self._capture.retrieve, (False, None))
        return image if taken and image is not None and image.size else None

    def get(self, prop: int) -> float:
        return float(self._use(lambda: self._capture.get(prop), 0.0))

    def set(self, prop: int, value: float) -> bool:
        return bool(self._use(lambda: self._capture.set(prop, value), False))

    def close(self) -> None:
        self._closing = True
        self._release()

    def _use(self, call: Callable[[], T], otherwise: T) -> T:
        with self._lock:
            result = otherwise if self._closing else call()
        # Asked again after the lock is free: a `close` that found it taken relies on it.
        if self._closing:
            self._release()
        return result

    def _release(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._capture.release()
            finally:
                self._lock.release()
