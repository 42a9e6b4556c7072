"""Cameras that drop out and come back: one place for the back-off that all of them share.

A subclass says how to connect, how to take one picture and how to let go; this class decides when. It gives up only at
the first `open`, where a person is looking; afterwards it tries until it is closed, because nobody is.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from abc import abstractmethod

from ..errors import EdgennError
from .base import Frame, Image, Source

# Attempts before the first `open` gives up: enough for a camera that is just starting its stream, and over in a second.
_FIRST_ATTEMPTS = 3
# Back-off doubles from a quarter of a second. Its longest, together with the time to connect, stays below 5 seconds: a
# camera that has come back is seen within that.
_SHORTEST_WAIT = 0.25
_LONGEST_WAIT = 3.0
# Different reasons of one outage that are logged; some have figures in them, and would be others at each attempt.
_REASONS = 5
# A camera that has been giving pictures and gives none for this long is taken for frozen. With the back-off's first
# wait it leaves a camera that comes back at once below 5 seconds.
SILENCE = 4.0
# How long a step may take before the thread in it is given up: the sources have time limits of their own, so only a
# native library that hangs takes longer. To connect: name look-up and timeout. The first picture of a video stream may
# have to wait for a keyframe; common IP cameras send one every 4 s at the latest.
_CONNECTING = 15.0
_FIRST_PICTURE = 12.0
_GRACE = 0.5

_log = logging.getLogger(__name__)


class Lost(EdgennError):
    """The connection failed in a way that may pass (refused, timed out, ended): worth another attempt."""


class ReconnectingSource(Source):
    """A live camera that is connected anew when it drops out, with doubling back-off and jitter.

    `connect` and `grab` run on one thread at a time; `disconnect` may come from another and wakes them. One
    that never returns shows in `overdue`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._closed = threading.Event()
        self._connected = False
        self._index = 0
        self._first: tuple[Image, float] | None = None
        # When the step under way should have ended, `time.monotonic()`.
        self._deadline = math.inf

    @abstractmethod
    def connect(self) -> None:
        """Connect to the camera.

        Raises:
          Lost: it does not answer now.
          EdgennError: it is not there, or is not what this source reads.
        """

    @abstractmethod
    def grab(self) -> tuple[Image, float]:
        """The next picture and its `time.monotonic()`.

        Raises:
          EdgennError: no picture came; the connection is of no more use.
        """

    @abstractmethod
    def disconnect(self) -> None:
        """Let go of the camera and wake a blocked `grab`. Any thread, any number of times."""

    def open(self) -> None:
        """Connect and take the first picture, so that a camera that gives none is found out while a person looks."""
        for attempt in range(_FIRST_ATTEMPTS):
            try:
                self._connect()
                self._first = self._grab(_FIRST_PICTURE)
                return
            except Lost:
                self._disconnect()
                if attempt == _FIRST_ATTEMPTS - 1 or self._closed.wait(_wait(attempt)):
                    raise
            except BaseException:
                self._disconnect()
                raise

    def read(self) -> Frame | None:
        lost_at: float | None = None
        told: set[str] = set()
        attempt = 0
        while not self._closed.is_set():
            try:
                patience = SILENCE + _GRACE
                if not self._connected:
                    self._connect()
                    patience = _FIRST_PICTURE
                    if self._closed.is_set():
                        break
                image, taken = self._first or self._grab(patience)
                self._first = None
            except EdgennError as error:
                self._disconnect()
                if self._closed.is_set():
                    break
                lost_at = time.monotonic() if lost_at is None else lost_at
                # What it fails by now is what has to be mended: a camera that was restarted may ask for a password.
                self.tell("failed", f"{error}; trying again until it is back")
                if str(error) not in told and len(told) < _REASONS:
                    told.add(str(error))
                    _log.warning("%s; trying again until it is back", error)
                self._closed.wait(_wait(attempt))
                attempt += 1
                continue
            if lost_at is not None:
                _log.warning("%s: back after %.1f s", self.name, time.monotonic() - lost_at)
                self.tell("ok", "")
            frame = Frame(image, taken, self._index)
            self._index += 1
            return frame
        # Closed while it was being connected on this thread: the other thread's disconnect came too early for it.
        self._disconnect()
        return None

    def overdue(self, now: float) -> bool:
        return now > self._deadline

    def close(self) -> None:
        self._closed.set()
        self.disconnect()

    def _connect(self) -> None:
        self._deadline = time.monotonic() + _CONNECTING
        self.connect()
        self._connected = True

    def _grab(self, patience: float) -> tuple[Image, float]:
        self._deadline = time.monotonic() + patience
        picture = self.grab()
        # Until the next call it is the reader who takes his time.
        self._deadline = math.inf
        return picture

    def _disconnect(self) -> None:
        self._connected = False
        self._deadline = time.monotonic() + _CONNECTING
        self.disconnect()
        self._deadline = math.inf


def _wait(attempt: int) -> float:
    """Seconds before the next attempt; the jitter keeps several devices from storming a camera that restarts."""
    return random.uniform(0.5, 1.0) * min(_LONGEST_WAIT, _SHORTEST_WAIT * 2.0 ** min(attempt, 16))
