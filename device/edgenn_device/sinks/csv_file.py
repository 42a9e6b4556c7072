"""CSV: a header once, then a row per frame, appended for as long as the file is there.

For spreadsheets, which take a cell that begins with = + - or @ for a formula and run it: labels and paths come from
somebody's files, so such a cell gets an apostrophe in front. Holds no pictures and no events.
"""

from __future__ import annotations

import csv
import io
import os
import time
from datetime import UTC, datetime
from typing import Any

from ..pipeline import Result
from .appended_file import AppendedFile
from .base import Sink

COLUMNS = ("time", "frame", "label", "confidence", "latency_ms", "path", "truth")
# What a spreadsheet may take for the beginning of a formula (OWASP, "CSV Injection"; ASVS 1.2.10 adds the NUL).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")


class CsvFile(Sink):
    """Appends to the file at `path`; RFC 4180 but for lines that end in a bare newline, UTF-8.

    Time is UTC at capture, as ISO 8601 (2026-07-29T12:00:00.000Z), confidence 0..1; path and truth are empty for a
    camera.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = f"csv:{os.fspath(path)}"
        self._file = AppendedFile(path, header=_row(COLUMNS))

    def open(self) -> None:
        self._file.open()

    def write(self, result: Result) -> None:
        frame, classification = result.frame, result.classification
        captured = datetime.fromtimestamp(time.time() - (time.monotonic() - frame.time), UTC)
        self._file.append(
            _row(
                (
                    captured.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    frame.index,
                    _text(classification.label),
                    f"{classification.confidence:.5f}",
                    f"{result.latency * 1000:.3f}",
                    _text(frame.path or ""),
                    _text(frame.truth or ""),
                )
            )
        )

    def close(self) -> None:
        self._file.close()


def _row(cells: tuple[Any, ...]) -> bytes:
    row = io.StringIO()
    # With this terminator the writer quotes both characters wherever they stand in a cell.
    csv.writer(row, lineterminator="\r\n").writerow(cells)
    # A path may hold bytes that are no text.
    return row.getvalue().removesuffix("\r\n").encode("utf-8", "backslashreplace") + b"\n"


def _text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
