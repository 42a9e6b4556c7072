"""`edgenn doctor`: a table of what this machine can do, each line that fails with the one to type."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

import click

from edgenn_device.doctor import Check, checks

from . import options as shared

_MARKS = {True: "✓", False: "✗", None: "–"}
_PLAIN_MARKS = {True: "ok", False: "NO", None: "--"}
_COLOURS = {True: "green", False: "red", None: "yellow"}


@click.command(epilog="Example: edgenn doctor")
@shared.as_json
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """What this machine can and cannot do, and the line to type to mend it.

    Exit status 1 when something that is needed does not work; what is only optional (–) does not count.
    """
    found = checks()
    if as_json:
        click.echo(json.dumps({"checks": [asdict(check) for check in found]}, indent=1))
    else:
        width = min(120, shutil.get_terminal_size((100, 24)).columns)
        click.echo(table(found, width, encodable=_encodable(sys.stdout.encoding)))
    if any(check.ok is False for check in found):
        context.exit(1)


def table(found: Sequence[Check], width: int, encodable: bool = True) -> str:
    """One line a check, and under it the line that mends it; words only ASCII when the stream can take no more."""
    marks = _MARKS if encodable else _PLAIN_MARKS
    names = max(len(check.name) for check in found)
    indent = " " * (len(marks[True]) + names + 4)
    lines = []
    for check in found:
        mark = click.style(marks[check.ok], fg=_COLOURS[check.ok], bold=check.ok is False)
        detail = textwrap.wrap(check.detail, max(30, width - len(indent)), break_on_hyphens=False) or [""]
        lines.append(f"{mark}  {check.name:<{names}}  {detail[0]}")
        lines.extend(indent + line for line in detail[1:])
        if check.mend:
            # Never wrapped: it is there to be copied.
            lines.append(f"{indent}{'→' if encodable else '->'} {check.mend}")
    text = "\n".join(lines)
    return text if encodable else text.encode("ascii", "replace").decode()


def _encodable(encoding: str | None) -> bool:
    try:
        "✓✗–→°".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
