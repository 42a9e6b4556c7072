"""Results become events: what was seen, from when to when, with the picture that showed it best.

An event lasts for as long as one label holds, "unknown" included, so every frame belongs to exactly one. Keeps nothing
but the event that is going on; where events are stored or sent is the sinks' business.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from .cameras.base import Frame, Image
from .errors import EdgennError
from .pipeline import Result

# Pixels of a thumbnail's longer side: enough to recognise what was seen on a telephone, about 10 kB as JPEG.
THUMBNAIL = 320
# In percent. Below 70 blocks show in flat areas; above 85 the file doubles for nothing that is seen at this size.
_JPEG_QUALITY = 80
# Seconds without a frame (a camera that was unplugged) after which the same label is another event: nobody can say
# that the scene stayed as it was.
_GAP = 10.0
# Seconds by which the clock may drift from where the last event's times came from before it is read anew. Within it
# one event begins exactly where the one before ended; a clock that is set is followed from the next event on.
_DRIFT = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """One label over the time that it held.

    Attributes:
      id: unique over restarts and devices; sorts by start. Letters a to f, digits and one hyphen.
      label: the class, or "unknown".
      confidence: the highest averaged score so far, 0..1.
      started: Unix seconds, of the first frame.
      ended: Unix seconds, of the first frame that showed something else (of the last frame, where none did); None while
        it goes on. Never before `started`, even when the clock was set meanwhile.
      frames: how many frames so far.
      thumbnail: JPEG, longer side at most 320 pixels, of the frame with the highest confidence so far; None when its
        picture cannot be made into one.
    """

    id: str
    label: str
    confidence: float
    started: float
    ended: float | None
    frames: int
    thumbnail: bytes | None


@dataclass(slots=True)
class _Open:
    """The event that is going on. Times here are monotonic, but for `started`."""

    id: str
    label: str
    confidence: float
    started: float
    began: float
    last: float
    frames: int
    best: Frame
    drawn: tuple[Frame, bytes | None] | None = None

    def event(self, ended: float | None) -> Event:
        # Drawn when somebody asks, which is on a change of label, and not for each frame that is the best so far.
        if self.drawn is None or self.drawn[0] is not self.best:
            self.drawn = (self.best, thumbnail(self.best.image))
        ended = None if ended is None else self.started + (ended - self.began)
        return Event(self.id, self.label, self.confidence, self.started, ended, self.frames, self.drawn[1])


class Events:
    """Turns the results of one run into events.

    >>> events = Events()
    >>> for result in pipeline.results():                               # doctest: +SKIP
    ...     for event in events.take(result):
    ...         print(event.label, "ended" if event.ended else "began")
    """

    def __init__(self) -> None:
        self._open: _Open | None = None
        # Unix time minus monotonic time, in seconds.
        self._offset = _offset()

    def take(self, result: Result) -> list[Event]:
        """Take in one result.

        Returns:
          Nothing while the label stays; on a change the event that has ended and then the one that has begun.
        """
        frame, classification = result.frame, result.classification
        current = self._open
        if current is not None:
            # A source whose times go back does not make time go back.
            now = max(frame.time, current.last)
            missed = now - current.last > _GAP
            if classification.label == current.label and not missed:
                current.last = now
                current.frames += 1
                if classification.confidence > current.confidence:
                    current.confidence, current.best = classification.confidence, frame
                return []
            changes = [current.event(current.last if missed else now)]
        else:
            now, changes = frame.time, []
        offset = _offset()
        if abs(offset - self._offset) > _DRIFT:
            self._offset = offset
        started = now + self._offset
        self._open = _Open(
            _new_id(started), classification.label, classification.confidence, started, now, now, 1, frame
        )
        return [*changes, self._open.event(None)]

    def end(self) -> list[Event]:
        """End what is going on, with the time of its last frame."""
        if self._open is None:
            return []
        ended = self._open.event(self._open.last)
        self._open = None
        return [ended]


def thumbnail(image: Image, longest: int = THUMBNAIL) -> bytes | None:
    """A JPEG of `image` whose longer side has at most `longest` pixels; never larger than the picture.

    Args:
      image: uint8 pixels (H, W, 3) in BGR order, or the bytes of an encoded picture.

    Returns:
      None when it is no picture.
    """
    # Only here: whoever looks at events alone needs no OpenCV.
    import cv2

    from . import preprocess
    from .picture_header import read_header

    try:
        if isinstance(image, bytes):
            header = read_header(image)
            shrunk = min(1.0, longest / max(header.height, header.width))
            cover = (round(header.height * shrunk), round(header.width * shrunk))
            image = preprocess.decode(image, cover=cover[::-1] if header.turned else cover)
        height, width = image.shape[:2]
        shrunk = min(1.0, longest / max(height, width))
        if shrunk < 1.0:
            size = (max(1, round(width * shrunk)), max(1, round(height * shrunk)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    except (EdgennError, cv2.error, ValueError, ZeroDivisionError):
        return None
    return data.tobytes() if done else None


def _offset() -> float:
    return time.time() - time.monotonic()


def _new_id(started: float) -> str:
    """Microseconds since 1970 in 14 hexadecimal digits (enough until the year 4253), then 64 random bits."""
    return f"{max(0, int(started * 1e6)):014x}-{secrets.token_hex(8)}"
