"""The Raspberry Pi's own camera, through picamera2. The camera's hardware scales; the CPU resizes nothing.

Two streams are configured because libcamera wants a `main` one; only `lores`, which the image processor scales to the
network's input, is ever copied out. Exposure and focus are left to the camera's own algorithms.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import CancelledError
from typing import Any

import cv2

from ..card import InputSpec
from ..errors import EdgennError
from .base import Image
from .reconnecting import SILENCE, Lost, ReconnectingSource

# 4:3 as the sensors are, so the whole field of view is used. Below 1280x720 picamera2 chooses the colour space
# SMPTE 170M (`create_video_configuration`), which is the one that OpenCV's conversion from YUV420 assumes.
_MAIN = (960, 720)
# How long a blocked `grab` may take to notice that the source was closed.
_NOTICE = 0.2


class PiCameraSource(ReconnectingSource):
    """Frames of a camera on the Pi's ribbon connector.

    Args:
      number: which camera, in the order of `rpicam-hello --list-cameras`.
      input: what the network takes; the frames have its size ("stretch"), or cover it at the camera's aspect ratio.
        None gives the `main` stream's size.
    """

    def __init__(self, number: int = 0, *, input: InputSpec | None = None) -> None:
        super().__init__("picamera")
        self._number = number
        self._width, self._height = _lores(input)
        self._camera: Any = None

    def connect(self) -> None:
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise EdgennError(
                f"picamera2 does not load ({error}): sudo apt install python3-picamera2, and make the virtual "
                "environment with `python3 -m venv --system-site-packages`, because pip has no libcamera"
            ) from None
        if self._number >= len(Picamera2.global_camera_info()):
            raise EdgennError(
                "no camera is connected to this Pi: check the ribbon cable, and rpicam-hello --list-cameras"
            )
        try:
            self._camera = Picamera2(self._number)
            streams = {"main": {"size": _MAIN}, "lores": {"size": (self._width, self._height), "format": "YUV420"}}
            # queue=False: no finished frame lies waiting to be asked for.
            self._camera.configure(self._camera.create_video_configuration(**streams, queue=False))
            self._camera.start()
        except (RuntimeError, OSError) as error:
            raise Lost(f"the Pi's camera does not start ({error}): is another program using it?") from None

    def grab(self) -> tuple[Image, float]:
        try:
            request = self._request()
            try:
                taken_at = _stamp(request.get_metadata().get("SensorTimestamp"))
                image = cv2.cvtColor(request.make_array("lores"), cv2.COLOR_YUV2BGR_I420)
            finally:
                request.release()
        except (RuntimeError, OSError, CancelledError, AttributeError, cv2.error) as error:
            # AttributeError is what picamera2's parts raise when another thread has closed the camera meanwhile.
            raise Lost(f"the Pi's camera gives no picture ({error})") from None
        # Rows are padded to the hardware's stride, which becomes extra columns on the right.
        return image[: self._height, : self._width], taken_at

    def disconnect(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            try:
                camera.close()
            except (RuntimeError, OSError):
                pass

    def _request(self) -> Any:
        if self._camera is None:
            raise RuntimeError("it was closed")
        job = self._camera.capture_request(wait=False)
        give_up = time.monotonic() + SILENCE
        while time.monotonic() < give_up and not self._closed.is_set():
            try:
                return job.get_result(timeout=_NOTICE)
            except TimeoutError:
                continue
        raise RuntimeError(f"nothing came in {SILENCE:g} s")


def _lores(spec: InputSpec | None) -> tuple[int, int]:
    """(width, height) of the scaled stream: even, as YUV420 needs, and no larger than `main`, as libcamera needs."""
    if spec is None:
        return _MAIN
    width, height = float(spec.width), float(spec.height)
    if spec.resize != "stretch":
        scale = max(width / _MAIN[0], height / _MAIN[1])
        width, height = _MAIN[0] * scale, _MAIN[1] * scale
    return min(math.ceil(width / 2) * 2, _MAIN[0]), min(math.ceil(height / 2) * 2, _MAIN[1])


def _stamp(sensor_ns: int | None) -> float:
    """Moment of exposure. SensorTimestamp counts nanoseconds since boot (libcamera, controls: SensorTimestamp)."""
    now = time.monotonic()
    if sensor_ns is None:
        return now
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - sensor_ns / 1e9
    return now - age if 0 <= age < SILENCE else now
