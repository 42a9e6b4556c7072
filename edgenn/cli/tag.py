"""`edgenn tag`: label a catalogue of pictures, into a file or as they come."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenn_device.errors import AnswerIsNo, EdgennError

from . import options as shared

if TYPE_CHECKING:
    from edgenn.tagging.catalogue import Request, Summary
    from edgenn.tagging.records import Tagged
    from edgenn.tagging.tagger import Rules
    from edgenn_device.model_file import ModelFile

_MOST_LEFT_OUT = 5
# Seconds between two pictures of the progress line, and over how many of them the rate is taken.
_REFRESH = 0.2
_RATE_OVER = 30.0


@click.command(
    epilog="""\b
Examples:
  edgenn tag model.tflite photos --out tags.csv
  find /catalogue -name '*.jpg' -print0 | edgenn tag model.tflite - --out tags.parquet
  edgenn tag model.tflite s3://bucket/new --out tags.jsonl --review
  edgenn tag model.tflite photos --out tags.csv --move-to 'sorted/{label}'
  edgenn tag model.tflite --watch inbox --out tags.csv
  edgenn tag --apply corrections.json --to photos""",
)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("--out", type=click.Path(), metavar="OUT", help=".csv, .jsonl or .parquet; without it rows go to stdout.")
@shared.labels
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="Labels for each result."
)
@click.option(
    "--minimum-confidence",
    type=shared.NumberRange(0, 1),
    metavar="SHARE",
    help="Below it a picture is `unknown`.  [default: what the model's card says]",
)
@click.option("--workers", type=shared.PARALLEL, metavar="N", help="Processes.  [default: one for each core]")
@shared.runtime
@click.option("--move-to", metavar="'DIR/{label}'", help="Move each picture into its label's folder.")
@click.option("--link", metavar="'DIR/{label}'", help="The same with symbolic links; the pictures stay.")
@click.option("--review", is_flag=True, help="Write report.html beside OUT, to look the labels over and correct them.")
@click.option("--watch", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Tag what arrives in DIR.")
@click.option("--settle", type=shared.NumberRange(min=0), metavar="SECONDS", help="With --watch: a picture is whole "
              "when it has not changed for so long.  [default: 1]")  # fmt: skip
@click.option(
    "--engine",
    type=click.Choice(["processes", "ray"]),
    default="processes",
    show_default=True,
    help="ray: on a Ray cluster; OUT is a folder or URL of Parquet files.",
)
@click.option("--apply", "corrections", type=click.Path(), metavar="FILE", help="Make folders of corrections.json.")
@click.option("--to", "target", type=click.Path(), metavar="DIR", help="With --apply: DIR/<label>/picture.")
@shared.overwrite
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; without --out, one a picture.")
def command(
    model: Path | None,
    paths: tuple[str, ...],
    out: str | None,
    corrections: str | None,
    target: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Label the pictures that PATHS name with MODEL (a .tflite), in their order, on every core.

    PATHS are files, folders, globs, URLs (s3://, gs://, https://), or - for a list on stdin, one a line or each ended
    by a null character. The same command again goes on with what a killed one left; OUT appears when all is done.
    """
    if corrections is not None:
        _apply(corrections, target, model, as_json)
        return
    if model is None:
        raise click.UsageError("give a MODEL and PATHS", click.get_current_context())
    if target is not None:
        raise EdgennError("--to belongs to --apply: give --out for the labels")
    if options["move_to"] is not None and options["link"] is not None:
        raise EdgennError("--move-to and --link cannot both be: choose one")
    _check(paths, out, options)
    from edgenn.tagging.engine import rules_for
    from edgenn_device import model_file

    loaded = model_file.load(model, labels=options["labels"])
    rules = rules_for(loaded, options["top"], options["minimum_confidence"], options["runtime"])
    if options["engine"] == "ray":
        _ray(loaded, rules, paths, out, options, as_json)
    elif options["folder"] is not None:
        _watch(loaded, rules, out, options, as_json)
    elif out is None:
        _stream(loaded, rules, paths, options["workers"], as_json)
    else:
        _catalogue(loaded, rules, paths, out, options, as_json)


