"""IP cameras over RTSP, through the FFmpeg inside OpenCV. Reads the stream continuously, so nothing stale waits in it.

Hands over decoded frames: a video codec's frames build on each other, and none can be left undecoded.
"""

from __future__ import annotations

import time

import cv2

from ..addresses import shown
from .base import Image
from .capture import Capture
from .reconnecting import Lost, ReconnectingSource

# A camera on the local network answers within a fraction of this.
_OPEN_TIMEOUT = 5.0
# The first picture waits for a keyframe; a stream that falls silent later is noticed from outside, by `overdue`.
_READ_TIMEOUT = 10.0


class RtspSource(ReconnectingSource):
    """Frames of an RTSP stream.

    Args:
      url: rtsp://[NAME:PASSWORD@]HOST[:PORT]/PATH.
    """

    def __init__(self, url: str) -> None:
        super().__init__(shown(url))
        self._url = url
        self._capture: Capture | None = None

    def connect(self) -> None:
        timeouts = {cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: _OPEN_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC: _READ_TIMEOUT}
        parameters = [number for prop, seconds in timeouts.items() for number in (prop, int(seconds * 1000))]
        self._capture = Capture(self._url, cv2.CAP_FFMPEG, parameters)
        if not self._capture.opened:
            raise Lost(f"{self.name} does not open: check address, path, name and password, and that the camera is on")

    def grab(self) -> tuple[Image, float]:
        capture = self._capture
        if capture is None or not capture.grab():
            raise Lost(f"{self.name} gives no more pictures")
        taken_at = time.monotonic()
        image = capture.retrieve()
        if image is None:
            raise Lost(f"{self.name} gives no more pictures")
        return image, taken_at

    def disconnect(self) -> None:
        if self._capture is not None:
            self._capture.close()
