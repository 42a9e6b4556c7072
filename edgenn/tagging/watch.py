"""A folder that pictures arrive in: each gets its row once, also when the watcher was away or was killed.

Rows are appended to OUT itself (CSV or JSON Lines). Beside it stands OUT.seen, a database of what has a row: a path
with another content is another picture, the same content under the same path is not. OUT is what counts; rows that
were written after the database's last entry are read from it when the watcher starts.

A picture is taken when it is whole: its size and time have not changed for a while, and, on a local file system whose
kernel tells (fcntl(2), F_SETLEASE), nobody has it open for writing. A writer over a network that pauses for longer
than that should write under another name (a leading dot or another suffix) and rename.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile

from . import listing, output
from .catalogue import identity_of_model, placed
from .engine import Workers
from .optional import optional
from .records import Tagged
from .sorting import Sorter
from .tagger import Rules

# How long a picture's size and time must have stood still, in seconds.
SETTLE = 1.0
# Where inotify says nothing (network file systems) or was flooded, looking again finds it; at least this many seconds
# apart, and never more than a twentieth of the time.
_LOOK_AGAIN = 60.0
_LOOK_AGAIN_SHARE = 20
# Pictures that wait in memory for the workers; the rest of a folder is listed when these are done.
_MOST_WAITING = 2048
_TICK_MS = 200
# Seconds before we listen again when that has failed.
_PAUSE = 1.0

Signature = tuple[int, int]  # bytes, mtime in nanoseconds


@dataclass(frozen=True)
class Watch:
    """What is to be watched, how its pictures are tagged, and where the labels go.

    Attributes:
      folder: with all folders in it; hidden ones are passed over.
      out: a .csv or .jsonl that this watch began, or that is not there.
      sort_to, link, overwrite, workers: as for `catalogue.Request`.
      settle: seconds.
    """

    model: ModelFile = field(repr=False)
    rules: Rules
    folder: Path
    out: Path
    sort_to: str | None = None
    link: bool = False
    overwrite: bool = False
    workers: int | None = None
    settle: float = SETTLE


def watch(
    asked: Watch,
    *,
    stop: threading.Event | None = None,
    arrived: Callable[[Tagged], None] | None = None,
    failed: listing.Failed | None = None,
) -> int:
    """Tag what is in a folder and what arrives, until `stop` is set or Ctrl-C.

    Args:
      stop: ends it when set; what has arrived until then may stay for the next time.
      arrived: called with every record whose row is certain.
      failed: called with a folder that cannot be looked through and why, once for each reason.

    Returns:
      How many rows were written.

    Raises:
      EdgennError: the folder or the place cannot be used, or `out` is of another model, or of no watch.
    """
    watchfiles = optional("watchfiles", "tag", "--watch")
    if not asked.folder.is_dir():
        raise EdgennError(f"{asked.folder} is not a folder: give one that pictures arrive in")
    if output.form_of(asked.out) == "parquet":
        raise EdgennError("a Parquet file cannot be added to: with --watch let --out end in .csv or .jsonl")
    # Rows name pictures by the whole path, however the folder was named and from wherever.
    folder = asked.folder.resolve()
    sorter = Sorter(asked.sort_to, asked.link, always_resuming=True) if asked.sort_to else None
    if sorter and sorter.root.resolve().is_relative_to(folder):
        raise EdgennError(f"{sorter.root} is in the folder that is watched: sort to a folder outside of it")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # see _is_open_for_writing
    count = 0
    with _database_told(asked.out), _Seen(asked) as seen, Workers(asked.model, asked.rules, asked.workers) as crew:
        waiting = _Waiting(folder, seen, sorter, asked.settle, failed)
        for changes in _changes(watchfiles, folder, stop):
            if changes is None:
                waiting.look_again()
            for path in changes or ():
                waiting.changed(path)
            while ready := waiting.ready():
                for record in _written(crew.tag(ready), seen, sorter):
                    count += 1
                    if arrived:
                        arrived(record)
                if stop and stop.is_set():
                    break
    return count


def _changes(watchfiles: Any, folder: Path, stop: threading.Event | None) -> Iterator[set[str] | None]:
    """What changed in a folder, a few times a second; None when something may have been missed.

    Raises:
      EdgennError: the folder has gone, or the kernel does not tell us about it.
    """
    stop, missed = stop or threading.Event(), False
    while not stop.is_set():
        try:
            for changes in watchfiles.watch(
                folder,
                watch_filter=None,
                debounce=_TICK_MS,
                rust_timeout=_TICK_MS,
                yield_on_timeout=True,
                stop_event=stop,
                ignore_permission_denied=True,
            ):
                if missed:
                    yield None
                missed = False
                yield {path for _, path in changes}
        except FileNotFoundError:
            raise EdgennError(f"{folder} has gone: make it again") from None
        except (OSError, RuntimeError) as error:
            if "decode" not in str(error):
                raise EdgennError(f"{folder} cannot be watched ({error}): see fs.inotify.max_user_watches") from None
        # watchfiles ends with any event of a name that is not UTF-8: when we read that picture, too, and, if it is a
        # folder's, whenever it begins. Then looking around is all there is.
        missed = True
        stop.wait(_PAUSE)
        yield None


def _written(records: Iterator[Tagged], seen: _Seen, sorter: Sorter | None) -> list[Tagged]:
    """Write the rows of new pictures, make them certain, then release what has moved; the records of those rows."""
    new, known = [], []
    for record in records:
        if not record.sha256:
            continue  # gone again, or not to be read: when it changes it comes back
        earlier = seen.of(record.path)
        if earlier and earlier.sha256 == record.sha256:
            known.append(earlier)
            seen.touch(record.path)
            continue
        if sorter:
            record = placed(sorter, record)
        seen.append(record)
        new.append(record)
    seen.commit()
    if sorter:
        sorter.release([*known, *new])
    return new


class _Waiting:
    """Pictures that are not in `seen`, and whether they stand still."""

    def __init__(
        self, folder: Path, seen: _Seen, sorter: Sorter | None, settle: float, failed: listing.Failed | None
    ) -> None:
        self._folder = folder
        self._seen = seen
        self._sorter = sorter
        self._settle = settle
        self._failed = failed
        self._told: set[tuple[str, int | None]] = set()
        self._waiting: dict[str, tuple[Signature, float]] = {}
        self._look: Iterator[str] | None = None
        self._look_began = self._look_next = self._look_soonest = 0.0

    def changed(self, path: str) -> None:
        """A file or folder was made, changed or removed."""
        if os.path.isdir(path):  # noqa: PTH112 - moved in with pictures in it: these are not reported
            self._look_next = 0.0
        elif listing.is_picture(path) and (name := self._named(path)):
            self._note(name)

    def look_again(self) -> None:
        """Look around soon: something may have changed that was not told."""
        self._look_next = min(self._look_next, self._look_soonest)

    def ready(self) -> list[str]:
        """Pictures that are whole, in the order in which they were seen."""
        self._look_around()
        now = time.monotonic()
        ready = []
        for path, (signature, since) in [*self._waiting.items()]:
            found = _signature(path)
            if found is None:
                del self._waiting[path]
            elif found != signature:
                self._waiting[path] = found, now
            elif now - since >= self._settle and not _is_open_for_writing(path):
                del self._waiting[path]
                ready.append(path)
        return ready

    def _look_around(self) -> None:
        now = time.monotonic()
        if self._look is None:
            if now < self._look_next:
                return
            self._look = listing.folder(str(self._folder), self._not_listed)
            self._look_began, self._look_next = now, math.inf
        for path in self._look:
            self._note(path)
            if len(self._waiting) >= _MOST_WAITING:
                return
        self._look = None
        now = time.monotonic()
        self._look_soonest = now + _LOOK_AGAIN_SHARE * (now - self._look_began)
        # What asked for a look during this one still wants it.
        self._look_next = min(self._look_next, max(now + _LOOK_AGAIN, self._look_soonest))

    def _not_listed(self, folder: str, error: OSError) -> None:
        if isinstance(error, FileNotFoundError) and folder != str(self._folder):
            return  # it went while its parent was listed
        if self._failed and (folder, error.errno) not in self._told:
            self._told.add((folder, error.errno))
            self._failed(folder, error)

    def _note(self, path: str) -> None:
        signature = _signature(path)
        if signature is None or path in self._waiting:
            return
        earlier = self._seen.of(path, signature)
        if earlier is None:
            # What has stood still since before we looked need not wait.
            age = time.time() - signature[1] / 1e9
            self._waiting[path] = signature, time.monotonic() - max(0.0, min(age, self._settle))
        elif self._sorter:
            self._sorter.release([earlier])  # killed between its row and its release

    def _named(self, path: str) -> str | None:
        """What a look around calls it; None for what that passes over: it follows no links to folders, events do."""
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder)
        if not Path(folder).is_relative_to(self._folder):
            return None
        hidden = any(part.startswith(".") for part in Path(folder).relative_to(self._folder).parts)
        return None if hidden else os.path.join(folder, name)  # noqa: PTH118


@contextmanager
def _database_told(out: Path) -> Iterator[None]:
    """What SQLite cannot do (the disk is full, the file is none of its own) as a line."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise EdgennError(f"{out}.seen: {error}: make room, or let it be written, and start again") from None


