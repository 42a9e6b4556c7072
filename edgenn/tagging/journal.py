"""Rows on disk and how many of them are certain, so that a run that was killed goes on where it was.

Rows are appended to a file. Once a second they are brought to the disk and then an entry is appended to a second file:
how many pictures are done and where rows and listing stood. What comes after the last whole entry did not happen: on
opening it is cut off, and those pictures are tagged again. So no picture is there twice and none is missing, whatever
ended the process and whenever.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Self

from .records import UNKNOWN, Tagged

# At most this much work is done again after a kill; a shorter interval would cost more in fsync than it saves.
_INTERVAL = 1.0


@dataclass(frozen=True)
class Progress:
    """What is certain.

    Attributes:
      pictures: how many have their row.
      unreadable, unknown: how many of them are that.
      rows_end: bytes of the rows.
      listing_end: bytes of the listing that are done.
    """

    pictures: int = 0
    unreadable: int = 0
    unknown: int = 0
    rows_end: int = 0
    listing_end: int = 0


_FIELDS = struct.Struct("<5Q")
_ENTRY = _FIELDS.size + 4  # and a CRC-32


class Journal:
    """An open journal; a context manager that makes all certain when its block ends well.

    Args:
      rows: the file of the rows; created with `header` if there is no entry yet.
      entries: the file of the entries.

    Attributes:
      progress: what is certain after opening, and at every checkpoint.
      earlier: the entry before it: rows between the two may still want what follows a checkpoint.
    """

    def __init__(self, rows: Path, entries: Path, header: bytes = b"") -> None:
        self._entries = open(entries, "a+b", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._entries.seek(0)
        self.earlier, self.progress, whole = _last_two(self._entries.read())
        self._entries.truncate(whole)
        self._rows = open(rows, "ab")  # noqa: SIM115
        self._rows.truncate(self.progress.rows_end)
        if not self.progress.rows_end:
            self._rows.write(header)
        self._next = replace(self.progress, rows_end=self.progress.rows_end or len(header))
        self._due = time.monotonic() + _INTERVAL

    def append(self, row: bytes, record: Tagged, listed: int) -> None:
        """Add a row. `listed`: bytes that its picture takes in the listing."""
        self._rows.write(row)
        done = self._next
        self._next = Progress(
            done.pictures + 1,
            done.unreadable + bool(record.error),
            done.unknown + (record.label == UNKNOWN),
            done.rows_end + len(row),
            done.listing_end + listed,
        )

    @property
    def done(self) -> Progress:
        """What is written, though not yet certain."""
        return self._next

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() >= self._due

    def checkpoint(self) -> None:
        """Make all that was appended certain."""
        self._rows.flush()
        os.fsync(self._rows.fileno())
        if self._next != self.progress:
            fields = _FIELDS.pack(*astuple(self._next))
            self._entries.write(fields + zlib.crc32(fields).to_bytes(4, "little"))
            os.fsync(self._entries.fileno())
            self.earlier, self.progress = self.progress, self._next
        self._due = time.monotonic() + _INTERVAL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None or kind in (KeyboardInterrupt, GeneratorExit):
                self.checkpoint()
        finally:
            self._rows.close()
            self._entries.close()


def last_entries(entries: Path) -> tuple[Progress, Progress]:
    """The last two certain progresses, the latest last; nothing done where there is no entry."""
    return _last_two(entries.read_bytes())[:2] if entries.exists() else (Progress(), Progress())


def _last_two(data: bytes) -> tuple[Progress, Progress, int]:
    """The last two whole entries, and how many bytes all whole ones take."""
    last: list[Progress] = [Progress(), Progress()]
    at = 0
    while at + _ENTRY <= len(data):
        fields = data[at : at + _FIELDS.size]
        if zlib.crc32(fields).to_bytes(4, "little") != data[at + _FIELDS.size : at + _ENTRY]:
            break
        last = [last[1], Progress(*_FIELDS.unpack(fields))]
        at += _ENTRY
    return last[0], last[1], at
