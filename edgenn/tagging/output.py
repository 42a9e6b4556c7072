"""The forms in which records are kept: CSV, JSON Lines, and Parquet made of JSON Lines when all is done.

While a run lasts its rows are text, to which a row is appended and from which a torn one is cut. Parquet, whose index
is written last, is assembled from that text in one pass with one row group in memory.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError
from edgenn_device.files import written_aside

from . import records
from .optional import optional
from .records import Tagged

# Rows of a row group: about 10 MB in memory.
_ROW_GROUP = 50_000
# One cell of CSV may hold the scores of all classes of a large model.
_LONGEST_CELL = 1 << 24

ENCODERS: dict[str, Callable[[Tagged], bytes]] = {
    "csv": records.to_row,
    "jsonl": records.to_line,
    "parquet": records.to_line,
}


def form_of(out: str | os.PathLike[str]) -> str:
    """ "csv", "jsonl" or "parquet", by the name's ending.

    Raises:
      EdgennError: it has another ending, or pyarrow is missing for Parquet.
    """
    form = Path(out).suffix.lower().lstrip(".")
    if form not in ENCODERS:
        raise EdgennError(f"--out {out} has no known form: let its name end in .csv, .jsonl or .parquet")
    if form == "parquet":
        optional("pyarrow", "tag", "Parquet")
    return form


def header(form: str) -> bytes:
    """What stands before the rows of a text in this form."""
    return records.header() if form == "csv" else b""


def read(rows: str | os.PathLike[str], form: str, start: int = 0) -> Iterator[Tagged]:
    """The records of a file, one after the other.

    Args:
      rows: a CSV, JSON Lines or Parquet file as this package writes it.
      start: of a text, the byte at which to begin; it must be the beginning of a row.
    """
    if form == "parquet" and start == 0 and _is_parquet(rows):
        yield from _read_parquet(rows)
        return
    with open(rows, "rb") as file:
        file.seek(start)
        if form != "csv":
            yield from map(records.from_line, file)
            return
        csv.field_size_limit(_LONGEST_CELL)
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        if start == 0:
            next(text, None)
        yield from map(records.from_row, csv.DictReader(text, records.COLUMNS))


def publish(rows: Path, form: str, out: Path) -> None:
    """Put the finished rows in `out`'s place, whole or not at all. Rows of text are gone from theirs then."""
    if form != "parquet":
        rows.replace(out)
        return
    with written_aside(out) as aside:
        write_parquet(read(rows, "jsonl"), aside)


def write_parquet(rows: Iterator[Tagged], path: str | os.PathLike[str]) -> None:
    """Write records as one Parquet file, in bounded memory."""
    arrow, parquet = optional("pyarrow", "tag", "Parquet"), optional("pyarrow.parquet", "tag", "Parquet")
    with parquet.ParquetWriter(os.fspath(path), schema(), compression="zstd") as writer:
        while group := [*itertools.islice(rows, _ROW_GROUP)]:
            writer.write_batch(arrow.RecordBatch.from_pylist([parquet_row(row) for row in group], schema()))


def schema() -> Any:
    """The Arrow schema of a record."""
    arrow = optional("pyarrow", "tag", "Parquet")
    top = arrow.list_(arrow.struct([("label", arrow.string()), ("score", arrow.float32())]))
    types = {
        "confidence": arrow.float32(),
        "top": top,
        "width": arrow.int32(),
        "height": arrow.int32(),
        "bytes": arrow.int64(),
    }
    return arrow.schema([(name, types.get(name, arrow.string())) for name in records.COLUMNS])


def parquet_row(record: Tagged) -> dict[str, Any]:
    """A record as a row of `schema`. Text in Parquet is UTF-8: other bytes of a path become escapes (\\xff)."""
    row = {
        name: value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(value, str)
        else value
        for name, value in vars(record).items()
    }
    return {**row, "top": [{"label": label, "score": score} for label, score in record.top]}


def _is_parquet(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def _read_parquet(path: str | os.PathLike[str]) -> Iterator[Tagged]:
    parquet = optional("pyarrow.parquet", "tag", "Parquet")
    for batch in parquet.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            yield Tagged(**{**row, "top": tuple((pair["label"], pair["score"]) for pair in row["top"])})
