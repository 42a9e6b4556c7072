"""USB cameras and other Video4Linux devices. A camera that compresses (MJPEG) is handed over as it compresses.

Neither decodes nor resizes: OpenCV is told to leave JPEG alone, because the preprocess stage decodes it at the largest
reduction that still covers the network's input.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2

from ..errors import EdgennError
from .base import Image
from .capture import Capture
from .reconnecting import Lost, ReconnectingSource

_MJPG = cv2.VideoWriter.fourcc(*"MJPG")
# Of every Video4Linux device (Linux, admin-guide/devices.txt).
_VIDEO_MAJOR = 81
# One for the camera to fill while the other is copied out; with a single one it misses the frame that begins meanwhile.
# The capture thread does nothing but read, so no frame grows old in them.
_BUFFERS = 2
# V4L2_EXPOSURE_MANUAL, and units a second of V4L2_CID_EXPOSURE_ABSOLUTE (videodev2.h: 100 µs each); OpenCV passes both
# on as they are.
_MANUAL = 1
_EXPOSURE_UNITS = 10_000
# A buffer's own timestamp is believed when it is not older than this: drivers that do not use the monotonic clock give
# something far away.
_OLDEST_STAMP = 1.0


class V4L2Source(ReconnectingSource):
    """Frames of /dev/videoN.

    Args:
      device: "0" or "/dev/video0" (or any other path to a video device).
      width, height: pixels to ask the camera for; it takes the nearest it can. None leaves its own.
      exposure: seconds; None leaves it to the camera's automatic.
    """

    def __init__(
        self,
        device: str | int,
        *,
        width: int | None = None,
        height: int | None = None,
        exposure: float | None = None,
    ) -> None:
        path = str(device)
        super().__init__(f"/dev/video{path}" if path.isdecimal() else path)
        self._size = (width, height)
        self._exposure = exposure
        self._capture: Capture | None = None

    def connect(self) -> None:
        _check(Path(self.name))
        capture = Capture(self.name, cv2.CAP_V4L2)
        self._capture = capture
        if not capture.opened:
            raise Lost(f"{self.name} does not open: is another program using it? `fuser {self.name}` tells which")
        # The format comes before the size: most cameras reach their largest sizes only when they compress.
        capture.set(cv2.CAP_PROP_FOURCC, _MJPG)
        for prop, value in zip((cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT), self._size, strict=True):
            if value is not None:
                capture.set(prop, value)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, _BUFFERS)
        if self._exposure is not None:
            capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL)
            if not capture.set(cv2.CAP_PROP_EXPOSURE, max(1, round(self._exposure * _EXPOSURE_UNITS))):
                raise EdgennError(f"{self.name} lets nobody set its exposure: leave --exposure out")
        compressed = int(capture.get(cv2.CAP_PROP_FOURCC)) == _MJPG
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0 if compressed else 1)

    def grab(self) -> tuple[Image, float]:
        capture = self._capture
        if capture is None or not capture.grab():
            raise Lost(f"{self.name} gives no picture: is it still plugged in?")
        taken_at = _stamp(capture)
        image = capture.retrieve()
        if image is None:
            raise Lost(f"{self.name} gives no picture: is it still plugged in?")
        # OpenCV hands an undecoded frame over as one row (or column) of bytes.
        encoded = image.ndim < 3 and 1 in image.shape
        return image.tobytes() if encoded else image, taken_at

    def disconnect(self) -> None:
        if self._capture is not None:
            self._capture.close()


def _check(device: Path) -> None:
    """Say what a person can mend before OpenCV says that it cannot open the camera."""
    if not device.exists():
        present = sorted(str(path) for path in Path("/dev").glob("video*"))
        here = f"here are {', '.join(present)}" if present else "this machine has no /dev/video*; is it plugged in?"
        raise EdgennError(f"there is no camera {device}: {here}")
    if not device.is_char_device() or os.major(device.stat().st_rdev) != _VIDEO_MAJOR:
        raise EdgennError(f"{device} is not a video device")
    if not os.access(device, os.R_OK | os.W_OK):
        raise EdgennError(f"{device} may not be opened: sudo usermod -aG video $USER, then log in again")


def _stamp(capture: Capture) -> float:
    """When the camera filled the buffer: V4L2's own timestamp is of the monotonic clock, to which OpenCV passes it on.

    Source: videodev2.h, V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC; OpenCV gives it as CAP_PROP_POS_MSEC.
    """
    now = time.monotonic()
    stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    return stamp if now - _OLDEST_STAMP < stamp <= now else now
