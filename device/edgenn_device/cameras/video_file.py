"""A video file: at its own pace like the camera it stands in for, or every frame as fast as it can be decoded.

Reads from its first frame to its last, once; frames that are damaged are left out and counted. It neither seeks nor
loops.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from pathlib import Path

import cv2

from ..errors import EdgennError
from .base import Frame, Source
from .capture import Capture

# Pace of a file that does not say its own, or says something no camera does.
_USUAL_FPS = 30.0
_MOST_FPS = 1000.0
# Frames in a row that cannot be read before the file is given up, whatever it says of its length: half a minute.
_MOST_MISSED = 1000
# A film that has less than this share of its length has ended too soon. Some containers estimate theirs.
_WHOLE = 0.9

_log = logging.getLogger(__name__)


class VideoFileSource(Source):
    """Frames of a video file.

    Args:
      path: any container and codec that OpenCV's FFmpeg reads.
      fast: False paces the frames by their timestamps and is `live` (a frame's time is the moment it is due, and what
        cannot be classified in time is dropped); True gives every frame at once, and none is dropped.
    """

    def __init__(self, path: str | os.PathLike[str], *, fast: bool = False) -> None:
        self.name = str(path)
        self.live = not fast
        self._path = Path(path)
        self._closed = threading.Event()
        self._capture: Capture | None = None
        self._taken = False
        self._index = 0
        self._interval = 1 / _USUAL_FPS
        self._timestamp = self._first = 0.0
        self._began = 0.0

    def open(self) -> None:
        if not self._path.is_file():
            raise EdgennError(f"there is no video file {self.name}")
        if not os.access(self._path, os.R_OK):
            raise EdgennError(f"{self.name} may not be read: chmod +r {self.name}")
        self._capture = Capture(str(self._path), cv2.CAP_FFMPEG)
        self._taken = self._capture.opened and self._grab(self._capture)
        if not self._taken:
            self.close()
            raise EdgennError(f"{self.name} holds no video frame that OpenCV can read: is it a video, and whole?")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._interval = 1 / (fps if 0 < fps <= _MOST_FPS else _USUAL_FPS)

    def read(self) -> Frame | None:
        capture = self._capture
        if capture is None or self._closed.is_set():
            return None
        taken_at = time.monotonic()
        if not (self._taken or self._grab(capture)):
            self._look_back(capture)
            return None
        self._taken = False
        moment = self._moment(capture)
        if self.live:
            taken_at = self._wait_until_due(moment)
        image = None if self._closed.is_set() else capture.retrieve()
        if image is None:
            return None
        frame = Frame(image, taken_at, self._index, moment=moment)
        self._index += 1
        return frame

    def close(self) -> None:
        self._closed.set()
        if self._capture is not None:
            self._capture.close()

    def _grab(self, capture: Capture) -> bool:
        """Go on to the next frame that can be read; where the file should have more, one that cannot is not the end."""
        for missed in range(_MOST_MISSED):
            if capture.grab():
                self.skipped += missed
                return True
            # A file that does not say how many it has has 0 or fewer. Of a closed one all is 0.
            if not capture.get(cv2.CAP_PROP_POS_FRAMES) < capture.get(cv2.CAP_PROP_FRAME_COUNT):
                break
        return False

    def _look_back(self, capture: Capture) -> None:
        """Say so when the film has ended too soon: by its frames and by its time, because either may be estimated."""
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        length, shown = count * self._interval, self._timestamp - self._first + self._interval
        if self._index + self.skipped < _WHOLE * count and shown < _WHOLE * length:
            _log.warning("%s ends after %.1f of %.1f s: is the file damaged, or not whole?", self.name, shown, length)

    def _moment(self, capture: Capture) -> float:
        """Seconds into the film of the grabbed frame."""
        stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self._index == 0:
            self._timestamp = self._first = stamp if math.isfinite(stamp) else 0.0
        # Some containers carry no timestamps, and give 0 or the same one for every frame.
        elif math.isfinite(stamp) and 0 < stamp - self._timestamp < 60:
            self._timestamp = stamp
        else:
            self._timestamp += self._interval
        return self._timestamp

    def _wait_until_due(self, moment: float) -> float:
        """Sleep until a frame's moment has come; the time at which it was delivered."""
        if self._index == 0:
            self._began = time.monotonic() - moment
        self._closed.wait(max(0.0, self._began + moment - time.monotonic()))
        return time.monotonic()
