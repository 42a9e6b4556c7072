"""search.html: one file that stands alone and says what was found, at what price, how far to trust it, and what to type
next."""

from __future__ import annotations

import math
import shlex
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import edgenn
from edgenn import data
from edgenn.evaluation import metrics, report

from . import outcome
from .limits import kilobytes, milliseconds
from .outcome import Outcome

if TYPE_CHECKING:
    from .kept import Search

TEMPLATES = Path(__file__).parent / "templates"
_MOST_ROWS = 60
_MOST_LINES = 40


@dataclass(frozen=True)
class Front:
    """The Pareto front, as two PNGs."""

    kind: ClassVar[str] = "front"
    wide: bytes
    narrow: bytes
    alt: str
    caption: str


def page(search: Search) -> str:
    """The page of a search, finished or not, as the text of one HTML file."""
    done = outcome.done(search.outcomes)
    sections = [report.Section("In short", _short(search))]
    if done:
        front: list[Any] = [_front(search)]
        sections += [
            report.Section("Accuracy against latency", front),
            report.Section("Models", _models(search)),
        ]
    sections += [
        *_given_up(search),
        report.Section("How it was measured", _measured(search)),
        report.Section("Go on", [report.Commands("\n".join(commands(search)))]),
    ]
    html = (
        report.environment(TEMPLATES)
        .get_template("search.html")
        .render(
            title=f"Search: {search.best.name}" if search.best else "Search",
            sections=sections,
            lead=f"{search.photos} · {search.limits} · {_counted(search)}",
            footer="",
            version=edgenn.__version__,
        )
    )
    # A file name that is not UTF-8 reaches us as lone surrogates, which no page can hold.
    return str(html.encode("utf-8", "replace").decode("utf-8"))


def commands(search: Search) -> list[str]:
    """What one would type next, with remarks."""
    photos, out = shlex.quote(str(search.photos)), shlex.quote(str(search.out))
    more = f"# go on searching: the same command with --trials {2 * max(15, _trained(search))}"
    best = search.best
    if best is None:
        return [more]
    if search.epochs is None:
        remark, epochs = f"# all epochs of the best; the trial had {best.epochs}", f" --epochs {search.full_epochs}"
    else:
        remark, epochs = f"# the best once more, with the {search.epochs} epochs that the recipe gives", ""
    lines = [
        remark,
        f"edgenn train {photos} --recipe {out}/recipe.toml{epochs} --out runs/best",
        "edgenn convert runs/best",
    ]
    if search.kept:
        model = f"{out}/best/model.tflite"
        others = f"{photos} --split test" if search.test else "OTHER_PHOTOS"
        lines += [
            "# the trial itself: how good, how fast on a Raspberry Pi 4, live",
            f"edgenn evaluate {model} {others}",
            f"edgenn profile {model} --device pi4",
            f"edgenn run {model} --source 0",
        ]
    return [*lines, more]


def _front(search: Search) -> Front:
    from .plot import pareto

    return Front(
        pareto(search.outcomes, search.limits),
        pareto(search.outcomes, search.limits, narrow=True),
        f"Int8 accuracy against latency of {len(outcome.done(search.outcomes))} models; the table has the figures.",
        "Each disc is a trained int8 model, its area the size of the file; a hollow one misses a limit or is rejected. "
        "The line is the front: no full disc lies above it.",
    )


def _trained(search: Search) -> int:
    return search.count("done", "stopped")


def _counted(search: Search) -> str:
    return (
        f"{_trained(search)} networks trained, {search.count('stopped')} of them stopped early, "
        f"{search.count('unfit')} not worth training"
    )


def _short(search: Search) -> list[report.Part]:
    best = search.best
    if best is None or best.latency is None:
        if not outcome.done(search.outcomes):
            return [report.Text("No trial is finished yet.")]
        why = outcome.why_none(search.outcomes, search.limits)
        return [report.Text(f"{why[0].upper()}{why[1:]}.")]
    low, high = metrics.wilson_interval(round((best.accuracy or 0.0) * best.pictures), best.pictures)
    tiles = [
        report.Tile("int8 accuracy", report.percent(best.accuracy or 0.0), f"on {best.pictures} validation photos"),
        report.Tile(
            "one picture",
            f"{milliseconds(best.latency.median)} ms",
            _limit(search.limits.latency, milliseconds, "ms") or "invoke, median",
        ),
        report.Tile(
            "model", f"{kilobytes(best.bytes or 0)} kB", _limit(search.limits.size, kilobytes, "kB") or "int8 .tflite"
        ),
        report.Tile("network", best.name, f"float accuracy {report.percent(best.float_accuracy or 0.0)}"),
    ]
    if search.test:
        first, last = search.test.interval
        tiles.insert(
            1,
            report.Tile(
                "on test photos",
                report.percent(search.test.accuracy),
                f"95% interval {first:.1%} to {last:.1%}, {search.test.pictures} photos",
            ),
        )
    told = (
        "The test photos were used for nothing else: their figure is the one to expect."
        if search.test
        else "Photos that no trial has seen say what to expect: keep some in PHOTOS/test, or give others to "
        "“edgenn evaluate”."
    )
    tried = len(outcome.done(search.outcomes))
    parts: list[report.Part] = [
        report.Tiles(tiles),
        report.Text(
            f"The best of {tried} models was chosen by these same validation photos, and each of its epochs too, so "
            f"its accuracy there is optimistic: some of it is luck (one model alone would be uncertain by {low:.1%} to "
            f"{high:.1%}). {told}"
        ),
    ]
    if not search.kept:
        elsewhere = best.host != socket.gethostname() or Path(best.folder).is_dir()
        where = f"is there in {best.folder}" if elsewhere else f"is no longer in {best.folder}: train it again"
        parts.append(report.Text(f"It was trained on {best.host}, and {where}."))
    return parts


