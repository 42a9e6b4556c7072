"""Sent to a device and run there: what is deployed, what systemd says of the service, and its health document.

Only the standard library of Python 3.11, because it also runs where nothing was ever deployed. It reads, and changes
nothing. What it prints is judged by `status`, which takes it for a stranger's word.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Seconds for the health document; the service answers in milliseconds unless its interpreter holds Python's lock.
_PATIENCE = 5.0
_LIMIT = 256 * 1024
# systemd's own names of two messages (sd-messages.h): a unit's process exited, and a unit has failed.
_EXITED = "98e322203f7a4ed290d09fe03c09fe15"
_FAILED = "d9b373ed55a64feb8242e02dbe79a49c"


def probe(root: Path) -> dict[str, Any]:
    """One JSON-able document: what is deployed, and how it is.

    Its keys: release, proved, refused (id and reason of a newer release that was not taken), unit, ended (when and how,
    if systemd has started the service again), health, last (the journal's last lines of a unit that does not answer).

    Args:
      root: "/"; another one in tests.
    """
    current = root / "opt/edgenn/current"
    try:
        release: str | None = current.readlink().name
    except OSError:
        release = None
    unit = _unit()
    health = _health(root / "run/edgenn/health.sock")
    return {
        "release": release,
        "proved": (current / "proved.json").exists(),
        "refused": _refused(root / "opt/edgenn/releases", release),
        "unit": unit,
        "ended": _ended() if unit.get("NRestarts", "0") != "0" else None,
        "health": health,
        "last": [] if health else _journal(),
    }


def _unit() -> dict[str, str]:
    asked = "--property=LoadState,ActiveState,SubState,Result,NRestarts,StatusText"
    lines = _output(["systemctl", "show", "edgenn.service", asked]).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _health(path: Path) -> Any:
    """What the service says of itself, None if it does not."""
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(_PATIENCE)
            asking.connect(str(path))
            said = b""
            while len(said) < _LIMIT and (part := asking.recv(65536)):
                said += part
        return json.loads(said)
    except (OSError, ValueError):
        return None


def _refused(releases: Path, current: str | None) -> dict[str, str] | None:
    """The newest release of all, if it was not taken: ids begin with their time."""
    try:
        newest = max(entry.name for entry in releases.iterdir() if not entry.name.startswith("."))
        if current is None or newest <= current:
            return None
        return {"id": newest, "reason": str(json.loads((releases / newest / "failed.json").read_text())["reason"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ended() -> dict[str, Any] | None:
    """When and how the service ended last without having been told to; None where the journal has forgotten."""
    ended = ["UNIT=edgenn.service", f"MESSAGE_ID={_EXITED}", "+", "UNIT=edgenn.service", f"MESSAGE_ID={_FAILED}"]
    said: dict[str, Any] = {}
    # Two messages of one end, the newest first: with which result it failed, and how the process exited.
    for line in _output(["journalctl", "--lines=2", "--reverse", "--output=json", "--no-pager", *ended]).splitlines():
        try:
            entry = json.loads(line)
            said.setdefault("at", int(entry["__REALTIME_TIMESTAMP"]) / 1e6)
            if entry["MESSAGE_ID"] == _FAILED:
                said.setdefault("result", entry["UNIT_RESULT"])
            else:
                said.setdefault("how", entry["MESSAGE"].removeprefix("edgenn.service: "))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return {**said, "ago": time.time() - said["at"]} if said else None


def _journal() -> list[str]:
    return _output(["journalctl", "--unit=edgenn.service", "--lines=5", "--output=cat", "--no-pager"]).splitlines()


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
        return done.stdout.decode(errors="replace")[-8192:]
    except (OSError, subprocess.TimeoutExpired):
        return ""


if __name__ == "__main__":
    json.dump(probe(Path("/")), sys.stdout)
