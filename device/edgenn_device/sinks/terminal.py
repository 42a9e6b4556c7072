"""What a person watches: on a terminal one line that follows the camera; in a pipe or log one line per change of label.

Separate pictures get a line each, wherever it goes. Text from a model file is never passed on as it is: a label cannot
move the cursor.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, TextIO

from ..pipeline import Result
from .base import Sink

# A line that changes faster cannot be read, and a slow terminal (SSH) would hold up the frames.
_REDRAW = 0.1
_BAR = 20
# Seconds over which frames a second are counted.
_WINDOW = 2.0
_ERASE = "\r\x1b[K"


class Terminal(Sink):
    """Writes to a text stream, which stays the caller's."""

    name = "terminal"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tty = stream.isatty()
        self._full, self._empty = ("█", "░") if _can_write(stream, "█░") else ("#", "-")
        self._label: str | None = None
        self._drawn_at = 0.0
        self._line_is_open = False
        self._times: deque[float] = deque()

    def write(self, result: Result) -> None:
        now = time.monotonic()
        self._times.append(now)
        while now - self._times[0] > _WINDOW:
            self._times.popleft()
        classification = result.classification
        label = "".join(sign if sign.isprintable() else "?" for sign in classification.label)
        figures = f"{classification.confidence:6.1%}  {result.latency * 1000:.1f} ms"
        if result.frame.path is not None:
            path = "".join(sign if sign.isprintable() else "?" for sign in result.frame.path)
            self._put(f"{path}  {label}  {figures}\n")
        elif not self._tty:
            if label != self._label:
                self._put(f"{time.strftime('%H:%M:%S')}  frame {result.frame.index}  {label}  {figures}\n")
        elif now - self._drawn_at >= _REDRAW:
            self._drawn_at = now
            self._line_is_open = True
            self._put(_ERASE + self._live(label, classification.confidence, result.latency))
        self._label = label

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Leave the live line; the summary is for stderr, where the caller prints it."""
        self.close()

    def close(self) -> None:
        if self._line_is_open:
            self._line_is_open = False
            self._put("\n")

    def _live(self, label: str, confidence: float, latency: float) -> str:
        """The live line: label, bar, confidence, frames a second, latency; cut to the terminal's width."""
        filled = round(_BAR * min(1.0, max(0.0, confidence)))
        bar = self._full * filled + self._empty * (_BAR - filled)
        line = f"{label:<16} {bar} {confidence:6.1%}  {self._fps():5.1f} fps  {latency * 1000:6.1f} ms"
        # One column stays free: in the last one many terminals wrap, and the line could not be erased again.
        return line[: shutil.get_terminal_size().columns - 1]

    def _fps(self) -> float:
        span = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / span if span > 0 else 0.0

    def _put(self, text: str) -> None:
        if not _can_write(self._stream, text):
            text = text.encode(self._stream.encoding or "ascii", "replace").decode(self._stream.encoding or "ascii")
        self._stream.write(text)
        self._stream.flush()


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
