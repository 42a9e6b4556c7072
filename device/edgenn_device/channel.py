"""The hand-over between two stages that run in two threads: a short queue with an end.

One thread puts and one gets. It either makes the putting thread wait (nothing is lost) or lets the newest item displace
the oldest (nothing grows stale); it never grows.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Ended(Exception):
    """Nothing more will come: the other side has finished, or the channel was closed."""


class Late(Exception):
    """Nothing has come in the time that `get` was given."""


class Channel(Generic[T]):
    """At most `capacity` items on their way from one thread to another.

    Who may block: `get` until there is an item; `put` only when `newest_wins` is False, until there is room. `finish`
    and `close` never block; `close` may come from any thread and ends both sides at once.
    """

    def __init__(self, capacity: int, *, newest_wins: bool) -> None:
        self._capacity = capacity
        self._newest_wins = newest_wins
        self._items: deque[T] = deque()
        # One condition serves both sides: the channel is never empty and full, so only one of them can be waiting.
        self._changed = threading.Condition(threading.Lock())
        self._finished = False
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> T | None:
        """Hand `item` over.

        Returns:
          The stale item that it displaced, or None.

        Raises:
          Ended: the channel was closed.
        """
        with self._changed:
            displaced = None
            if self._newest_wins:
                if len(self._items) >= self._capacity and not self._closed:
                    displaced = self._items.popleft()
            else:
                while len(self._items) >= self._capacity and not self._closed:
                    self._changed.wait()
            if self._closed:
                raise Ended
            self._items.append(item)
            self._changed.notify()
            return displaced

    def get(self, timeout: float | None = None) -> T:
        """The oldest item.

        Args:
          timeout: seconds to wait for one at the most; None waits for ever.

        Raises:
          Late: none came within `timeout`.
          Ended: all items were taken and the other side has finished; or the channel was closed.
          BaseException: the error with which the other side finished, after its last item.
        """
        with self._changed:
            while not self._items and not self._finished and not self._closed:
                if not self._changed.wait(timeout):
                    raise Late
            if self._closed:
                raise Ended
            if self._items:
                item = self._items.popleft()
                self._changed.notify()
                return item
            raise self._error or Ended

    def __len__(self) -> int:
        """Items on their way; only a hint, because the other thread goes on."""
        return len(self._items)

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing more will be put; what is on its way is still delivered, and then `error` is raised from `get`."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """End both sides now; what is on its way is lost."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
