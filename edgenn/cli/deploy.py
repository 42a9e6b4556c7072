"""`edgenn deploy`: a model to its devices, and a table of what became of each."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgenn_device.errors import AnswerIsNo

from . import options as shared

if TYPE_CHECKING:
    from edgenn.deployment.deploy import Deployed

_HEADINGS = ("HOST", "RELEASE", "CHANGED", "SENT", "SECONDS")


@click.command(
    "deploy",
    epilog="Example: edgenn deploy runs/first/model.tflite pi@raspberrypi.local --source picamera",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@shared.inventory
@click.option("--source", metavar="SOURCE", help="What the devices look at, as for `edgenn run`.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Options of `edgenn run` for the devices (docs/run.toml).  [default: those that each has]",
)
@click.option("--sign", type=click.Path(path_type=Path), metavar="KEY", help="Sign the model, see `edgenn sign`.")
@click.option("--offline", is_flag=True, help="No device reaches out: everything is carried over from here.")
@click.option(
    "--canary", default="0", metavar="N|N%", help="Deploy to so many first, and to the rest only if these hold it."
)
@click.option("--max-failures", default="0", metavar="N|N%", help="Go on while no more than so many have failed.")
@click.option(
    "--within",
    type=shared.NumberRange(min=1),
    default=60,
    metavar="SECONDS",
    help="In which a release has to prove itself there.",
    show_default=True,
)
@shared.as_json
def command(
    model: Path,
    hosts: tuple[str, ...],
    inventory: Path | None,
    source: str | None,
    config: Path | None,
    sign: Path | None,
    offline: bool,
    canary: str,
    max_failures: str,
    within: float,
    as_json: bool,
) -> None:
    """Bring MODEL, edgenn and all that it needs to every HOST, and switch to it.

    HOST is [user@]host[:port], or with --inventory the name of a host or group; none means all of the inventory. A
    device takes the release back when its golden vectors do not match, no frame is classified or health is not ok
    within a time. What is there already is not sent again, and a new model alone is taken without a restart.
    """
    from edgenn.deployment.deploy import deploy
    from edgenn.deployment.hosts import chosen

    began = time.monotonic()

    def told(name: str, step: str) -> None:
        click.echo(f"{time.monotonic() - began:6.1f} s  {name + '  ' if name else ''}{step}", err=True)

    devices = chosen(hosts, inventory)
    try:
        results = deploy(
            model,
            devices,
            config=config,
            source=source,
            sign=sign,
            offline=offline,
            canary=canary,
            max_failures=max_failures,
            within=within,
            told=told,
        )
    except KeyboardInterrupt:
        which = f"--inventory {inventory}" if inventory else " ".join(one.name for one in devices)
        click.echo(f"\na device that was about to switch finishes that by itself: edgenn status {which}", err=True)
        raise
    failed = [one for one in results if not one.ok]
    if as_json:
        said = [asdict(one) | {"steps": dict(one.steps), "health": one.health} for one in results]
        click.echo(json.dumps({"ok": not failed, "hosts": said}, indent=1))
    else:
        click.echo(_table(results))
    if failed:
        raise AnswerIsNo(f"{len(failed)} of {len(results)} devices {'does' if len(failed) == 1 else 'do'} not run it")


def _table(results: Sequence[Deployed]) -> str:
    """A row a device, and under each that has not got it why not."""
    cells = [_cells(one) for one in results]
    widths = [max(len(row[i]) for row in (_HEADINGS, *cells)) for i in range(len(_HEADINGS))]
    lines = [click.style(_line(_HEADINGS, widths), dim=True)]
    for one, row in zip(results, cells, strict=True):
        lines.append(_line(row, widths) if one.ok else click.style(_line(row, widths), fg="red"))
        if one.reason:
            lines.append(f"{'':{widths[0]}}  {_because(one)}")
    return "\n".join(lines)


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    numbers = ("SENT", "SECONDS")
    padded = [
        text.rjust(width) if heading in numbers else text.ljust(width)
        for text, width, heading in zip(texts, widths, _HEADINGS, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _cells(one: Deployed) -> tuple[str, ...]:
    changed = one.changed if one.ok else "unreachable" if not one.reached else "taken back" if one.steps else "refused"
    sent = "–" if not one.sent else f"{one.sent / 1e6:.1f} MB" if one.sent >= 1e5 else f"{one.sent / 1e3:.0f} kB"
    return one.host, one.release or "–", changed, sent, f"{one.seconds:.1f}"


def _because(one: Deployed) -> str:
    reason = one.reason.removeprefix(f"{one.host}: ")
    # Only what a switch took back says whether the one before runs again.
    if one.restored is None:
        return reason
    again = "runs again" if one.restored else f"was put back and does not answer: edgenn logs {one.host}"
    return f"{reason} (the release before {again})"
