"""`edgenn search`: the network and settings that are the most accurate within limits of latency and size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenn.extras import check_installed, require
from edgenn.search.watcher import Watcher

from . import options as shared

if TYPE_CHECKING:
    from edgenn import data
    from edgenn.search.kept import Search
    from edgenn.search.outcome import Outcome

_ERASE = "\r\033[K"


@click.command(
    epilog="""\b
Examples:
  edgenn search photos --out searches/first --max-latency 20ms --max-size 1MB
  edgenn search photos --out searches/small --networks mobilenet_v1,mobilenet_v2 --weights imagenet --timeout 2h
  edgenn search photos --out searches/many --storage postgresql://me@host/edgenn   # on every machine"""
)
@click.argument("photos", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the search; the same one goes on with it.",
)
@click.option("--max-latency", metavar="TIME", help="Of one picture on this machine, for instance 20ms.")
@click.option("--max-size", metavar="SIZE", help="Of the .tflite, for instance 1MB or 500kB.")
@click.option(
    "--trials", type=int, metavar="N", default=30, show_default=True, help="How many networks are trained in all."
)
@click.option("--timeout", metavar="TIME", help="Begin no further trial after this time, for instance 2h.")
@click.option(
    "--networks",
    metavar="NAME[,NAME...]",
    callback=shared.names,
    help="Networks to choose from, with commas between.  [default: all]",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="imagenet|PATH|none",
    help="Trained weights to start from; repeatable, the first that fits. none: from nothing.  [default: none]",
)
@shared.classes
@click.option(
    "--recipe", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file with settings that are not searched."
)
@click.option("--storage", metavar="URL", help="Database that several processes share.  [default: DIR/study.db]")
@shared.as_json
def command(
    photos: Path,
    out: Path,
    max_latency: str | None,
    max_size: str | None,
    timeout: str | None,
    networks: tuple[str, ...] | None,
    recipe: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Search for the most accurate int8 model for PHOTOS within limits.

    Network, its width or depth, input size, augmentation and learning rate are chosen, trained, converted to int8 and
    measured on this machine, again and again. The same command goes on with a search that was stopped or killed; with
    the same --storage several processes and machines share one. The best run is kept in DIR/best. Exit status 1 if no
    model keeps the limits.
    """
    require("optuna")
    from edgenn.search import limits as units

    limits = units.Limits(
        None if max_latency is None else units.duration(max_latency, "--max-latency"),
        None if max_size is None else units.size(max_size, "--max-size"),
    )
    seconds = None if timeout is None else units.duration(timeout, "--timeout")
    check_installed("tensorflow")
    from edgenn.search.searcher import check_found, search
    from edgenn.training import Recipe

    with _Screen() as screen:
        result = search(
            photos,
            out,
            limits=limits,
            timeout=seconds,
            networks=networks or (),
            recipe=Recipe.load(recipe) if recipe else None,
            watcher=screen,
            **options,
        )
    click.echo(json.dumps(result.to_dict()) if as_json else _text(result))
    check_found(result)


def _text(result: Search) -> str:
    from edgenn.search.page import commands

    lines = [f"{'':2}{'network':<40} {'int8':>6} {'ms':>8} {'kB':>7}"]
    best = result.best
    for one in result.front:
        mark = "▸" if best is not None and one.number == best.number else ""
        lines.append(f"{mark:2}{one.name:<40} {_figures(one)}")
    if best is None:
        lines = []
    elif result.test:
        low, high = result.test.interval
        lines.append(
            f"▸ on {result.test.pictures} test photos {result.test.accuracy:.3f} (95% interval {low:.3f} to {high:.3f})"
        )
    else:
        lines.append("▸ was chosen by these validation photos: its accuracy is optimistic")
    lines.append(
        f"written to {result.out}: search.html, pareto.png{', recipe.toml' if best else ''}"
        + (", best" if result.kept else "")
    )
    return "\n".join([*lines, *(f"next: {line}" for line in commands(result)[1:2])])


def _figures(one: Outcome) -> str:
    from edgenn.search.limits import kilobytes, milliseconds

    assert one.latency is not None
    return f"{one.accuracy:6.3f} {milliseconds(one.latency.median):>8} {kilobytes(one.bytes or 0):>7}"


class _Screen(Watcher):
    """A line on stderr for each trial when it has ended; on a terminal also how far the present one is."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._head = self._shown = ""
        self._left_out: set[data.Problem] = set()

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._shown:
            click.echo(_ERASE, nl=False, err=True)
        if kind is KeyboardInterrupt:
            click.echo("stopped: the same command goes on where it was", err=True)

    def photos(self, dataset: data.Dataset) -> None:
        counts = ", ".join(f"{len(part)} {name}" for name, part in dataset.splits.items())
        self._say(f"photos     {dataset.root}: {counts}; {len(dataset.labels)} classes, split by {dataset.split_rule}")
        self.unreadable(dataset.problems)

    def unreadable(self, problems: tuple[data.Problem, ...]) -> None:
        from edgenn.data import told

        # Every trial tells of them.
        new = [problem for problem in problems if problem not in self._left_out]
        self._left_out.update(new)
        for line in told(new):
            self._say(f"left out   {line}")

    def joined(self, trials: int, released: int) -> None:
        if trials or released:
            again = f"; {released} broken off and tried again" if released else ""
            self._say(f"search     goes on after {trials} trial{'s' * (trials != 1)}{again}")

    def begin(self, number: int, name: str) -> None:
        self._head = f"trial {number:4d} {name}"
        self.advance(0.0, "")

    def advance(self, share: float, detail: str) -> None:
        line = f"{self._head}  {detail}"[:100]
        if self._tty and line != self._shown:
            self._shown = line
            click.echo(f"{_ERASE}{line}", nl=False, err=True)

    def end(self, outcome: Outcome, remark: str) -> None:
        told = f"{outcome.reason}"
        if outcome.state == "done":
            words = ("int8", "ms", "kB")
            told = ", ".join(f"{a} {b}" for a, b in zip(words, _figures(outcome).split(), strict=True))
            told += f", {outcome.seconds:.0f} s{f', {remark}' if remark else ''}"
        words_of_state = {"done": "", "stopped": "stopped: ", "unfit": "left out: "}.get(outcome.state, "")
        self._say(f"trial {outcome.number:4d} {outcome.name:<40} {words_of_state}{told}")

    def timing(self, models: int) -> None:
        self._say(f"timing     {models} finalists in turns")

    def _say(self, line: str) -> None:
        click.echo(f"{_ERASE if self._tty else ''}{line}", err=True)
        self._shown = ""
