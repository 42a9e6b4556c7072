"""Pictures of one class from a camera into a folder that `edgenn train` reads: DIR/<label>/.

Shows the thing and leaves the rest to us: a picture every now and then, and none that looks like one that is there
already, because ten equal pictures teach a network what one does. It judges by likeness alone, not by what is shown.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .cameras.base import Frame, Source
from .cameras.view import View
from .channel import Channel, Ended
from .errors import AnswerIsNo, EdgennError
from .files import write_atomically
from .likeness import as_jpeg, difference, fingerprint
from .uncertain import is_folder_name, stamp

# Seconds before the first picture: to take the thing into view, and for the camera to find its exposure.
COUNTDOWN = 3.0
# Seconds of likeness after which a person is told that nothing moves, and after which there is no point in going on.
_TELL_AFTER = 4.0
GIVE_UP_AFTER = 60.0
# Of the 64 bits of two fingerprints: below `likeness.ALIKE`, because a small thing before a fixed camera changes few of
# them when it is turned. The noise of a camera that nothing moves before changes none to two.
_SAME = 4
# Pictures of the folder that new ones are compared with: the newest. Reading one takes milliseconds on a Pi.
_COMPARED = 500
# How long the end waits for the thread that reads the source.
_PATIENCE = 1.0

Step = Literal["countdown", "taken", "still"]


@dataclass(frozen=True)
class Collected:
    """What was taken.

    Attributes:
      folder: DIR/<label>.
      pictures: how many were taken.
      alike: frames left out because such a picture is there.
      unreadable: frames left out because they could not be read.
      seconds: how long it took.
      still: whether it ended because nothing moved any more.
    """

    folder: Path
    pictures: int
    alike: int
    unreadable: int
    seconds: float
    still: bool


def collect(
    source: Source,
    label: str,
    out: str | os.PathLike[str],
    *,
    count: int = 100,
    every: float = 0.5,
    countdown: float = COUNTDOWN,
    report: Callable[[Step, float], None] = lambda step, value: None,
) -> Collected:
    """Take pictures until there are `count` new ones, the source ends, or nothing has moved for a minute.

    Time goes by the frames' own, so a video read faster than it plays gives the same pictures.

    Args:
      source: not yet opened; it is closed at the end.
      label: the class; the name of the folder below `out`.
      out: DIR; made if it is not there. What is in it stays.
      count: how many pictures to take.
      every: seconds between two pictures of a continuous source; unrelated pictures are all looked at.
      countdown: seconds before the first picture of a live source.
      report: told of each step: "countdown" with the seconds left, "taken" with how many there are, "still" with the
        seconds since the last one.

    Raises:
      EdgennError: a label that can be no folder, a count or pace that is not possible, the source does not open, the
        folder cannot be written.
      AnswerIsNo: the source gave not one picture.
    """
    if not is_folder_name(label):
        raise EdgennError(f"{label!r} cannot be a class: give a name without '/' that does not begin with a dot")
    if count < 1 or every < 0 or countdown < 0:
        raise EdgennError("count is 1 or more, and no time is below 0")
    folder = Path(out) / label
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise EdgennError(f"{folder} is no folder: move it away, or choose another --out")
    taker = _Taker(folder, source.view)
    began = time.monotonic()
    still = False
    frames = _Frames(source)
    try:
        first: float | None = None
        last = tried = -float("inf")
        while taker.taken < count and (frame := frames.next()) is not None:
            moment = frame.time if frame.moment is None else frame.moment
            if first is None:
                first = last = moment
            if source.live and moment - first < countdown:
                report("countdown", countdown - (moment - first))
                last = moment
                continue
            if source.continuous and moment - tried < every:
                continue
            tried = moment
            if taker.take(frame):
                last = moment
                report("taken", taker.taken)
            elif source.continuous and moment - last > _TELL_AFTER:
                report("still", moment - last)
                if source.live and moment - last > GIVE_UP_AFTER:
                    still = True
                    break
    finally:
        frames.close()
    if not taker.taken and not taker.alike:
        raise AnswerIsNo(f"{source.name} gave no picture that can be read")
    return Collected(folder, taker.taken, taker.alike, taker.unreadable, time.monotonic() - began, still)


class _Taker:
    """Writes the frames that are unlike all pictures there are."""

    def __init__(self, folder: Path, view: View) -> None:
        self._folder, self._view, self._known = folder, view, _known(folder)
        self.taken = self.alike = self.unreadable = 0

    def take(self, frame: Frame) -> bool:
        try:
            image = frame.image if self._view.is_whole else self._view.apply(frame.image)
            seen, picture = fingerprint(image), as_jpeg(image)
        except EdgennError:
            self.unreadable += 1
            return False
        if any(difference(seen, other) <= _SAME for other in self._known):
            self.alike += 1
            return False
        name = stamp(time.time() - (time.monotonic() - frame.time))
        path = self._folder / f"{name}.jpg"
        number = 1
        while path.exists():  # pictures read from files come many in a millisecond
            number += 1
            path = self._folder / f"{name}-{number}.jpg"
        write_atomically(path, picture)
        self._known.append(seen)
        self.taken += 1
        return True


class _Frames:
    """A source read by a thread of its own, so that one that hangs can still be left with Ctrl-C."""

    def __init__(self, source: Source) -> None:
        self._source = source
        source.open()
        self._channel: Channel[Frame] = Channel(1, newest_wins=source.live)
        self._thread = threading.Thread(target=self._read, name="edgenn-collect", daemon=True)
        self._thread.start()

    def next(self) -> Frame | None:
        try:
            return self._channel.get()
        except Ended:
            return None

    def close(self) -> None:
        self._channel.close()
        self._source.close()
        self._thread.join(_PATIENCE)

    def _read(self) -> None:
        try:
            while (frame := self._source.read()) is not None:
                self._channel.put(frame)
        except Ended:
            return
        except BaseException as error:
            self._channel.finish(error)
        else:
            self._channel.finish()


def _known(folder: Path) -> list[int]:
    """Fingerprints of the newest pictures in a folder."""
    known = []
    if folder.is_dir():
        for path in sorted(folder.glob("*.jpg"))[-_COMPARED:]:
            try:
                known.append(fingerprint(path.read_bytes()))
            except (EdgennError, OSError):
                continue  # `edgenn train` will say so
    return known
