"""Labels that are likely wrong, by confident learning: what a photo looks like against what it is called.

The judging is cleanlab's; here its probabilities are made. They have to come from a classifier that has not seen the
label it judges, so a network's own answers for the photos it was trained on are of no use: it has learnt the wrong
labels too. A logistic regression on what the network makes of each photo, fitted without a fifth of them at a time,
judges that fifth. The network itself has still seen all training labels; a label that it has learnt by heart may
remain unfound. Classes with fewer photos than there are folds are not judged, and none are where the regression is not
surely right more often than one that always says the most frequent class: it knows less than the labels then.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require

from .metrics import wilson_interval

FOLDS = 5
# Principal components of the features that are kept: enough for what tells classes apart, and few enough that the
# regression on 20,000 photos takes seconds.
_COMPONENTS = 128
# Inverse strength of the regression's penalty, on standardised features. With one label in twenty replaced by another
# in 3,409 photos of clothing, and a network trained on that to 74%: of the 283 photos found 48% were such, of the first
# 50 94%, and 74% of all were found. Between 0.003 and 0.1 little changes; looser ones order worse, stricter ones find
# fewer where classes are easily told apart.
_LOOSENESS = 0.03


@dataclass(frozen=True, eq=False)
class Doubts:
    """Labels that are likely wrong, the most doubtful first; arrays (m,).

    Attributes:
      places: int64, which of the samples.
      rather: int64, the class that it looks like.
      confidence: float64 0..1, probability of that class.
      judged: how many samples could be judged.
    """

    places: NDArray[np.int64]
    rather: NDArray[np.int64]
    confidence: NDArray[np.float64]
    judged: int


def doubts(features: NDArray[np.floating], labels: NDArray[np.integer], seed: int = 0) -> Doubts:
    """Find labels that are likely wrong.

    Confident learning (Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset
    labels", Journal of Artificial Intelligence Research 70), by class and by noise rate both; those come first for
    whose label the probability is the lowest.

    Args:
      features: (n, size), what a network makes of each photo before its last layer.
      labels: (n,), class indices.
      seed: of the folds.

    Raises:
      EdgennError: cleanlab is not installed.
    """
    labels = np.asarray(labels, np.int64)
    counts = np.bincount(labels, minlength=1)
    known = np.flatnonzero(counts >= FOLDS)
    kept = np.flatnonzero(np.isin(labels, known))
    none = np.empty(0, np.int64)
    if len(known) < 2:
        return Doubts(none, none, np.empty(0), 0)
    given = np.searchsorted(known, labels[kept])
    chances = out_of_sample(features[kept], given, seed)
    right, most = int((chances.argmax(axis=1) == given).sum()), int(np.bincount(given).max())
    if wilson_interval(right, len(given))[0] <= most / len(given):
        return Doubts(none, none, np.empty(0), 0)
    found = require("cleanlab.filter").find_label_issues(
        given, chances, return_indices_ranked_by="self_confidence", filter_by="both", n_jobs=1
    )
    found = np.asarray(found, np.int64)
    rather = chances[found].argmax(axis=1)
    return Doubts(kept[found], known[rather], chances[found, rather], len(kept))


def out_of_sample(features: NDArray[np.floating], labels: NDArray[np.int64], seed: int = 0) -> NDArray[np.float64]:
    """The probability of every class for each sample, by a regression that was fitted without that sample.

    Args:
      features: (n, size).
      labels: (n,), each of 0..classes-1 at least `FOLDS` times.

    Returns:
      (n, classes), rows sum to 1.
    """
    standard, reduced = require("sklearn.preprocessing").StandardScaler, require("sklearn.decomposition").PCA
    regression, pipeline = require("sklearn.linear_model").LogisticRegression, require("sklearn.pipeline").make_pipeline
    folds = require("sklearn.model_selection").StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    features = np.asarray(features, np.float32)
    chances = np.empty((len(labels), int(labels.max()) + 1))
    # Matrices this small are multiplied faster by one thread: on a busy machine fifty times.
    with require("threadpoolctl").threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a regression that is nearly converged: good enough to doubt by
        for others, fold in folds.split(features, labels):
            components = min(_COMPONENTS, features.shape[1], len(others))
            fewer = [standard(), reduced(components, random_state=seed)] if components < features.shape[1] else []
            judge = pipeline(*fewer, standard(), regression(C=_LOOSENESS, max_iter=200))
            judge.fit(features[others], labels[others])
            chances[fold] = judge.predict_proba(features[fold])
    return chances
