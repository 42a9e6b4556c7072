"""`edgenn run`: classify a camera, a video or a folder, live."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from edgenn_device.errors import AnswerIsNo, EdgennError

from . import options as shared


@click.command(
    "run",
    epilog="Example: edgenn run models/garments/garments.tflite --source synthetic --limit 100 --profile",
)
@click.argument("model", type=click.Path(), required=False)
@click.option(
    "--source",
    metavar="SOURCE",
    help="picamera, 0 or /dev/video0, rtsp://…, http://… (MJPEG), a video file, a picture, a folder or glob of "
    "pictures, or synthetic.",
)
@click.option(
    "--sink",
    multiple=True,
    metavar="SINK",
    help="Where results and events go as well: jsonl:PATH, csv:PATH, sqlite:PATH, mqtt://HOST, https://… (webhook), "
    "prometheus:PORT, video:DIR; repeatable.",
)
@click.option(
    "--web",
    is_flag=False,
    flag_value="127.0.0.1:8080",
    metavar="[HOST:PORT]",
    help="Serve a live page, at 127.0.0.1:8080 unless told otherwise; elsewhere with a token.",
)
@click.option("--web-token-file", type=click.Path(), metavar="FILE", help="Holds the live page's token.")
@click.option(
    "--keep-uncertain", type=click.Path(), metavar="DIR", help="Keep frames that the model is unsure of, for labelling."
)
@click.option("--config", type=click.Path(), metavar="FILE", help="A TOML file with these options; those here win.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N frames.")
@click.option("--fast", is_flag=True, help="A video (or synthetic) as fast as possible, every frame; not at its pace.")
@click.option("--roi", metavar="X,Y,W,H", help="Look at a part of the picture only, in fractions of it (0 to 1).")
@click.option(
    "--rotate",
    type=click.Choice(["0", "90", "180", "270"]),
    help="Degrees to turn the picture clockwise.  [default: 0]",
)
@click.option(
    "--flip",
    type=click.Choice(["none", "horizontal", "vertical", "both"]),
    help="Mirror the picture.  [default: none]",
)
@click.option("--size", metavar="WIDTHxHEIGHT", help="Pixels to ask a USB camera or picamera for.")
@click.option("--exposure", metavar="SECONDS", help="Exposure of a USB camera or picamera, such as 1/100.")
@click.option(
    "--motion-gate/--no-motion-gate",
    default=None,
    help="Ask the network only when the scene has changed; by default for cameras.",
)
@shared.labels
@click.option("--delegate", metavar="DELEGATE", help="usb, pci or :N (Edge TPU), a delegate's library, or cpu.")
@click.option("--threads", type=shared.PARALLEL, metavar="N", help="CPU threads.  [default: the cores, 4 at most]")
@click.option(
    "--runtime",
    type=click.Choice(shared.RUNTIMES),
    help="What executes the model.  [default: auto]",
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Labels for each result.  [default: 3]")
@click.option("--name", metavar="NAME", help="What this device is called.  [default: its host name]")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON document a frame on stdout, and a last one with the summary."
)
@click.option("--profile", is_flag=True, help="At the end, p50, p90 and p99 of every stage, sink and frame's age.")
@click.option(
    "--timeline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What each stage did when (open in ui.perfetto.dev).",
)
def command(config: str | None, as_json: bool, profile: bool, timeline: Path | None, fast: bool, **given: Any) -> None:
    """Classify what SOURCE shows with MODEL (a .tflite), frame by frame, until it ends or Ctrl-C.

    Of a camera the newest frame is classified and stale ones are dropped; the label is an average over time. Every
    picture of a folder is classified by itself. Results go to stdout, the summary to stderr.
    """
    from edgenn_device.options import Options

    given["sink"] = given["sink"] or None
    given["rotate"] = given["rotate"] and int(given["rotate"])
    given["fast"] = fast or None
    options = Options.load(config, given) if config else Options.of(given)
    if timeline is not None and timeline.exists():
        raise click.UsageError(f"{timeline} exists: choose another name")

    from edgenn_device.runner import Run
    from edgenn_device.sinks import JsonLines, Terminal

    watched = None
    if timeline is not None:
        from edgenn_device.profiler.timeline import Timeline

        watched = Timeline()
    out = (JsonLines if as_json else Terminal)(sys.stdout)
    run = Run(options, out, profile=profile, timeline=watched, say=lambda line: click.echo(line, err=True))
    try:
        run.go()
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`). Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        if run.pipeline.opened:
            click.echo(run.text(), err=True)
            if timeline and watched:
                from edgenn_device.files import write_atomically

                write_atomically(timeline, watched.to_json())
                click.echo(f"written: {timeline} (open it in ui.perfetto.dev)", err=True)
    if run.pipeline.bad and not run.pipeline.frames:
        raise EdgennError(f"{run.pipeline.source.name}: none of its {run.pipeline.bad} pictures can be read")
    # Whoever stops a service has to live with a broker that is away.
    if not run.stopped and (unwritten := run.unwritten()):
        raise AnswerIsNo(f"not all was written to {' and '.join(unwritten)}: mend that and run it again")
