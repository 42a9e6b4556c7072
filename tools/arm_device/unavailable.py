"""What a machine lacks for a test device, found before anything is started; installs nothing by itself."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

NEEDED = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "zstd": "zstd",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "apt-get": "apt",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class DeviceUnavailable(RuntimeError):
    """This machine cannot run the test device; the message says why in one line."""


def require_machine() -> None:
    """Raise DeviceUnavailable unless this machine can build and run a container."""
    if os.geteuid() != 0:
        raise DeviceUnavailable("the test device needs root: mounts, a container and binfmt_misc")
    missing = sorted({package for command, package in NEEDED.items() if shutil.which(command) is None})
    if not KEYRING.exists():
        missing.append("debian-archive-keyring")
    if missing:
        raise DeviceUnavailable(f"the test device needs: apt-get install {' '.join(missing)}")
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        raise DeviceUnavailable("this kernel has no overlayfs, on which every start gets a fresh disk")
    if cgroup2() is None:
        raise DeviceUnavailable("no cgroup2 is mounted, in which the container's systemd keeps its services")


def cgroup2() -> Path | None:
    """Where cgroup2 is mounted: alone, or beside the controllers of the first version."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def or_reason(main: Callable[[], int]) -> int:
    """What a tool's `main` returns; where this machine cannot run the test device 2, and the reason in a line."""
    try:
        return main()
    except DeviceUnavailable as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
