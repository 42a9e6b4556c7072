"""`edgenn releases`: what was deployed to devices, and what became of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgenn_device.errors import AnswerIsNo

from . import options as shared

_WORDS = {"proved": "worked", "failed": "taken back", "new": "never run"}


@click.command(
    "releases",
    epilog="Example: edgenn releases pi@raspberrypi.local",
)
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@shared.inventory
@shared.as_json
def command(hosts: tuple[str, ...], inventory: Path | None, as_json: bool) -> None:
    """Show the releases that every HOST keeps, the newest first; → is the one it runs."""
    from edgenn.deployment.hosts import chosen
    from edgenn.deployment.releases import releases

    answers = releases(chosen(hosts, inventory))
    if as_json:
        said = [{"host": one.host, "ok": one.ok, "reason": one.reason, **one.said} for one in answers]
        click.echo(json.dumps({"hosts": said}, indent=1))
    else:
        for one in answers:
            click.echo(click.style(one.host, bold=True))
            for release in one.said.get("releases", []):
                click.echo(_row(release))
            if one.reason:
                click.echo(f"   {one.reason}")
    missing = sum(not one.ok for one in answers)
    if missing:
        raise AnswerIsNo(f"{missing} of {len(answers)} devices did not say")


def _row(release: Mapping[str, Any]) -> str:
    mark = "→" if release["current"] else " "
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(release.get("created", 0)))
    word = _WORDS.get(str(release["state"]), str(release["state"]))
    why = f": {release['reason']}" if release.get("reason") else ""
    return f" {mark} {release['id']}  {created}  {release.get('model', '?')}  {word}{why}"