def _check(paths: tuple[str, ...], out: str | None, options: dict[str, Any]) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    sorts = options["move_to"] is not None or options["link"] is not None
    if options["folder"] is not None:
        if paths:
            raise EdgennError("--watch DIR takes the place of PATHS: leave one of them out")
        if options["review"] or options["engine"] == "ray":
            raise EdgennError("--watch has no end: --review and --engine ray are for PATHS")
    elif not paths:
        raise EdgennError("nothing to tag: give PATHS, - for a list on stdin, or --watch DIR")
    elif options["settle"] is not None:
        raise EdgennError("--settle belongs to --watch")
    if out is None and (sorts or options["review"] or options["folder"] is not None or options["engine"] == "ray"):
        raise EdgennError(
            "--move-to, --link, --review, --watch and --engine ray need a place for the labels: give --out"
        )
    if options["engine"] == "ray" and (sorts or options["review"]):
        raise EdgennError("--engine ray writes labels only: leave out --move-to, --link and --review")


def _catalogue(
    model: ModelFile, rules: Rules, paths: tuple[str, ...], out: str, options: dict[str, Any], as_json: bool
) -> None:
    from edgenn.tagging.catalogue import Request, tag_catalogue

    request: Request = Request(
        model,
        rules,
        paths,
        _local(out),
        sort_to=options["move_to"] if options["move_to"] is not None else options["link"],
        link=options["link"] is not None,
        review=options["review"],
        overwrite=options["overwrite"],
        workers=options["workers"],
    )
    with _progress() as report:
        summary = tag_catalogue(request, stdin=sys.stdin.buffer, report=report)
    _tell(summary, as_json)


def _local(out: str) -> Path:
    if "://" in out:
        raise EdgennError(f"--out {out} is not a local file: only --engine ray writes to URLs")
    return Path(out)


def _tell(summary: Summary, as_json: bool) -> None:
    if as_json:
        figures = {
            "out": str(summary.out),
            "pictures": summary.pictures,
            "unreadable": summary.unreadable,
            "unknown": summary.unknown,
            "tagged": summary.tagged,
            "seconds": round(summary.seconds, 3),
            "per_second": round(summary.per_second, 1),
            "review": str(summary.pages[0]) if summary.pages else None,
        }
        click.echo(json.dumps(figures))
        return
    parts = [f"{summary.pictures:,} pictures"]
    if summary.tagged != summary.pictures:
        parts.append(f"{summary.tagged:,} of them now")
    if summary.unknown:
        parts.append(f"{summary.unknown:,} unknown")
    if summary.unreadable:
        parts.append(f"{summary.unreadable:,} unreadable")
    parts.append(f"{summary.seconds:.1f} s ({summary.per_second:,.0f} a second)")
    click.echo(f"{', '.join(parts)}: {click.format_filename(str(summary.out))}")
    for page in summary.pages:
        click.echo(f"look them over in {click.format_filename(page)}")


