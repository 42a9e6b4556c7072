"""What may be told while training goes on. Each method does nothing; who wants to know overrides it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgenn import data

    from .fit import Epoch
    from .recipe import Recipe


class Watcher:
    """Is told what training does, on training's own thread."""

    def photos(self, dataset: data.Dataset) -> None:
        """The photos were found and split."""

    def network(self, recipe: Recipe, parameters: int) -> None:
        """The network was built, with so many weights."""

    def decoding(self, done: int, total: int) -> None:
        """So many of all photos are decoded."""

    def unreadable(self, problems: tuple[data.Problem, ...]) -> None:
        """These files are left out; called once, also when there are none."""

    def teaching(self, done: int, total: int) -> None:
        """The teacher has answered so many views of photos."""

    def caching(self, done: int, total: int) -> None:
        """The part of the network that is not trained was computed for so many views of photos."""

    def surveying(self, done: int, total: int) -> None:
        """The run is complete; the report has looked at so many of all photos."""

    def no_report(self, reason: str) -> None:
        """The run is complete, and its report could not be written."""

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        """So many steps of an epoch are done; told now and then. Loss and accuracy are means since the epoch began."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done. A resumed run tells of its earlier epochs again, before its first step."""
