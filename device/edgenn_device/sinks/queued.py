"""A sink that may block or fail, behind bounded queues and in a thread of its own, so that no frame ever waits for it.

Results: the newest win, and what they displace is counted. Events: many more may wait, and they are dropped, and
counted, only when even that is full. What the sink could not take (a full disk, a network that is away) is tried again
until it can, with doubling back-off and jitter, while the run goes on. Whatever waits is in memory: a sink whose events
must survive a SIGKILL writes them to disk itself, which is what its thread is for.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any

from ..cameras.base import Frame
from ..errors import EdgennError
from ..events import Event
from ..pipeline import Result
from .base import Sink

# Results that may wait: half a minute of a camera without their pictures; with them (6 MB each at 1080p) a few.
_RESULTS = 1024
_PICTURES = 4
# Events that may wait, with their thumbnails about 10 MB.
_EVENTS = 1024
# Seconds. The longest wait and a failing attempt together stay below 5: what has come back is noticed within that.
_SHORTEST_WAIT = 0.1
_LONGEST_WAIT = 4.0
# Seconds that entering waits for the sink to open, so that a request which cannot work is refused while a person looks.
_OPENING = 2.0
# Seconds from `finish` (or `close`, whichever comes first) within which what waits is still written. With several
# sinks the seconds run at the same time; SIGTERM has to end the whole run within 2.
_PATIENCE = 1.0

# A file where a folder should be, or the other way round: no later attempt finds it otherwise.
_MISPLACED = (IsADirectoryError, NotADirectoryError, FileExistsError)

_log = logging.getLogger(__name__)


def back_off(attempt: int) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 0): at random between half and all of its turn."""
    longest = min(_LONGEST_WAIT, _SHORTEST_WAIT * 2.0 ** min(attempt, 16))
    return longest * random.uniform(0.5, 1.0)


