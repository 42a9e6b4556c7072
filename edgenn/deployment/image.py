"""Prepares a freshly written SD card, so that it comes up as a working device without being logged into.

Writes to the boot partition (FAT) of a card that holds an untouched Raspberry Pi OS: what its first boot reads about
name, user and network, and the release with everything it needs. It neither downloads nor writes images, and touches
no other partition.

Formats: Trixie has cloud-init with NoCloud's files on the boot partition (raspberrypi/rpi-imager,
src/customization_generator.cpp; RPi-Distro/pi-gen, stage2/04-cloud-init). Bookworm reads custom.toml at its first boot
(RPi-Distro/raspberrypi-sys-mods, usr/lib/raspberrypi-sys-mods/init_config), and runs what `systemd.run=` names at its
second, as Imager had it do.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError

from .hosts import Host
from .packages import Packages, Platform
from .plan import Plan, Wanted, plan, toml

# What is written below the boot partition, beside the files that its system reads.
FOLDER = "edgenn"
# As Imager gives the first user (customization_generator.cpp).
_GROUPS = "users,adm,dialout,audio,netdev,video,plugdev,cdrom,games,input,gpio,spi,i2c,render,sudo"
_SCRIPT, _UNIT = "first-boot.sh", "first-boot.service"
# Where the device has its boot partition.
_THERE = f"/boot/firmware/{FOLDER}"
_KEY = re.compile(r"(ssh-|ecdsa-|sk-)\S+ [A-Za-z0-9+/]+=*( .*)?")
# Bytes left free for the updates of kernel and firmware.
_SPARE = 64 << 20


@dataclass(frozen=True)
class Card:
    """The boot partition of a card that was written and not started yet.

    Attributes:
      boot: where it is mounted.
      suite: "bookworm" or "trixie".
      platform: what its system can run.
    """

    boot: Path
    suite: str
    platform: Platform


@dataclass(frozen=True)
class Wifi:
    """A network that the device joins.

    Attributes:
      ssid: its name.
      key: 256 bits as a hexadecimal (`wifi_key`), "" for an open one. The password itself is never written.
      country: ISO 3166-1, two letters: without it the radio stays off.
      hidden: it does not tell its name.
    """

    ssid: str
    key: str
    country: str
    hidden: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.ssid.encode()) <= 32 or not self.ssid.isprintable():
            raise EdgennError(f"{self.ssid!r} is no name of a Wi-Fi network: 1 to 32 bytes")
        if not re.fullmatch(r"[A-Z]{2}", self.country):
            raise EdgennError(f"{self.country!r} is no country for Wi-Fi: two letters, such as GB")


@dataclass(frozen=True)
class Settings:
    """What the device is to be.

    Attributes:
      name: its host name, and what it calls itself.
      keys: lines of authorized_keys; whoever has one of them logs in as `user`, and nobody by a password.
      user: the first user, who may become root.
      wifi: None leaves it to a cable.
      timezone: such as "Europe/London"; None leaves the system's.
    """

    name: str
    keys: tuple[str, ...]
    user: str = "pi"
    wifi: Wifi | None = None
    timezone: str | None = None

    def __post_init__(self) -> None:
        # RFC 1123, 2.1; a single label.
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", self.name):
            raise EdgennError(f"{self.name!r} is no name for a device: small letters, digits and dashes, such as porch")
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", self.user) or self.user == "root":
            raise EdgennError(f"{self.user!r} is no name for a first user: small letters, such as pi")
        if not self.keys:
            raise EdgennError("no SSH key: ssh-keygen -t ed25519, and give --ssh-key ~/.ssh/id_ed25519.pub")
        if self.timezone is not None and not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", self.timezone):
            raise EdgennError(f"{self.timezone!r} is no time zone: such as Europe/London")


def card(boot: str | os.PathLike[str]) -> Card:
    """What is on a card.

    Args:
      boot: where its boot partition is mounted.

    Raises:
      EdgennError: this is no boot partition of Raspberry Pi OS, or it has been started before.
    """
    place = Path(boot)
    try:
        names = {path.name for path in place.iterdir()}
    except OSError as error:
        raise EdgennError(f"{place}: {error.strerror}; give the folder where the card's bootfs is mounted") from None
    if not {"cmdline.txt", "config.txt", "issue.txt"} <= names:
        raise EdgennError(
            f"{place} is no boot partition of Raspberry Pi OS: write a card with Raspberry Pi Imager, without "
            "settings, and give the folder where its bootfs is mounted"
        )
    # Images for 32 bits bring kernels for every board, those for 64 bits only theirs.
    machine = "armv7l" if names & {"kernel.img", "kernel7.img", "kernel7l.img"} else "aarch64"
    if {"meta-data", "user-data"} <= names:
        return Card(place, "trixie", Platform(machine, (3, 13), (2, 41)))
    # The first boot removes itself from there, and with it the only reader of custom.toml.
    if "init=/usr/lib/raspberrypi-sys-mods/firstboot" not in _text(place / "cmdline.txt"):
        raise EdgennError(f"the card at {place} has been started before: write it anew with Raspberry Pi Imager")
    return Card(place, "bookworm", Platform(machine, (3, 11), (2, 36)))


def wifi_key(ssid: str, password: str) -> str:
    """The key of a WPA2 network from its password (IEEE 802.11-2020, annex J.4.1), as 64 hexadecimal digits.

    Raises:
      EdgennError: no password of WPA2.

    >>> wifi_key("IEEE", "password")[:16]
    'f42c6fc52df0ebef'
    """
    if re.fullmatch(r"[0-9a-fA-F]{64}", password):
        return password.lower()
    if not 8 <= len(password.encode()) <= 63 or not password.isprintable():
        raise EdgennError("a Wi-Fi password has 8 to 63 signs")
    return hashlib.pbkdf2_hmac("sha1", password.encode(), ssid.encode(), 4096, 32).hex()


def public_keys(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The lines of a file of public SSH keys.

    Raises:
      EdgennError: it cannot be read, or is none; a private key above all.
    """
    text = _text(Path(path))
    if "PRIVATE KEY" in text:
        raise EdgennError(f"{path} is a private key, which no device may have: give {path}.pub")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        if not _KEY.fullmatch(line) or not line.isprintable():
            raise EdgennError(f"{path} is no public SSH key: one begins with ssh-ed25519")
    return tuple(lines)


