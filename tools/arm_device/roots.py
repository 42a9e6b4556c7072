"""The disk that every test device starts from: a minimal Debian, made once by mmdebstrap and kept as .tar.zst.

It is what Raspberry Pi OS Lite has of Debian as far as deployment sees it (systemd, sshd, sudo, Python with venv, the
user pi); no kernel, no firmware and none of the Raspberry Pi's own packages.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.arm_device.emulation import emulated
from tools.arm_device.unavailable import KEYRING, DeviceUnavailable

SUITES = ("bookworm", "trixie")
ARCHITECTURES = ("arm64", "amd64")
MIRROR = "http://deb.debian.org/debian"

PACKAGES = (
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "python3",
    "python3-venv",
    "ca-certificates",
    "procps",
    "netbase",
    # What a device has for cameras and accelerators on USB.
    "libusb-1.0-0",
)
# Nobody reads manuals there, and under emulation every file left out is time.
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")

# As on Raspberry Pi OS: pi may do everything without a password. No host keys: each device gets its own.
PREPARATION = """set -e
for group in video plugdev render gpio i2c spi; do chroot "$1" groupadd --system --force $group; done
chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 --groups sudo,adm,video,plugdev,render pi
echo 'pi ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/010_pi-nopasswd"
chmod 440 "$1/etc/sudoers.d/010_pi-nopasswd"
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/resolv.conf" "$1/etc/hostname"
: > "$1/etc/machine-id"
touch "$1/etc/default/locale"
"""


def cache() -> Path:
    """~/.cache/edgenn/devices: the roots, the emulator, and the disks of running devices."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgenn" / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def root(suite: str, architecture: str) -> Path:
    """The unpacked root of a suite and architecture, to be read only; made first where it is missing.

    Making one takes minutes (an arm64 one configures its packages under emulation), unpacking a kept one seconds.
    Raises DeviceUnavailable when the packages cannot be had.
    """
    if suite not in SUITES or architecture not in ARCHITECTURES:
        raise ValueError(f"no such test device: {suite} {architecture}; there are {SUITES} and {ARCHITECTURES}")
    recipe = repr((PACKAGES, LEFT_OUT, PREPARATION, MIRROR))
    name = f"{suite}-{architecture}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    unpacked, packed = cache() / name, cache() / f"{name}.tar.zst"
    with _alone(cache() / f"{suite}-{architecture}.lock"):
        if not unpacked.exists():
            if not packed.exists():
                _make(suite, architecture, packed)
            _unpack(packed, unpacked)
            _forget_others(unpacked)
    return unpacked


def _forget_others(unpacked: Path) -> None:
    """Delete the roots of earlier recipes of the same kind, unless a device may be running on one."""
    if any(cache().glob("running/*/*/device.json")):
        return
    for other in cache().glob(f"{unpacked.name.rpartition('-')[0]}-*"):
        if not other.name.startswith(unpacked.name):
            other.unlink() if other.is_file() else shutil.rmtree(other)


def _make(suite: str, architecture: str, packed: Path) -> None:
    partial = packed.with_name(f"partial-{packed.name}")
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--architectures={architecture}",
        f"--keyring={KEYRING}",
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        f"--include={','.join(PACKAGES)}",
        f"--customize-hook={PREPARATION}",
        # The kernel's word for it is not asked by arch-test, which need not be installed.
        "--skip=check/qemu",
        suite,
        str(partial),
        MIRROR,
    ]
    with emulated(architecture):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        partial.unlink(missing_ok=True)
        reason = "\n".join(done.stderr.splitlines()[-8:])
        raise DeviceUnavailable(f"mmdebstrap made no root of {suite} {architecture}:\n{reason}")
    partial.rename(packed)


def _unpack(packed: Path, unpacked: Path) -> None:
    partial = unpacked.with_name(f"partial-{unpacked.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    # Not /dev: the container makes its own.
    command = [
        "tar",
        "--zstd",
        "--numeric-owner",
        "--xattrs",
        "--exclude=./dev/*",
        "-xpf",
        str(packed),
        "-C",
        str(partial),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        raise DeviceUnavailable(f"{packed} cannot be unpacked; delete it: {done.stderr.strip()[-300:]}")
    partial.rename(unpacked)
