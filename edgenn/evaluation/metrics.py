"""Figures that say how good a classifier is, from arrays of class indices and probabilities.

Pure NumPy: no files, no models, no label names. A figure that the pictures do not define (the precision of a class
that was never predicted) is NaN, never a silent zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Two-sided 95 % quantile of the standard normal distribution.
Z_95 = 1.959963984540054
# Pictures below a minimum confidence that make it worth stating.
_FEWEST_BELOW = 5
CALIBRATION_BINS = 15  # Guo et al. 2017, section 5: "M = 15 bins"


@dataclass(frozen=True)
class ClassFigures:
    """Per class, arrays of shape (classes,).

    Attributes:
      precision: of the pictures given this label, the share that bear it; NaN when none was given it.
      recall: of the pictures that bear this label, the share given it; NaN when there is none.
      f1: harmonic mean of the two, 2 TP / (2 TP + FP + FN); NaN when the class neither occurs nor is predicted.
      pictures: int64, how many pictures bear the label.
      precision_interval, recall_interval: (classes, 2), what holds them with 95 % confidence (`wilson_interval`).
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    pictures: NDArray[np.int64]
    precision_interval: NDArray[np.float64]
    recall_interval: NDArray[np.float64]


@dataclass(frozen=True)
class ConfusedPair:
    """`count` pictures of class `true` were taken for class `predicted`: a `share` of that class's pictures."""

    true: int
    predicted: int
    count: int
    share: float


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: arrays of shape (bins,), from the least sure answers to the surest; NaN in an empty bin.

    Attributes:
      confidence: mean of the highest probability.
      accuracy: share that is right.
      pictures: int64, how many.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    pictures: NDArray[np.int64]


def accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Share of equal entries of two integer arrays of shape (n,).

    Raises:
      ValueError: the arrays differ in shape or are empty.
    """
    a, b = _pair(truth, predicted)
    return float(np.mean(a == b))


def agreement(first: ArrayLike, second: ArrayLike) -> float:
    """Share of pictures on which two models give the same top-1 class; arrays of shape (n,). Raises as `accuracy`."""
    return accuracy(first, second)


def confusion(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Confusion matrix, shape (classes, classes): row the true class, column the predicted one.

    Raises:
      ValueError: the arrays differ in shape or are empty, or hold an index outside 0..classes-1.
    """
    a, b = _pair(truth, predicted)
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) >= classes:
        raise ValueError(f"a class index lies outside 0..{classes - 1}")
    return np.bincount(a * classes + b, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def class_figures(matrix: NDArray[np.int64]) -> ClassFigures:
    """Precision, recall, F1 and pictures of every class of a confusion matrix (classes, classes)."""
    hits = np.diagonal(matrix).astype(np.float64)
    pictures, given = matrix.sum(axis=1), matrix.sum(axis=0)
    return ClassFigures(
        precision=_share(hits, given),
        recall=_share(hits, pictures),
        f1=_share(2 * hits, pictures + given),
        pictures=pictures,
        precision_interval=_intervals(np.diagonal(matrix), given),
        recall_interval=_intervals(np.diagonal(matrix), pictures),
    )


def confused_pairs(matrix: NDArray[np.int64], most: int | None = None) -> tuple[ConfusedPair, ...]:
    """Off-diagonal cells that hold pictures, the fullest first (ties: the larger share of its class, then the order
    of the classes), at most `most` of them."""
    pictures = matrix.sum(axis=1)
    pairs = [
        ConfusedPair(int(i), int(j), int(matrix[i, j]), float(matrix[i, j] / pictures[i]))
        for i, j in np.argwhere(matrix)
        if i != j
    ]
    pairs.sort(key=lambda pair: (-pair.count, -pair.share))
    return tuple(pairs[:most])


def wilson_interval(right: int, pictures: int, z: float = Z_95) -> tuple[float, float]:
    """Interval that holds the true accuracy with 95 % confidence (another `z`: another confidence).

    The score interval of Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22 (1927), 209-212; it stays inside 0..1 and is sound for few pictures and for
    accuracies near 1, where the usual normal approximation is neither (Brown, Cai and DasGupta, "Interval estimation
    for a binomial proportion", Statistical Science 16 (2001), 101-133).

    Raises:
      ValueError: not 0 <= right <= pictures, or no picture.
    """
    if pictures < 1 or not 0 <= right <= pictures:
        raise ValueError(f"{right} right of {pictures} pictures")
    share, weight = right / pictures, z * z / pictures
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / pictures + weight / (4 * pictures))
    # At the ends one bound equals the share exactly; floating point may put it one rounding beside it.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mcnemar(truth: ArrayLike, first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided exact p-value that two models, tried on the same pictures, are equally accurate.

    Only pictures on which exactly one of the two is right count; under equal accuracy each model is that one with
    probability 1/2. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947), 153-157, with the exact binomial in place of the chi-square approximation.

    Args:
      truth, first, second: class indices of shape (n,).

    Returns:
      1.0 when no picture tells the models apart. Raises as `accuracy`.
    """
    a, b = _pair(truth, first)
    _, c = _pair(truth, second)
    only_first, only_second = int(np.sum((b == a) & (c != a))), int(np.sum((b != a) & (c == a)))
    trials, tail, term = only_first + only_second, 0, 1
    for successes in range(min(only_first, only_second) + 1):
        tail += term
        term = term * (trials - successes) // (successes + 1)
    return min(1.0, (2 * tail) / (1 << trials))


def reliability(
    probabilities: NDArray[np.floating[Any]], truth: ArrayLike, bins: int = CALIBRATION_BINS
) -> Reliability:
    """How often answers are right, by how sure they are.

    Args:
      probabilities: shape (n, classes), in 0..1.
      truth: class indices of shape (n,).
      bins: of equal width over the highest probability, (m/M, (m+1)/M].
    """
    confidence = np.asarray(probabilities.max(axis=1), np.float64)
    right = probabilities.argmax(axis=1) == np.asarray(truth)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    pictures = np.bincount(bin_of, minlength=bins)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return _share(np.bincount(bin_of, weights=values, minlength=bins).astype(np.float64), pictures)

    return Reliability(mean(confidence), mean(right), pictures.astype(np.int64))


def calibration_error(
    probabilities: NDArray[np.floating[Any]], truth: ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error: how far confidence is from accuracy, averaged over pictures; 0 is perfect.

    Equation 3 of Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks" (ICML 2017).

    Args: as `reliability`.
    """
    diagram = reliability(probabilities, truth, bins)
    gaps = np.abs(diagram.accuracy - diagram.confidence)
    return float(np.nansum(gaps * diagram.pictures) / diagram.pictures.sum())