def release(card: Card, settings: Settings, wanted: Wanted, packages: Packages, now: float | None = None) -> Plan:
    """What is put on the card, for a device that has nothing yet.

    Raises:
      EdgennError: options that cannot be.
    """
    # Nobody knows what will be plugged in: without another word it is the Pi's own camera.
    fresh: dict[str, Any] = {
        **{"modules": ["venv"], "cameras": [], "system": {}, "files": [], "environments": [], "wheels": []},
        **{"current": None, "config": None, "interrupted": False},
    }
    said = {"name": settings.name, **(wanted.options or {})}
    if wanted.source is None and "source" not in said:
        said["source"] = "picamera"
    chosen = Wanted(wanted.model, said, wanted.source, wanted.signatures, wanted.within, wanted.offline)
    return plan(Host(settings.name, settings.name), chosen, fresh, packages, now)


def write(card: Card, settings: Settings, made: Plan) -> int:
    """Write a release and the settings; what makes the first boot read them comes last.

    Returns:
      Bytes written.

    Raises:
      EdgennError: there is no room, or the card cannot be written.
    """
    files = {f"incoming/{name}": content for name, content in made.files}
    beside = Path(__file__).parent
    files[_SCRIPT] = (beside / _SCRIPT).read_bytes()
    files[f"edgenn-{_UNIT}"] = (beside / _UNIT).read_bytes()
    files["release"] = f"{made.id}\n".encode()
    files["packages"] = "".join(f"{name}\n" for name in made.system_packages).encode()
    size = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files.values())
    try:
        free = shutil.disk_usage(card.boot).free
        if size + _SPARE > free:
            raise EdgennError(
                f"the boot partition has {free >> 20} MB free and {(size + _SPARE) >> 20} MB are needed: write the "
                "card anew, and deploy over SSH instead"
            )
        shutil.rmtree(card.boot / FOLDER, ignore_errors=True)
        for name, content in files.items():
            _put(card.boot / FOLDER / name, content)
        first = first_boot(card, settings, made.id)
        for name, text in first.items():
            _put(card.boot / name, text.encode())
        os.sync()
    except OSError as error:
        raise EdgennError(f"{card.boot} cannot be written: {error.strerror or error}") from None
    return size + sum(len(text.encode()) for text in first.values())


