"""The demo's report: one HTML file that stands alone, made of the parts of which every report here is made.

Shows figures that were measured and draws no conclusion that they do not carry: drawn garments are not photos.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import edgenn
from edgenn.evaluation import plots, report
from edgenn_device.garments import LABELS, draw, seed_in
from edgenn_device.profiler.report import machine, percentiles

from .outcome import Demo, Feed

TEMPLATES = Path(__file__).parent / "templates"
_COLOURS = 4  # --c0 to --c3 in demo.html
_PER_LABEL = 4
_MOST_MISTAKES = 12
# A label is written into its part of the timeline where that is at least this share of the whole.
_WIDE = 0.1


@dataclass(frozen=True)
class Span:
    """Successive frames with one label; `wide` enough to be written on."""

    label: str
    frames: int
    wide: bool


@dataclass(frozen=True)
class Row:
    """One line of a timeline."""

    name: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Timeline:
    """What was shown and what was said, frame by frame."""

    kind: ClassVar[str] = "timeline"
    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    alt: str

    def colour(self, label: str) -> str:
        """The colour of a label, as CSS; grey for one that is no class ("unknown", no answer)."""
        return f"var(--c{self.labels.index(label) % _COLOURS})" if label in self.labels else "var(--faint)"


def page(demo: Demo) -> str:
    """The report as the text of one HTML file."""
    html = (
        report.environment(TEMPLATES)
        .get_template("demo.html")
        .render(
            title="From drawn garments to a camera feed",
            lead=f"edgenn demo, seed {demo.run.recipe.seed} · {machine(demo.profile)}",
            sections=[*_opening(demo), *_model(demo), *_speed(demo), _next(demo)],
            footer="The garments are drawings: these figures say nothing about photos",
            version=edgenn.__version__,
        )
    )
    return str(html)


def _opening(demo: Demo) -> list[report.Section]:
    test, feed = demo.int8_test, demo.feed
    low, high = test.interval
    right = sum(shown.label == shown.truth for shown in feed.shown)
    invoke = demo.profile.steady.latencies
    tiles = [
        report.Tile(
            "int8 accuracy", report.percent(test.accuracy), f"{low:.1%} to {high:.1%} on {test.pictures} photos"
        ),
        report.Tile("float accuracy", report.percent(demo.float_test.accuracy), "on the same unseen photos"),
        report.Tile(
            "model",
            f"{demo.conversion.bytes / 1000:,.0f} kB",
            f"of {demo.conversion.float_bytes / 1000:,.0f} kB in float",
        ),
        report.Tile("one picture", f"{invoke.percentile(50) * 1e3:.2f} ms", "invoke, median"),
        report.Tile("camera feed", f"{feed.summary.fps:.0f} fps", f"{feed.summary.dropped} frames dropped"),
    ]
    if not demo.conversion.passed:
        tiles.append(report.Tile("checked for a device", "rejected", "; ".join(demo.conversion.reasons)))
    samples = [
        report.Picture(report.thumbnail(draw(label, seed_in("train", demo.run.recipe.seed, number))), label)
        for number in range(_PER_LABEL)
        for label in LABELS
    ]
    feed_parts: list[Any] = [
        report.Text(
            f"A video of {len(feed.shown)} garments that are in no photo, classified at its own pace like a camera. "
            f"{right} of them were named rightly; of all frames {feed.right:.1%} bear the right label, including those "
            "in which the label, an average over time, still follows a change of garment."
        ),
        _timeline(feed),
        report.Pictures(
            [
                report.Picture(
                    report.thumbnail(shown.image),
                    shown.label,
                    f"is {shown.truth} · {shown.confidence:.0%} sure",
                    wrong=shown.label != shown.truth,
                )
                for shown in feed.shown
            ]
        ),
    ]
    return [
        report.Section("In short", [report.Tiles(tiles)]),
        report.Section("The camera feed", feed_parts),
        report.Section(
            "What it learnt from",
            [report.Text(f"{demo.photos:,} photos, drawn by seed; these are some of them."), report.Pictures(samples)],
        ),
    ]


def _timeline(feed: Feed) -> Timeline:
    said: list[str] = []
    for index in range(len(feed.truth)):
        # A dropped frame keeps what was said before it.
        said.append(feed.labels.get(index, said[-1] if said else "–"))

    def spans(labels: list[str]) -> tuple[Span, ...]:
        runs = ((label, len(list(frames))) for label, frames in groupby(labels))
        return tuple(Span(label, frames, frames >= _WIDE * len(labels)) for label, frames in runs)

    return Timeline(
        LABELS,
        (Row("shown", spans(list(feed.truth))), Row("recognised", spans(said))),
        "Timeline of the garments shown and the labels given to them",
    )


def _model(demo: Demo) -> list[report.Section]:
    run, conversion = demo.run, demo.conversion
    rows = [
        ("accuracy on test photos", report.percent(demo.float_test.accuracy), report.percent(demo.int8_test.accuracy)),
        (
            "accuracy on validation photos",
            report.percent(conversion.float_accuracy),
            report.percent(conversion.int8_accuracy),
        ),
        ("same label as the float model", None, report.percent(conversion.agreement)),
        ("size", f"{conversion.float_bytes / 1000:,.0f} kB of weights", f"{conversion.bytes / 1000:,.0f} kB file"),
        ("computed by", demo.float_test.runtime, demo.int8_test.runtime),
    ]
    return [
        report.Section(
            "Training",
            [
                report.Text(
                    f"{run.network}, {run.parameters:,} parameters, pictures of {run.recipe.size}×{run.recipe.size} "
                    f"pixels, {run.epochs} epochs in {run.seconds:.0f} s. Epoch {run.best_epoch} was kept."
                ),
                report.Figure(
                    plots.curves(demo.history, run.best_epoch), alt="Loss and accuracy over the epochs of training"
                ),
            ],
        ),
        report.Section("Float against int8", [report.Table(("", "float32", "int8"), rows)]),
        *(s for s in report.evaluation_sections(demo.int8_test) if s.title in ("Classes", "What is taken for what")),
        *_mistakes(demo),
    ]


def _mistakes(demo: Demo) -> list[report.Section]:
    worst = [
        report.Picture(
            report.thumbnail(mistake.path),
            mistake.predicted,
            f"is {mistake.true} · {mistake.confidence:.0%} sure",
            wrong=True,
        )
        for mistake in demo.int8_test.worst[:_MOST_MISTAKES]
    ]
    lead = report.Text("Test photos whose label the int8 model misses, those first of which it was surest.")
    return [report.Section("Mistakes", [lead, report.Pictures(worst)])] if worst else []


def _speed(demo: Demo) -> list[report.Section]:
    named = {**demo.feed.stages, "whole frame": demo.feed.latency, "invoke alone": demo.profile.steady.latencies}
    rows: list[tuple[str | float, ...]] = [
        (name, *(percentiles(spent)[key] for key in ("p50", "p90", "p99", "mean")))
        for name, spent in named.items()
        if spent.count
    ]
    cold = demo.profile.cold_start
    notes = [*demo.profile.disturbances]
    if cold:
        parts = ", ".join(f"{name} {spent * 1e3:.0f} ms" for name, spent in cold.items())
        notes.append(f"Cold start {sum(cold.values()) * 1e3:.0f} ms: {parts}.")
    return [
        report.Section(
            "Latency",
            [
                report.Text(
                    "Milliseconds a frame of the feed spends in each stage. The stages overlap in three threads; "
                    f"“invoke alone” is the interpreter called again and again ({demo.profile.runs:,} times, "
                    f"{demo.profile.description})."
                ),
                report.Table(("stage", "p50", "p90", "p99", "mean"), rows),
                report.Figure(
                    plots.latencies({name: spent for name, spent in named.items() if spent.count}),
                    alt="Histograms of the latencies of each stage",
                ),
                *([report.Lines(notes)] if notes else []),
            ],
        ),
        report.Section(
            "What took how long",
            [report.Table(("step", "result", "seconds"), [(s.name, s.result, f"{s.seconds:.1f}") for s in demo.steps])],
        ),
    ]


def _next(demo: Demo) -> report.Section:
    return report.Section(
        "Go on",
        [
            report.Commands(
                f"edgenn run {demo.model} --source synthetic\n"
                f"edgenn run {demo.model} --source 0            # a USB camera\n"
                f"edgenn inspect {demo.model}\n"
                "edgenn train PHOTOS --out runs/first      # your own photos, a folder for each class"
            )
        ],
    )
