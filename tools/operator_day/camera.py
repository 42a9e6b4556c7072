"""The camera of the day, which fails on demand.

Its scene shows one garment, then another, so that there are events all day. It is a server of this process, cheap
enough (pictures are encoded beforehand) that the device is not measured by it.
"""

from __future__ import annotations

import time
from typing import Literal

import cv2
import numpy as np

from edgenn_device.cameras.synthetic import SyntheticSource
from tools.http_camera import HttpCamera

How = Literal["well", "frozen", "garbage", "covered", "large", "flood", "asks"]
# Frames a second: as much as a small emulated board classifies without a drop.
FPS = 6.0
# Seconds that a garment is shown.
_SHOWN = 2.5
# Pictures of each garment.
_COUNT = 12


class Camera(HttpCamera):
    """`how` is how it behaves from now on.

    How: "well"; "frozen" (connected, and no more pictures); "garbage" (parts that are no JPEG); "covered" (a lens cap);
    "large" (another resolution); "flood" (as fast as the network takes them); "asks" (for a password).
    """

    def __init__(self) -> None:
        self._well = [_garment(label) for label in (0, 2)]
        self._large = [[_scaled(jpeg, 3.0) for jpeg in garment] for garment in self._well]
        noise = np.random.default_rng(0).integers(0, 5, (240, 320, 3)).astype(np.uint8)
        self._covered = _jpeg(noise)
        self._how: How = "well"
        super().__init__(1 / FPS)

    def now(self, how: How) -> None:
        self._how = how
        self.pace = 0.0 if how == "flood" else 1 / FPS
        self.asks = how == "asks"
        if self.asks:
            self.hang_up()

    def picture(self, number: int) -> bytes | None:
        if self._how == "frozen":
            return None
        if self._how == "covered":
            return self._covered
        if self._how == "garbage":
            return b"this is no picture " * 50
        scenes = self._large if self._how == "large" else self._well
        shown = scenes[int(time.monotonic() / _SHOWN) % len(scenes)]
        return shown[number % len(shown)]


def _garment(scene: int) -> list[bytes]:
    """Pictures of the synthetic camera's scene of that number."""
    found: list[bytes] = []
    with SyntheticSource(fast=True) as source:
        scenes, last = -1, None
        while len(found) < _COUNT * 4:
            frame = source.read()
            assert frame is not None
            scenes += frame.truth != last
            last = frame.truth
            if scenes == scene:
                assert isinstance(frame.image, np.ndarray)
                found.append(_jpeg(frame.image))
    return found[::4]


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _scaled(jpeg: bytes, by: float) -> bytes:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return _jpeg(cv2.resize(image, None, fx=by, fy=by))
