"""What every sink is: a context manager that takes results and events one by one and, at the end, the run's summary.

Who may block: `write` and `event` of a bare sink run on the thread that invokes the network, so whatever a sink does
there the next frame waits for, and an error ends the run (a reader that has gone, `| head`, shows as BrokenPipeError).
A sink that can block or fail, because a disk or a network is behind it, is therefore wrapped in `Queued`: then every
method but `state` is called by the one thread of that wrapper, in the order open, (write | event)…, finish, close; and
after an OSError or EdgennError comes close, then, a little later, open, and the same result or event once more. So
`close` is harmless when nothing is open, and taking the same event twice is the same as taking it once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ..events import Event
    from ..pipeline import Result


@dataclass
class About:
    """Who is speaking; what a sink says beside the results themselves.

    One object for all sinks of a run: model, labels and runtime become others when the model is exchanged, so a sink
    reads them when it speaks.

    Attributes:
      device: the host's name, or the one that was configured.
      model: the model's name.
      labels: the model's labels, in the order of the scores ("unknown" is not among them).
      runtime: what runs the model, as `Interpreter.description` gives it.
      source: the source's name; holds no password.
      version: of edgenn.
    """

    device: str
    model: str
    labels: tuple[str, ...]
    runtime: str
    source: str
    version: str


class Sink(ABC):
    """Takes results. Entering opens what it writes to, leaving flushes and closes it.

    Attributes:
      name: what a person calls it; holds no password.
      pictures: whether it looks at `result.frame.image`. The others are given results without the picture when they
        stand behind a queue, so that the queue does not hold megabytes.
    """

    name: str = "sink"
    pictures: bool = False

    def open(self) -> None:
        """Open what it writes to.

        Raises:
          EdgennError: what was asked for cannot work; the line says how to mend it.
          OSError: it is not to be had at present (the disk is full, the network is away).
        """
        return None

    @abstractmethod
    def write(self, result: Result) -> None:
        """Take one result.

        Raises:
          OSError: it cannot be written.
        """

    def event(self, event: Event) -> None:
        """Take an event: once when it begins (`ended` None), and once, with the same id, when it has ended.

        Raises:
          OSError: it cannot be written.
        """
        return None

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Take the summary of the run: frames, dropped, fps, seconds, and whatever else was measured."""
        return None

    def close(self) -> None:
        return None

    def state(self) -> dict[str, Any]:
        """How it is doing, JSON-able: what waits, what was dropped, the last error. Any thread may ask."""
        return {}

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