def _stream(model: ModelFile, rules: Rules, paths: tuple[str, ...], workers: int | None, as_json: bool) -> None:
    """Rows on stdout, as they come."""
    from edgenn.tagging import output
    from edgenn.tagging.engine import Workers
    from edgenn.tagging.listing import pictures

    form = "jsonl" if as_json else "csv"
    stdout = sys.stdout.buffer
    head = output.header(form)
    try:
        with Workers(model, rules, workers) as crew:
            for record in crew.tag(pictures(paths, sys.stdin.buffer)):
                stdout.write(head + output.ENCODERS[form](record))  # no header where there is nothing to tag
                stdout.flush()
                head = b""
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`). Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _watch(model: ModelFile, rules: Rules, out: str | None, options: dict[str, Any], as_json: bool) -> None:
    from edgenn.tagging.watch import SETTLE, Watch, watch

    assert out is not None
    asked = Watch(
        model,
        rules,
        options["folder"],
        _local(out),
        sort_to=options["move_to"] if options["move_to"] is not None else options["link"],
        link=options["link"] is not None,
        overwrite=options["overwrite"],
        workers=options["workers"],
        settle=SETTLE if options["settle"] is None else options["settle"],
    )

    def arrived(record: Tagged) -> None:
        if as_json:
            click.echo(json.dumps(record.to_dict()))
        else:
            said = record.error or f"{record.label} {record.confidence:.0%}"
            click.echo(_line(f"{record.path}: {said}"))

    def failed(folder: str, error: OSError) -> None:
        click.echo(_line(f"{folder} cannot be looked through ({error.strerror}): its pictures are left out"), err=True)

    click.echo(f"watching {click.format_filename(options['folder'])}; Ctrl-C ends it", err=True)
    watch(asked, arrived=arrived, failed=failed)


def _ray(
    model: ModelFile, rules: Rules, paths: tuple[str, ...], out: str | None, options: dict[str, Any], as_json: bool
) -> None:
    from edgenn.tagging.ray_engine import tag_on_ray

    assert out is not None
    summary = tag_on_ray(
        model,
        rules,
        paths,
        out,
        stdin=sys.stdin.buffer,
        workers=options["workers"],
        overwrite=options["overwrite"],
    )
    _tell(summary, as_json)


def _apply(corrections: str, target: str | None, model: Path | None, as_json: bool) -> None:
    if model is not None:
        raise EdgennError("--apply takes no MODEL and no PATHS: the corrections say which pictures")
    if target is None:
        raise EdgennError("--apply needs a place for the folders: give --to DIR")
    from edgenn.tagging.corrections import apply

    applied = apply(corrections, target)
    for path, reason in applied.left_out[:_MOST_LEFT_OUT]:
        click.echo(_line(f"left out {path}: {reason}"), err=True)
    if len(applied.left_out) > _MOST_LEFT_OUT:
        click.echo(f"and {len(applied.left_out) - _MOST_LEFT_OUT:,} more", err=True)
    if as_json:
        left_out = [{"path": path, "reason": reason} for path, reason in applied.left_out]
        figures = {"to": str(applied.folder), "copied": applied.copied, "present": applied.present}
        click.echo(json.dumps({**figures, "left_out": left_out}))
    else:
        there = f", {applied.present:,} were there" if applied.present else ""
        click.echo(f"{applied.copied:,} pictures copied{there}: {click.format_filename(applied.folder)}")
    if applied.left_out:
        raise AnswerIsNo(f"{len(applied.left_out):,} corrected pictures were left out")


def _line(text: str) -> str:
    """Printable: a terminal obeys control characters, and a file name may hold any."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None], None] | None]:
    """A line on stderr, where that is a terminal, with the rate of the last half minute and the time left."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = 0.0
    marks: list[tuple[float, int]] = []

    def report(stage: str, done: int, total: int | None) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < _REFRESH and done != total:
            return
        shown = now
        marks.append((now, done))
        while now - marks[0][0] > _RATE_OVER:
            marks.pop(0)
        text = progress_line(stage, done, total, now - marks[0][0], done - marks[0][1])
        width = os.get_terminal_size(sys.stderr.fileno()).columns
        click.echo(f"\r\x1b[K{text[: width - 1]}", nl=False, err=True)

    try:
        yield report
    finally:
        if shown:
            click.echo("\r\x1b[K", nl=False, err=True)


def progress_line(stage: str, done: int, total: int | None, seconds: float, lately: int) -> str:
    """What the line says, when `lately` pictures were done in the last `seconds`.

    >>> progress_line("tagging", 1200, 10000, 2.0, 1200)
    'tagging 1,200 of 10,000 (12%), 600 a second, 15 s left'
    """
    if total is None:
        return f"{stage} {done:,}" if done else stage
    text = f"{stage} {done:,} of {total:,} ({done / max(total, 1):.0%})"
    if lately and seconds:
        rate = lately / seconds
        text += f", {rate:,.0f} a second, {_duration((total - done) / rate)} left"
    return text


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
