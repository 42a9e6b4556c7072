"""Messages that wait on disk until somebody has acknowledged them: through restarts, SIGKILL, an hour without network.

A queue in one SQLite file, written through to the disk at every step, first in first out, bounded. A disk that is full
or read-only does not end it: what the disk does not take is kept in memory, in its place in the queue, until it does.
Sends nothing, and knows nothing of what the messages say.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from pathlib import Path

from ..errors import EdgennError

# Entries. A label that changes every minute, two messages a change, for three days.
LIMIT = 10_000
# SQLite's own log beside the file is cut to this many bytes whenever it has been worked in.
_JOURNAL = 1 << 20

_log = logging.getLogger(__name__)


def state_folder() -> Path:
    """Where a device keeps what must survive restarts: systemd's $STATE_DIRECTORY, else ~/.local/state/edgenn (XDG)."""
    if given := os.environ.get("STATE_DIRECTORY"):
        # systemd gives several, with colons between, to a unit that asks for several.
        return Path(given.split(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edgenn"


class Spool:
    """A durable queue of (id, payload). Thread-safe.

    Whoever sends reads `pending`, sends, and says `done` when the other side has acknowledged. What was put and not
    done is pending again after a restart, so a message whose acknowledgement was lost is sent again, with the same id.

    Args:
      path: the file; folders above it are made.
      limit: entries kept; beyond it the oldest is dropped and counted.

    Attributes:
      dropped: entries that had to make room for newer ones, or that memory alone held when it was closed.
      error: why the disk does not take entries at present, or None.

    Raises:
      EdgennError: another process holds the file.

    >>> with_a_file = Spool(folder / "events.db")               # doctest: +SKIP
    >>> with_a_file.put("0001", b"shirt")                       # doctest: +SKIP
    >>> with_a_file.pending()                                   # doctest: +SKIP
    [('0001', b'shirt')]
    """

    def __init__(self, path: str | os.PathLike[str], limit: int = LIMIT) -> None:
        self.path = Path(path)
        self.limit = limit
        self.dropped = 0
        self.error: str | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._database: sqlite3.Connection | None = None
        # What the disk did not take, oldest first; all of it is newer than anything on disk.
        self._kept: dict[str, bytes] = {}
        # What is done but could not be removed from the disk.
        self._removed: set[str] = set()
        self._on_disk = 0
        with self._lock:
            self._settle()

    def put(self, id: str, payload: bytes) -> None:
        """Append an entry; one whose id is waiting already is left as it is. Never raises because of the disk."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the spool is closed")
            self._kept.setdefault(id, payload)
            self._settle()
            while self._waiting() > self.limit:
                self._drop_oldest()

    def pending(self, count: int | None = None) -> list[tuple[str, bytes]]:
        """The oldest `count` entries (None: all) that are not done, oldest first."""
        with self._lock:
            entries: list[tuple[str, bytes]] = []
            if self._database is not None and self._on_disk > len(self._removed):
                most = -1 if count is None else count + len(self._removed)
                try:
                    rows = self._database.execute("SELECT id, payload FROM entry ORDER BY number LIMIT ?", (most,))
                    entries = [(id, payload) for id, payload in rows if id not in self._removed]
                except sqlite3.Error as error:
                    self._fail(error)
            entries += self._kept.items()
            return entries[:count]

    def done(self, id: str) -> None:
        """Remove an entry: the other side has it. Harmless when there is none of that id."""
        with self._lock:
            if self._kept.pop(id, None) is None:
                self._removed.add(id)
            self._settle()

    def __len__(self) -> int:
        with self._lock:
            return self._waiting()

    def close(self) -> None:
        """Close the file; what is pending stays in it.

        Raises:
          OSError: the disk did not take all of it; the rest is lost, counted in `dropped` and logged.
        """
        with self._lock:
            if self._closed:
                return
            try:
                self._settle()
            except EdgennError as error:
                # It could not be opened until now, and now another process holds it.
                self.error = str(error)
            self._closed = True
            self._disconnect()
            if self._kept:
                self.dropped += len(self._kept)
                lost = f"{self.path}: ended with {len(self._kept)} messages that could not be written ({self.error})"
                # Whoever closes may have nobody to tell.
                _log.warning("%s", lost)
                raise OSError(lost)

    def _waiting(self) -> int:
        return max(0, self._on_disk - len(self._removed)) + len(self._kept)

    def _settle(self) -> None:
        """Bring the file up to date with what memory keeps and has removed, in one step, if the disk takes it."""
        if self._closed:
            return
        try:
            if self._database is None:
                self._connect()
            assert self._database is not None
            with self._database:
                self._database.executemany("DELETE FROM entry WHERE id = ?", [(id,) for id in self._removed])
                self._database.executemany(
                    "INSERT OR IGNORE INTO entry (id, payload) VALUES (?, ?)", list(self._kept.items())
                )
                (on_disk,) = self._database.execute("SELECT count(*) FROM entry").fetchone()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        else:
            self._on_disk = on_disk
            self._kept.clear()
            self._removed.clear()
            if self.error is not None:
                _log.warning("%s is written again", self.path)
                self.error = None

    def _drop_oldest(self) -> None:
        self.dropped += 1
        if self._database is not None and self._on_disk > len(self._removed):
            try:
                oldest = self._database.execute(
                    "SELECT id FROM entry ORDER BY number LIMIT ?", (len(self._removed) + 1,)
                ).fetchall()
                self._removed.add(next(id for (id,) in oldest if id not in self._removed))
                self._settle()
                return
            except sqlite3.Error as error:
                self._fail(error)
        self._kept.pop(next(iter(self._kept)), None)

    def _connect(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for fresh in (False, True):
            database = sqlite3.connect(self.path, timeout=0, check_same_thread=False)
            try:
                # Exclusive: two processes on one file would send everything twice. Full: on disk before put returns.
                for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
                    database.execute(f"PRAGMA {pragma}")
                database.execute(f"PRAGMA journal_size_limit = {_JOURNAL}")
                database.execute(
                    "CREATE TABLE IF NOT EXISTS entry "
                    "(number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, payload BLOB NOT NULL)"
                )
                (sound,) = database.execute("PRAGMA quick_check").fetchone()
                if sound != "ok":
                    raise sqlite3.DatabaseError(sound)
                # A write lock is taken now, and kept.
                database.execute("DELETE FROM entry WHERE 0")
                database.commit()
                self._database = database
                return
            except sqlite3.Error as error:
                database.close()
                if "locked" in str(error):
                    raise EdgennError(
                        f"{self.path} is in use by another edgenn on this machine: give each its own device name"
                    ) from None
                if isinstance(error, sqlite3.OperationalError) or fresh:
                    raise
                # A file that is no database, or a broken one: what it held is lost to us, but not thrown away.
                broken = self.path.with_name(self.path.name + ".broken")
                _log.warning("%s is damaged (%s); set aside as %s", self.path, error, broken.name)
                self.path.replace(broken)
                for suffix in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _disconnect(self) -> None:
        if self._database is not None:
            try:
                self._database.close()
            except sqlite3.Error as error:
                _log.warning("%s: %s", self.path, error)
            self._database = None

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            _log.warning("%s cannot be written (%s): what is to be sent waits in memory", self.path, error)
        self.error = str(error)
