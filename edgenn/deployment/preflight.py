"""What stands in the way of a deploy, found before anything is changed, each with the line to type.

Judges facts and plans; connects to nothing and changes nothing.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import Any

from .connection import Connection
from .hosts import Host
from .packages import Platform
from .plan import Plan, Wanted

# As in pyproject.toml.
_PYTHONS = ((3, 11), (3, 14))
# Seconds: certificates, logs and the names of releases need the day right; a Pi without a network clock is years off.
_CLOCK = 86400.0
# Bytes that stay free for the service itself: photos kept, events, logs.
_SPARE = 64 << 20
# Sources that are this device's own.
_DEVICES = ("picamera", "/dev/video")


def platform_of(facts: Mapping[str, Any]) -> Platform | str:
    """What wheels have to fit there, or why nothing can."""
    python = (int(facts["python"][0]), int(facts["python"][1]))
    name = facts["os"].get("pretty_name") or "its system"
    if not _PYTHONS[0] <= python < _PYTHONS[1]:
        older = python < _PYTHONS[0]
        return (
            f"{name} has Python {python[0]}.{python[1]} and edgenn needs 3.11 to 3.13: write the card anew with "
            f"Raspberry Pi OS {'Bookworm or newer' if older else 'Trixie'}"
        )
    if not facts["glibc"]:
        return f"{name} has another C library than glibc, for which there are no wheels: use Raspberry Pi OS or Debian"
    # A 64-bit kernel with 32-bit programs, as Raspberry Pi OS (32-bit) has on a Pi 4, says aarch64.
    machine = facts["machine"]
    if facts["bits"] == 32:
        machine = {"aarch64": "armv7l", "armv8l": "armv7l"}.get(machine, machine)
    if machine not in ("aarch64", "armv7l", "x86_64"):
        return f"there is no TFLite runtime for {machine}: edgenn runs on 64-bit ARM, ARMv7 and x86-64"
    return Platform(machine, python, (int(facts["glibc"][0]), int(facts["glibc"][1])))


def obstacles(
    host: Host, facts: Mapping[str, Any], wanted: Wanted, plan: Plan | None = None, now: float | None = None
) -> list[str]:
    """What stands in the way on one device, worst first; each a line that ends with what to type.

    Args:
      host: for the lines to type.
      facts: of `edgenn_device.release_facts`.
      wanted: by the person.
      plan: None for what can be said without one.
      now: seconds since 1970, by this machine.
    """
    found = []
    platform = platform_of(facts)
    if isinstance(platform, str):
        found.append(platform)
    if not facts["systemd"]:
        found.append("systemd, which starts and watches the service, does not run there: use Raspberry Pi OS or Debian")
    if "venv" not in facts["modules"]:
        found.append(f"Python's venv is missing: {_there(host, 'sudo apt install -y python3-venv')}")
    now = time.time() if now is None else now
    off = facts["time"] - now
    if abs(off) > _CLOCK:
        found.append(f"its clock is {_long(abs(off))} {'ahead' if off > 0 else 'behind'}: {_there(host, _clock(now))}")
    if facts["signed_only"] and not any(name.endswith(".sig") for name in wanted.signatures):
        found.append("it accepts signed models alone: give --sign KEY")
    if plan is not None:
        found += _of_plan(host, facts, wanted, plan)
    return found


def _of_plan(host: Host, facts: Mapping[str, Any], wanted: Wanted, plan: Plan) -> list[str]:
    found = []
    if plan.changed and plan.room + _SPARE > facts["free"]:
        found.append(
            f"no room: it takes {(plan.room + _SPARE) >> 20} MB below /opt and {facts['free'] >> 20} MB are free: "
            + _there(host, "sudo apt clean; sudo journalctl --vacuum-size=50M; df -h /")
        )
    if plan.system_packages and wanted.offline:
        line = f"sudo apt install -y --no-install-recommends {' '.join(plan.system_packages)}"
        found.append(f"{', '.join(plan.system_packages)} must be there beforehand with --offline: {_there(host, line)}")
    groups = facts["user"]
    for group in _groups(plan.options):
        # A user that is not there yet is made with its groups.
        if groups is not None and group not in groups:
            add = f"sudo usermod -aG {group} edgenn"
            if group not in facts["groups"]:
                add = f"sudo groupadd --system {group} && {add}"
            found.append(f"the service's user is not in the group {group}: {_there(host, add)}")
    return found


def _groups(options: Mapping[str, Any]) -> list[str]:
    """That the service's user has to be in to open what the options name."""
    delegate = str(options.get("delegate", "cpu"))
    groups = ["video"] if str(options["source"]).startswith(_DEVICES) or str(options["source"]).isdecimal() else []
    if delegate.startswith("usb"):
        groups.append("plugdev")
    if delegate.startswith("pci"):
        groups.append("apex")
    return groups


def _there(host: Host, line: str) -> str:
    """The line to type on this machine that does it on the device."""
    ssh = Connection.typed(host)
    return f"{ssh} {shlex.quote(line)}"


def _clock(now: float) -> str:
    return f"sudo timedatectl set-ntp true || sudo date -u -s @{int(now)}"


def _long(seconds: float) -> str:
    days = seconds / 86400
    return f"{days / 365.25:.1f} years" if days > 365 else f"{days:.0f} days"
