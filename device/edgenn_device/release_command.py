"""The command by which releases are asked for and changed on the device: `python3 -I /opt/edgenn/releases.pyz VERB`.

One JSON document on stdout, whatever happens. It holds off every other process that changes releases, and mends what an
interrupted one left before it builds upon it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import syslog
from pathlib import Path
from typing import Any

from .errors import EdgennError
from .release_files import Places
from .release_prune import prune
from .releases import ID, WITHIN, Releases

# Of its lines in the journal, by which `edgenn logs` finds them.
IDENTIFIER = "edgenn-releases"


def main(argv: list[str] | None = None) -> int:
    """The command line: one JSON document on stdout; exit status 1 when the answer is no, 2 when it cannot be done."""
    parser = argparse.ArgumentParser(prog="releases", description="Releases of edgenn on this device.")
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--within", type=float, default=WITHIN, metavar="SECONDS")
    parser.add_argument("verb", choices=("facts", "list", "deploy", "switch", "rollback", "recover", "prune", "remove"))
    parser.add_argument("id", nargs="?")
    given = parser.parse_args(argv)
    releases = Releases(Places(given.root))
    before = releases.current
    try:
        said = _answer(releases, given.verb, given.id, given.within)
    except (EdgennError, OSError) as error:
        said = {"ok": False, "error": str(error)}
    line = journal_line(given.verb, given.id, before, said)
    if line and given.root == Path("/"):
        syslog.openlog(IDENTIFIER, syslog.LOG_PID)
        syslog.syslog(syslog.LOG_NOTICE if said.get("ok", True) else syslog.LOG_WARNING, line)
    try:
        print(json.dumps(said), flush=True)
    except OSError:
        # Whoever asked has gone. Python would fail once more while flushing at exit, which is no failure of the switch.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2 if "error" in said else 1 if said.get("ok") is False else 0


def journal_line(verb: str, id: str | None, before: str | None, said: dict[str, Any]) -> str:
    """What the journal is to say of it: whoever asked may be gone, and others look there. "" where nothing changed.

    Args:
      verb, id: as on the command line.
      before: the release that was current.
      said: the answer.
    """
    now = said.get("release")
    if verb in ("facts", "list", "prune"):
        return ""
    if "error" in said:
        return f"{verb} was refused: {said['error']}"
    if verb == "remove":
        return "removed: service and releases"
    if verb == "recover":
        return (
            f"release {said['from']} was not taken: {said['reason']}; {now or 'nothing'} runs"
            if said["from"]
            else str(said["reason"])
        )
    if not said["ok"]:
        restored = said.get("restored")
        after = "goes on" if restored is None else "is back" if restored else "is back, and not well either"
        return f"release {id or 'before'} was not taken: {said['reason']}; {now or 'nothing'} {after}"
    if verb == "rollback":
        return f"gone back to release {now} from {before}"
    return f"release {now} runs now, after {before or 'none'} ({said['changed']} changed)"


def _answer(releases: Releases, verb: str, id: str | None, within: float) -> dict[str, Any]:
    if verb == "facts":
        from .release_facts import facts

        return facts(releases)
    if verb == "list":
        return releases.list()
    with releases.changing():
        if releases.places.intent.exists() and verb != "recover":
            # A switch that was ended: nothing is built upon what it left.
            releases.recover()
        if verb == "deploy":
            from .release_install import install

            id, steps = install(releases, _named(id))
            said = releases.switch(id, within)
            prune(releases)
            return {**said, "steps": {**steps, **said["steps"]}}
        if verb == "switch":
            return releases.switch(_named(id), within)
        if verb == "rollback":
            return releases.rollback(id, within)
        if verb == "recover":
            return releases.recover()
        if verb == "prune":
            return {"removed": prune(releases)}
        from .release_install import remove

        return remove(releases)


def _named(id: str | None) -> str:
    if id is None or not ID.fullmatch(id):
        raise EdgennError("which release? its id is needed, such as 20261122-153012-3f2a9c1b")
    return id
