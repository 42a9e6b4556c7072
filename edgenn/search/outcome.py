"""What came of trials, and which of them is to be had: the front, and the best within the limits. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any, Literal

from edgenn.training import Recipe

from .limits import Limits, kilobytes, milliseconds

# "done": trained, converted and measured. "stopped": given up while it trained. "unfit": given up before, by what is
# known without training. "lost": its process ended, or it was interrupted; it is tried again.
State = Literal["done", "stopped", "unfit", "lost", "running"]
# A model this much slower than the limit may still turn out to keep it when it is timed again.
_NEARLY = 1.25


@dataclass(frozen=True)
class Latency:
    """Of `invoke` on one machine: median and its 95% interval in seconds, counted runs, what ran it, and why the
    figures are not the model's own (sentences; empty on a quiet machine)."""

    median: float
    low: float
    high: float
    runs: int
    machine: str
    runtime: str
    disturbances: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Latency:
        return cls(**{**values, "disturbances": tuple(values["disturbances"])})


@dataclass(frozen=True)
class Outcome:
    """One trial.

    Attributes:
      number: from 0.
      state: see `State`.
      recipe: its settings, as plain values; {} for one that died before it had any.
      accuracy, float_accuracy: of the int8 file and of the Keras model on validation photos, 0..1; None if not done.
      pictures: how many photos those are.
      latency: of the int8 file; None if not done.
      bytes: of the .tflite; before it is done what it was estimated at.
      macs: multiplications with an addition for one picture.
      passed: the file met the gate of `edgenn convert`, but for its rule on accuracy, which is what is searched for.
      epochs: trained; `best` is the best validation accuracy in them.
      seconds: it took, from photos to measured file.
      reason: why it is not done, or what the gate found.
      host, folder: where its run is kept.
    """

    number: int
    state: State
    recipe: dict[str, Any] = field(default_factory=dict)
    accuracy: float | None = None
    float_accuracy: float | None = None
    pictures: int = 0
    latency: Latency | None = None
    bytes: int | None = None
    macs: int | None = None
    passed: bool = False
    epochs: int = 0
    best: float | None = None
    seconds: float = 0.0
    reason: str = ""
    host: str = ""
    folder: str = ""

    @property
    def network(self) -> str:
        """Of the user's own the file without its folder."""
        return PurePath(str(self.recipe["network"])).name

    @property
    def name(self) -> str:
        """The network, its options that cost something, and its input's side, as one would say it."""
        if not self.recipe:
            return "–"
        options = (f"{key}={value:g}" for key, value in self.recipe["network_options"].items() if key != "dropout")
        return " ".join([self.network, *options, f"{self.recipe['size']} px"])

    def exceeds(self, limits: Limits) -> list[str]:
        """Which limits a finished model does not keep, in words; [] if it keeps them."""
        assert self.latency is not None
        excess = limits.excess(self.latency.median, self.bytes)
        told = []
        if excess.get("latency", 0.0) > 0:
            told.append(f"{milliseconds(self.latency.median)} ms is too slow")
        if excess.get("size", 0.0) > 0:
            told.append(f"{kilobytes(self.bytes or 0)} kB is too large")
        return told

    def misses(self, limits: Limits) -> list[str]:
        """Why a finished model cannot be the best, in words: limits it does not keep, and what it is rejected for."""
        return [*self.exceeds(limits), *([] if self.passed else [self.reason or "rejected"])]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` and the page hold them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "name": self.name, "latency": None if self.latency is None else vars(self.latency)}

    def to_recipe(self) -> Recipe:
        return Recipe.from_dict(self.recipe, f"trial {self.number}")


def done(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that were trained, converted and measured."""
    return [one for one in outcomes if one.state == "done" and one.latency is not None and one.accuracy is not None]


def within(outcomes: Sequence[Outcome], limits: Limits) -> list[Outcome]:
    """Those that are done, keep the limits and are not rejected."""
    return [one for one in done(outcomes) if not one.misses(limits)]


def best(outcomes: Sequence[Outcome], limits: Limits) -> Outcome | None:
    """The most accurate within the limits; of equal ones the fastest, then the smallest, then the first."""
    return max(within(outcomes, limits), key=_merit, default=None)


def front(outcomes: Sequence[Outcome], limits: Limits) -> list[Outcome]:
    """The Pareto front within the limits: no other is as accurate and as fast and in one of the two better. The
    fastest first; of models that are equal in both the smallest, then the first."""
    chosen: list[Outcome] = []
    for one in sorted(within(outcomes, limits), key=lambda o: (_cost(o), *(-m for m in _merit(o)))):
        if not chosen or (one.accuracy or 0.0) > (chosen[-1].accuracy or 0.0):
            chosen.append(one)
    return chosen


def finalists(outcomes: Sequence[Outcome], limits: Limits, most: int = 8) -> list[Outcome]:
    """Those worth keeping and timing again: the most accurate that keep the limits or nearly do, and the front."""
    loose = Limits(None if limits.latency is None else limits.latency * _NEARLY, limits.size)
    accurate = sorted(within(outcomes, loose), key=_merit, reverse=True)[:most]
    return sorted({one.number: one for one in (*accurate, *front(outcomes, limits))}.values(), key=lambda o: o.number)


def why_none(outcomes: Sequence[Outcome], limits: Limits) -> str:
    """Why there is no best, of trials some of which are done: the limits, or what those that keep them are rejected
    for."""
    finished = done(outcomes)
    keeping = [one for one in finished if not one.exceeds(limits)]
    if not keeping:
        nearest = min(finished, key=lambda one: _excess(one, limits))
        return (
            f"none of {_models(finished)} keeps {limits}; the nearest is {nearest.name}, "
            f"{', '.join(nearest.misses(limits))}"
        )
    which = "" if len(keeping) == len(finished) else f" within {limits}"
    nearest = max(keeping, key=_merit)
    return (
        f"none of {_models(keeping)}{which} passes the check of edgenn convert; the nearest is {nearest.name}: "
        f"{nearest.reason or 'rejected'}; train longer, or give more photos"
    )


def _models(outcomes: Sequence[Outcome]) -> str:
    return f"{len(outcomes)} model{'s' * (len(outcomes) != 1)}"


def _excess(one: Outcome, limits: Limits) -> float:
    excess = limits.excess(_cost(one), one.bytes)
    return sum(max(0.0, value) for value in excess.values()) + (0.0 if one.passed else 1.0)


def _cost(one: Outcome) -> float:
    assert one.latency is not None
    return one.latency.median


def _merit(one: Outcome) -> tuple[float, float, int, int]:
    return one.accuracy or 0.0, -_cost(one), -(one.bytes or 0), -one.number
