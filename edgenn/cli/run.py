"""`edgenn run`: classify a camera, a video or a folder, live."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically

if TYPE_CHECKING:
    from edgenn_device.pipeline import Summary
    from edgenn_device.profiler import Histogram

_PERCENTILES = (50, 90, 99)


@click.command(
    "run",
    short_help="Classify a camera, a video or a folder, live.",
    epilog="Example: edgenn run models/garments/garments.tflite --source synthetic --limit 100 --profile",
)
@click.argument("model", type=click.Path())
@click.option(
    "--source",
    required=True,
    metavar="SOURCE",
    help="picamera, 0 or /dev/video0, rtsp://…, http://… (MJPEG), a video file, a picture, a folder or glob of "
    "pictures, or synthetic.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N frames.")
@click.option("--fast", is_flag=True, help="A video (or synthetic) as fast as possible, every frame; not at its pace.")
@click.option("--labels", type=click.Path(), help="A file with one label a line, for a model that carries none.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads of the interpreter.")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "litert", "tflite-runtime", "tensorflow"]),
    default="auto",
    show_default=True,
    help="What executes the model.",
)
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, metavar="K", help="Labels per result.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document per frame, and a last one with the summary.")
@click.option("--profile", is_flag=True, help="At the end, p50, p90 and p99 of every stage, sink and frame's age.")
@click.option(
    "--timeline", type=click.Path(path_type=Path), metavar="FILE", help="What each stage did when, for Perfetto."
)
def command(
    model: str,
    source: str,
    limit: int | None,
    fast: bool,
    labels: str | None,
    threads: int | None,
    runtime: str,
    top: int,
    as_json: bool,
    profile: bool,
    timeline: Path | None,
) -> None:
    """Classify what SOURCE shows with MODEL (a .tflite), frame by frame, until it ends or Ctrl-C.

    Of a camera the newest frame is classified and stale ones are dropped; the label is an average over time. Every
    picture of a folder is classified by itself. Results go to stdout, the summary to stderr.
    """
    from edgenn_device.cameras import open_source
    from edgenn_device.classifier import Classifier
    from edgenn_device.pipeline import Pipeline
    from edgenn_device.profiler.stages import Stopwatch
    from edgenn_device.profiler.timeline import Timeline
    from edgenn_device.sinks import JsonLines, Terminal

    classifier = Classifier(model, labels=labels, runtime=runtime, threads=threads)
    if timeline is not None and timeline.exists():
        raise click.UsageError(f"{timeline} exists: choose another name")
    opened = open_source(source, fast=fast, input=classifier.model.input)
    watched = Timeline() if timeline else None
    if watched:
        pipeline = Pipeline(watched.source(opened), watched.classifier(classifier), top_k=top)
    else:
        pipeline = Pipeline(opened, classifier, top_k=top)
    stopwatch = Stopwatch(watched)
    sink = (JsonLines if as_json else Terminal)(sys.stdout)
    try:
        with sink:
            try:
                with closing(pipeline.results(limit)) as results:
                    for result in results:
                        stopwatch.write(result, [sink])
            finally:
                # Also after Ctrl-C, or when the source failed half-way: what was done is told.
                if pipeline.opened:
                    sink.finish(_figures(pipeline.summary(), stopwatch.named() if profile else {}))
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`). Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        if pipeline.opened:
            told = _text(pipeline.summary(), stopwatch.named() if profile else {}, classifier.interpreter.description)
            click.echo(told, err=True)
            if timeline and watched:
                write_atomically(timeline, watched.to_json())
                click.echo(f"written: {timeline} (open it in ui.perfetto.dev)", err=True)
    if pipeline.bad and not pipeline.frames:
        raise EdgennError(f"{source}: none of its {pipeline.bad} pictures can be read")


def _figures(summary: Summary, histograms: dict[str, Histogram]) -> dict[str, Any]:
    """The summary as --json gives it."""
    figures: dict[str, Any] = {
        "frames": summary.frames,
        "dropped": summary.dropped,
        "bad": summary.bad,
        "fps": round(summary.fps, 2),
        "seconds": round(summary.seconds, 3),
    }
    if histograms:
        figures["stages"] = {
            stage: {f"p{p}_ms": round(histogram.percentile(p) * 1000, 3) for p in _PERCENTILES}
            for stage, histogram in histograms.items()
        }
    return figures


def _text(summary: Summary, histograms: dict[str, Histogram], runtime: str) -> str:
    """The summary as a person reads it."""
    unreadable = f", {summary.bad} unreadable" if summary.bad else ""
    lines = [
        f"{summary.frames} frames in {summary.seconds:.1f} s, {summary.fps:.1f} fps, {summary.dropped} dropped"
        f"{unreadable} ({runtime})"
    ]
    if histograms and summary.frames:
        width = max(map(len, histograms))
        lines.append("".join([f"{'stage':<{width}}", *(f"{f'p{p} ms':>11}" for p in _PERCENTILES)]))
        for stage, histogram in histograms.items():
            figures = (f"{histogram.percentile(p) * 1000:11.3f}" for p in _PERCENTILES)
            lines.append("".join([f"{stage:<{width}}", *figures]))
    return "\n".join(lines)
