"""RUN/report.html and RUN/report.json: is the model any good, and what to do next.

Says what was measured, on how many photos, and what was only sampled. Draws nothing and measures nothing itself: it
puts findings and advice into the parts of which every page here is made. A report that fails costs no run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgenn import data
from edgenn.evaluation import plots, report
from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically

from .advice import Advice, advise
from .findings import Copies, Findings, Pair, Photo, find
from .fit import Epoch
from .photos import PhotoFeed
from .run import Run
from .survey import survey
from .watcher import Watcher

PAGE, DOCUMENT = "report.html", "report.json"
SCHEMA = 1
# Pictures in a section, each some 7 kB.
_MOST_SHOWN = 24
_MOST_PAIRS, _MOST_OF_PAIR = 4, 12
_MOST_LINES = 50


def write(
    run: Run,
    model: Any,
    dataset: data.Dataset,
    epochs: Sequence[Epoch],
    training: PhotoFeed,
    validation: PhotoFeed,
    scores: NDArray[Any],
    watcher: Watcher,
) -> None:
    """Write the report of a complete run into its folder. It never raises: what fails is told to the watcher.

    Args:
      run: in its place.
      model: keras.Model with the kept weights.
      epochs: of its training, in order.
      training, validation: its feeds.
      scores: float32 (validation.count, classes), what the model says of the validation photos.
    """
    started = time.perf_counter()
    try:
        seen = survey(model, training, validation, watcher.surveying, seed=run.recipe.seed)
        found = find(run, dataset, epochs, training, validation, scores, seen, started)
        advice = advise(found)
        write_atomically(run.path / DOCUMENT, document(found, advice))
        write_atomically(run.path / PAGE, page(found, advice))
    except Exception as error:  # whatever it is, the run is complete and worth more than its report
        watcher.no_report(" ".join(f"{type(error).__name__}: {error}".split()))


def read(run: Path) -> tuple[Path, list[Advice]] | None:
    """Where the report of a run is, and its advice; None if it has none."""
    try:
        values = json.loads((run / DOCUMENT).read_text("utf-8"))
        return run / PAGE, [Advice(**item) for item in values["advice"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def document(found: Findings, advice: Sequence[Advice]) -> str:
    """The text of report.json. Names that are not UTF-8 stand there as Python's escapes (\\udcff)."""
    values = {"schema": SCHEMA, "advice": [item.to_dict() for item in advice], **found.to_dict()}
    return json.dumps(values, indent=1) + "\n"


def page(found: Findings, advice: Sequence[Advice]) -> str:
    """The text of report.html."""
    run = found.run
    shared = {section.anchor: section for section in report.evaluation_sections(found.evaluation)}
    sections = [
        _opening(found),
        _next(advice),
        report.classes_section(found.evaluation, found.trained_on),
        shared["confusion"],
        *_pairs(found),
        *_labels(found),
        *_copies(found),
        *([shared["worst"]] if "worst" in shared else []),
        _curves(found),
        shared["calibration"],
        *_pictures(found),
        _how(found),
    ]
    title = f"{run.path.name}: {report.percent(run.accuracy)} right"
    lead = (
        f"{run.network}, trained on {sum(found.trained_on.values()):,} photos of {len(run.labels)} classes, tried on "
        f"{run.pictures:,} that it was not trained on"
    )
    return report.page(title, sections, lead=lead, footer=f"drawn in {found.evaluation.seconds:.0f} s")


def _opening(found: Findings) -> report.Section:
    run, evaluation = found.run, found.evaluation
    low, high = evaluation.interval
    recalls = [(figures["recall"], label) for label, figures in evaluation.classes.items() if figures["pictures"]]
    worst, label = min(recalls)
    tiles = [
        report.Tile("accuracy", report.percent(evaluation.accuracy), f"{low:.1%} to {high:.1%} with 95% confidence"),
        report.Tile("weakest class", label, f"{worst:.0%} of it recognised"),
        report.Tile("labels in doubt", f"{len(found.doubts):,}", f"of {found.judged:,} photos judged")
        if found.judged
        else report.Tile("labels in doubt", "–", "too little is known to judge them"),
        report.Tile("calibration error", report.percent(evaluation.calibration_error), "of its confidence"),
        report.Tile("trained in", _duration(run.seconds), f"{run.epochs} epochs, the best was {run.best_epoch}"),
    ]
    return report.Section("Is it any good?", [report.Tiles(tiles), report.Text(_verdict(found))], "result")


def _verdict(found: Findings) -> str:
    low, high = found.evaluation.interval
    chance = max(found.evaluation.classes.values(), key=lambda figures: figures["pictures"])["pictures"]
    guess = chance / found.evaluation.pictures
    if low <= guess:
        return (
            f"It is not shown to be better than always answering with the most frequent class, which would be right in "
            f"{guess:.0%} of the validation photos."
        )
    leaks = " Copies among them make it look better than it is." if found.leaked else ""
    return (
        f"Of a hundred new photos like the validation photos it will name {100 * low:.0f} to {100 * high:.0f} rightly; "
        f"always answering with the most frequent class would be right in {100 * guess:.0f}.{leaks}"
    )


def _next(advice: Sequence[Advice]) -> report.Section:
    if not advice:
        return report.Section("What to do next", [report.Text("Nothing stands out: convert it and try it.")], "next")
    steps = [report.Step(item.fact, item.do, item.command, item.anchor) for item in advice]
    return report.Section("What to do next", [report.Steps(steps)], "next")


