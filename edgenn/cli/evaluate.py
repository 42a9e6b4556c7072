"""`edgenn evaluate`: how good a model is on labelled photos, class by class."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from . import options as shared

if TYPE_CHECKING:
    from edgenn.evaluation import Evaluation

_MOST_PAIRS = 5
_MOST_WORST = 5
_MOST_PROBLEMS = 5


@click.command(
    epilog="""\b
Examples:
  edgenn evaluate runs/first photos
  edgenn evaluate runs/first/model.tflite photos --split validation --report report.html
  edgenn evaluate mobilenet.tflite animals --labels imagenet_labels.txt --json"""
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("photos", type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "all"]),
    help="Photos to use.  [default: test if there is such a folder; else validation, if there is such a folder or the "
    "model was trained on some of the photos; else all]",
)
@shared.classes
@shared.labels
@shared.runtime
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a page with tables, figures and worst pictures.",
)
@shared.overwrite
@shared.as_json
def command(
    model: Path,
    photos: Path,
    classes: tuple[str, ...] | None,
    report: Path | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure how good MODEL is on PHOTOS.

    MODEL is a .keras, a .tflite or the folder of a run. PHOTOS holds a folder for each class, or train, validation and
    test folders with class folders in them; they are matched to the model's labels by name.
    """
    _writable(report, overwrite)
    from edgenn.evaluation import evaluate

    with _bar() as progress:
        result = evaluate(model, photos, classes=classes, progress=progress, **options)
    if report:
        from edgenn.evaluation.report import evaluation_page
        from edgenn_device.files import write_atomically

        write_atomically(report, evaluation_page(result))
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        _tell(result)
    if report:
        click.echo(f"written to {click.format_filename(report)}", err=as_json)


def _writable(report: Path | None, overwrite: bool) -> None:
    """Refuse a report that could not be written, before the work is done and not after."""
    if report is None:
        return
    for module in ("jinja2", "matplotlib"):
        require(module)
    if report.suffix.lower() not in (".html", ".htm"):
        raise EdgennError(f"--report {report} is not a page: give a file name that ends in .html")
    if report.exists() and not overwrite:
        raise EdgennError(f"{report} exists: give --overwrite, or another place with --report")


def _tell(result: Evaluation) -> None:
    low, high = result.interval
    which = "" if result.split == "all" else f"{result.split} "
    click.echo(
        f"accuracy {result.accuracy:.3f} (95% interval {low:.3f} to {high:.3f}) "
        f"on {result.pictures:,} {which}pictures, {result.runtime}"
    )
    for note in result.notes:
        click.echo(_line(note))
    here = {label: figures for label, figures in result.classes.items() if figures["pictures"]}
    width = max(len("class"), *(len(_line(label)) for label in here))
    click.echo(f"\n{'class':{width}}  pictures  recall  precision     F1")
    for label, figures in here.items():
        click.echo(
            f"{_line(label):{width}}  {figures['pictures']:8,}  {_three(figures['recall']):>6}  "
            f"{_three(figures['precision']):>9}  {_three(figures['f1']):>5}"
        )
    if len(here) < len(result.classes):
        click.echo(f"and {len(result.classes) - len(here):,} classes were answered of which there are no pictures")
    if result.confused:
        click.echo("\nmost confused")
        for pair in result.confused[:_MOST_PAIRS]:
            click.echo(
                f"{pair.count:8,}  {_line(pair.true)} taken for {_line(pair.predicted)} ({pair.share:.1%} of them)"
            )
    if result.worst:
        click.echo("\nwrong, and surest of it")
        for mistake in result.worst[:_MOST_WORST]:
            path = _line(click.format_filename(mistake.path))
            click.echo(f"{mistake.confidence:8.3f}  {_line(mistake.true)} taken for {_line(mistake.predicted)}  {path}")
    if result.problems:
        click.echo(f"\nleft out {len(result.problems):,} that cannot be read")
        for problem in result.problems[:_MOST_PROBLEMS]:
            click.echo(f"  {_line(click.format_filename(problem.path))}: {_line(problem.reason)}")
        if len(result.problems) > _MOST_PROBLEMS:
            click.echo(f"  and {len(result.problems) - _MOST_PROBLEMS:,} more (--json lists all)")


def _line(text: str) -> str:
    """Printable: a label is whatever somebody called a folder, and a terminal obeys control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _three(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.3f}"


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr, where that is a terminal; it appears with the first pictures done."""
    if not sys.stderr.isatty():
        yield None
        return
    shown: list[Any] = []

    def progress(done: int, total: int) -> None:
        if not shown:
            shown.append(click.progressbar(length=total, label="classifying", file=sys.stderr))
            shown[0].__enter__()
        shown[0].update(done - shown[0].pos)

    try:
        yield progress
    finally:
        for bar in shown:
            bar.__exit__(None, None, None)
