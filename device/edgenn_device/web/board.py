"""What the page shows: the newest result, the last minute's latencies, the last events. Bounded, and never in the way.

The pipeline's thread writes; the page's thread reads and waits. Nothing is encoded, copied or sent for nobody: as long
as no page is open, a result costs a few assignments.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from ..events import Event
from ..pipeline import Result

# Seconds in one point of the sparkline, and how many points: the last minute.
PERIOD = 0.5
POINTS = 120
# Events the page shows; with thumbnails of some 10 kB that is a megabyte at most times.
MOST_EVENTS = 60
# Bytes. Larger is no thumbnail, and is not held.
_MOST_THUMBNAIL = 128 << 10


class Board:
    """Written by one thread, read by another."""

    def __init__(self) -> None:
        # Of this process: after a restart a page that is still open must not take an old number for a new one.
        self._run = secrets.token_hex(4)
        self._lock = threading.Lock()
        self.result: Result | None = None
        self.results = 0
        self.changes = 0
        self._events: OrderedDict[str, Event] = OrderedDict()
        self._points: deque[float] = deque(maxlen=POINTS)
        self._until = 0.0
        self._listening = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    def write(self, result: Result) -> None:
        """Take a result; the worst latency of each period becomes a point."""
        now = time.monotonic()
        with self._lock:
            if now >= self._until:
                self._points.append(result.latency)
                # After a pause the line goes on: a camera that was away has no latency.
                self._until = now + PERIOD
            elif result.latency > self._points[-1]:
                self._points[-1] = result.latency
        self.result = result
        self.results += 1
        self._tell()

    def event(self, event: Event) -> None:
        """Take an event, or what has become of one."""
        with self._lock:
            self._events[event.id] = event
            while len(self._events) > MOST_EVENTS:
                self._events.popitem(last=False)
        self.changes += 1
        self._tell()

    @property
    def tag(self) -> str:
        """Another one with every result."""
        return f"{self._run}-{self.results}"

    @property
    def events_tag(self) -> str:
        """Another one with every change of an event."""
        return f"{self._run}-{self.changes}"

    def latencies(self) -> list[float]:
        """Seconds: the worst of each period with results, oldest first."""
        with self._lock:
            return list(self._points)

    def events(self) -> list[Event]:
        """The last ones, newest first."""
        with self._lock:
            return list(reversed(self._events.values()))

    def thumbnail(self, event: str) -> bytes | None:
        with self._lock:
            found = self._events.get(event)
        return found.thumbnail if found and has_thumbnail(found) else None

    async def until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Wait until `true()` holds, which is asked at every result and event; whether it does within `seconds`."""
        loop = self._loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self._closed:
            waiter = loop.create_future()
            self._waiters.add(waiter)
            # Before asking: what is written from here on wakes us.
            self._listening = True
            try:
                if true():
                    return True
                await asyncio.wait_for(waiter, max(0.0, deadline - loop.time()))
            except TimeoutError:
                return true()
            finally:
                self._waiters.discard(waiter)
        return False

    def open(self) -> None:
        """Waiting is possible from now on."""
        self._closed = False

    def close(self) -> None:
        """End all waiting."""
        self._closed = True
        self._listening = True
        self._tell()

    def _tell(self) -> None:
        if self._listening and self._loop is not None:
            self._listening = False
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the loop was closed meanwhile
                pass

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def has_thumbnail(event: Event) -> bool:
    return event.thumbnail is not None and len(event.thumbnail) <= _MOST_THUMBNAIL


def event_as_json(event: Event) -> dict[str, Any]:
    """As the page and /events.json give it; `thumbnail` is its address or None."""
    return {
        "id": event.id,
        "label": event.label,
        "confidence": event.confidence,
        "started": event.started,
        "ended": event.ended,
        "frames": event.frames,
        "thumbnail": f"events/{event.id}.jpg" if has_thumbnail(event) else None,
    }