def _curves(found: Findings) -> report.Section:
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    history = {name: [getattr(epoch, name) for epoch in found.epochs] for name in names}
    figure = report.Figure(plots.curves(history, found.run.best_epoch), alt="Loss and accuracy over the epochs")
    text = "Training photos are varied at random and their labels softened, so its curve may well lie below."
    return report.Section("How it learnt", [report.Text(text), figure], "curves")


def _pairs(found: Findings) -> list[report.Section]:
    shown = [pair for pair in found.pairs if pair.count > 1][:_MOST_PAIRS]
    parts: list[report.Part] = []
    for pair in shown:
        text = f"{pair.labels[0]} and {pair.labels[1]}: {pair.count} of {pair.pictures} photos"
        if pair.count > _MOST_OF_PAIR:
            text += f", the {_MOST_OF_PAIR} surest mistakes"
        parts += [report.Text(text), _mistakes(pair)]
    return [report.Section("Most confused pairs", parts, "pairs")] if parts else []


def _mistakes(pair: Pair) -> report.Pictures:
    triples = list(zip(pair.mistakes, pair.answers, pair.confidence, strict=True))[:_MOST_OF_PAIR]
    return _shown((photo, said, f"is {photo.label} · {sure:.0%} sure\n{photo.shown}") for photo, said, sure in triples)


def _labels(found: Findings) -> list[report.Section]:
    if not found.doubts:
        return []
    shown = found.doubts[:_MOST_SHOWN]
    text = (
        f"{len(found.doubts):,} of {found.judged:,} photos judged look like another class than their folder says"
        + (f"; the {len(shown)} most doubtful, all are in {DOCUMENT}. " if len(shown) < len(found.doubts) else ". ")
        + "Some will be right all the same: that is for you to say."
    )
    pictures = _shown(
        (doubt.photo, f"{doubt.rather}?", f"folder says {doubt.photo.label}\n{doubt.photo.shown}") for doubt in shown
    )
    return [report.Section("Labels that look wrong", [report.Text(text), pictures], "labels")]


def _copies(found: Findings) -> list[report.Section]:
    parts: list[report.Part] = []
    for copies, text in (
        (found.leaked, "Validation photos that are among the training photos, too"),
        (found.contradictions, "Photos that stand under two labels"),
    ):
        if copies:
            shown = min(len(copies), _MOST_SHOWN // 2)
            some = f", {shown} of {len(copies):,}" if shown < len(copies) else ""
            parts += [report.Text(f"{text}, each beside its copy{some}:"), _side_by_side(copies[:shown])]
    return [report.Section("Copies", parts, "copies")] if parts else []


def _side_by_side(copies: Sequence[Copies]) -> report.Pictures:
    both = [photo for pair in copies for photo in (pair.one, pair.other)]
    return _shown(((photo, f"{photo.label}, {photo.split}", photo.shown) for photo in both), wrong=False)


def _pictures(found: Findings) -> list[report.Section]:
    sections = []
    if found.blurred:
        text = f"{len(found.blurred):,} of {found.looked:,}, the most blurred first."
        shown = _shown(((photo, photo.label, photo.shown) for photo in found.blurred[:_MOST_SHOWN]), wrong=False)
        sections.append(report.Section("Blurred", [report.Text(text), shown], "blurred"))
    if found.small:
        text = f"{len(found.small):,} of {found.measured:,} have a side below {found.run.recipe.size} pixels."
        smallest = found.small[:_MOST_SHOWN]
        shown = _shown(((photo, f"{side} pixels", photo.shown) for photo, side in smallest), wrong=False)
        sections.append(report.Section("Small", [report.Text(text), shown], "small"))
    if found.unreadable:
        lines = [f"{problem.path}: {problem.reason}" for problem in found.unreadable[:_MOST_LINES]]
        rest = len(found.unreadable) - _MOST_LINES
        listed = report.Lines(lines + ([f"and {rest:,} more"] if rest > 0 else []))
        sections.append(report.Section("Left out", [listed], "unreadable"))
    return sections


def _how(found: Findings) -> report.Section:
    def some(count: int) -> str:
        return f"all {count:,} photos" if count == found.total else f"{count:,} of {found.total:,} photos, at random"

    lines = [
        "Accuracy, recall and precision: of the validation photos, with intervals after Wilson. The best epoch was "
        "chosen by these same photos, which flatters a little; only photos that nothing was chosen by do not.",
        f"Labels that look wrong: {some(found.judged)}, by cleanlab (confident learning), from a regression on the "
        "features of this network that has not seen the photo it judges. The network has seen the training labels: "
        "an error that it has learnt by heart may not be found.",
        f"Copies: {some(found.looked)}, by fingerprint and thumbnail. Cropped, turned or mirrored copies and other "
        "photos of the same thing are not found.",
        f"Blur: {some(found.looked)}, at the size of the network's input.",
        f"Size: {some(found.measured)}.",
    ]
    return report.Section("How this was found", [report.Lines(lines)], "how")


def _shown(photos: Any, wrong: bool = True) -> report.Pictures:
    pictures = []
    for photo, title, note in photos:
        image = _thumbnail(photo)
        if image:
            pictures.append(report.Picture(image, title, note, wrong=wrong, alt=photo.shown))
    return report.Pictures(pictures)


def _thumbnail(photo: Photo) -> bytes | None:
    try:
        return report.thumbnail(photo.path)
    except EdgennError:
        return None  # gone since; its path is not worth a page


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
