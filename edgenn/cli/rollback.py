"""`edgenn rollback`: the release before, on devices that have one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgenn_device.errors import AnswerIsNo

from . import options as shared


@click.command(
    "rollback",
    epilog="Example: edgenn rollback pi@raspberrypi.local",
)
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@shared.inventory
@click.option("--to", metavar="RELEASE", help="One that `edgenn releases` shows.  [default: the last that worked]")
@shared.as_json
def command(hosts: tuple[str, ...], inventory: Path | None, to: str | None, as_json: bool) -> None:
    """Switch every HOST to the newest release before its current one that worked there.

    Like a deploy it has to prove itself again, and a device where it does not stays with what it has.
    """
    from edgenn.deployment.hosts import chosen
    from edgenn.deployment.releases import rollback

    def told(name: str, step: str) -> None:
        click.echo(f"{name}  {step}", err=True)

    answers = rollback(chosen(hosts, inventory), to, told=told)
    if as_json:
        said = [{"host": one.host, "ok": one.ok, "reason": one.reason, **one.said} for one in answers]
        click.echo(json.dumps({"ok": all(one.ok for one in answers), "hosts": said}, indent=1))
    else:
        for one in answers:
            done = f"{one.said.get('from')} → {one.said.get('release')}" if one.ok else one.reason
            click.echo(f"{one.host}  {done}")
    failed = sum(not one.ok for one in answers)
    if failed:
        raise AnswerIsNo(f"{failed} of {len(answers)} devices did not go back")
