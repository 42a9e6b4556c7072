"""What may be told while a search goes on. Each method does nothing; who wants to know overrides it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgenn import data

    from .outcome import Outcome


class Watcher:
    """Is told what a search does, on its own thread."""

    def photos(self, dataset: data.Dataset) -> None:
        """The photos were found and split."""

    def unreadable(self, problems: tuple[data.Problem, ...]) -> None:
        """Photos that a trial leaves out, those that were found to be damaged at the beginning among them."""

    def joined(self, trials: int, released: int) -> None:
        """So many trials have been trained already; so many others had lost their process and are tried again."""

    def begin(self, number: int, name: str) -> None:
        """A trial begins to be trained."""

    def advance(self, share: float, detail: str) -> None:
        """The trial is done to a share of 0..1; `detail` says in words where it is."""

    def end(self, outcome: Outcome, remark: str) -> None:
        """A trial has ended; the remark is that it is the best so far, or which limit it misses, or ""."""

    def timing(self, models: int) -> None:
        """So many finalists are timed in turns."""