def first_boot(card: Card, settings: Settings, id: str) -> dict[str, str]:
    """The files that the card's system reads at its first boot, in the order in which they are to be written.

    Args:
      card: whose cmdline.txt is read.
      settings: of the device.
      id: of the release; makes cloud-init run on a card that Imager has prepared before.
    """
    command_line = " ".join(_text(card.boot / "cmdline.txt").split())
    if card.suite == "trixie":
        instance = f"edgenn-{id}"
        # Without Wi-Fi too: an earlier network and its key must not stay.
        files = {"user-data": user_data(settings), "network-config": network_config(settings.wifi)}
        files["meta-data"] = f"instance-id: {instance}\n"
        # As Imager does: the kernel's word holds against meta-data, so its own has to go.
        kept = [word for word in command_line.split() if not word.startswith("ds=nocloud")]
        files["cmdline.txt"] = " ".join([*kept, f"ds=nocloud;i={instance}"]) + "\n"
        return files
    kept = [word for word in command_line.split() if not word.startswith(("systemd.run", "systemd.unit=kernel-com"))]
    runs = [
        f"systemd.run={_THERE}/{_SCRIPT}",
        "systemd.run_success_action=reboot",
        "systemd.unit=kernel-command-line.target",
    ]
    return {"custom.toml": custom_toml(settings), "cmdline.txt": " ".join([*kept, *runs]) + "\n"}


def user_data(settings: Settings) -> str:
    """cloud-init's user-data: JSON, which is YAML too, so that no name or key can be read as anything else."""
    said: dict[str, Any] = {
        "hostname": settings.name,
        "manage_etc_hosts": True,
        "users": [
            {
                "name": settings.user,
                "groups": _GROUPS,
                "shell": "/bin/bash",
                "lock_passwd": True,
                "ssh_authorized_keys": list(settings.keys),
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
            }
        ],
        "ssh_pwauth": False,
        "runcmd": [
            ["sh", f"{_THERE}/{_SCRIPT}"],
            ["systemctl", "start", "--no-block", "ssh.service", f"edgenn-{_UNIT}"],
        ],
    }
    if settings.timezone is not None:
        said["timezone"] = settings.timezone
    return "#cloud-config\n" + json.dumps(said, indent=1, ensure_ascii=False) + "\n"


def network_config(wifi: Wifi | None) -> str:
    """cloud-init's network-config, version 2: netplan's keys. Without Wi-Fi it says what the image's own does."""
    if wifi is None:
        return _network({"ethernets": {"eth0": {"dhcp4": True, "optional": True}}})
    point: dict[str, Any] = {"password": wifi.key} if wifi.key else {}
    if wifi.hidden:
        point["hidden"] = True
    wlan = {
        "dhcp4": True,
        "regulatory-domain": wifi.country,
        "access-points": {wifi.ssid: point},
        "optional": True,
    }
    return _network({"wifis": {"wlan0": wlan}})


def _network(devices: dict[str, Any]) -> str:
    return json.dumps({"network": {"version": 2, **devices}}, indent=1, ensure_ascii=False) + "\n"


def custom_toml(settings: Settings) -> str:
    """What Bookworm's firstboot applies and removes."""
    sections: dict[str, Mapping[str, Any]] = {
        "system": {"hostname": settings.name},
        # Without a password the account can be entered by key alone.
        "user": {"name": settings.user},
        "ssh": {"enabled": True, "password_authentication": False, "authorized_keys": settings.keys},
    }
    if settings.wifi is not None:
        wifi = settings.wifi
        sections["wlan"] = {"ssid": wifi.ssid, "hidden": wifi.hidden, "country": wifi.country}
        if wifi.key:
            sections["wlan"] = {**sections["wlan"], "password": wifi.key, "password_encrypted": True}
    if settings.timezone is not None:
        sections["locale"] = {"timezone": settings.timezone}
    body = "\n".join(f"[{name}]\n{toml(said).decode()}" for name, said in sections.items())
    return f"config_version = 1\n\n{body}"


def _put(path: Path, content: bytes | Path) -> None:
    """Write a file beside its place and rename it into it. Without chmod, which FAT refuses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.new")
    try:
        with aside.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise EdgennError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
