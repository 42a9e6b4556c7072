"""What to do next, in words and in order: each piece of advice states a measured figure, and what to do or to type.

Nothing is advised for which there is no figure here, and no gain is promised. The order is by what is at stake: the
share of photos that a matter touches, twice that where it makes the accuracy itself wrong.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edgenn.evaluation import metrics

from .findings import Findings

# With fewer training photos a class is said to be small; and with less than a quarter of what the middle class has.
_FEW = 50
_FEW_OF_MEDIAN = 0.25
# An interval wider than this to either side hides the difference that most changes of a recipe make.
_WIDE = 0.03
# From so many photos on a network learns well from nothing; below, trained weights gain most.
_MANY_PHOTOS = 50_000
# A gap this wide between confidence and accuracy is one that a person notices.
_MISCALIBRATED = 0.05
# Accuracy on training photos, varied as they are, from which on they are learnt; and by heart, if it lies so far above
# all that the accuracy on validation photos may be.
_LEARNT, _BY_HEART = 0.85, 0.05
_MOST_PAIRS = 3


@dataclass(frozen=True)
class Advice:
    """A piece of advice.

    Attributes:
      fact: what was found, with figures, one sentence without a full stop.
      do: what to do.
      anchor: of the section of the report that shows it.
      stake: share of photos that it touches, roughly; the order.
      command: what to type for it, or "".
    """

    fact: str
    do: str
    anchor: str
    stake: float
    command: str = ""

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self)


def advise(found: Findings) -> tuple[Advice, ...]:
    """All advice, what matters most first; () where nothing stands out."""
    everything = [
        *_leaks(found),
        *_contradictions(found),
        *_labels(found),
        *_confused(found),
        *_few(found),
        *_weak(found),
        *_validation(found),
        *_network(found),
        *_calibration(found),
        *_pictures(found),
    ]
    return tuple(sorted(everything, key=lambda advice: -advice.stake))


def _leaks(found: Findings) -> Iterator[Advice]:
    leaked, of = len(found.leaked), found.evaluation.pictures
    if leaked:
        without = found.unleaked_accuracy
        then = f": without them the accuracy is {without:.1%}" if without is not None else ""
        yield Advice(
            f"{_many(leaked, 'validation photo')} of {of} {_is(leaked)} also among the training photos, or nearly so"
            f"{then}",
            "Keep photos that were taken in one go on one side, and remove the copies: an accuracy on photos that the "
            "network has learnt says nothing.",
            "copies",
            2 * leaked / of,
        )


def _contradictions(found: Findings) -> Iterator[Advice]:
    count = len(found.contradictions)
    if count:
        one = found.contradictions[0]
        which = f" ({one.one.label} and {one.other.label})" if count == 1 else ""
        yield Advice(
            f"{_many(count, 'photo')} {_is(count)} there twice under two labels{which}",
            "Decide which label is right and delete the other copy: whatever the network says, for one it is wrong.",
            "copies",
            2 * count / found.looked + 0.01,
        )


def _labels(found: Findings) -> Iterator[Advice]:
    count = len(found.doubts)
    if count:
        first = found.doubts[0]
        yield Advice(
            f"{_many(count, 'label')} of {found.judged:,} {'looks' if count == 1 else 'look'} wrong, first of all "
            f"{first.photo.shown}: more like {first.rather}",
            f"Look at {'it' if count == 1 else 'them'}, move what is wrong into the right folder, and train again.",
            "labels",
            2 * count / found.judged,
        )


def _confused(found: Findings) -> Iterator[Advice]:
    for pair in found.pairs[:_MOST_PAIRS]:
        if pair.count < 2:
            continue
        one, other = pair.labels
        yield Advice(
            f"{one} and {other} are taken for each other in {pair.count} of {pair.pictures} validation photos",
            f"Look at {'both' if pair.count == 2 else f'these {pair.count} photos'}. Where you hesitate yourself, "
            f"decide what is {one} and what is {other}, and sort both folders by that; where you do not, add photos "
            "like them.",
            "pairs",
            pair.count / found.evaluation.pictures,
        )


def _few(found: Findings) -> Iterator[Advice]:
    counts = found.trained_on
    enough = max(_FEW, round(_FEW_OF_MEDIAN * statistics.median(counts.values())))
    small = sorted((count, label) for label, count in counts.items() if count < enough)
    if not small:
        return
    count, label = small[0]
    others = [f"{label} {enough - count}" for count, label in small[1:6]]
    more = f"; {', '.join(others)}" if others else ""
    rest = f" and {len(small) - 6} classes more" if len(small) > 6 else ""
    figures = found.evaluation.classes.get(label, {})
    recall = figures.get("recall")
    known = f", and {recall:.0%} of its validation photos are recognised" if recall is not None else ""
    yield Advice(
        f"{label} has {_many(count, 'photo')} to learn from{known}",
        f'Add {enough - count} of {label}{more}{rest}. Until then, --recipe with balance = "sampling" lets rare '
        "classes come as often as the others.",
        "classes",
        # What a class of a thousand photos more would be worth is not known: its share if all classes were as large.
        len(small) / len(counts) * (1 - found.evaluation.accuracy),
    )


def _weak(found: Findings) -> Iterator[Advice]:
    """The class that is found clearly more rarely than photos on the whole."""
    low, _ = found.evaluation.interval
    weak = [
        (figures["recall"], label, figures)
        for label, figures in found.evaluation.classes.items()
        if figures["recall_interval"] is not None and figures["recall_interval"][1] < low
    ]
    if not weak:
        return
    recall, label, figures = min(weak)
    missed = round((1 - recall) * figures["pictures"])
    yield Advice(
        f"{label} is the weakest class: {missed} of {figures['pictures']} validation photos are missed "
        f"(recall {recall:.0%})",
        f"It has {found.trained_on[label]:,} photos to learn from: add some that look like the missed ones.",
        "worst",
        missed / found.evaluation.pictures,
    )


def _validation(found: Findings) -> Iterator[Advice]:
    low, high = found.evaluation.interval
    half = (high - low) / 2
    if half > _WIDE:
        accuracy = found.evaluation.accuracy
        # From the normal approximation, solved for the number of photos; never less than at an accuracy of 95%.
        variance = max(accuracy * (1 - accuracy), 0.0475)
        needed = math.ceil(metrics.Z_95**2 * variance / 0.02**2 / 50) * 50
        yield Advice(
            f"{_many(found.evaluation.pictures, 'validation photo')} tell the accuracy to ±{100 * half:.0f} points "
            f"only ({low:.0%} to {high:.0%})",
            f"Take no two runs for different that are closer than that. About {needed:,} would tell it to ±2 points.",
            "result",
            half / 2,
        )


def _network(found: Findings) -> Iterator[Advice]:
    run, epochs = found.run, found.epochs
    best = epochs[run.best_epoch - 1]
    wrong, photos = 1 - run.accuracy, sum(found.trained_on.values())
    gap = best.accuracy - found.evaluation.interval[1]
    if run.recipe.weights == "none" and photos < _MANY_PHOTOS and wrong > 0.02:
        yield Advice(
            f"{run.network} started from random weights, with {photos:,} photos to learn from",
            "Try a network that starts from trained weights; it is larger and slower, as edgenn networks says:",
            "curves",
            wrong / 2,
            "edgenn train PHOTOS --out RUN --network mobilenet_v2 --weights imagenet",
        )
    if gap > _BY_HEART and best.accuracy >= _LEARNT:
        yield Advice(
            f"It knows its training photos by heart: {best.accuracy:.0%} are right, and {run.accuracy:.0%} of others",
            "More photos help most; then stronger augmentation, or --dropout and --weight-decay.",
            "curves",
            gap / 4,
        )
    elif best.accuracy < _LEARNT and run.best_epoch < len(epochs):
        yield Advice(
            f"It does not even learn its training photos: {best.accuracy:.0%} of them are right",
            f"Give it more room: a larger --size than {run.recipe.size}, or a larger network (edgenn networks).",
            "curves",
            wrong / 4,
        )
    if run.best_epoch == len(epochs) > 1 and not run.interrupted:
        yield Advice(
            f"It was still getting better in the last epoch, {len(epochs)}",
            "Train longer:",
            "curves",
            wrong / 3,
            f"edgenn train PHOTOS --out RUN --epochs {2 * len(epochs)}",
        )


def _calibration(found: Findings) -> Iterator[Advice]:
    error = found.evaluation.calibration_error
    confidence = float(found.evaluation.predictions.probabilities.max(axis=1).mean())
    # With few photos a gap is noise: it has to be wider than what the accuracy is known to.
    low, high = found.evaluation.interval
    if error > max(_MISCALIBRATED, (high - low) / 2):
        over = confidence > found.evaluation.accuracy
        yield Advice(
            f"It is {'surer' if over else 'less sure'} than it should be: {confidence:.0%} sure on average, and "
            f"{found.evaluation.accuracy:.0%} right",
            "Do not read its confidence as a probability. "
            + (
                "A threshold on it lets more mistakes through than it says."
                if over
                else "A threshold on it turns away more right answers than it says."
            ),
            "calibration",
            error / 4 if over else error / 8,
        )


def _pictures(found: Findings) -> Iterator[Advice]:
    if found.blurred:
        count = len(found.blurred)
        yield Advice(
            f"{_many(count, 'photo')} of {found.looked:,} {_is(count)} blurred",
            "Delete those on which you could not tell the class yourself; keep the rest if your camera blurs, too.",
            "blurred",
            count / found.looked / 2,
        )
    if found.small:
        count, side = len(found.small), found.run.recipe.size
        yield Advice(
            f"{_many(count, 'photo')} of {found.measured:,} {_is(count)} smaller than the input of {side} pixels",
            "Take them larger, or train with a smaller --size: pixels that are made up cost time and tell nothing.",
            "small",
            count / found.measured / 2,
        )
    if found.unreadable:
        count = len(found.unreadable)
        yield Advice(
            f"{_many(count, 'file or folder', 'files or folders')} could not be used",
            "Copy them again from the original, or delete them.",
            "unreadable",
            count / (found.total + count),
        )


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
