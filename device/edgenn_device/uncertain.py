"""Keeps the frames that the model is unsure of, for a person to label: the photos that the next training lacks.

FOLDER/unlabelled/ fills with whole frames, each with a JSON file beside it that tells what the model said; a labelled
one moves to FOLDER/<label>/, the layout that `edgenn train` reads. What is kept is diverse and bounded: of frames that
look alike one is kept, at most one a second, and when the room is used up the one of which the model is least unsure
makes way. It labels nothing by itself, and never touches what a person has labelled.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unicodedata import category

import numpy as np

from .decision import HALF_LIFE, UNKNOWN
from .errors import EdgennError
from .files import write_atomically
from .likeness import ALIKE, as_jpeg, difference, fingerprint
from .pipeline import Result

UNLABELLED = "unlabelled"
# Below UNLABELLED: what a person has said to be a picture of no class.
NONE_OF_THEM = "none of them"
# Bytes. At 200 kB for a frame of 1080p some 2,500: more than a person labels, little on the smallest card.
LIMIT = 500_000_000
# Frames, for cameras of small pictures: more than this nobody looks through.
_MOST = 5000
# Lead of the best score over the second (margin sampling: Settles, "Active Learning Literature Survey", 2009, 3.1).
# A frame of which the best class has no half of the whole ahead of the next (0.75 to 0.25) is worth a look.
_MARGIN = 0.5
# Seconds for which the model must have been unsure of a continuous scene. Scores are averaged over time, so on the way
# from one sure label to the next they look unsure for about two half-lives; and a movement that lasts no longer blurs.
_SETTLED = 2 * HALF_LIFE
# Seconds between two frames that are kept: a card wears with every write, and a scene is rarely another within one.
_PACE = 1.0
# Seconds until writing is tried again after the disk refused.
_BACK_OFF = 30.0
# How long `close` waits for the frame that is being written.
_PATIENCE = 1.0
# How many labels can be taken back.
_UNDO = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """One frame that waits for its label.

    Attributes:
      name: of its file below FOLDER/unlabelled, without ".jpg".
      margin: lead of the best score over the second, 0..1; the lower, the less sure the model was.
      fingerprint: see `likeness`; None for a picture that was put there by other means.
      bytes: of picture and JSON file.
      said: what the model said of it: time (Unix seconds), label, confidence, top [[LABEL, SCORE]…]. The JSON file
        has more, and all scores, which for thousands of frames would be too much to hold.
    """

    name: str
    margin: float
    fingerprint: int | None
    bytes: int
    said: dict[str, Any]


class Keeper:
    """The frames that wait for a label, and their folder. Thread-safe; entering starts its thread, leaving ends it.

    The thread begins with what an earlier run has left in the folder.

    Args:
      folder: FOLDER; made when the first frame is kept.
      labels: the classes that a person may choose from. Those that cannot be the name of a folder are left out.
      model: named in the JSON files.
      limit: bytes of FOLDER/unlabelled at most.

    Attributes:
      labels: settable, for a model that was exchanged meanwhile.

    Raises:
      EdgennError: `folder` is no folder.
    """

    name = "uncertain"

    def __init__(
        self, folder: str | os.PathLike[str], labels: Sequence[str], *, model: str = "", limit: int = LIMIT
    ) -> None:
        self.folder = Path(folder)
        self.labels = tuple(labels)
        self._model = model
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}
        # Fingerprints of what was labelled since the start: it is not to come again.
        self._labelled: deque[int] = deque(maxlen=_MOST)
        self._undo: dict[str, tuple[Kept, Path]] = {}
        self._error = ""
        # The most unsure frame since the last one was taken up: margin, result, Unix time. Written by two threads
        # without a lock: at worst one candidate is missed.
        self._candidate: tuple[float, Result, float] | None = None
        self._unsure_since: float | None = None
        self._arrived = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        above = (self.folder, *self.folder.parents)
        if any(place.exists() and not place.is_dir() for place in above) or self._waiting_room.is_symlink():
            raise EdgennError(f"{self.folder} is no folder for frames to be labelled: give another")

    def take(self, result: Result) -> None:
        """Have a look at a result. Takes microseconds: everything else happens on the keeper's own thread."""
        if result.skipped:  # a still scene, with the scores of an earlier frame
            return
        margin, frame = margin_of(result), result.frame
        if margin >= _MARGIN and result.classification.label != UNKNOWN:
            self._unsure_since = None
            return
        moment = frame.time if frame.moment is None else frame.moment
        if self._unsure_since is None:
            self._unsure_since = moment
        # Pictures from files have nothing to do with the one before.
        if frame.path is None and moment - self._unsure_since < _SETTLED:
            return
        candidate = self._candidate
        if candidate is None or margin < candidate[0]:
            self._candidate = margin, result, time.time() - (time.monotonic() - frame.time)
            self._arrived.set()

    def waiting(self) -> list[Kept]:
        """What waits for a label, the most unsure first."""
        with self._lock:
            return sorted(self._kept.values(), key=lambda kept: (kept.margin, kept.name))

    @property
    def count(self) -> int:
        """How many frames wait for a label."""
        return len(self._kept)

    def picture(self, name: str) -> bytes | None:
        """The JPEG of a frame that waits, None if there is none of that name."""
        with self._lock:
            if name not in self._kept:
                return None
        try:
            # Not through a link that somebody has put in its place.
            handle = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(handle, "rb") as file:
                return file.read()
        except OSError:
            with self._lock:
                self._kept.pop(name, None)
            return None

    def label(self, name: str, label: str | None) -> None:
        """Put a frame into the folder of its class.

        Args:
          name: of a frame that waits.
          label: one of `labels`; None for a frame that shows none of them, which is put aside.

        Raises:
          EdgennError: no such frame or label, or the file cannot be moved.
        """
        if label is not None and label not in self.classes:
            raise EdgennError(
                f"there is no class {label[:80]!r} to choose: take one of {', '.join(self.classes)[:200]}"
            )
        with self._lock:
            kept = self._kept.get(name)
            if kept is None:
                raise EdgennError("this frame is no longer there: it has its label, or has made way for others")
            target = self.folder / label if label is not None else self._waiting_room / NONE_OF_THEM
            self._move(self._waiting_room, target, name)
            del self._kept[name]
            if kept.fingerprint is not None:
                self._labelled.append(kept.fingerprint)
            self._undo[name] = kept, target
            if len(self._undo) > _UNDO:
                del self._undo[next(iter(self._undo))]

    def undo(self, name: str) -> Kept:
        """Take the label of a frame back: it waits again. Whose it is says who gave it, since several may label.

        Raises:
          EdgennError: it was labelled before the start, or too long ago, or the file cannot be moved.
        """
        with self._lock:
            if name not in self._undo:
                raise EdgennError("this label can no longer be taken back: move the file by hand")
            kept, source = self._undo[name]
            self._move(source, self._waiting_room, name)
            del self._undo[name]
            self._kept[name] = kept
            return kept

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that can be the name of a folder."""
        return tuple(label for label in self.labels if is_folder_name(label))

    def state(self) -> dict[str, Any]:
        """JSON-able: frames that wait and their bytes; "error" while the disk refuses."""
        with self._lock:
            said: dict[str, Any] = {
                "waiting": len(self._kept),
                "bytes": sum(kept.bytes for kept in self._kept.values()),
            }
        return {**said, "error": self._error} if self._error else said

    def close(self) -> None:
        self._closed.set()
        self._arrived.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)
            self._thread = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="edgenn-uncertain", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        self._read_folder()
        while True:
            self._arrived.wait()
            if self._closed.is_set():
                return
            self._arrived.clear()
            candidate, self._candidate = self._candidate, None
            if candidate is None:
                continue
            pause = _PACE
            try:
                self._consider(*candidate)
                self._error = ""
            except (EdgennError, OSError) as error:
                if not self._error:
                    _log.warning("frames that the model is unsure of cannot be kept: %s", error)
                self._error, pause = str(error), _BACK_OFF
            # While it waits, `take` looks for the most unsure frame.
            self._closed.wait(pause)

    def _consider(self, margin: float, result: Result, taken: float) -> None:
        """Keep the frame if it is unlike all that is kept, and worth its room."""
        try:
            print_ = fingerprint(result.frame.image)
            picture = as_jpeg(result.frame.image)
        except EdgennError:
            return  # a torn frame; the pipeline counts those
        with self._lock:
            known = [kept.fingerprint for kept in self._kept.values() if kept.fingerprint is not None]
            known.extend(self._labelled)
        if any(difference(print_, other) <= ALIKE for other in known):
            return
        name, number = stamp(taken), 1
        while name in self._kept:  # the clock was set back
            number += 1
            name = f"{stamp(taken)}-{number}"
        classification = result.classification
        said = {
            "time": round(taken, 3),
            "label": classification.label,
            "confidence": _number(classification.confidence),
            "top": [[label, _number(score)] for label, score in classification.top],
        }
        more = {
            "scores": [_number(score) for score in classification.scores],
            "margin": margin,
            "model": self._model,
            "frame": result.frame.index,
            "fingerprint": f"{print_:016x}",
        }
        beside = json.dumps({**said, **more})
        kept = Kept(name, margin, print_, len(picture) + len(beside), said)
        if not self._make_room(kept):
            return
        # The JSON file first: a picture never waits without what was said of it.
        said_of_it = self._waiting_room / f"{name}.json"
        write_atomically(said_of_it, beside)
        try:
            write_atomically(self._path(name), picture)
        except BaseException:
            said_of_it.unlink(missing_ok=True)
            raise
        with self._lock:
            self._kept[name] = kept

    def _make_room(self, new: Kept) -> bool:
        """Remove what is less useful than `new` until that fits; False, and nothing removed, if it is not worth it."""
        with self._lock:
            total, number = sum(kept.bytes for kept in self._kept.values()), len(self._kept)
            leaving: list[Kept] = []
            for kept in sorted(self._kept.values(), key=lambda kept: (-kept.margin, kept.name)):
                if total + new.bytes <= self._limit and number < _MOST:
                    break
                if kept.margin <= new.margin:
                    return False
                leaving.append(kept)
                total, number = total - kept.bytes, number - 1
            if total + new.bytes > self._limit:
                return False
            for kept in leaving:
                del self._kept[kept.name]
        for kept in leaving:
            for path in (self._path(kept.name), self._waiting_room / f"{kept.name}.json"):
                path.unlink(missing_ok=True)
        return True

    @property
    def _waiting_room(self) -> Path:
        return self.folder / UNLABELLED

    def _path(self, name: str) -> Path:
        return self._waiting_room / f"{name}.jpg"

    def _move(self, source: Path, target: Path, name: str) -> None:
        """The picture, which is what counts, and then its JSON file."""
        picture, there = source / f"{name}.jpg", target / f"{name}.jpg"
        try:
            target.mkdir(parents=True, exist_ok=True)
            for folder in (self._waiting_room, source, target):
                if folder.is_symlink():
                    raise EdgennError(f"{folder} is a link: make it a folder, and label again")
            if there.exists():
                raise EdgennError(f"{there} exists: move it away, and label again")
            if picture.is_symlink() or not picture.is_file():
                raise EdgennError(f"{picture} is no longer there: reload the page")
            picture.rename(there)
            beside = source / f"{name}.json"
            if beside.exists():
                beside.rename(target / beside.name)
        except OSError as error:
            raise EdgennError(f"{picture} cannot be moved to {target}: {error.strerror or error}") from None

    def _read_folder(self) -> None:
        """What an earlier run has kept; a JSON file whose picture a loss of power left behind is removed."""
        try:
            with os.scandir(self._waiting_room) as entries:
                files = {
                    entry.name: entry.stat(follow_symlinks=False).st_size
                    for entry in entries
                    if entry.is_file(follow_symlinks=False) and not entry.name.startswith(".")
                }
            for file in sorted(files):
                name, _, suffix = file.rpartition(".")
                if not _is_text(name):
                    _log.warning("%r in %s is left alone: its name is not UTF-8", file, self._waiting_room)
                    continue
                if suffix == "json" and f"{name}.jpg" not in files:
                    (self._waiting_room / file).unlink(missing_ok=True)
                elif suffix == "jpg" and name:
                    kept = self._found(name, files[file] + files.get(f"{name}.json", 0))
                    with self._lock:
                        self._kept[name] = kept
        except FileNotFoundError:
            return
        except OSError as error:
            self._error = f"{self._waiting_room} cannot be read: {error.strerror or error}"
            _log.warning("%s", self._error)

    def _found(self, name: str, size: int) -> Kept:
        """A frame on disk. What its JSON file does not say, or says oddly, counts as unsure and unlike."""
        try:
            said = json.loads((self._waiting_room / f"{name}.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            said = {}
        margin, print_, top = (said.get(key) for key in ("margin", "fingerprint", "top"))
        try:
            alike = int(print_, 16) if isinstance(print_, str) else None
            pairs = [[str(label), float(score)] for label, score in top] if isinstance(top, list) else []
        except (ValueError, TypeError):
            alike, pairs = None, []
        words = {"time": said.get("time"), "label": str(said.get("label", "")), "confidence": said.get("confidence")}
        known = float(margin) if isinstance(margin, int | float) and math.isfinite(margin) else 0.0
        return Kept(name, known, alike, size, {**words, "top": pairs})


def _is_text(name: str) -> bool:
    """Whether a page can hold the name of a file."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def margin_of(result: Result) -> float:
    """Lead of the best score over the second; 0 where scores are no numbers, 1 where there is one class."""
    scores = result.classification.scores
    if scores.size < 2:
        return 1.0
    second, best = np.partition(scores, scores.size - 2)[-2:]
    margin = float(best - second)
    return round(margin, 5) if math.isfinite(margin) else 0.0


def is_folder_name(label: str) -> bool:
    """Whether a class of this name can have a folder that training reads."""
    return (
        0 < len(label.encode("utf-8", "surrogatepass")) <= 200
        and not label.startswith(".")
        and label not in (UNLABELLED, UNKNOWN)
        and not any(sign == "/" or category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in label)
    )


def stamp(moment: float) -> str:
    """A file name for a frame of a Unix time: UTC to the millisecond, which sorts by time wherever a device is carried.

    >>> stamp(1735689600.25)
    '20250101T000000-250'
    """
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(moment)) + f"-{int(moment * 1000) % 1000:03d}"


def _number(value: float) -> float | None:
    return round(float(value), 5) if math.isfinite(value) else None
