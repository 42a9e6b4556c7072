"""What is known of one tagged picture, and how that is written as a row of CSV or a line of JSON.

Reads no pictures and opens no files. A path is whatever bytes a file system allows: a row of CSV keeps them as they
are, a line of JSON is always valid JSON.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, fields, replace
from typing import Any

# Said of a picture whose best score is below the model's minimum confidence.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Tagged:
    """One picture and what the model says of it.

    Attributes:
      path: as it was listed: a path or a URL.
      label: the best label, "unknown" below the minimum confidence, "" if the picture could not be read.
      confidence: the best score (0..1 for a model that ends in a softmax), None if unreadable.
      top: the best (label, score) pairs, highest first; () if unreadable.
      width, height: pixels of the upright picture, None if unreadable.
      bytes: size of the file, None if it could not be opened.
      sha256: hex digest of the file, "" if it could not be opened.
      error: one line on why it could not be read, else "".
      sorted_to: where the picture was moved or linked to, else "".
    """

    path: str
    label: str = ""
    confidence: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    sha256: str = ""
    error: str = ""
    sorted_to: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields in their order, in JSON's types."""
        return {**vars(self), "top": [list(pair) for pair in self.top]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tagged:
        """What `to_dict` gave."""
        return cls(**{**values, "top": tuple((label, score) for label, score in values["top"])})


COLUMNS = tuple(field.name for field in fields(Tagged))


def to_line(record: Tagged) -> bytes:
    """A line of JSON with its line feed. ASCII, so that a path that is no UTF-8 is still valid JSON."""
    return json.dumps(record.to_dict(), separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes | str) -> Tagged:
    """The record of a line that `to_line` wrote."""
    return Tagged.from_dict(json.loads(line))


def to_row(record: Tagged) -> bytes:
    r"""A row of CSV (RFC 4180 but for its line feed); `top` is one cell of JSON, None and () are empty.

    >>> to_row(Tagged("a,b.jpg", "hat", 0.5, (("hat", 0.5),), 4, 3, 99, "ab"))
    b'"a,b.jpg",hat,0.5,"[[""hat"",0.5]]",4,3,99,ab,,\n'
    """
    top = json.dumps(record.top, separators=(",", ":"), ensure_ascii=False) if record.top else ""
    return _row([*vars(replace(record, top=top)).values()])  # type: ignore[arg-type]


def header() -> bytes:
    """The first row of a CSV."""
    return _row(COLUMNS)


def from_row(row: dict[str, str]) -> Tagged:
    """The record of a row as csv.DictReader gives it."""
    return Tagged(
        path=row["path"],
        label=row["label"],
        confidence=float(row["confidence"]) if row["confidence"] else None,
        top=tuple((label, score) for label, score in json.loads(row["top"])) if row["top"] else (),
        width=int(row["width"]) if row["width"] else None,
        height=int(row["height"]) if row["height"] else None,
        bytes=int(row["bytes"]) if row["bytes"] else None,
        sha256=row["sha256"],
        error=row["error"],
        sorted_to=row["sorted_to"],
    )


def _row(cells: Any) -> bytes:
    text = io.StringIO()
    # Before Python 3.13 only the signs of the line's own end are quoted; both must be, in a path.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()[:-2].encode("utf-8", "surrogateescape") + b"\n"
