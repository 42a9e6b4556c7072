"""`edgenn profile MODEL`: where the time goes, measured here or estimated for a board that is not at hand."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenn_device.errors import AnswerIsNo, EdgennError
from edgenn_device.files import write_atomically
from edgenn_device.profiler import SECONDS

from . import options as shared

if TYPE_CHECKING:
    from edgenn_device.profiler import Profile

_SUFFIXES = (".json", ".md", ".html", ".txt")


def _words(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """Values with commas between them."""
    return None if value is None else [word.strip() for word in value.split(",")]


def _counts(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    words = _words(ctx, param, value)
    # Python refuses to read thousands of digits: those are not looked at.
    if words is not None and not all(
        word.isdecimal() and len(word) < 5 and 0 < int(word) <= shared.MOST_PARALLEL for word in words
    ):
        raise click.BadParameter(
            f"{value!r} is not a number from 1 to {shared.MOST_PARALLEL}, or several with commas between them"
        )
    return None if words is None else [int(word) for word in words]


@click.command(epilog="Example: edgenn profile garments.tflite --threads 1,2,4 --out figures.json --out report.html")
@click.argument("models", metavar="MODEL...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--seconds",
    type=shared.Number(),
    metavar="SECONDS",
    default=SECONDS,
    show_default=f"{SECONDS:g}",
    help="At most, unless the median is known to 1% before.",
)
@click.option("--runs", type=click.IntRange(min=1), metavar="N", help="Count so many runs, whatever time they take.")
@click.option("--mlperf", is_flag=True, help="At least 1024 runs and 60 s: MLPerf's single stream, 90th percentile.")
@click.option("--threads", metavar="N[,N...]", callback=_counts, help="CPU threads.  [default: the cores, 4 at most]")
@click.option(
    "--runtime",
    metavar="NAME[,NAME...]",
    callback=_words,
    default="auto",
    show_default=True,
    help="litert, tflite-runtime, tensorflow or auto.",
)
@click.option(
    "--kernels",
    metavar="NAME[,NAME...]",
    callback=_words,
    default="default",
    show_default=True,
    help="default (the runtime's choice) or builtin (TFLite's own, without XNNPACK).",
)
@click.option(
    "--source",
    metavar="SOURCE",
    default="synthetic",
    show_default=True,
    help="Where the pipeline's frames come from, as for `edgenn run`; none: no pipeline, preprocess and invoke alone.",
)
@click.option(
    "--timeline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What each stage did when (open in ui.perfetto.dev).",
)
@shared.labels
@click.option(
    "--device", metavar="NAME", help="Measure nothing: estimate for pi4, pi5, … or the file of --save-device."
)
@click.option(
    "--save-device",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Describe this board in FILE.toml, for --device.",
)
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A B",
    help="Is B slower than A? Two models, timed in turns; or two files of --out FILE.json, as they are.",
)
@click.option(
    "--fail-over",
    multiple=True,
    metavar="p99=30ms",
    help="Exit 1 when invoke is slower; p50 … p99.9, mean, max; repeatable.",
)
@click.option("--on", metavar="HOST", help="Measure on that device, with its release: [user@]host[:port].")
@shared.inventory
@click.option("--markdown", "as_markdown", is_flag=True, help="Markdown, for pasting into an issue.")
@shared.as_json
@click.option(
    "--out",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write FILE.json, .md, .html or .txt; repeatable.",
)
@shared.overwrite
def command(
    models: tuple[Path, ...],
    seconds: float,
    runs: int | None,
    mlperf: bool,
    threads: list[int] | None,
    runtime: list[str],
    kernels: list[str],
    source: str,
    timeline: Path | None,
    labels: str | None,
    device: str | None,
    save_device: Path | None,
    compare: tuple[Path, Path] | None,
    fail_over: tuple[str, ...],
    on: str | None,
    inventory: Path | None,
    as_markdown: bool,
    as_json: bool,
    out: tuple[Path, ...],
    overwrite: bool,
) -> None:
    """Measure the model on this machine: latency, cold start, stages, operators, memory, energy.

    Several models, threads, runtimes or kernels are timed in turns, so that what disturbs one disturbs all, and each is
    compared with the first. A run that was disturbed (a throttled board, a busy machine, an emulator) says so in its
    first line. docs/profiling.md tells how it is measured and how to cite it.
    """
    _check(models, device, compare, fail_over, source, timeline, as_markdown, as_json)
    if save_device is not None and save_device.suffix != ".toml":
        save_device = save_device.with_name(f"{save_device.name}.toml")
    for path in filter(None, (*out, timeline, save_device)):
        if path.exists() and not overwrite:
            raise click.UsageError(f"{path} exists: choose another name or give --overwrite")
    for path in out:
        if path.suffix not in _SUFFIXES:
            raise click.UsageError(f"--out {path}: its suffix says what to write, one of {', '.join(_SUFFIXES)}")
    if on is not None:
        if compare or device is not None:
            raise click.UsageError("--on measures models there: give neither --compare nor --device")
        _profile_there(on, inventory, models, labels, timeline, save_device, as_json, as_markdown, out)
        return
    if inventory is not None:
        raise click.UsageError("--inventory belongs to --on HOST")
    if compare and ".json" in (compare[0].suffix, compare[1].suffix):
        from edgenn_device.profiler import compare as comparing

        found = comparing.compare(_read(compare[0]), _read(compare[1]))
        _finish({".json": lambda: _json(found.to_dict()), ".txt": found.to_text}, as_json, as_markdown, out)
        return
    if device is not None:
        from edgenn_device.model_file import load
        from edgenn_device.profiler import estimate_report
        from edgenn_device.profiler.estimate import estimate

        model = load(models[0], labels=labels)
        told = estimate(model, device, threads=threads[0] if threads else None)
        named = (told, models[0].name)
        _finish(
            {
                ".json": lambda: _json(estimate_report.to_dict(*named)),
                ".txt": lambda: estimate_report.to_text(*named, width=_width()),
            },
            as_json,
            as_markdown,
            out,
        )
        return

    from edgenn_device.profiler import limits, markdown, page, report, table
    from edgenn_device.profiler.measure import profile
    from edgenn_device.profiler.timeline import Timeline

    allowed = [limits.parse(text) for text in fail_over]
    watched = Timeline() if timeline else None
    person = sys.stderr.isatty()
    try:
        measured = profile(
            compare or models,
            runs=runs,
            seconds=seconds,
            threads=threads,
            runtime=runtime,
            kernels=kernels,
            mlperf=mlperf,
            source=None if source == "none" or compare else source,
            labels=labels,
            timeline=watched,
            progress=(lambda words: _say(f"measuring: {words} ")) if person else None,
        )
    finally:
        if person:
            _say("")
    if timeline is not None and watched is not None:
        _write(timeline, watched.to_json())
    if compare:
        from edgenn_device.profiler import compare as comparing

        found = comparing.compare(*comparing.halves(report.to_dict(measured)))
        _finish({".json": lambda: _json(found.to_dict()), ".txt": found.to_text}, as_json, as_markdown, out)
        return
    forms = {
        ".json": lambda: _json(report.to_dict(measured)),
        ".md": lambda: markdown.to_markdown(measured).rstrip(),
        ".html": lambda: page.to_html(measured),
        ".txt": lambda: table.to_text(measured, _width()),
    }
    _finish(forms, as_json, as_markdown, out)
    if save_device is not None:
        _save_device(save_device, models[0], measured)
    exceeded = limits.exceeded(measured, allowed)
    if exceeded:
        raise AnswerIsNo("; ".join(exceeded))


def _profile_there(
    on: str,
    inventory: Path | None,
    models: tuple[Path, ...],
    labels: str | None,
    timeline: Path | None,
    save_device: Path | None,
    as_json: bool,
    as_markdown: bool,
    out: tuple[Path, ...],
) -> None:
    """The same on a device: what it writes there is written and printed here."""
    from edgenn.deployment.hosts import chosen
    from edgenn.deployment.remote import profile

    hosts = chosen([on], inventory)
    if len(hosts) != 1:
        raise click.UsageError(f"--on measures on one device, and {on} is {len(hosts)}: name one")
    # Everything of the command line that is neither a file of this machine nor about its output.
    given = click.get_current_context()
    passed = [
        word
        for option, name in _PASSED.items()
        if given.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        for word in _as_typed(option, given.params[name])
    ]
    printed = ".json" if as_json else ".md" if as_markdown else ".txt"
    wanted = {f"--out{suffix}": f"report{suffix}" for suffix in {printed, *(path.suffix for path in out)}}
    more = {"--timeline": (timeline, "timeline.json"), "--save-device": (save_device, "device.toml")}
    wanted |= {option: name for option, (path, name) in more.items() if path is not None}
    person = sys.stderr.isatty()
    if person:
        _say(f"measuring on {on} ")
    try:
        profiled = profile(
            hosts[0],
            models,
            passed,
            wanted,
            beside={"--labels": Path(labels)} if labels is not None else None,
            width=_width(),
        )
    finally:
        if person:
            _say("")
    for path, name in more.values():
        if path is not None:
            write_atomically(path, profiled.files[name])
    texts = {name.removeprefix("report"): text.rstrip() for name, text in profiled.files.items() if "report" in name}
    forms: dict[str, Callable[[], str]] = {suffix: partial(str, text) for suffix, text in texts.items()}
    _finish(forms, as_json, as_markdown, out)
    if profiled.refused:
        raise AnswerIsNo(profiled.refused)


# Options that mean the same on a device.
_PASSED = {
    "--seconds": "seconds",
    "--runs": "runs",
    "--mlperf": "mlperf",
    "--threads": "threads",
    "--runtime": "runtime",
    "--kernels": "kernels",
    "--source": "source",
    "--fail-over": "fail_over",
}


def _as_typed(option: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option] if value else []
    if isinstance(value, tuple):
        return [word for each in value for word in (option, str(each))]
    return [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _check(
    models: tuple[Path, ...],
    device: str | None,
    compare: tuple[Path, Path] | None,
    fail_over: tuple[str, ...],
    source: str,
    timeline: Path | None,
    as_markdown: bool,
    as_json: bool,
) -> None:
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown are two formats: choose one")
    if compare and (models or device):
        raise click.UsageError("--compare takes two models or two files of --out FILE.json, and no model beside them")
    if not compare and not models:
        raise click.UsageError("give a MODEL to measure, or --compare with two of them")
    if device is not None and len(models) > 1:
        raise click.UsageError("--device estimates one model at a time")
    if timeline is not None and source == "none":
        raise click.UsageError("--timeline shows the pipeline, and --source none leaves it out")
    if fail_over and (device is not None or compare):
        raise click.UsageError("--fail-over judges a measurement: give a MODEL, and neither --device nor --compare")


def _finish(forms: dict[str, Callable[[], str]], as_json: bool, as_markdown: bool, out: tuple[Path, ...]) -> None:
    """Print one form and write the others to files."""
    for suffix in (*(path.suffix for path in out), *([".md"] if as_markdown else [])):
        if suffix not in forms:
            raise click.UsageError(f"this is written as {' or '.join(forms)}, and not as {suffix}")
    for path in out:
        _write(path, forms[path.suffix]() + "\n")
    text = forms[".json" if as_json else ".md" if as_markdown else ".txt"]()
    if not as_json and not _encodable(text):
        from edgenn_device.profiler import table

        text = table.plain(text)
    click.echo(text)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError):
        raise EdgennError(f"{path} is no JSON: write one with `edgenn profile MODEL --out FILE.json`") from None
    if not isinstance(document, dict):
        raise EdgennError(f"{path} is no profile: write one with `edgenn profile MODEL --out FILE.json`")
    return document


def _save_device(path: Path, model: Path, measured: Profile) -> None:
    from edgenn_device.model_file import load
    from edgenn_device.profiler.estimate import describe_this_board

    first = measured.variants[0]
    described = describe_this_board(
        path.stem,
        load(model),
        first.steady.latencies.percentile(50),
        runtime=first.runtime,
        threads=first.threads,
        kernels=first.kernels,
    )
    _write(path, described)


def _write(path: Path, text: str) -> None:
    # A model's file name that is not UTF-8 reaches us as lone surrogates, which no page can hold.
    write_atomically(path, text.encode("utf-8", "replace"))
    click.echo(f"written: {path}", err=True)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False)


def _width() -> int:
    return min(120, shutil.get_terminal_size((100, 24)).columns)


def _say(words: str) -> None:
    """In the place of what was said before."""
    click.echo(f"\r\033[K{words}", nl=False, err=True)


def _encodable(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
