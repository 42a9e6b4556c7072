"""A camera on the network that shows what the test tells it to."""

from __future__ import annotations

import threading

import cv2
import numpy as np

from tools.http_camera import HttpCamera

RANDOM = np.random.RandomState(0)


def picture(height: int = 240, width: int = 320) -> bytes:
    """A JPEG that nobody takes for a lens cap."""
    small = RANDOM.randint(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


SCENE = picture()
BLACK = cv2.imencode(".jpg", RANDOM.randint(0, 4, (240, 320, 3)).astype(np.uint8))[1].tobytes()
TORN = SCENE[: len(SCENE) // 2]
# Its header says 320x240, its data are another picture's and end too soon; no decoder notices.
MIXED = SCENE[: len(SCENE) // 3] + b"\xff\xd9"
SMALL = picture(2, 2)
LARGE = picture(1080, 1920)


class Camera(HttpCamera):
    """Sends `image` over and over; `frozen` stops it without ending the connection."""

    def __init__(self, pace: float = 0.005) -> None:
        self.image = SCENE
        self.frozen = threading.Event()
        super().__init__(pace)

    def picture(self, number: int) -> bytes | None:
        return None if self.frozen.is_set() else self.image
