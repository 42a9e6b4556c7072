"""JSON lines: one document per frame, and {"summary": …} as the last line. Each line is flushed as it is written.

`JsonLines` writes to a stream (`--json`), `JsonLinesFile` to a file that grows for months, with events between the
frames. Pictures are not written: thumbnails are in the SQLite sink.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from .appended_file import AppendedFile
from .base import Sink

if TYPE_CHECKING:
    from ..events import Event
    from ..pipeline import Result

# Decimals of a score; an int8 model's steps are 1/256.
_DECIMALS = 5


class JsonLines(Sink):
    """Writes to a text stream, which stays the caller's.

    A line holds time (Unix seconds at capture), frame, label, confidence, top [[LABEL, SCORE]…] and latency_ms; for
    separate pictures also path, and truth where it is known.
    """

    def __init__(self, stream: TextIO) -> None:
        self.name = "json"
        self._stream = stream

    def write(self, result: Result) -> None:
        self._put(frame_document(result))

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._put({"summary": dict(summary)})

    def _put(self, document: Mapping[str, Any]) -> None:
        self._stream.write(_line(document))
        self._stream.flush()


class JsonLinesFile(Sink):
    """Appends to the file at `path` the lines of `JsonLines`, and one {"event": …} when an event begins or has ended.

    An event holds id, label, confidence, started, ended (null when it begins; Unix seconds) and frames.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = f"jsonl:{os.fspath(path)}"
        self._file = AppendedFile(path)

    def open(self) -> None:
        self._file.open()

    def write(self, result: Result) -> None:
        self._put(frame_document(result))

    def event(self, event: Event) -> None:
        self._put({"event": event_document(event)})

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._put({"summary": dict(summary)})

    def close(self) -> None:
        self._file.close()

    def _put(self, document: Mapping[str, Any]) -> None:
        self._file.append(_line(document).encode())


def frame_document(result: Result) -> dict[str, Any]:
    """What a line says of one frame."""
    frame, classification = result.frame, result.classification
    document: dict[str, Any] = {
        # Through the frame's age, so that a clock that is set meanwhile is followed.
        "time": round(time.time() - (time.monotonic() - frame.time), 3),
        "frame": frame.index,
        "label": classification.label,
        "confidence": round(classification.confidence, _DECIMALS),
        "top": [[label, round(score, _DECIMALS)] for label, score in classification.top],
        "latency_ms": round(result.latency * 1000, 3),
    }
    if frame.path is not None:
        document["path"] = frame.path
    if frame.truth is not None:
        document["truth"] = frame.truth
    return document


def event_document(event: Event) -> dict[str, Any]:
    """What is said of an event wherever it is said as JSON, without the thumbnail."""
    return {
        "id": event.id,
        "label": event.label,
        "confidence": round(event.confidence, _DECIMALS),
        "started": round(event.started, 3),
        "ended": None if event.ended is None else round(event.ended, 3),
        "frames": event.frames,
    }


def _line(document: Mapping[str, Any]) -> str:
    # ASCII only: a label in any script passes through any terminal and pipe.
    return json.dumps(document) + "\n"
