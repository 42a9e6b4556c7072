"""JSON lines: one document per frame, and {"summary": …} as the last line. Each line is flushed as it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, TextIO

from ..pipeline import Result
from .base import Sink

# Decimals of a score; an int8 model's steps are 1/256.
_DECIMALS = 5


class JsonLines(Sink):
    """Writes to a text stream, which stays the caller's.

    A line holds time (Unix seconds at capture), frame, label, confidence, top [[LABEL, SCORE]…] and latency_ms; for
    separate pictures also path, and truth where it is known.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, result: Result) -> None:
        frame, classification = result.frame, result.classification
        line: dict[str, Any] = {
            # Through the frame's age, so that a clock that is set meanwhile is followed.
            "time": round(time.time() - (time.monotonic() - frame.time), 3),
            "frame": frame.index,
            "label": classification.label,
            "confidence": round(classification.confidence, _DECIMALS),
            "top": [[label, round(score, _DECIMALS)] for label, score in classification.top],
            "latency_ms": round(result.latency * 1000, 3),
        }
        if frame.path is not None:
            line["path"] = frame.path
        if frame.truth is not None:
            line["truth"] = frame.truth
        self._put(line)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._put({"summary": dict(summary)})

    def _put(self, line: dict[str, Any]) -> None:
        # ASCII only: a label in any script passes through any terminal and pipe.
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()
