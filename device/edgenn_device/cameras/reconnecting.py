"""Cameras that drop out and come back: one place for the back-off that all of them share.

A subclass says how to connect, how to take one picture and how to let go; this class decides when. It gives up only at
the first `open`, where a person is looking; afterwards it tries until it is closed, because nobody is.
"""

from __future__ import annotations

import logging
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
# A camera that says nothing for this long is taken for frozen. Above the keyframe interval of common IP cameras (4 s).
SILENCE = 10.0

_log = logging.getLogger(__name__)


class Lost(EdgennError):
    """The connection failed in a way that may pass (refused, timed out, ended): worth another attempt."""


class ReconnectingSource(Source):
    """A live camera that is connected anew when it drops out, with doubling back-off and jitter.

    `connect` and `grab` run on one thread at a time; `disconnect` may come from another and wakes them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._closed = threading.Event()
        self._connected = False
        self._index = 0
        self._first: tuple[Image, float] | None = None

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
                self.connect()
                self._first = self.grab()
                self._connected = True
                return
            except Lost:
                self.disconnect()
                if attempt == _FIRST_ATTEMPTS - 1 or self._closed.wait(_wait(attempt)):
                    raise
            except BaseException:
                self.disconnect()
                raise

    def read(self) -> Frame | None:
        lost_at: float | None = None
        attempt = 0
        while not self._closed.is_set():
            try:
                if not self._connected:
                    self.connect()
                    self._connected = True
                    if self._closed.is_set():
                        break
                image, taken = self._first or self.grab()
                self._first = None
            except EdgennError as error:
                self._connected = False
                self.disconnect()
                if self._closed.is_set():
                    break
                if lost_at is None:
                    lost_at = time.monotonic()
                    _log.warning("%s; trying again until it is back", error)
                self._closed.wait(_wait(attempt))
                attempt += 1
                continue
            if lost_at is not None:
                _log.warning("%s: back after %.1f s", self.name, time.monotonic() - lost_at)
            frame = Frame(image, taken, self._index)
            self._index += 1
            return frame
        # Closed while it was being connected on this thread: the other thread's disconnect came too early for it.
        self.disconnect()
        return None

    def close(self) -> None:
        self._closed.set()
        self.disconnect()


def _wait(attempt: int) -> float:
    """Seconds before the next attempt; the jitter keeps several devices from storming a camera that restarts."""
    return random.uniform(0.5, 1.0) * min(_LONGEST_WAIT, _SHORTEST_WAIT * 2.0 ** min(attempt, 16))
