"""What a Raspberry Pi says of itself, for tests that ask none."""

from __future__ import annotations

from typing import Any

from edgenn.deployment.packages import Packages, Platform
from edgenn.deployment.plan import system_file, tool
from edgenn_device.release_install import RECOVERY, SYSUSERS, TOOL

PI = Platform("aarch64", (3, 11), (2, 36))
NOW = 1_800_000_000.0


def facts(**more: Any) -> dict[str, Any]:
    """A Pi 4 with Bookworm and nothing of edgenn's."""
    return {
        "time": NOW,
        "host": "raspberrypi",
        "machine": "aarch64",
        "bits": 64,
        "python": [3, 11, 2],
        "glibc": [2, 36],
        "os": {"id": "debian", "version_codename": "bookworm", "pretty_name": "Debian GNU/Linux 12 (bookworm)"},
        "systemd": True,
        "free": 10 << 30,
        "modules": ["venv", "numpy", "picamera2"],
        "cameras": ["video0", "video10"],
        "user": None,
        "groups": ["video", "plugdev"],
        "signed_only": False,
        "interrupted": False,
        "current": None,
        "config": None,
        "files": [],
        "environments": [],
        "wheels": [],
        "system": {},
        "health": None,
        "starting": False,
        **more,
    }


def packages(*wheels: Any, system: tuple[str, ...] = ()) -> Packages:
    return Packages(PI, tuple(wheels), system)


def system_digests() -> dict[str, str]:
    import hashlib

    contents = {TOOL: tool(), **{name: system_file(name) for name in (RECOVERY, SYSUSERS, "edgenn.service")}}
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
