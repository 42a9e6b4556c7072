"""`edgenn status`: what an operator looks at each morning."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgenn_device.errors import AnswerIsNo

from . import options as shared

if TYPE_CHECKING:
    from edgenn.deployment.status import Status

_COLOURS = {"failed": "red", "unreachable": "red", "empty": "magenta", "degraded": "yellow", "starting": "cyan"}
# Seconds between two looks: each is a login on every device.
_EVERY = 5.0
_HEADINGS = ("HOST", "STATE", "RELEASE", "FPS", "P90", "TEMP", "LABEL")
_NUMBERS = ("FPS", "P90", "TEMP")


@click.command(
    "status",
    epilog="Example: edgenn status --inventory pis.toml",
)
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@shared.inventory
@click.option("--watch", is_flag=True, help="Look again every few seconds, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; with --watch one a look.")
def command(hosts: tuple[str, ...], inventory: Path | None, watch: bool, as_json: bool) -> None:
    """Show every device in a row, the worst first; exit 1 if one of them is not well.

    HOST is [user@]host[:port], or with --inventory the name of a host or group; none means all of the inventory.
    """
    from edgenn.deployment import status as asking
    from edgenn.deployment.hosts import chosen

    devices = chosen(hosts, inventory)
    while True:
        began = time.monotonic()
        rows = asking.status(devices)
        if as_json:
            click.echo(asking.to_json(rows))
        elif watch and sys.stdout.isatty():
            # Home, the table with every line's rest erased, and what is left of a longer one below: nothing flickers.
            text = _table(rows).replace("\n", "\x1b[K\n")
            click.echo(f"\x1b[H{text}\x1b[K\n{time.strftime('%H:%M:%S')}, Ctrl-C ends\x1b[J", nl=False)
        else:
            click.echo(_table(rows))
        if not watch:
            break
        time.sleep(max(0.0, _EVERY - (time.monotonic() - began)))
    unwell = sum(row.state != "ok" for row in rows)
    if unwell:
        raise AnswerIsNo(f"{unwell} of {len(rows)} devices {'is' if unwell == 1 else 'are'} not well")


def _table(rows: Sequence[Status]) -> str:
    """The rows, under each that is not well its reasons, and a line that sums up."""
    from edgenn.deployment.status import HOT, summary

    cells = [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in (_HEADINGS, *cells)) for i in range(len(_HEADINGS))]

    def line(texts: Sequence[str]) -> list[str]:
        return [
            text.rjust(width) if heading in _NUMBERS else text.ljust(width)
            for text, width, heading in zip(texts, widths, _HEADINGS, strict=True)
        ]

    lines = [click.style("  ".join(line(_HEADINGS)).rstrip(), dim=True)]
    for row, texts in zip(rows, cells, strict=True):
        padded = line(texts)
        padded[1] = click.style(padded[1], fg=_COLOURS.get(row.state, "green"), bold=row.state == "failed")
        if row.temperature_c is not None and row.temperature_c >= HOT:
            padded[5] = click.style(padded[5], fg="yellow")
        lines.append("  ".join(padded).rstrip())
        lines += [f"{'':{widths[0]}}  {reason}" for reason in row.reasons]
    return "\n".join([*lines, "", summary(rows)])


def _cells(row: Status) -> tuple[str, ...]:
    sure = "" if row.confidence is None else f" {row.confidence:.0%}"
    return (
        row.host,
        row.state,
        row.release or "–",
        "–" if row.fps is None else f"{row.fps:.1f}",
        "–" if row.p90_ms is None else f"{row.p90_ms:.1f} ms",
        "–" if row.temperature_c is None else f"{row.temperature_c:.0f} °C",
        "–" if row.label is None else f"{row.label[:30]}{sure}",
    )
