"""What a deploy has to know of a device before it changes anything: one document from one process.

Reads and reports. It changes nothing, connects to nothing beyond this machine, and judges nothing: what stands in the
way of a deploy is decided where it was asked for.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import platform
import pwd
import shutil
import struct
import sys
import time
from pathlib import Path
from typing import Any

from .release_files import COMPLETE, UNIT, Places, sha256
from .release_health import ask, is_starting
from .release_install import RECOVERY, SYSUSERS, TOOL
from .releases import Releases

USER = "edgenn"
# Modules that may come from apt instead of a wheel.
_MODULES = ("numpy", "cv2", "picamera2", "cryptography", "venv")


def facts(releases: Releases) -> dict[str, Any]:
    """What is there, JSON-able: machine, Python, room, clock, cameras, the service's user, releases and wheels."""
    places = releases.places
    current = releases.current
    return {
        "time": time.time(),
        "host": platform.node(),
        "machine": platform.machine(),
        "bits": struct.calcsize("P") * 8,
        "python": list(sys.version_info[:3]),
        "glibc": _glibc(),
        "os": _os_release(places.root),
        "systemd": Path("/run/systemd/system").is_dir(),
        "free": _free(places.base),
        "modules": [name for name in _MODULES if importlib.util.find_spec(name)],
        "cameras": sorted(p.name for p in (places.root / "dev").glob("video*")),
        "user": _user(),
        "groups": [group.gr_name for group in grp.getgrall()],
        "signed_only": (places.root / "etc/edgenn/accept.pub").exists(),
        "interrupted": places.intent.exists(),
        "current": releases.about(current) if current else None,
        "config": _text(releases.folder(current) / "run.toml") if current else None,
        "files": sorted({digest for id in releases.ids() for digest in releases.about(id).get("files", {}).values()}),
        "environments": [entry.parent.name for entry in sorted(places.environments.glob(f"*/{COMPLETE}"))],
        "wheels": sorted(entry.parent.name for entry in places.wheels.glob("*/*.whl")),
        "system": _system(places),
        "health": ask(places.socket) if current else None,
        "starting": is_starting() if current else False,
    }


def _system(places: Places) -> dict[str, str]:
    """SHA-256 of what is installed outside of releases, by the name that it is sent under."""
    found = {
        TOOL: places.base / TOOL,
        RECOVERY: places.units / RECOVERY,
        SYSUSERS: places.root / "etc/sysusers.d/edgenn.conf",
        UNIT: places.units / UNIT,
    }
    return {name: sha256(path) for name, path in found.items() if path.is_file()}


def _user() -> list[str] | None:
    """Groups of the service's user; None without one."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        return None
    return [grp.getgrgid(number).gr_name for number in os.getgrouplist(USER, user.pw_gid)]


def _glibc() -> list[int]:
    """[2, 36]; [] where it is another C library."""
    try:
        said = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        return []
    return [int(part) for part in said.removeprefix("glibc ").split(".")[:2]]


def _os_release(root: Path) -> dict[str, str]:
    lines = (_text(root / "etc/os-release") or "").splitlines()
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    return {key.lower(): said.get(key, "").strip('"') for key in ("ID", "VERSION_CODENAME", "PRETTY_NAME")}


def _free(place: Path) -> int:
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
