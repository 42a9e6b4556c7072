"""What every sink is: a context manager that takes results one by one and, at the end, the summary of the run.

Who may block: `write` runs on the thread that invokes the network, so whatever a sink does there the next frame waits
for. An error in `write` ends the run; a reader that has gone (`| head`) shows as BrokenPipeError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from ..pipeline import Result


class Sink(ABC):
    """Takes results. Entering opens what it writes to, leaving flushes and closes it."""

    @abstractmethod
    def write(self, result: Result) -> None:
        """Take one result.

        Raises:
          OSError: it cannot be written.
        """

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Take the summary of the run: frames, dropped, fps, seconds, and whatever else was measured."""
        return None

    def close(self) -> None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
