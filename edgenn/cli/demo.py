"""`edgenn demo`: the whole road on drawn garments."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgenn.demo.watcher import Step, Watcher

from . import options as shared

if TYPE_CHECKING:
    from edgenn.demo.outcome import Demo

_ERASE = "\r\033[K"


@click.command(
    epilog="""\b
Examples:
  edgenn demo
  edgenn demo --out /tmp/demo --seed 7 --overwrite"""
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("demo"),
    show_default=True,
    help="Folder for photos, run, model, video and report; it must not exist yet.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), metavar="N", default=0, show_default=True, help="Other garments."
)
@shared.overwrite
@shared.as_json
def command(out: Path, seed: int, overwrite: bool, as_json: bool) -> None:
    """Draw garments, train on them, quantize to int8, classify a video as a camera feed, and write a report.

    Needs no download and no camera, and takes two minutes on two cores.
    """
    from edgenn.conversion.converter import check_passed
    from edgenn.demo.road import demo

    result = demo(out, seed=seed, overwrite=overwrite, watcher=_Screen())
    click.echo(json.dumps(result.to_dict()) if as_json else _text(result))
    check_passed(result.conversion)


class _Screen(Watcher):
    """A line on stderr for each step when it has ended; on a terminal also how far the present one is."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._head = ""
        self._shown = ""

    def begin(self, number: int, steps: int, name: str) -> None:
        self._head = f"{number}/{steps} {name:<18}"
        self._show(self._head)

    def advance(self, share: float, detail: str = "") -> None:
        words = detail or f"{share:.0%}"
        self._show(f"{self._head} {words}"[:78])

    def end(self, step: Step) -> None:
        click.echo(f"{_ERASE if self._tty else ''}{self._head} {step.seconds:6.1f} s   {step.result}", err=True)
        self._shown = ""

    def _show(self, line: str) -> None:
        if self._tty and line != self._shown:
            self._shown = line
            click.echo(f"{_ERASE}{line}", nl=False, err=True)


def _text(demo: Demo) -> str:
    """The table at the end."""
    test, conversion, feed = demo.int8_test, demo.conversion, demo.feed
    named = sum(shown.label == shown.truth for shown in feed.shown)
    rows = [
        ("", "float32", "int8"),
        ("accuracy, unseen photos", f"{demo.float_test.accuracy:.1%}", f"{test.accuracy:.1%}"),
        ("same label as float", "", f"{conversion.agreement:.1%}"),
        ("size", f"{conversion.float_bytes / 1000:,.0f} kB", f"{conversion.bytes / 1000:,.0f} kB"),
        ("invoke, median", "", f"{demo.profile.steady.latencies.percentile(50) * 1e3:.2f} ms"),
    ]
    lines = [f"{name:<26}{left:>12}{right:>12}" for name, left, right in rows]
    lines += ["", f"{'camera feed, ms':<26}{'p50':>12}{'p90':>12}{'p99':>12}"]
    for name, spent in {**feed.stages, "whole frame": feed.latency}.items():
        figures = "".join(f"{spent.percentile(p) * 1e3:12.3f}" for p in (50, 90, 99))
        lines.append(f"  {name:<24}{figures}")
    lines += [
        f"{feed.summary.frames} frames at {feed.summary.fps:.1f} a second, {feed.summary.dropped} dropped; "
        f"{feed.right:.1%} with the right label, {named} of {len(feed.shown)} garments named",
        "",
        f"written to {demo.out} in {demo.seconds:.0f} s; open {demo.report}",
        f"next: edgenn run {demo.model} --source synthetic",
    ]
    return "\n".join(lines)
