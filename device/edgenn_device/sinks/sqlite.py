"""Events in an SQLite file, with thumbnails: a month of them, and never more than half a gigabyte.

An event is in the file, through to the disk, when `event` returns, and while it goes on the file also says when it was
last seen; so one that was open when the process was killed is closed with that time at the next start. Other processes
may read meanwhile (WAL). Writes no frames; one process writes to a file.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import EdgennError
from ..events import Event
from ..pipeline import Result
from .base import About, Sink

# Version 1. `interrupted` is 1 where nobody saw the event's end: the process was killed, and `ended` is when it was
# last seen. Times are Unix seconds.
_VERSION = 1
_SCHEMA = """
CREATE TABLE events (
  id TEXT NOT NULL UNIQUE,
  label TEXT NOT NULL,
  confidence REAL NOT NULL,
  started REAL NOT NULL,
  ended REAL,
  seen REAL NOT NULL,
  frames INTEGER NOT NULL,
  interrupted INTEGER NOT NULL DEFAULT 0,
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  source TEXT NOT NULL,
  thumbnail BLOB
);
CREATE INDEX events_by_start ON events (started);
CREATE INDEX events_open ON events (id) WHERE ended IS NULL;
"""
# "EdgE" in ASCII: by it `file` and we ourselves know such a database from anybody else's.
_APPLICATION = 0x45646745
DAYS = 31.0
# Bytes. A label that flickers can make a hundred thousand events in a month, of 10 kB with their thumbnails.
LARGEST = 512 * 2**20
# Seconds between two notes of when the open event was last seen: 8 kB each (measured), 140 MB a day, which an SD card
# bears for years.
_SEEN_EVERY = 5.0
# Old events are removed when the file is opened, and then after so many seconds or events.
_PRUNE_EVERY = 3600.0
_PRUNE_AFTER = 500
# Seconds that a writer or checkpoint waits for somebody else's lock. Short: what fails is tried again.
_BUSY = 0.5
# Bytes by which SQLite knows a database; a card that fails gives zeros.
_BEGINNING = 16
# Bytes to which the write-ahead log is cut once it is no longer needed.
_LOG_SIZE = 4 * 2**20

_log = logging.getLogger(__name__)


class SqliteEvents(Sink):
    """Keeps the events of `about.device` in the file at `path`.

    Args:
      path: made, with the folders above it, if it is not there.
      about: its device, model and source stand beside each event.
      days: how long an event is kept after it has ended.
      largest: bytes that the file may have; beyond them the oldest events go first.

    Raises:
      EdgennError: `days` is not above 0.
    """

    def __init__(
        self, path: str | os.PathLike[str], about: About, *, days: float = DAYS, largest: int = LARGEST
    ) -> None:
        if not days > 0:
            raise EdgennError(f"keeping events for {days:g} days keeps nothing: days is above 0")
        self.path = Path(path)
        self.name = f"sqlite:{self.path}"
        self.days = days
        self.largest = largest
        self._about = about
        self._lock: int | None = None
        self._database: sqlite3.Connection | None = None
        self._prepared = False
        self._current: Event | None = None
        # Of the current event as this sink saw it: monotonic time of its first frame, frames, confidence.
        self._first: float | None = None
        self._frames = 0
        self._confidence = 0.0
        self._latest: Result | None = None
        self._noted_at = 0.0
        self._pruned_at = 0.0
        self._since_pruned = 0

    def open(self) -> None:
        self.close()
        try:
            with self._explained():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(self.path)
                database = self._database = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None)
                _prepare(database, self.path)
                self._prepared = True
                self._close_others(database)
                self._prune(database)
        except BaseException:
            self.close()
            raise

    def event(self, event: Event) -> None:
        with self._explained() as database:
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.execute(
                    "INSERT INTO events"
                    " (id, label, confidence, started, ended, seen, frames, device, model, source, thumbnail)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (id) DO UPDATE SET"
                    " confidence = excluded.confidence, ended = excluded.ended, seen = excluded.seen,"
                    " frames = excluded.frames, interrupted = 0,"
                    " thumbnail = coalesce(excluded.thumbnail, thumbnail)"
                    # The news that it began says nothing new of an event that has ended.
                    " WHERE excluded.ended IS NOT NULL",
                    (
                        event.id,
                        event.label,
                        event.confidence,
                        event.started,
                        event.ended,
                        event.started if event.ended is None else event.ended,
                        event.frames,
                        self._about.device,
                        self._about.model,
                        self._about.source,
                        event.thumbnail,
                    ),
                )
                if event.ended is None:
                    self._close_others(database, event.id)
            if event.ended is None:
                if self._current is None or self._current.id != event.id:
                    self._follow(event)
            elif self._current is not None and self._current.id == event.id:
                self._current = None
            self._since_pruned += 1
            if self._since_pruned >= _PRUNE_AFTER or time.monotonic() - self._pruned_at > _PRUNE_EVERY:
                self._prune(database)

    def write(self, result: Result) -> None:
        """Take note of when the current event was last seen; on disk every 5 seconds."""
        self._latest = result
        event = self._current
        if event is None or result.classification.label != event.label:
            return
        self._count(result)
        now = time.monotonic()
        if now - self._noted_at < _SEEN_EVERY:
            return
        with self._explained() as database:
            database.execute(
                "UPDATE events SET seen = max(seen, ?), frames = max(frames, ?), confidence = max(confidence, ?)"
                " WHERE id = ? AND ended IS NULL",
                (event.started + self._lasted(result), self._frames, self._confidence, event.id),
            )
        self._noted_at = now

    def close(self) -> None:
        database, self._database, self._prepared = self._database, None, False
        lock, self._lock = self._lock, None
        try:
            if database is not None:
                database.close()
        except sqlite3.Error as error:
            _log.debug("%s: while closing: %s", self.name, error)
        finally:
            # Only now: closing any descriptor of the file ends the locks that SQLite holds on it.
            if lock is not None:
                os.close(lock)

    def _follow(self, event: Event) -> None:
        self._current, self._first, self._frames, self._confidence = event, None, 0, event.confidence
        self._noted_at = time.monotonic()
        # The result that made it begin has come just before it.
        if self._latest is not None and self._latest.classification.label == event.label:
            self._count(self._latest)

    def _count(self, result: Result) -> None:
        if self._first is None:
            self._first = result.frame.time
        self._frames += 1
        self._confidence = max(self._confidence, result.classification.confidence)

    def _lasted(self, result: Result) -> float:
        return 0.0 if self._first is None else result.frame.time - self._first

    def _close_others(self, database: sqlite3.Connection, id: str | None = None) -> None:
        """End, with the time they were last seen, the open events whose end nobody reported."""
        current = id or (self._current.id if self._current is not None else "")
        database.execute(
            "UPDATE events SET ended = seen, interrupted = 1 WHERE ended IS NULL AND id != ?",
            (current,),
        )

    def _prune(self, database: sqlite3.Connection) -> None:
        """Remove what is too old or too much, and give its room back to the disk."""
        before = time.time() - self.days * 86400
        old = database.execute("DELETE FROM events WHERE ended < ?", (before,)).rowcount
        if old:
            # A clock that is ahead makes all of them old: this line then says where they went, and when.
            until = time.strftime("%Y-%m-%d %H:%M", time.localtime(before))
            _log.info("%s: %d events that ended before %s are removed", self.name, old, until)
        much = 0
        while _used(database) > self.largest:
            # A twentieth at a time: at most twenty rounds, and little more than is needed.
            removed = database.execute(
                "DELETE FROM events WHERE ended IS NOT NULL AND rowid IN"
                " (SELECT rowid FROM events ORDER BY started LIMIT 1 + (SELECT count(*) FROM events) / 20)"
            ).rowcount
            if removed == 0:
                break
            much += removed
        if much:
            room = self.largest / 2**20
            _log.info("%s: the oldest %d events are removed, to stay within %.4g MiB", self.name, much, room)
        # As a script: `execute` takes one step of a statement without columns, and here a step frees one page.
        database.executescript("PRAGMA incremental_vacuum")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._pruned_at, self._since_pruned = time.monotonic(), 0

    @contextmanager
    def _explained(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; turn what SQLite raises into what a sink raises."""
        try:
            # Before `open` has connected, nobody looks at what is given.
            yield self._database  # type: ignore[misc]
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_NOTADB and not self._ours():
                raise EdgennError(f"{self.path} is no SQLite database: name a new file") from None
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self._set_aside(error)
            raise OSError(_NUMBERS.get(code, errno.EIO), str(error), str(self.path)) from None

    def _ours(self) -> bool:
        """Whether a file without a database's beginning was one of ours: it was open, or its beginning is blank."""
        if self._prepared:
            return True
        with self.path.open("rb") as file:
            return not any(file.read(_BEGINNING))

    def _set_aside(self, error: sqlite3.Error) -> None:
        """A file that a failing card has damaged: it is kept for whoever can mend it, and a new one is begun."""
        self.close()
        broken = self.path.with_name(self.path.name + ".broken")
        _log.warning("%s is damaged (%s); set aside as %s", self.path, error, broken.name)
        for suffix in ("", "-wal", "-shm"):
            try:
                self.path.with_name(self.path.name + suffix).replace(broken.with_name(broken.name + suffix))
            except FileNotFoundError:
                pass


# What the system would have said; it decides which words a person reads.
_NUMBERS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


def _locked(path: Path) -> int:
    """A descriptor that holds the right to write to `path`; the system takes it back when the process dies."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise EdgennError(f"another run writes to {path}: give each a file of its own") from None
    except BaseException:
        os.close(file)
        raise
    return file


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    """Make the tables of an empty file; refuse a file that is somebody else's, or newer than this program."""
    application, version, tables = (
        database.execute(question).fetchone()[0]
        for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if tables and application != _APPLICATION:
        raise EdgennError(f"{path} is a database of something else: name a new file")
    if version > _VERSION:
        raise EdgennError(f"{path} was written by a newer edgenn (schema {version}): name a new file, or update")
    # Only before there are tables does it have an effect.
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    database.execute("PRAGMA journal_mode = WAL").fetchall()
    # Through to the disk at every commit: a power cut takes nothing that was reported.
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA journal_size_limit = {_LOG_SIZE}").fetchall()
    if not tables:
        with database:
            database.execute("BEGIN IMMEDIATE")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {_VERSION}")


def _used(database: sqlite3.Connection) -> int:
    pages, free, size = (
        database.execute(f"PRAGMA {figure}").fetchone()[0] for figure in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
