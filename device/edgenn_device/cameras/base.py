"""What every source of frames is: a name, `open`, `read` and `close`. Decodes nothing and keeps no frame.

Who may block, and on which thread. `open` runs on the thread that asked for the source and may take a few seconds (a
camera that answers slowly); it raises `EdgennError` when the source is not there. `read` is called by one thread only,
the capture thread, and blocks for as long as the next frame takes: for a camera that has frozen, for ever. `close` may
be called by any thread at any time, also while `read` is blocked in another: it returns promptly, is harmless when
repeated, and makes the blocked `read` return None soon where the source can be woken. Where it cannot (a native library
that hangs), the blocked thread is left behind, so whoever calls `read` in a thread makes that a daemon thread.

A source that knows how long its steps may take says so in `overdue`: then whoever reads it can leave a hung one behind
and let another, made by `renew`, take over.

A frame belongs to its reader: a source never writes again into a picture that it has handed over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .view import View

# A picture in memory: uint8 pixels (H, W, 3) in BGR order, or an encoded picture (JPEG, PNG, …) as it came.
Image = NDArray[np.uint8] | bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture and where it came from.

    Attributes:
      image: uint8 pixels (H, W, 3) in BGR order as OpenCV gives them, or the bytes of an encoded picture.
      time: `time.monotonic()` in seconds at capture; latency counts from here.
      index: 0 for the first frame a source gives, and rising by one with each.
      path: the file the picture was read from, for sources of separate pictures.
      truth: the label that the picture really has, where the source knows (a folder of class folders, drawn pictures).
      moment: seconds into the scene, for sources whose scene has a time of its own: a video read faster than it plays.
        None where the scene goes with the clock.
    """

    image: Image
    time: float
    index: int
    path: str | None = None
    truth: str | None = None
    moment: float | None = None


# How a source is: it works, with less than it could have, or not at all.
Condition: TypeAlias = Literal["ok", "degraded", "failed"]


def _tell_nobody(condition: Condition, reason: str) -> None:
    return None


class Source(ABC):
    """A camera, or what stands in for one. A context manager: entering opens it, leaving closes it.

    Attributes:
      name: what a person calls it; holds no password.
      live: True for what goes on without us (a camera): only the newest frame counts, stale ones are dropped. False for
        what waits for us (files): every frame is classified.
      continuous: True when successive frames show one scene, so that their scores may be averaged; False for a folder
        of unrelated pictures.
      skipped: pictures that could not even be read and were left out.
      view: what of region, rotation and flip the source has left for its reader to do.
      watched: set from outside while somebody looks at the pictures themselves and not only at what they are called; a
        source that can give larger ones at a cost does so then.
      tell: set from outside; called with how the source is, and a line that says why, when that changes.
      renew: makes another source like this one, not yet opened; None where there is no such way.
    """

    name: str
    live: bool = True
    continuous: bool = True
    skipped: int = 0
    view: View = View()
    watched: bool = False
    tell: Callable[[Condition, str], None] = staticmethod(_tell_nobody)
    renew: Callable[[], Source] | None = None

    @abstractmethod
    def open(self) -> None:
        """Open the source.

        Raises:
          EdgennError: it is not there or not usable; the line says how to mend it.
        """

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame, or None when there will be no more (the file has ended, or the source was closed)."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the device or file. Any thread may call it, any number of times."""

    def overdue(self, now: float) -> bool:
        """Whether a step that is under way has taken longer than any that ends; any thread may ask.

        Args:
          now: `time.monotonic()`.
        """
        return False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        self.close()
