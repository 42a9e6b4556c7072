"""One trial: settings are chosen, the network is trained, converted to int8 and timed, as `edgenn train`, `convert` and
`profile` do it.

What came of it is kept on Optuna's trial as plain values, from which `outcome_of` reads it back in any process.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenn.conversion.converter import convert
from edgenn.data import Dataset, Problem
from edgenn.extras import require
from edgenn.training import Recipe, train
from edgenn.training.fit import Epoch
from edgenn.training.watcher import Watcher as TrainingWatcher
from edgenn_device.errors import EdgennError

from . import facts, space, timing
from .limits import Limits
from .outcome import Latency, Outcome, State
from .stopping import falls_behind
from .watcher import Watcher

if TYPE_CHECKING:
    import optuna

MODEL = "model.tflite"
_OUTCOME, _EPOCHS, _MACS = "outcome", "epochs", "macs"


@dataclass(frozen=True)
class Task:
    """What all trials of a search share.

    Attributes:
      photos: the folder of labelled photos.
      dataset: what is in it.
      networks: those to choose from, as all who share the search call them -> names, or paths here.
      base: settings that are not searched.
      weights: to start from, the first that fits a network.
      limits: what the model may cost.
      runs: where runs are kept, a folder for each trial.
      watcher: is told what goes on.
    """

    photos: Path
    dataset: Dataset
    networks: Mapping[str, str]
    base: Recipe
    weights: tuple[str, ...]
    limits: Limits
    runs: Path
    watcher: Watcher

    def folder(self, number: int) -> Path:
        return self.runs / f"{number:04d}"


def work(trial: optuna.Trial, task: Task) -> float:
    """Do a trial.

    Returns:
      int8 accuracy on validation photos, 0..1.

    Raises:
      optuna.TrialPruned: it was given up, for the reason that is kept with it.
    """
    optuna = require("optuna")
    began, folder = time.perf_counter(), task.folder(trial.number)
    kept: dict[str, Any] = {"host": socket.gethostname(), "folder": str(folder.resolve())}

    def keep(state: State, **more: Any) -> None:
        kept.update(more, state=state, seconds=time.perf_counter() - began)
        trial.set_user_attr(_OUTCOME, kept)

    try:
        chosen = space.network_for(trial, task.networks, task.base)
        kept["recipe"] = chosen.to_dict()
        known, weights = facts.facts(chosen, len(task.dataset.labels), task.weights)
        recipe = space.recipe_for(trial, chosen.replace(weights=weights), len(task.dataset.splits["train"]))
        kept |= {"recipe": recipe.to_dict(), "macs": known.macs, "bytes": known.int8_bytes}
        trial.set_user_attr(_MACS, known.macs)
        trial.set_user_attr(_EPOCHS, recipe.epochs)
        facts.check(known, task.limits, facts.rate(outcomes(trial.study), timing.machine()))
    except (facts.Unfit, EdgennError) as refusal:
        for name, excess in (refusal.excess if isinstance(refusal, facts.Unfit) else {}).items():
            trial.set_constraint(name, excess)
        keep("unfit", reason=str(refusal))
        raise optuna.TrialPruned(str(refusal)) from None

    told = _Training(trial, task, recipe)
    task.watcher.begin(trial.number, Outcome(trial.number, "running", kept["recipe"]).name)
    try:
        run = train(task.photos, folder, recipe=recipe, overwrite=True, watcher=told)
        # How much accuracy int8 may cost is not for the gate to say: int8 accuracy is what is searched for.
        task.watcher.advance(1.0, "converting to int8")
        conversion = convert(run, out=folder / MODEL, max_drop=100.0, overwrite=True)
        task.watcher.advance(1.0, "timing")
        latency = timing.timed({trial.number: conversion.model})[trial.number]
    except optuna.TrialPruned as stop:
        keep("stopped", reason=str(stop), **told.figures)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except (EdgennError, require("tensorflow").errors.ResourceExhaustedError, MemoryError) as error:
        # A loss that is no number, a batch too large for the memory: bad settings, which the sampler is to learn of.
        reason = str(error) if isinstance(error, EdgennError) else "out of memory"
        keep("stopped", reason=reason, **told.figures)
        shutil.rmtree(folder, ignore_errors=True)
        raise optuna.TrialPruned(reason) from None
    missed = task.limits.excess(latency.median, conversion.bytes)
    for name, value in {**missed, "rejected": 0.0 if conversion.passed else 1.0}.items():
        trial.set_constraint(name, value)
    keep(
        "done",
        accuracy=conversion.int8_accuracy,
        float_accuracy=conversion.float_accuracy,
        pictures=conversion.pictures,
        latency=asdict(latency),
        bytes=conversion.bytes,
        passed=conversion.passed,
        reason="; ".join(conversion.reasons),
        **told.figures,
    )
    return conversion.int8_accuracy


def outcomes(study: optuna.Study) -> list[Outcome]:
    """What came of every trial that has begun, in order; each that was tried again counts as lost."""
    waiting = require("optuna").trial.TrialState.WAITING
    return [outcome_of(trial) for trial in study.get_trials(deepcopy=False) if trial.state != waiting]


def outcome_of(trial: optuna.trial.FrozenTrial) -> Outcome:
    """What came of one trial."""
    states = require("optuna").trial.TrialState
    kept = dict(trial.user_attrs.get(_OUTCOME, {}))
    if trial.state == states.RUNNING:
        return Outcome(trial.number, "running")
    if trial.state == states.FAIL or not kept:
        return Outcome(trial.number, "lost")
    latency = kept.pop("latency", None)
    return Outcome(number=trial.number, latency=Latency.from_dict(latency) if latency else None, **kept)


class _Training(TrainingWatcher):
    """Passes on how far training is, keeps the curve, and ends a trial that falls behind."""

    def __init__(self, trial: optuna.Trial, task: Task, recipe: Recipe) -> None:
        self._trial, self._watcher, self._epochs = trial, task.watcher, int(recipe.epochs or 0)
        self._curve: dict[int, float] = {}
        self._others = _cheaper(trial)

    @property
    def figures(self) -> dict[str, Any]:
        return {"epochs": len(self._curve), "best": max(self._curve.values(), default=None)}

    def unreadable(self, problems: tuple[Problem, ...]) -> None:
        self._watcher.unreadable(problems)

    def decoding(self, done: int, total: int) -> None:
        self._watcher.advance(0.0, f"decoding {done:,} of {total:,} photos")

    def caching(self, done: int, total: int) -> None:
        self._watcher.advance(0.0, f"frozen part, {done:,} of {total:,}")

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        best = f", validation {max(self._curve.values()):.3f}" if self._curve else ""
        self._watcher.advance((epoch - 1 + step / steps) / self._epochs, f"epoch {epoch} of {self._epochs}{best}")

    def epoch(self, epoch: Epoch) -> None:
        self._curve[epoch.epoch] = epoch.val_accuracy
        self._trial.report(epoch.val_accuracy, epoch.epoch)
        if falls_behind(self._curve, self._others, self._epochs):
            reason = f"behind the median after epoch {epoch.epoch} of {self._epochs}, {max(self._curve.values()):.3f}"
            raise require("optuna").TrialPruned(reason)


def _cheaper(trial: optuna.Trial) -> Sequence[dict[int, float]]:
    """Curves of ended trials with as many epochs, whose networks cost no more."""
    states = require("optuna").trial.TrialState
    mine = trial.user_attrs
    return [
        other.intermediate_values
        for other in trial.study.get_trials(states=(states.COMPLETE, states.PRUNED), deepcopy=False)
        if other.user_attrs.get(_EPOCHS) == mine[_EPOCHS] and other.user_attrs.get(_MACS, 0) <= mine[_MACS]
    ]
