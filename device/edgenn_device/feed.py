"""The capture stage: a source, read in a thread of its own, and the replacement of one that hangs.

A read that never returns (a USB camera's driver, a video library waiting for a lost peer) cannot be ended from outside.
So its thread is left behind and another source of the same kind takes over; what the old one may still give is thrown
away, and when it wakes up it ends. It neither decodes nor judges pictures.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TypeAlias

from .cameras.base import Frame, Source
from .channel import Channel, Ended
from .errors import EdgennError

# How long an exit waits for the thread. Only a source that hangs in native code takes longer; it is left behind.
_PATIENCE = 0.3
# Threads that hang in native code and are left behind, at the most; more would only use up the machine.
_MOST_LEFT_BEHIND = 4
# Seconds before a source that has taken over and does not open is opened again.
_OPEN_AGAIN = 2.0

# A frame, and the `time.monotonic()` at which it had been read.
Captured: TypeAlias = tuple[Frame, float]

_log = logging.getLogger(__name__)


class Feed:
    """Frames of a source on their way out of the capture thread.

    `get` is called by one thread at a time and blocks until there is a frame; `look_after` by one thread, now and then,
    while no frame comes; `stop` and `close` by any. Of a live source the newest frame displaces older ones, of any
    other nothing is lost.

    Attributes:
      source: the one that gives frames now.
      dropped: frames that a newer one displaced.
    """

    def __init__(self, source: Source, capacity: int) -> None:
        self.source = source
        self.dropped = 0
        self._channel: Channel[Captured] = Channel(capacity, newest_wins=source.live)
        self._thread = self._reader(source)
        self._next = 0
        self._skipped = 0
        self._left_behind: list[threading.Thread] = []
        self._closed = threading.Event()

    @property
    def skipped(self) -> int:
        """Pictures that could not even be read, of all sources that have been in use."""
        return self._skipped + self.source.skipped

    def open(self) -> None:
        """Open the source and begin to read it.

        Raises:
          EdgennError: it does not open.
        """
        self.source.open()
        self._thread.start()

    @property
    def waiting(self) -> bool:
        """Whether there is a frame; only a hint, because the other thread goes on."""
        return bool(self._channel)

    def get(self, timeout: float | None = None) -> Captured:
        """The next frame, within `timeout` seconds; None waits for ever.

        Raises:
          Late: none came in that time.
          Ended: there will be no more.
          BaseException: what `read` raised.
        """
        return self._channel.get(timeout)

    def stop(self) -> None:
        """Give no more frames; a `get` that waits raises `Ended`. Returns at once."""
        self._channel.close()

    def look_after(self) -> None:
        """Let another source take over if this one hangs; when too many have hung, let `get` raise EdgennError.

        A process that begins anew has what those threads hold, and a service is begun anew.
        """
        hung = self.source
        if self._closed.is_set() or hung.renew is None or not hung.overdue(time.monotonic()):
            return
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        if len(self._left_behind) >= _MOST_LEFT_BEHIND:
            self._channel.finish(
                EdgennError(
                    f"{hung.name} has frozen {_MOST_LEFT_BEHIND + 1} times and nothing takes over any more: start "
                    "again, and if that does not help unplug the camera"
                )
            )
            return
        reason = f"{hung.name} has frozen in the middle of a read; another attempt takes over"
        _log.warning("%s", reason)
        hung.tell("failed", reason)
        source = hung.renew()
        source.tell, source.watched = hung.tell, hung.watched
        self._skipped += hung.skipped
        self._left_behind.append(self._thread)
        self.source = source
        self._thread = self._reader(source, take_over=True)
        self._thread.start()
        # What hangs in its read may hang in its close, too.
        threading.Thread(target=hung.close, name="edgenn_hung", daemon=True).start()

    def close(self) -> None:
        """End it; a `get` that waits raises `Ended`."""
        self._closed.set()
        self._channel.close()
        self.source.close()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)

    def _reader(self, source: Source, take_over: bool = False) -> threading.Thread:
        return threading.Thread(target=self._read, args=(source, take_over), name="edgenn_capture", daemon=True)

    def _read(self, source: Source, take_over: bool) -> None:
        first = self._next
        try:
            if take_over:
                if not self._opened(source):
                    return
                source.tell("ok", "")
                _log.warning("%s: back", source.name)
            while (frame := source.read()) is not None:
                captured = time.monotonic()
                if source is not self.source:
                    return
                if first:
                    frame = replace(frame, index=first + frame.index)
                self._next = frame.index + 1
                if self._channel.put((frame, captured)) is not None:
                    self.dropped += 1
        except Ended:
            return
        except BaseException as error:
            self._finish(source, error)
        else:
            self._finish(source, None)

    def _finish(self, source: Source, error: BaseException | None) -> None:
        if source is self.source:
            self._channel.finish(error)

    def _opened(self, source: Source) -> bool:
        """Open a source that takes over, however long that takes; False when it is no longer wanted."""
        while source is self.source and not self._closed.is_set():
            try:
                source.open()
                return True
            except EdgennError as error:
                source.tell("failed", f"{error}; trying again until it is back")
            self._closed.wait(_OPEN_AGAIN)
        return False
