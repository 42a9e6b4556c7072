"""`edgenn undeploy`: edgenn off devices again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgenn_device.errors import AnswerIsNo

from . import options as shared


@click.command(
    "undeploy",
    epilog="Example: edgenn undeploy pi@raspberrypi.local",
)
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@shared.inventory
@shared.as_json
def command(hosts: tuple[str, ...], inventory: Path | None, as_json: bool) -> None:
    """Stop the service on every HOST, and remove all releases and the units.

    Events, photos and the page's token (/var/lib/edgenn) stay, and so does the user that owns them.
    """
    from edgenn.deployment.connection import Connection
    from edgenn.deployment.hosts import chosen
    from edgenn.deployment.releases import undeploy

    devices = chosen(hosts, inventory)
    answers = undeploy(devices)
    if as_json:
        said = [{"host": one.host, "ok": one.ok, "reason": one.reason, **one.said} for one in answers]
        click.echo(json.dumps({"ok": all(one.ok for one in answers), "hosts": said}, indent=1))
    else:
        for device, one in zip(devices, answers, strict=True):
            kept = one.said.get("kept")
            stays = f"; {kept} stays, to remove it too: {Connection.typed(device)} sudo rm -r {kept}" if kept else ""
            click.echo(f"{one.host}  {one.reason or 'edgenn is gone' + stays}")
    failed = sum(not one.ok for one in answers)
    if failed:
        raise AnswerIsNo(f"{failed} of {len(answers)} devices were not done")
