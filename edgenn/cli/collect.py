"""`edgenn collect`: pictures for the next training, of one class from a camera, or those that devices have kept."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgenn_device.errors import AnswerIsNo

from . import options as shared

if TYPE_CHECKING:
    from edgenn_device.collect import Collected, Step


@click.command(
    "collect",
    epilog="Example: edgenn collect --source 0 --label shirt --out photos --count 50; "
    "edgenn collect --from pi@porch.local --out unsure",
)
@click.argument("more", metavar="[HOST]...", nargs=-1)
@click.option(
    "--from",
    "devices",
    multiple=True,
    metavar="HOST...",
    help="Bring home the frames of which these devices were unsure: [user@]host[:port], or names of --inventory.",
)
@shared.inventory
@click.option("--remove", is_flag=True, help="With --from: remove from the device what has come home.")
@click.option(
    "--source",
    metavar="SOURCE",
    help="picamera, 0 or /dev/video0, rtsp://…, http://… (MJPEG), a video file, a picture, a folder or glob of "
    "pictures, or synthetic.",
)
@click.option("--label", metavar="NAME", help="The class: the folder below DIR that the pictures go into.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="What `edgenn train` reads.")
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="Pictures.")
@click.option(
    "--every", type=shared.NumberRange(min=0), default=0.5, show_default=True, metavar="SECONDS", help="Between two."
)
@shared.as_json
def command(
    more: tuple[str, ...],
    devices: tuple[str, ...],
    inventory: Path | None,
    remove: bool,
    source: str | None,
    label: str | None,
    out: Path,
    count: int,
    every: float,
    as_json: bool,
) -> None:
    """Take N pictures of what SOURCE shows into DIR/LABEL: turn the thing, move it, change the light.

    A picture that looks like one that is there already is left out. Ctrl-C ends it; what was taken stays.

    With --from, bring the frames that devices have kept (keep-uncertain in run.toml) to DIR/unlabelled, and those that
    were labelled there to DIR/LABEL. None comes twice; the same command goes on where it was.
    """
    if devices or inventory is not None:
        if source is not None or label is not None:
            raise click.UsageError("--from brings frames from devices: give neither --source nor --label")
        _from_devices((*devices, *more), inventory, remove, out, as_json)
        return
    if more or remove:
        raise click.UsageError("HOST and --remove belong to --from HOST")
    if source is None or label is None:
        raise click.UsageError("give --source and --label, or --from HOST")
    from edgenn_device.cameras import open_source
    from edgenn_device.collect import collect

    progress = _Progress(count)
    try:
        # A video as fast as it can be read: its own time decides which frames are taken.
        collected = collect(
            open_source(source, fast=source != "synthetic"),
            label,
            out,
            count=count,
            every=every,
            report=progress.report,
        )
    except KeyboardInterrupt:
        progress.end()
        click.echo(f"{progress.taken} pictures in {click.format_filename(out / label)}", err=True)
        raise
    progress.end()
    click.echo(_json(collected) if as_json else _text(collected))
    if collected.still:
        raise AnswerIsNo(
            f"{collected.pictures} of {count} pictures taken: nothing has moved before the camera for a minute"
        )


def _from_devices(names: tuple[str, ...], inventory: Path | None, remove: bool, out: Path, as_json: bool) -> None:
    from edgenn.deployment.frames import bring
    from edgenn.deployment.hosts import chosen

    terminal = sys.stderr.isatty()

    def told(host: str, done: int, total: int) -> None:
        if terminal:
            click.echo(f"\r\x1b[K{host}: {done} of {total}", nl=False, err=True)

    brought = bring(chosen(names, inventory), out, remove=remove, told=told)
    if terminal:
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        click.echo(json.dumps({"folder": str(out), "devices": [vars(one) for one in brought]}))
    else:
        width = max(len(one.host) for one in brought)
        for one in brought:
            parts = [f"{one.frames} new"]
            parts += [f"{number} {word}" for word in ("known", "refused", "removed") if (number := getattr(one, word))]
            click.echo(f"{one.host.ljust(width)}  {', '.join(parts)}{f'; {one.reason}' if one.reason else ''}")
        click.echo(f"{sum(one.frames for one in brought)} frames: {click.format_filename(out)}")
    unwell = [one.host for one in brought if not one.ok]
    if unwell:
        raise AnswerIsNo(f"not everything came from {', '.join(unwell)}")


def _json(collected: Collected) -> str:
    return json.dumps(
        {
            "folder": str(collected.folder),
            "pictures": collected.pictures,
            "alike": collected.alike,
            "unreadable": collected.unreadable,
            "seconds": round(collected.seconds, 3),
        }
    )


def _text(collected: Collected) -> str:
    parts = [f"{collected.pictures} pictures"]
    if collected.alike:
        parts.append(f"{collected.alike} left out as too alike")
    if collected.unreadable:
        parts.append(f"{collected.unreadable} unreadable")
    return f"{', '.join(parts)}: {click.format_filename(collected.folder)}"


class _Progress:
    """What a person reads meanwhile, on stderr: on a terminal one line that changes, elsewhere what is news."""

    def __init__(self, count: int) -> None:
        self.taken = 0
        self._count = count
        self._terminal = sys.stderr.isatty()
        self._said = ""
        self._told_at = 0.0

    def report(self, step: Step, value: float) -> None:
        if step == "countdown":
            self._say(f"the first picture in {value:.0f} s: show the thing", news=not self._said)
        elif step == "taken":
            self.taken = int(value)
            self._say(f"{self.taken} of {self._count}", news=False)
        else:
            now = time.monotonic()
            news = not self._terminal and now - self._told_at > 10
            self._told_at = now if news else self._told_at
            self._say(f"{self.taken} of {self._count}: nothing moves; turn the thing, or move the camera", news=news)

    def end(self) -> None:
        if self._terminal and self._said:
            click.echo("\r\x1b[K", nl=False, err=True)

    def _say(self, text: str, news: bool) -> None:
        if self._terminal and text != self._said:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)
        elif news:
            click.echo(text, err=True)
        self._said = text