def minimum_confidence(confidence: ArrayLike, right: ArrayLike) -> float | None:
    """The score below which "unknown" is the better answer: below it more answers are wrong than right, by the most.

    With a wrong answer twice as bad as none, an answer is to be given where it is right more often than not (Chow 1970,
    "On Optimum Recognition Error and Reject Tradeoff", IEEE Transactions on Information Theory 16, rule (1)).

    Args:
      confidence: score of each picture's answer, 0..1, shape (n,).
      right: whether it was right, bool (n,).

    Returns:
      That score, half-way to the next higher one; None where fewer than `_FEWEST_BELOW` pictures lie below it, which is
      too few to tell, or all do.
    """
    order = np.argsort(np.asarray(confidence, np.float64), kind="stable")
    scores, correct = np.asarray(confidence, np.float64)[order], np.asarray(right, bool)[order]
    if len(scores) == 0:
        return None
    # Pictures of one score, of which int8 has 256, are above or below together.
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    gained = np.cumsum(np.where(correct, -1, 1))
    last = int(ends[np.argmax(gained[ends])])
    if gained[last] <= 0 or last + 1 < _FEWEST_BELOW or last + 1 == len(scores):
        return None
    return float((scores[last] + scores[last + 1]) / 2)


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    a, b = np.asarray(first, np.int64), np.asarray(second, np.int64)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"need two equally long lists of classes, got shapes {a.shape} and {b.shape}")
    return a, b


def _share(part: NDArray[np.float64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return shares


def _intervals(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    pairs = zip(part.tolist(), whole.tolist(), strict=True)
    return np.array([wilson_interval(some, of) if of else (math.nan, math.nan) for some, of in pairs]).reshape(-1, 2)