class Queued(Sink):
    """Wraps `sink`: `write`, `event` and `finish` never block; `close` does for at most a second.

    All of the sink's methods but `state` are called by one thread, in the order open, (write | event)…, finish, close.
    After an OSError or EdgennError: close, a pause, open, and the same result or event once more.

    Args:
      sink: not yet entered.
      results, events: how many may wait; None takes what fits the sink.

    Raises:
      EdgennError: on entering, if that is what the sink's `open` raises: the request is wrong. An OSError there (the
        disk is full at this moment) is tried again like any later one.
    """

    def __init__(self, sink: Sink, *, results: int | None = None, events: int = _EVENTS) -> None:
        self.sink = sink
        self.name = sink.name
        self.pictures = sink.pictures
        self._most_results = results or (_PICTURES if sink.pictures else _RESULTS)
        self._most_events = events
        # What waits, each with its place in the order in which it came.
        self._results: deque[tuple[int, Result]] = deque()
        self._events: deque[tuple[int, Event]] = deque()
        self._came = 0
        self._changed = threading.Condition(threading.Lock())
        self._in_hand: Result | Event | None = None
        self._summary: Mapping[str, Any] | None = None
        self._deadline: float | None = None
        self._ending = False
        self._dropped_results = self._dropped_events = 0
        self._error: str | None = None
        self._refusal: EdgennError | None = None
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"edgenn-sink-{sink.name}"[:60], daemon=True)

    def open(self) -> None:
        self._thread.start()
        self._tried.wait(_OPENING)
        self._tried.set()
        if self._refusal is not None:
            self._thread.join()
            raise self._refusal

    def write(self, result: Result) -> None:
        if not self.pictures:
            result = _without_picture(result)
        with self._changed:
            if len(self._results) >= self._most_results:
                self._results.popleft()
                self._dropped_results += 1
            self._results.append((self._came, result))
            self._came += 1
            self._changed.notify()

    def event(self, event: Event) -> None:
        with self._changed:
            if len(self._events) >= self._most_events:
                self._events.popleft()
                self._dropped_events += 1
            self._events.append((self._came, event))
            self._came += 1
            self._changed.notify()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Nothing more will come; what waits, and then the summary, is still written, for a second from now."""
        with self._changed:
            self._summary = summary
        self._end()

    def close(self) -> None:
        """Wait until everything is written or the second is over. What could not be written by then is logged."""
        self._end()
        assert self._deadline is not None
        if self._thread.ident is None:
            return
        self._thread.join(max(0.0, self._deadline - time.monotonic()) + 0.1)
        with self._changed:
            results = len(self._results) + isinstance(self._in_hand, Result)
            events = len(self._events) + isinstance(self._in_hand, Event)
            self._results.clear()
            self._events.clear()
            self._dropped_results += results
            self._dropped_events += events
        if results or events:
            _log.warning("%s: ended with %d results and %d events not written", self.name, results, events)

    def state(self) -> dict[str, Any]:
        """The sink's own state, and: error (None when all is well), queued and dropped, each {results, events}."""
        with self._changed:
            document: dict[str, Any] = {
                "error": self._error,
                "queued": {"results": len(self._results), "events": len(self._events)},
                "dropped": {"results": self._dropped_results, "events": self._dropped_events},
            }
        # The sink may know of trouble that it raised to nobody. Whoever asks is not to suffer from its defects.
        try:
            said = self.sink.state()
        except Exception as error:
            said = {"error": _line(error)}
        return {**said, **document, "error": document["error"] or said.get("error")}

    def _end(self) -> None:
        with self._changed:
            self._ending = True
            if self._deadline is None:
                self._deadline = time.monotonic() + _PATIENCE
            self._changed.notify()

    def _work(self) -> None:
        opened, attempt, failed_at = False, 0, 0.0
        while True:
            try:
                if not opened:
                    self.sink.open()
                    opened = True
                    self._tried.set()
                if self._in_hand is None:
                    self._in_hand = self._next(wait=attempt == 0)
                if isinstance(self._in_hand, Event):
                    self.sink.event(self._in_hand)
                elif self._in_hand is not None:
                    self.sink.write(self._in_hand)
            except Exception as error:
                if not isinstance(error, (OSError, EdgennError)) and opened:
                    self._leave_out(error)
                    attempt = 0
                    continue
                if not self._tried.is_set() and isinstance(error, (EdgennError, *_MISPLACED)):
                    self._refusal = (
                        error if isinstance(error, EdgennError) else EdgennError(f"{_line(error)}: name another place")
                    )
                    self._tried.set()
                    return
                if attempt == 0:
                    failed_at = time.monotonic()
                    _log.warning("%s: %s; trying again until it works", self.name, _line(error))
                self._error = _line(error)
                self._tried.set()
                self._close()
                opened = False
                if not self._pause(back_off(attempt)):
                    return
                attempt += 1
                continue
            if attempt:
                _log.warning("%s: works again after %.1f s", self.name, time.monotonic() - failed_at)
            self._error, attempt = None, 0
            if self._in_hand is None and self._ended():
                break
            self._in_hand = None
        try:
            if self._summary is not None:
                self.sink.finish(self._summary)
        except Exception as error:
            _log.warning("%s: the summary was not written: %s", self.name, _line(error))
        self._close()

    def _next(self, *, wait: bool) -> Result | Event | None:
        """What came first of all that waits; None when nothing does, which with `wait` means that the end has come."""
        with self._changed:
            while wait and not self._results and not self._events and not self._ending:
                self._changed.wait()
            if not self._results and not self._events:
                return None
            if not self._events or (self._results and self._results[0][0] < self._events[0][0]):
                return self._results.popleft()[1]
            return self._events.popleft()[1]

    def _ended(self) -> bool:
        with self._changed:
            return self._ending and not self._results and not self._events

    def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt; False when there is no time for another one."""
        until = time.monotonic() + seconds
        with self._changed:
            while (left := until - time.monotonic()) > 0:
                if self._deadline is not None:
                    # Somebody waits for the end: attempts come quickly until then.
                    left = min(left, _SHORTEST_WAIT, self._deadline - time.monotonic())
                    if left <= 0:
                        return False
                    self._changed.wait(left)
                    return True
                # Whatever arrives meanwhile wakes this too, and waits.
                self._changed.wait(left)
        return True

    def _leave_out(self, error: Exception) -> None:
        """A defect of the sink, which another attempt would only meet again: what it met it on is given up."""
        with self._changed:
            first = self._dropped_results + self._dropped_events == 0
            self._dropped_results += isinstance(self._in_hand, Result)
            self._dropped_events += isinstance(self._in_hand, Event)
            self._in_hand, self._error = None, _line(error)
        if first:
            _log.error("%s: a defect in this sink (%s); what it cannot take is left out", self.name, _line(error))

    def _close(self) -> None:
        try:
            self.sink.close()
        except Exception as error:
            _log.debug("%s: while closing: %s", self.name, _line(error))


# All but the first field, the picture or the frame. Half of what `dataclasses.replace` takes, and this is
# on the thread that invokes, for each sink.
_rest_of_frame = attrgetter(*(field.name for field in fields(Frame)[1:]))
_rest_of_result = attrgetter(*(field.name for field in fields(Result)[1:]))


def _without_picture(result: Result) -> Result:
    return Result(Frame(b"", *_rest_of_frame(result.frame)), *_rest_of_result(result))


def _line(error: Exception) -> str:
    """One line, without the number that Python puts before the words of an OSError."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    return text if isinstance(error, (OSError, EdgennError)) and text else f"{type(error).__name__}: {text}"
