"""What is known of a run when it is done: the figures of its model and the faults of its photos, without any words.

Puts together what `evaluation` measures and what a `survey` saw. Writes nothing; what follows from it is `advice`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn import data
from edgenn.data import audit
from edgenn.evaluation import Evaluation, Predictions, metrics
from edgenn.evaluation.doubts import doubts
from edgenn.evaluation.evaluate import judged
from edgenn.extras import require

from .fit import Epoch
from .photos import PhotoFeed
from .run import Run
from .survey import Survey


@dataclass(frozen=True)
class Photo:
    """A photo: where it is, below the folder of photos where it is there, its label, and its split."""

    path: Path
    shown: str
    label: str
    split: str

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {"path": self.shown, "label": self.label, "split": self.split}


@dataclass(frozen=True)
class Doubt:
    """A label that is likely wrong: the class that the photo looks like, and the probability of it."""

    photo: Photo
    rather: str
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {**self.photo.to_dict(), "rather": self.rather, "confidence": self.confidence}


@dataclass(frozen=True)
class Copies:
    """Two photos that are one."""

    one: Photo
    other: Photo

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {"one": self.one.to_dict(), "other": self.other.to_dict()}


@dataclass(frozen=True)
class Pair:
    """Two classes that are taken for each other: `count` of the `pictures` of both, these mistakes, surest first."""

    labels: tuple[str, str]
    count: int
    pictures: int
    mistakes: tuple[Photo, ...]
    answers: tuple[str, ...]
    confidence: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        shown = zip(self.mistakes, self.answers, self.confidence, strict=True)
        return {
            "labels": list(self.labels),
            "count": self.count,
            "pictures": self.pictures,
            "mistakes": [{**photo.to_dict(), "answer": said, "confidence": sure} for photo, said, sure in shown],
        }


@dataclass(frozen=True, eq=False)
class Findings:
    """What is known of a run.

    Attributes:
      run: what it came to.
      epochs: in order.
      evaluation: of the kept weights on the validation photos.
      trained_on: photos of each class in training, by label.
      pairs: classes taken for each other, most often first.
      doubts: labels that are likely wrong, the most doubtful first; of `judged` photos.
      leaked: validation photos (`one`) with a near-copy in training (`other`).
      unleaked_accuracy: accuracy on the validation photos that have none; None if there are no leaks or nothing else.
      contradictions: near-copies under different labels.
      blurred: photos that are blurred; of `looked` photos.
      small: photos whose shorter side is below the input's, with that side in pixels; of `measured` photos.
      total: photos of training and validation.
      unreadable: what was left out.
    """

    run: Run
    epochs: tuple[Epoch, ...]
    evaluation: Evaluation
    trained_on: dict[str, int]
    pairs: tuple[Pair, ...]
    doubts: tuple[Doubt, ...]
    judged: int
    leaked: tuple[Copies, ...]
    unleaked_accuracy: float | None
    contradictions: tuple[Copies, ...]
    blurred: tuple[Photo, ...]
    looked: int
    small: tuple[tuple[Photo, int], ...]
    measured: int
    total: int
    unreadable: tuple[data.Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "run": str(self.run.path),
            "evaluation": self.evaluation.to_dict(),
            "trained_on": self.trained_on,
            "photos": {
                "total": self.total,
                "looked_at": self.looked,
                "judged": self.judged,
                "measured": self.measured,
            },
            "pairs": [pair.to_dict() for pair in self.pairs],
            "likely_wrong_labels": [doubt.to_dict() for doubt in self.doubts],
            "copies_across_splits": [copies.to_dict() for copies in self.leaked],
            "accuracy_without_copies": self.unleaked_accuracy,
            "copies_across_labels": [copies.to_dict() for copies in self.contradictions],
            "blurred": [photo.to_dict() for photo in self.blurred],
            "small": [{**photo.to_dict(), "side": side} for photo, side in self.small],
        }


def find(
    run: Run,
    dataset: data.Dataset,
    epochs: Sequence[Epoch],
    training: PhotoFeed,
    validation: PhotoFeed,
    scores: NDArray[np.float32],
    seen: Survey,
    started: float,
) -> Findings:
    """Put together what is known of a run.

    Args:
      dataset: what it was trained on.
      epochs: of its training, in order.
      training, validation: its feeds.
      scores: float32 (validation.count, classes), what its model says of the validation photos.
      seen: of both feeds.
      started: when this began, by time.perf_counter().

    Raises:
      EdgennError: cleanlab is not installed.
    """
    labels, root = run.labels, dataset.root
    problems = _left_out(dataset, training, validation)
    evaluation = judged(
        Predictions(scores, f"keras {require('keras').__version__}"),
        validation.pictures,
        validation.labels,
        labels,
        model=run.model,
        photos=dataset.root,
        split="validation",
        problems=problems,
        started=started,
    )

    def photo(picture: data.Picture, split: str) -> Photo:
        path = picture.path
        shown = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        return Photo(path, shown, labels[picture.label], split)

    def photo_at(place: Any) -> Photo:
        return photo(seen.pictures[place], "train" if seen.trained_on[place] else "validation")

    across_splits = audit.nearest_copies(seen.looks, seen.trained_on.astype(np.int64))
    leaking = np.flatnonzero((across_splits >= 0) & ~seen.trained_on)
    across_labels = audit.nearest_copies(seen.looks, seen.labels)
    doubted = doubts(seen.features, seen.labels[: len(seen.features)], run.recipe.seed)
    small = np.flatnonzero((seen.sides > 0) & (seen.sides < (run.recipe.size or 0)))
    blurred = np.flatnonzero(seen.looks.blurred)
    counts = np.bincount(training.labels, minlength=len(labels))
    return Findings(
        run=run,
        epochs=tuple(epochs),
        evaluation=evaluation,
        trained_on=dict(zip(labels, counts.tolist(), strict=True)),
        pairs=_pairs(evaluation, [photo(picture, "validation") for picture in validation.pictures], labels),
        doubts=tuple(
            Doubt(photo_at(place), labels[rather], float(sure))
            for place, rather, sure in zip(doubted.places, doubted.rather, doubted.confidence, strict=True)
        ),
        judged=doubted.judged,
        leaked=tuple(Copies(photo_at(place), photo_at(across_splits[place])) for place in leaking),
        unleaked_accuracy=_without(evaluation, seen.places[leaking]),
        contradictions=tuple(Copies(photo_at(one), photo_at(other)) for one, other in _once_each(across_labels)),
        blurred=tuple(photo_at(place) for place in blurred[np.argsort(seen.looks.sharpness[blurred])]),
        looked=len(seen.pictures),
        small=tuple(
            (photo_at(place), int(seen.sides[place])) for place in small[np.argsort(seen.sides[small], kind="stable")]
        ),
        measured=len(seen.sides),
        total=seen.total,
        unreadable=problems,
    )


def _left_out(dataset: data.Dataset, training: PhotoFeed, validation: PhotoFeed) -> tuple[data.Problem, ...]:
    """The files that were left out by `scan`, and the number of those that turned out not to decode."""
    missing = sum(len(dataset.splits[name]) for name in ("train", "validation")) - training.count - validation.count
    undecoded = (data.Problem(dataset.root, f"{missing} photos could not be decoded"),) if missing else ()
    return (*dataset.problems, *undecoded)


def _pairs(evaluation: Evaluation, photos: Sequence[Photo], labels: Sequence[str]) -> tuple[Pair, ...]:
    top1, sure = evaluation.predictions.top1, evaluation.predictions.probabilities.max(axis=1)
    matrix = metrics.confusion(evaluation.truth, top1, len(labels))
    both = matrix + matrix.T
    pictures = matrix.sum(axis=1)
    found = [
        (int(both[i, j]), int(pictures[i] + pictures[j]), int(i), int(j)) for i, j in np.argwhere(np.triu(both, 1))
    ]
    pairs = []
    for count, of, i, j in sorted(found, key=lambda pair: (-pair[0], pair[1])):
        one_way = (evaluation.truth == i) & (top1 == j)
        mistakes = np.flatnonzero(one_way | ((evaluation.truth == j) & (top1 == i)))
        surest = mistakes[np.argsort(-sure[mistakes], kind="stable")].tolist()
        pairs.append(
            Pair(
                (labels[i], labels[j]),
                count,
                of,
                tuple(photos[at] for at in surest),
                tuple(labels[top1[at]] for at in surest),
                tuple(float(sure[at]) for at in surest),
            )
        )
    return tuple(pairs)


def _without(evaluation: Evaluation, places: NDArray[np.int64]) -> float | None:
    """Accuracy on the validation photos but these."""
    kept = np.ones(evaluation.pictures, bool)
    kept[places] = False
    if len(places) == 0 or not kept.any():
        return None
    return metrics.accuracy(evaluation.truth[kept], evaluation.predictions.top1[kept])


def _once_each(partner: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs (place, its partner), each pair once."""
    pairs = {(min(i, j), max(i, j)) for i, j in enumerate(partner.tolist()) if j >= 0}
    return sorted(pairs)
