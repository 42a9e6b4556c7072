"""How good a model is on labelled photos: accuracy, class by class, what is taken for what, the worst pictures.

The same measurement for .keras and .tflite. Classes are matched by name, never by position: the order of folders is
not the order of a model's outputs. Prints nothing and writes nothing.
"""

from __future__ import annotations

import difflib
import math
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn import data
from edgenn_device.errors import EdgennError

from . import metrics
from .model import Model, opened
from .predict import BATCH, Predictions, probabilities

SPLITS = ("train", "validation", "test", "all")
# Pictures decoded at a time: at 224x224x3, 256 of them take 38 MB.
_CHUNK = 4 * BATCH
_MOST_WORST = 24
_MOST_NAMED = 12


@dataclass(frozen=True)
class Mistake:
    """A picture that was taken for something else, and how sure the model was (0..1)."""

    path: Path
    true: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Confused:
    """`count` pictures of class `true` were taken for `predicted`: a `share` of that class's pictures."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a model is.

    Attributes:
      model: path of the model file.
      photos: folder of the photos.
      runtime: what computed the answers: an accuracy holds for the runtime it was measured on.
      split: "train", "validation", "test" or "all".
      pictures: how many were classified.
      accuracy: share that was right, 0..1.
      interval: (low, high), which holds the accuracy on photos of this kind with 95 % confidence (Wilson).
      calibration_error: mean gap between confidence and accuracy, 0..1 (see `metrics.calibration_error`).
      labels: the classes that have pictures or that the model answered with, in the model's order.
      classes: for each of `labels` {"precision", "recall", "f1", "pictures", "precision_interval", "recall_interval"};
        None where the pictures do not define it.
      confusion: int64 (len(labels), len(labels)), row the true class, column the predicted one.
      confused: what was taken for what, most often first.
      worst: up to 24 mistakes, those it was surest of first.
      problems: photos that were left out, each with a path and a reason.
      notes: sentences on what had to be assumed.
      seconds: wall time of reading and classifying.
      predictions: what the model said, over all its classes, in the order of `paths`.
      truth: int64 (pictures,), the true classes as indices of the model's outputs.
      paths: the pictures.
    """

    model: Path
    photos: Path
    runtime: str
    split: str
    pictures: int
    accuracy: float
    interval: tuple[float, float]
    calibration_error: float
    labels: tuple[str, ...]
    classes: dict[str, dict[str, Any]]
    confusion: NDArray[np.int64]
    confused: tuple[Confused, ...]
    worst: tuple[Mistake, ...]
    problems: tuple[data.Problem, ...]
    notes: tuple[str, ...]
    seconds: float
    predictions: Predictions
    truth: NDArray[np.int64]
    paths: tuple[Path, ...]

    @property
    def wrong(self) -> int:
        """How many pictures were taken for something else."""
        return self.pictures - int(np.trace(self.confusion))

    def to_dict(self) -> dict[str, Any]:
        """All but the predictions, in JSON's types."""
        return {
            "model": str(self.model),
            "photos": str(self.photos),
            "runtime": self.runtime,
            "split": self.split,
            "pictures": self.pictures,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "calibration_error": self.calibration_error,
            "classes": self.classes,
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "confused": [vars(pair) for pair in self.confused],
            "worst": [{**vars(mistake), "path": str(mistake.path)} for mistake in self.worst],
            "problems": [{"path": str(problem.path), "reason": problem.reason} for problem in self.problems],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def evaluate(
    model: str | os.PathLike[str] | Model,
    photos: str | os.PathLike[str],
    *,
    split: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    runtime: str = "auto",
    threads: int | None = None,
) -> Evaluation:
    """Measure how good a model is.

    Args:
      model: a run's folder, a .keras or a .tflite; or one that `opened` gave.
      photos: `PHOTOS/<class>/*`, or `PHOTOS/{train,validation,test}/<class>/*`; classes are matched by name, and may
        be fewer than the model knows.
      split: "train", "validation", "test" or "all". None takes the test photos; where there are none the validation
        photos, if these are in a folder or the model was trained on some of the photos; else all.
      labels: a file with one label a line, for a model that carries none.
      classes: the folders to use; None takes all.
      progress: called with (pictures done, pictures in all).
      runtime: for a .tflite, as `edgenn_device.interpreter.Interpreter` takes it.
      threads: the same.

    Raises:
      EdgennError: the model or the photos cannot be read, the split is not there, or a folder is none of the model's
        classes.

    >>> result = evaluate("runs/first/model.tflite", "photos")                      # doctest: +SKIP
    >>> result.accuracy, result.interval                                            # doctest: +SKIP
    (0.861, (0.820, 0.894))
    """
    started = time.perf_counter()
    if split is not None and split not in SPLITS:
        raise EdgennError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
    asked = opened(model, labels=labels, runtime=runtime, threads=threads)
    dataset, notes = _scanned(photos, classes, asked)
    names, place = _matched(dataset.labels, asked, notes)
    chosen, pictures = _chosen(dataset, split, asked)
    if data.among(pictures, asked.trained_on):
        notes.append("The model was trained on these pictures, or on some of them: on new ones it will do worse.")
    elif split is None and chosen == "validation" and dataset.split_rule != "folders" and _seen(dataset, asked):
        notes.append("The model was trained on some of these photos: it is measured on those set aside by content.")
    answers, kept, problems = _answers(asked, pictures, progress)
    if not kept:
        raise EdgennError(f"none of the {len(pictures)} pictures in {photos} can be read: {problems[0].reason}")
    return judged(
        answers,
        kept,
        place[[picture.label for picture in kept]],
        names,
        model=Path(asked.name),
        photos=Path(photos),
        split=chosen,
        problems=(*dataset.problems, *problems),
        notes=(*asked.notes, *notes),
        started=started,
    )


def judged(
    answers: Predictions,
    pictures: Sequence[data.Picture],
    truth: NDArray[np.int64],
    names: Sequence[str],
    *,
    model: Path,
    photos: Path,
    split: str,
    problems: tuple[data.Problem, ...] = (),
    notes: tuple[str, ...] = (),
    started: float,
) -> Evaluation:
    """How good given answers are.

    Args:
      answers: to `pictures`, of which there is at least one.
      truth: int64 (n,), their true classes as indices of the outputs.
      names: of the outputs.
      model, photos, split, problems, notes: as `Evaluation` has them.
      started: when it began, by time.perf_counter().
    """
    right = int(np.sum(answers.top1 == truth))
    occurring, figures, confusion = _by_class(truth, answers.top1, names)
    return Evaluation(
        model=model,
        photos=photos,
        runtime=answers.runtime,
        split=split,
        pictures=len(pictures),
        accuracy=right / len(pictures),
        interval=metrics.wilson_interval(right, len(pictures)),
        calibration_error=metrics.calibration_error(answers.probabilities, truth),
        labels=occurring,
        classes=figures,
        confusion=confusion,
        confused=tuple(
            Confused(occurring[pair.true], occurring[pair.predicted], pair.count, pair.share)
            for pair in metrics.confused_pairs(confusion)
        ),
        worst=_worst(answers, truth, pictures, names),
        problems=problems,
        notes=notes,
        seconds=time.perf_counter() - started,
        predictions=answers,
        truth=truth,
        paths=tuple(picture.path for picture in pictures),
    )


def _scanned(
    photos: str | os.PathLike[str], classes: Sequence[str] | None, asked: Model
) -> tuple[data.Dataset, list[str]]:
    """The photos, and what is to be said of them.

    A model may have been trained on some folders of a larger collection. If it was on these, it is tried on these.
    """
    dataset = data.scan(photos, classes, for_training=False)
    known = [folder for folder in dataset.labels if folder in asked.labels]
    if classes is None and asked.fingerprint and 2 <= len(known) < len(dataset.labels):
        trained_on = data.scan(photos, known, for_training=False)
        if trained_on.fingerprint == asked.fingerprint:
            others = [folder for folder in dataset.labels if folder not in known]
            return trained_on, [f"Left out {_listed(others)}: the model was trained on the other folders alone."]
    return dataset, []


def _matched(folders: Sequence[str], asked: Model, notes: list[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the model's classes, and the output that each folder stands for; assumptions go into `notes`."""
    if not asked.labels:
        if len(folders) != asked.classes:
            raise EdgennError(
                f"{asked.name} does not name its {asked.classes} classes, and there are {len(folders)} folders: "
                "give --labels, a file with one label a line"
            )
        named = tuple(sorted(folders))
        notes.append("The model does not name its classes: its outputs are taken for the folders in sorted order.")
    else:
        named = _distinct(asked.labels)
    # The same letters may be stored in two ways (é as one sign or as two), and file systems differ in which they keep.
    output = {unicodedata.normalize("NFC", name): index for index, name in enumerate(named)}
    found = [output.get(unicodedata.normalize("NFC", folder)) for folder in folders]
    if None in found:
        raise EdgennError(
            _unknown(
                [folder for folder, at in zip(folders, found, strict=True) if at is None],
                [folder for folder, at in zip(folders, found, strict=True) if at is not None],
                named,
            )
        )
    return named, np.array(found, np.int64)


def _distinct(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels of which no two are equal: ImageNet has two cranes, and they become "crane #135" and "crane #518"."""
    often = Counter(labels)
    return tuple(f"{label} #{index}" if often[label] > 1 else label for index, label in enumerate(labels))


def _unknown(folders: Sequence[str], known: Sequence[str], labels: Sequence[str]) -> str:
    # ImageNet's labels are lists of synonyms: "jersey, T-shirt, tee shirt".
    alike = [label for label in labels if folders[0] in label.split(", ")]
    alike = alike or difflib.get_close_matches(folders[0], labels, n=1)
    hint = f" (did you mean {_listed(alike[:1])}?)" if alike else ""
    mend = f"leave them out with --classes {','.join(known)}" if known else "give --labels"
    return (
        f"the model does not know {_listed(folders)}{hint}; its labels are {_listed(labels)}: "
        f"rename the folders, or {mend}"
    )


def _listed(names: Sequence[str]) -> str:
    shown = [f'"{name}"' if "," in name else name for name in names[:_MOST_NAMED]]
    rest = len(names) - _MOST_NAMED
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def _seen(dataset: data.Dataset, asked: Model) -> bool:
    """Whether the model was trained on other photos of which some are here too."""
    return dataset.fingerprint != asked.fingerprint and any(
        data.among(part, asked.trained_on) for part in dataset.splits.values()
    )


def _chosen(dataset: data.Dataset, split: str | None, asked: Model) -> tuple[str, list[data.Picture]]:
    """The split to measure on, and its pictures."""
    if split is None:
        # A validation split by content, of photos that the model never saw, would leave most of them unused.
        meant = dataset.split_rule == "folders" or dataset.fingerprint == asked.fingerprint or _seen(dataset, asked)
        split = "test" if dataset.splits.get("test") else "validation" if meant else "all"
    parts = dataset.splits.values() if split == "all" else [dataset.splits.get(split, ())]
    pictures = [picture for part in parts for picture in part]
    if not pictures:
        there = ", ".join(name for name, part in dataset.splits.items() if part)
        raise EdgennError(f"{dataset.root} has no {split} pictures: --split takes {there or 'nothing here'} or all")
    return split, pictures


def _answers(
    asked: Model, pictures: Sequence[data.Picture], progress: Callable[[int, int], None] | None
) -> tuple[Predictions, list[data.Picture], list[data.Problem]]:
    """What the model says of those pictures that can be read; never more than a chunk of them in memory."""
    scores = [np.empty((0, asked.classes), np.float32)]
    kept: list[data.Picture] = []
    problems: list[data.Problem] = []
    for start in range(0, len(pictures), _CHUNK):
        loaded = data.load(pictures[start : start + _CHUNK], asked.input)
        kept += loaded.pictures
        problems += loaded.problems
        for first in range(0, len(loaded.tensors), BATCH):
            scores.append(asked.scores(loaded.tensors[first : first + BATCH]))
            if progress:
                progress(start + first, len(pictures))
    if progress:
        progress(len(pictures), len(pictures))
    # The rule that tells probabilities from logits looks at all scores at once.
    return Predictions(probabilities(np.concatenate(scores)), asked.runtime), kept, problems


def _by_class(
    truth: NDArray[np.int64], top1: NDArray[np.int64], names: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, dict[str, Any]], NDArray[np.int64]]:
    """The classes that occur, their figures, and the confusion matrix among them."""
    occurring = np.union1d(truth, top1)
    matrix = metrics.confusion(np.searchsorted(occurring, truth), np.searchsorted(occurring, top1), len(occurring))
    figures = metrics.class_figures(matrix)
    labels = tuple(names[index] for index in occurring)
    return (
        labels,
        {
            label: {
                "precision": _defined(figures.precision[index]),
                "recall": _defined(figures.recall[index]),
                "f1": _defined(figures.f1[index]),
                "pictures": int(figures.pictures[index]),
                "precision_interval": _bounds(figures.precision_interval[index]),
                "recall_interval": _bounds(figures.recall_interval[index]),
            }
            for index, label in enumerate(labels)
        },
        matrix,
    )


def _worst(
    answers: Predictions, truth: NDArray[np.int64], pictures: Sequence[data.Picture], names: Sequence[str]
) -> tuple[Mistake, ...]:
    top1, confidence = answers.top1, answers.probabilities.max(axis=1)
    wrong = np.flatnonzero(top1 != truth)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MOST_WORST]
    return tuple(Mistake(pictures[at].path, names[truth[at]], names[top1[at]], float(confidence[at])) for at in surest)


def _defined(figure: float) -> float | None:
    return None if math.isnan(figure) else float(figure)


def _bounds(interval: NDArray[np.float64]) -> list[float] | None:
    return None if np.isnan(interval).any() else [float(bound) for bound in interval]
