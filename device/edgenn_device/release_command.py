"""The command by which releases are asked for and changed on the device: `python3 -I /opt/edgenn/releases.pyz VERB`.

One JSON document on stdout, whatever happens. It holds off every other process that changes releases, and mends what an
interrupted one left before it builds upon it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from .errors import EdgennError
from .release_files import Places
from .release_prune import prune
from .releases import ID, WITHIN, Releases


def main(argv: list[str] | None = None) -> int:
    """The command line: one JSON document on stdout; exit status 1 when the answer is no, 2 when it cannot be done."""
    parser = argparse.ArgumentParser(prog="releases", description="Releases of edgenn on this device.")
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--within", type=float, default=WITHIN, metavar="SECONDS")
    parser.add_argument("verb", choices=("facts", "list", "deploy", "switch", "rollback", "recover", "prune", "remove"))
    parser.add_argument("id", nargs="?")
    given = parser.parse_args(argv)
    releases = Releases(Places(given.root))
    try:
        said = _answer(releases, given.verb, given.id, given.within)
    except (EdgennError, OSError) as error:
        said = {"ok": False, "error": str(error)}
    try:
        print(json.dumps(said), flush=True)
    except OSError:
        # Whoever asked has gone. Python would fail once more while flushing at exit, which is no failure of the switch.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2 if "error" in said else 1 if said.get("ok") is False else 0


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
