"""The Raspberry Pi's own camera, through picamera2. The camera's hardware scales; the CPU resizes nothing.

Two streams are configured because libcamera wants a `main` one; `lores`, which the image processor scales to the
network's input, is what is copied out, and `main` only while somebody watches. Flips and half turns are the sensor's,
quarter turns and the region of interest are left to the reader; for a region the `lores` stream is made as much larger
as the region is smaller. Focus, and exposure unless it is given, are left to the camera's own algorithms.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any

import cv2

from ..card import InputSpec
from ..errors import EdgennError
from .base import Image
from .reconnecting import SILENCE, Lost, ReconnectingSource
from .view import View

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
      view: flips and half turns are done by the sensor, the rest is left in `view`.
      width, height: pixels of the `main` stream, which is what is seen while somebody watches; both or none.
      exposure: seconds; None leaves it to the camera's automatic.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        input: InputSpec | None = None,
        view: View | None = None,
        width: int | None = None,
        height: int | None = None,
        exposure: float | None = None,
    ) -> None:
        super().__init__("picamera")
        self._number = number
        view = view or View()
        self._main = (_even(width), _even(height)) if width and height else _MAIN
        self._exposure = exposure
        self._mirrored, self._upside_down, self.view = _in_hardware(view)
        self._width, self._height = _lores(input, self.view, self._main)
        self._camera: Any = None

    def connect(self) -> None:
        try:
            from libcamera import Transform
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
            # RGB888 is what libcamera calls the byte order B, G, R (picamera2 manual, "More on pixel formats").
            streams = {
                "main": {"size": self._main, "format": "RGB888"},
                "lores": {"size": (self._width, self._height), "format": "YUV420"},
            }
            controls: dict[str, Any] = {}
            if self._exposure is not None:
                controls = {"AeEnable": False, "ExposureTime": max(1, round(self._exposure * 1e6))}
            transform = Transform(hflip=self._mirrored, vflip=self._upside_down)
            # queue=False: no finished frame lies waiting to be asked for.
            self._camera.configure(
                self._camera.create_video_configuration(**streams, transform=transform, controls=controls, queue=False)
            )
            self._camera.start()
        except (RuntimeError, OSError) as error:
            raise Lost(f"the Pi's camera does not start ({error}): is another program using it?") from None

    def grab(self) -> tuple[Image, float]:
        try:
            request = self._request()
            try:
                taken_at = _stamp(request.get_metadata().get("SensorTimestamp"))
                width, height = self._main if self.watched else (self._width, self._height)
                if self.watched:
                    image = request.make_array("main")
                else:
                    image = cv2.cvtColor(request.make_array("lores"), cv2.COLOR_YUV2BGR_I420)
            finally:
                request.release()
        except (RuntimeError, OSError, CancelledError, AttributeError, cv2.error) as error:
            # AttributeError is what picamera2's parts raise when another thread has closed the camera meanwhile.
            raise Lost(f"the Pi's camera gives no picture ({error})") from None
        # Rows are padded to the hardware's stride, which becomes extra columns on the right.
        return image[:height, :width], taken_at

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


def _in_hardware(view: View) -> tuple[bool, bool, View]:
    """Whether the sensor mirrors, whether it stands on its head, and what of `view` is left to do."""
    if view.turned:
        return False, False, view
    half_turn = view.rotate == 180
    mirrored = (view.flip in ("horizontal", "both")) != half_turn
    upside_down = (view.flip in ("vertical", "both")) != half_turn
    # The region is of the picture as it is seen, and stays where it is.
    return mirrored, upside_down, replace(view, rotate=0, flip="none")


def _lores(spec: InputSpec | None, view: View, main: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the scaled stream: even, as YUV420 needs, and no larger than `main`, as libcamera needs."""
    if spec is None:
        return main
    rows, columns = view.cover(spec.height, spec.width)
    width, height = float(columns), float(rows)
    if spec.resize != "stretch":
        scale = max(width / main[0], height / main[1])
        width, height = main[0] * scale, main[1] * scale
    return min(_even(width), main[0]), min(_even(height), main[1])


def _even(side: float) -> int:
    return math.ceil(side / 2) * 2


def _stamp(sensor_ns: int | None) -> float:
    """Moment of exposure. SensorTimestamp counts nanoseconds since boot (libcamera, controls: SensorTimestamp)."""
    now = time.monotonic()
    if sensor_ns is None:
        return now
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - sensor_ns / 1e9
    return now - age if 0 <= age < SILENCE else now
