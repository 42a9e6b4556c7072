"""`edgenn logs`: what the services of devices write, theirs together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edgenn_device.errors import AnswerIsNo

from . import options as shared

# Told apart at a glance; in the order in which terminals show them well on both grounds.
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")


@click.command(
    "logs",
    epilog="Example: edgenn logs -f pi@porch.local pi@gate.local",
)
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@shared.inventory
@click.option("-f", "--follow", is_flag=True, help="Go on with what is being written, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    metavar="N",
    default=100,
    show_default=True,
    help="Of the past, of each.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line on stdout: host, time, text.")
def command(hosts: tuple[str, ...], inventory: Path | None, follow: bool, lines: int, as_json: bool) -> None:
    """Show the journal of each device's service, by time (UTC), the device's name before each line.

    HOST is [user@]host[:port], or with --inventory the name of a host or group; none means all of the inventory.
    """
    from edgenn.deployment.hosts import chosen
    from edgenn.deployment.remote import journal

    devices = chosen(hosts, inventory)
    width = max(len(one.name) for one in devices)
    colours = {one.name: _COLOURS[index % len(_COLOURS)] for index, one in enumerate(devices)}
    silent = []
    for entry in journal(devices, lines=lines, follow=follow):
        if not entry.time:
            silent.append(entry.host)
        if as_json:
            click.echo(json.dumps({"host": entry.host, "time": entry.time or None, "text": entry.text}))
        elif entry.time:
            prefix = click.style(entry.host.ljust(width), fg=colours[entry.host])
            click.echo(f"{prefix}  {entry.time[:10]} {entry.time[11:23]}  {entry.text}")
        else:
            click.echo(f"{entry.host.ljust(width)}  {entry.text}", err=True)
        if follow:
            sys.stdout.flush()
    if silent:
        raise AnswerIsNo(f"the journal of {', '.join(dict.fromkeys(silent))} could not be read")
