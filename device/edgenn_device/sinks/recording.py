"""Short videos of events: a little before, the event, a little after, in a folder that never outgrows its bounds.

The seconds before come from a ring of small JPEGs, so memory is bounded whatever the camera delivers. A video is
written aside and shows up under its name when it is whole. "unknown" is no event worth a video. What begins while a
video is being written goes into the same one, so there is never more than one encoder at work.

VP8 in WebM, because it is the one codec that both PyPI's OpenCV can write (it has no H.264 encoder, and VP9 costs six
times as much) and every browser plays. An OpenCV without it gets MJPEG in AVI, which players play and browsers do not.
Not for surveillance: a few small pictures a second, to see what the network saw.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..decision import UNKNOWN
from ..errors import EdgennError
from ..events import Event, thumbnail
from ..files import written_aside
from ..pipeline import Result
from .base import About, Sink

# Frames a second and pixels of the longer side: encoding 480×360 at this pace takes about a tenth of a desktop core,
# and must leave a small board its cores for the network.
_FPS = 5
_SIDE = 480
# Seconds before an event, after it, and of the event itself at most.
_BEFORE = 3.0
_AFTER = 3.0
_LONGEST = 30.0
# Seconds without a frame after which a video ends: it would show a standing picture.
_GAP = 2.0
# Bytes of the ring; the seconds above are 15 pictures of some 30 kB.
_RING = 4 << 20
# Bytes: of all videos together (some 300 of the longest), and what is left free on the disk for everybody else.
LIMIT = 1 << 30
RESERVE = 100 << 20
# Container, FourCC: the first that this OpenCV can write is taken.
_FORMATS = ((".webm", "VP80"), (".avi", "MJPG"))
_OURS = re.compile(r"\d{8}T\d{6}Z-.*\.(webm|avi)")
# How much an encoder yields to everything else (nice): a video may be late, a frame may not.
_NICE = 10

_log = logging.getLogger(__name__)


class Recording(Sink):
    """Writes FOLDER/YYYYMMDDTHHMMSSZ-LABEL-ID.webm, one for an event or for several that touch.

    Args:
      folder: made where it is missing.
      about: who we are (unused: a video says nothing but what it shows).
      limit: bytes of all videos together; beyond it the oldest are removed.
      reserve: bytes of the disk that stay free; where they are not, the oldest videos are removed, and when there are
        none left nothing is recorded until there is room.

    Raises:
      EdgennError: `folder` is a file.
    """

    pictures = True

    def __init__(
        self, folder: str | os.PathLike[str], about: About, *, limit: int = LIMIT, reserve: int = RESERVE
    ) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise EdgennError(f"{self.folder} is a file: videos need a folder")
        self.name = f"video:{self.folder}"
        self.limit = limit
        self.reserve = reserve
        self._ring: deque[tuple[float, bytes]] = deque()
        self._ring_bytes = 0
        self._next = float("-inf")
        self._now = 0.0
        self._clip: _Clip | None = None
        # The folder, open: others that write into it see by its lock that we do.
        self._lock: int | None = None
        self._written = 0
        self._skipped = 0
        self._error: str | None = None

    def open(self) -> None:
        """Make the folder, and remove what an earlier run, killed in the middle of a video, left half-written."""
        self.close()
        # Behind a queue this is a thread of our own. The main thread is somebody else's, and stays as it is.
        if threading.current_thread() is not threading.main_thread():
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder, os.O_RDONLY)
        if _nobody_else(self._lock):
            with contextlib.suppress(OSError):
                for path in self.folder.iterdir():
                    if path.name.startswith(".") and _OURS.fullmatch(path.name[1:]):
                        path.unlink()
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def write(self, result: Result) -> None:
        frame = result.frame
        now = frame.time if frame.moment is None else frame.moment
        if self._clip is not None and not 0 <= now - self._clip.last <= _GAP:
            self._end()
        if now < self._now:
            # The source began anew, or its clock was set back: its pictures are not one scene any more.
            self._ring.clear()
            self._ring_bytes, self._next = 0, now
        self._now = now
        if now < self._next:
            return
        # An even pace out of any frame rate; after a pause it begins anew.
        self._next = (self._next if self._next > now - 1 / _FPS else now) + 1 / _FPS
        picture = thumbnail(frame.image, _SIDE)
        if picture is None:
            return
        if self._clip is not None:
            self._add(now, picture)
        self._ring.append((now, picture))
        self._ring_bytes += len(picture)
        while self._ring and (self._ring_bytes > _RING or self._ring[0][0] < now - _BEFORE):
            self._ring_bytes -= len(self._ring.popleft()[1])

    def event(self, event: Event) -> None:
        clip = self._clip
        if event.ended is not None:
            if clip is not None and clip.event == event.id:
                clip.until = min(clip.longest, self._now + _AFTER)
        elif event.label != UNKNOWN:
            if clip is None:
                self._begin(event)
            else:
                clip.event, clip.until = event.id, clip.longest

    def close(self) -> None:
        self._end()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def state(self) -> dict[str, Any]:
        return {"videos": self._written, "skipped": self._skipped, "error": self._error}

    def _begin(self, event: Event) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(event.started))
        label = re.sub(r"[^\w-]+", "_", event.label)[:40]
        try:
            self._make_room(self.reserve)
            self._error = None
            first = self._ring[0][0] if self._ring else self._now
            self._clip = _Clip(self.folder / f"{stamp}-{label}-{event.id[-6:]}", event.id, first, self._now + _LONGEST)
        except (OSError, EdgennError) as error:
            self._skip(error)
            return
        for moment, picture in tuple(self._ring):
            if self._clip is not None:
                self._add(moment, picture)

    def _add(self, moment: float, picture: bytes) -> None:
        clip = self._clip
        assert clip is not None
        try:
            clip.add(moment, picture)
            if clip.frames % _FPS == 0:
                # OpenCV does not say that a disk is full: what it has is kept before it is.
                self._make_room(self.reserve)
        except (OSError, EdgennError) as error:
            if clip.frames == 0:
                self._clip = None
                clip.throw_away()
                self._skip(error)
                return
            _log.warning("%s: a video was cut short: %s", self.folder, error)
            self._error = str(error)
            clip.until = moment
        if moment >= clip.until:
            self._end()

    def _end(self) -> None:
        clip, self._clip = self._clip, None
        if clip is None:
            return
        try:
            path = clip.finish()
            if path is None:
                return
            _log.debug("%s written", path)
            self._written += 1
            # What was just written stays, whoever has filled the disk meanwhile.
            self._make_room(reserve=0)
        except (OSError, EdgennError) as error:
            self._skip(error)

    def _make_room(self, reserve: int) -> None:
        """Remove the oldest videos until there are fewer bytes than `limit` of them and `reserve` free on the disk.

        Raises:
          OSError: all are gone and the disk is still too full, or the folder cannot be had.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        videos = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if _OURS.fullmatch(path.name):
                    status = path.stat()
                    videos.append((status.st_mtime_ns, path, status.st_size))
        total = sum(size for _, _, size in videos)
        for _, path, size in sorted(videos):
            if total <= self.limit and self._free() >= reserve:
                return
            path.unlink(missing_ok=True)
            total -= size
        if self._free() < reserve:
            raise OSError(errno.ENOSPC, f"no video: {self.folder} has less than {reserve >> 20} MB free")

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def _skip(self, error: Exception) -> None:
        self._skipped += 1
        text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
        if text != self._error:
            _log.warning("%s: %s", self.folder, text)
        self._error = text


