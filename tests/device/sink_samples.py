"""What the tests of sinks and events share: results and events by hand, and waiting for what another thread does."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from edgenn_device.cameras.base import Frame
from edgenn_device.classifier import Classification
from edgenn_device.events import Event
from edgenn_device.pipeline import Result
from edgenn_device.sinks.base import About

ABOUT = About("porch", "garments", ("jacket", "shirt"), "litert 2.3", "camera 0", "0.1.0")

_AN_HOUR_AGO = round(time.time()) - 3600.0


def result(index: int = 0, label: str = "shirt", confidence: float = 0.75, **frame: object) -> Result:
    top = ((label, confidence), ("jacket", 1 - confidence))
    classification = Classification(label, confidence, top, np.array([confidence, 1 - confidence], np.float32))
    frame = {"image": np.zeros((4, 4, 3), np.uint8), "time": time.monotonic(), **frame}
    return Result(Frame(index=index, **frame), classification, {"invoke": 0.004}, 0.0123)


def event(number: int = 0, *, ended: bool = False, label: str = "shirt", thumbnail: bytes | None = b"jpeg") -> Event:
    """Event `number` since an hour ago; it lasts ten seconds."""
    started = _AN_HOUR_AGO + 10 * number
    return Event(
        f"{number:014x}-0123456789abcdef",
        label,
        0.9,
        started,
        started + 10 if ended else None,
        300 if ended else 1,
        thumbnail,
    )


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until `condition` holds; fail when it does not come to hold."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.005)
