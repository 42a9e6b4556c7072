"""What may be told while the demo goes on. Each method does nothing; who wants to know overrides it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step of the road, what came of it, and its wall time in seconds."""

    name: str
    result: str
    seconds: float


class Watcher:
    """Is told what goes on, on the demo's own thread."""

    def begin(self, number: int, steps: int, name: str) -> None:
        """Step `number` (from 1) of `steps` begins."""

    def advance(self, share: float, detail: str = "") -> None:
        """The step is done to a share of 0..1; `detail` says in words where it is."""

    def end(self, step: Step) -> None:
        """The step has ended."""
