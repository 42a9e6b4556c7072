"""Finds out in which form a network of unknown origin wants its pixels, by how well it then recognises photos.

No model file says whether its network was trained on pixels 0 to 255, 0 to 1 or −1 to 1, and a wrong guess gives a
model that runs and is wrong. So the usual forms are tried on labelled photos. It refuses a network that recognises
nothing in any of them rather than choose by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgenn.evaluation import metrics
from edgenn.evaluation.predict import probabilities
from edgenn_device.card import Colour
from edgenn_device.errors import EdgennError

# Pictures to try on: enough to tell 0.80 from 0.90, and no minutes for a large network.
PICTURES = 200
_BATCH = 32
# A rarer form is taken when it is better beyond doubt, and a network refused when it may be guessing.
_DOUBT = 0.01
_GUESSING = 0.05

Number = float | tuple[float, float, float]


@dataclass(frozen=True)
class Form:
    """One form of pixels: scale × byte + offset, a number for all channels or one each, in the order `colour`."""

    name: str
    scale: Number
    offset: Number
    colour: Colour = "rgb"

    @property
    def plain(self) -> bool:
        """The bytes themselves."""
        return self.scale == 1.0 and self.offset == 0.0


BYTES = Form("0 to 255", 1.0, 0.0)
USUAL = (BYTES, Form("0 to 1", 1 / 255, 0.0), Form("-1 to 1", 1 / 127.5, -1.0))
# keras/src/applications/imagenet_utils.py, _preprocess_numpy_input: the modes "torch" and "caffe".
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RARER = (
    Form(
        "less ImageNet's mean, over its deviation",
        (1 / 255 / _DEVIATION[0], 1 / 255 / _DEVIATION[1], 1 / 255 / _DEVIATION[2]),
        (-_MEAN[0] / _DEVIATION[0], -_MEAN[1] / _DEVIATION[1], -_MEAN[2] / _DEVIATION[2]),
    ),
    Form("less ImageNet's mean, BGR", 1.0, (-103.939, -116.779, -123.68), "bgr"),
)


@dataclass(frozen=True)
class Choice:
    """The form that was chosen, and the accuracies of all that were tried, in words."""

    form: Form
    figures: str


def choose(
    scores: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    pictures: NDArray[np.uint8],
    truth: NDArray[np.int64],
    forms: tuple[Form, ...] = USUAL,
    rarer: tuple[Form, ...] = RARER,
) -> Choice:
    """Try forms of pixels and choose one.

    Args:
      scores: the network: float32 (n, height, width, channels) in the form that is tried -> float32 (n, classes).
      pictures: uint8 (n, height, width, channels), RGB or grey.
      truth: their classes (n,).
      forms: of these the most accurate is taken, and of equally accurate ones that which is most certain of the truth.
      rarer: taken in its place when right on significantly more pictures; so is the BGR order of the best.

    Raises:
      EdgennError: the network is no better than chance in any form.
    """
    tried: list[tuple[Form, NDArray[np.int64], float]] = []

    def measure(form: Form) -> tuple[NDArray[np.int64], float]:
        said = _ask(scores, pictures, form)
        top1 = said.argmax(1)
        tried.append((form, top1, float((top1 == truth).mean())))
        return top1, float(np.log(np.maximum(said[np.arange(len(truth)), truth], 1e-7)).mean())

    measured = {form: measure(form) for form in forms}
    best = max(forms, key=lambda form: ((measured[form][0] == truth).sum(), measured[form][1]))
    top1 = measured[best][0]
    if pictures.shape[3] == 3:
        reversed_ = Form(f"{best.name}, BGR", best.scale, best.offset, "bgr")
        for form in (*rarer, reversed_) if rarer else ():
            other, _ = measure(form)
            better = int((other == truth).sum()) > int((top1 == truth).sum())
            if better and metrics.mcnemar(truth, top1, other) < _DOUBT:
                best, top1 = form, other
    figures = ", ".join(f"{form.name}: {accuracy:.3f}" for form, _, accuracy in tried)
    classes = _ask(scores, pictures[:1], best).shape[1]
    if _by_chance(int((top1 == truth).sum()), len(truth), classes) > _GUESSING:
        raise EdgennError(
            f"the network recognises the photos no better than chance ({figures}, on {len(truth)} photos): its outputs "
            "may be in another order, give --labels FILE with one label for each of them in order"
        )
    return Choice(best, f"{figures}, on {len(truth)} photos")


def _ask(
    scores: Callable[[NDArray[np.float32]], NDArray[np.float32]], pictures: NDArray[np.uint8], form: Form
) -> NDArray[np.float32]:
    scale, offset = np.asarray(form.scale, np.float32), np.asarray(form.offset, np.float32)
    parts = []
    for start in range(0, len(pictures), _BATCH):
        batch = pictures[start : start + _BATCH]
        if form.colour == "bgr":
            batch = batch[..., ::-1]
        parts.append(scores(batch * scale + offset))
    return probabilities(np.concatenate(parts))


def _by_chance(right: int, pictures: int, classes: int) -> float:
    """Probability of at least `right` hits out of `pictures` when each has probability 1 / classes."""
    share = 1 / classes
    log_terms = (
        math.lgamma(pictures + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(pictures - hits + 1)
        + hits * math.log(share)
        + (pictures - hits) * math.log1p(-share)
        for hits in range(right, pictures + 1)
    )
    return math.fsum(map(math.exp, log_terms))