def _limit(limit: float | None, words: Callable[[float], str], unit: str) -> str:
    return "" if limit is None else f"limit {words(limit)} {unit}"


def _models(search: Search) -> list[report.Part]:
    front, best = {one.number for one in search.front}, search.best
    ranked = sorted(
        outcome.done(search.outcomes),
        key=lambda one: (bool(one.misses(search.limits)), -(one.accuracy or 0.0), one.number),
    )

    def remark(one: Outcome) -> str:
        if best is not None and one.number == best.number:
            return "best"
        assert one.latency is not None
        words = {"latency": "too slow", "size": "too large"}
        excess = search.limits.excess(one.latency.median, one.bytes)
        short = [words[name] for name, value in excess.items() if value > 0] + ([] if one.passed else ["rejected"])
        return ", ".join(short) or ("front" if one.number in front else "")

    rows = [
        (
            one.name,
            report.Share(one.accuracy if one.accuracy is not None else math.nan),
            f"{milliseconds(one.latency.median) if one.latency else '–'}",
            kilobytes(one.bytes or 0),
            remark(one),
            f"{one.recipe['learning_rate']:g}",
            f"{one.recipe['augmentation']['rotation']:g}°",
            round(one.seconds),
            one.number,
        )
        for one in ranked[:_MOST_ROWS]
    ]
    columns = ("network", "int8 accuracy", "ms", "kB", "", "learning rate", "augmented", "seconds", "trial")
    caption = (
        "Those that keep the limits first, the most accurate first. Augmented: degrees of rotation to either side, "
        "with which everything else grows."
    )
    if len(ranked) > _MOST_ROWS:
        caption += f" The first {_MOST_ROWS} of {len(ranked)}."
    rejected = [f"trial {one.number}: {one.reason}" for one in ranked if not one.passed]
    if not rejected:
        return [report.Table(columns, rows, caption)]
    told = report.Text("Rejected by what “edgenn convert” looks at besides accuracy:")
    return [report.Table(columns, rows, caption), told, report.Lines(rejected[:_MOST_LINES])]


def _given_up(search: Search) -> list[report.Section]:
    """Why the others were not trained to their end."""
    parts: list[report.Part] = []
    for state, lead in (
        ("stopped", "Stopped while they trained, because others that cost no more were better by then:"),
        ("unfit", "Not trained, by what is known of the network before:"),
    ):
        told = [one for one in search.outcomes if one.state == state]
        # One line for each network that is unfit, however often it was proposed.
        lines = list(dict.fromkeys(f"{one.name}: {one.reason}" for one in told))
        if lines:
            rest = len(lines) - _MOST_LINES
            parts += [
                report.Text(lead),
                report.Lines([*lines[:_MOST_LINES], *([f"and {rest} more"] if rest > 0 else [])]),
            ]
    return [report.Section("Given up", parts)] if parts else []


def _measured(search: Search) -> list[report.Part]:
    splits = ", ".join(f"{len(part)} {name}" for name, part in search.dataset.splits.items())
    timed = [one.latency for one in outcome.done(search.outcomes) if one.latency]
    machines = list(dict.fromkeys(f"{latency.machine}: {latency.runtime}" for latency in timed))
    lines = [
        f"Photos: {splits}; {len(search.dataset.labels)} classes, split by {search.dataset.split_rule}.",
        *(f"Left out: {line}" for line in data.told(search.dataset.problems)),
        "Latency: invoke alone, again and again until its median is known to 1% or 5 s are over. The finalists are "
        "timed once more at the end, in turns.",
        *(f"Timed on {machine}." for machine in machines),
    ]
    if len(machines) > 1:
        lines.append("Latencies of different machines stand side by side here: compare those of one.")
    if search.best and search.best.latency:
        latency = search.best.latency
        lines.append(
            f"Of the best: median between {milliseconds(latency.low)} and {milliseconds(latency.high)} ms at 95%, "
            f"{latency.runs:,} runs."
        )
        lines += [*latency.disturbances]
    lines.append(
        "A Raspberry Pi or Coral board is another machine: “edgenn profile” measures there, or estimates here."
    )
    return [report.Lines(lines)]
