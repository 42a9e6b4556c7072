"""Sent to a device and run there: what is deployed, what systemd says of the service, and its health document.

Only the standard library of Python 3.11, because it also runs where nothing was ever deployed. It reads, and changes
nothing. What it prints is judged by `status`, which takes it for a stranger's word.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

# Seconds for the health document; the service answers in milliseconds unless its interpreter holds Python's lock.
_PATIENCE = 5.0
_LIMIT = 256 * 1024


def probe(root: Path) -> dict[str, Any]:
    """One JSON-able document: release, proved, unit, health, last (the journal's last lines of a unit that is not up).

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
        "unit": unit,
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