@dataclass
class _Clip:
    """One video while it is written: at a constant pace, a picture standing for as long as no newer one came."""

    stem: Path
    event: str
    first: float
    longest: float
    until: float = 0.0
    last: float = 0.0
    frames: int = 0
    _open: ExitStack = field(default_factory=ExitStack)
    _writer: Any = None
    _shown: Any = None
    _size: tuple[int, int] = (0, 0)
    _path: Path | None = None

    def __post_init__(self) -> None:
        self.until, self.last = self.longest, self.first

    def add(self, moment: float, picture: bytes) -> None:
        """Show `picture` from `moment` on.

        Raises:
          EdgennError: nothing can be written here, or this OpenCV cannot write videos.
        """
        # Only here: a device that records nothing is asked for nothing.
        import cv2
        import numpy as np

        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            return
        if self._writer is None:
            height, width = image.shape[:2]
            # VP8 keeps a colour for every two by two pixels.
            self._size = max(2, width & ~1), max(2, height & ~1)
            self._writer = self._begin()
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        place = max(self.frames, round((moment - self.first) * _FPS))
        while self.frames < place:
            self._writer.write(image if self._shown is None else self._shown)
            self.frames += 1
        self._writer.write(image)
        self.frames += 1
        self._shown, self.last = image, moment

    def _begin(self) -> Any:
        import cv2

        for suffix, code in _FORMATS:
            path = self.stem.with_name(self.stem.name + suffix)
            place = ExitStack()
            aside = place.enter_context(written_aside(path))
            with _without_remarks():
                writer = cv2.VideoWriter(str(aside), cv2.VideoWriter.fourcc(*code), _FPS, self._size)
            if writer.isOpened():
                self._open, self._path = place, path
                return writer
            _leave(place)
        raise EdgennError("this OpenCV can write neither VP8 nor MJPEG videos: take opencv-python-headless from PyPI")

    def finish(self) -> Path | None:
        """Put the video in its place; None when it has no frames.

        Raises:
          EdgennError: it cannot be written.
        """
        if self._writer is None:
            return None
        self._writer.release()
        self._open.close()
        return self._path

    def throw_away(self) -> None:
        if self._writer is not None:
            self._writer.release()
            _leave(self._open)


def _nobody_else(folder: int) -> bool:
    """Whether no other run has its lock on the folder: what is half-written there is nobody's then."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # This file system has no locks.
    return True


def _leave(place: ExitStack) -> None:
    """Leave `written_aside` as if the block had failed, so that the file is not kept."""
    place.__exit__(EdgennError, EdgennError("not to be kept"), None)


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep OpenCV's remark on WebM's lack of FourCCs, which nothing turns off, out of stderr; pass on all else."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        try:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(stderr, 2)
            held.seek(0)
            for line in held:
                if not line.startswith(b"OpenCV: FFMPEG:"):
                    os.write(stderr, line)
        finally:
            os.close(stderr)