class _Seen:
    """OUT and OUT.seen, which agree whenever `commit` returns."""

    def __init__(self, asked: Watch) -> None:
        self._out, self._form = asked.out, output.form_of(asked.out)
        self._encode = output.ENCODERS[self._form]
        place = asked.out.with_name(asked.out.name + ".seen")
        if asked.overwrite:
            for file in (asked.out, *(place.with_name(place.name + end) for end in ("", "-wal", "-shm"))):
                file.unlink(missing_ok=True)
        if asked.out.exists() and not place.exists():
            raise EdgennError(f"{asked.out} exists and no --watch began it: give --overwrite, or another --out")
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open(place, "ab")  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise EdgennError(f"{asked.out} is being written by another edgenn tag --watch: end that first") from None
        self._base = sqlite3.connect(place, check_same_thread=False)
        # Normal: what the database forgets in a power cut is read from OUT again.
        self._base.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            "CREATE TABLE IF NOT EXISTS watch (id INTEGER PRIMARY KEY CHECK (id = 0), request TEXT, rows_end INTEGER);"
            "CREATE TABLE IF NOT EXISTS seen (path BLOB PRIMARY KEY, sha256 TEXT, bytes INTEGER, mtime INTEGER,"
            " sorted_to BLOB) WITHOUT ROWID;"
        )
        try:
            self._check(asked)
            self._rows = open(asked.out, "ab")  # noqa: SIM115
            self._catch_up()
        except BaseException:
            self._base.close()
            self._lock.close()
            raise

    def _check(self, asked: Watch) -> None:
        request = {
            **identity_of_model(asked.model),
            "top": asked.rules.top,
            "minimum_confidence": asked.rules.minimum_confidence,
            "runtime": asked.rules.runtime,
            "folder": str(asked.folder.resolve()),
            "sort_to": asked.sort_to,
            "link": asked.link,
        }
        self._base.execute("INSERT OR IGNORE INTO watch VALUES (0, ?, 0)", (json.dumps(request),))
        found: dict[str, Any] = json.loads(self._base.execute("SELECT request FROM watch").fetchone()[0])
        others = [name.replace("_", " ") for name in request if found.get(name) != request[name]]
        if others:
            raise EdgennError(
                f"{asked.out} was begun with another {' and '.join(others)}: "
                "give another place with --out, or --overwrite to begin anew"
            )
        self._base.commit()

    def _catch_up(self) -> None:
        """Cut off a torn row, and note the rows that the database does not know; begin a file that was moved away."""
        size = self._rows.tell()
        start = size and self._base.execute("SELECT rows_end FROM watch").fetchone()[0]
        if size < start:
            raise EdgennError(f"{self._out} is shorter than --watch left it: put it back whole, or move it away")
        with open(self._out, "rb") as file:
            file.seek(start)
            whole = start + _whole(file.read(), self._form)
        self._rows.truncate(whole)
        if whole == 0:
            self._rows.write(output.header(self._form))
        else:
            for record in output.read(self._out, self._form, start):
                self._insert(record, mtime=None)
        self.commit()

    def of(self, path: str, signature: Signature | None = None) -> Tagged | None:
        """What is known of a path (with this size and time, if given)."""
        row = self._base.execute(
            "SELECT sha256, bytes, mtime, sorted_to FROM seen WHERE path = ?", (os.fsencode(path),)
        ).fetchone()
        if row is None or (signature is not None and (row[1], row[2]) != signature):
            return None
        return Tagged(path, sha256=row[0], bytes=row[1], sorted_to=os.fsdecode(row[3]))

    def append(self, record: Tagged) -> None:
        """Write a row; certain after `commit`."""
        self._rows.write(self._encode(record))
        found = _signature(record.path)
        self._insert(record, mtime=found[1] if found and found[0] == record.bytes else None)

    def touch(self, path: str) -> None:
        """The same content has another time."""
        if found := _signature(path):
            self._base.execute("UPDATE seen SET mtime = ? WHERE path = ?", (found[1], os.fsencode(path)))

    def commit(self) -> None:
        """Bring the rows to the disk, then the database."""
        self._rows.flush()
        os.fsync(self._rows.fileno())
        self._base.execute("UPDATE watch SET rows_end = ?", (self._rows.tell(),))
        self._base.commit()

    def _insert(self, record: Tagged, mtime: int | None) -> None:
        self._base.execute(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)",
            (os.fsencode(record.path), record.sha256, record.bytes, mtime, os.fsencode(record.sorted_to)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with closing(self._lock), closing(self._base), closing(self._rows):
            pass  # what no commit made certain is done again


def _whole(rows: bytes, form: str) -> int:
    """Bytes of whole rows. In CSV a line feed between quotes is part of a path."""
    if form != "csv":
        return rows.rfind(b"\n") + 1
    whole = at = quotes = 0
    while (end := rows.find(b"\n", at)) >= 0:
        quotes += rows.count(b'"', at, end)
        at = end + 1
        if quotes % 2 == 0:
            whole = at
    return whole


def _signature(path: str) -> Signature | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _is_open_for_writing(path: str) -> bool:
    """Whether somebody has it open for writing; False where the kernel does not tell.

    A read lease is refused on such a file. While we hold one, a writer's open sends us SIGIO, which would end the
    process: `watch` ignores it, and outside of the main thread, where it cannot, nothing is asked.
    """
    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
