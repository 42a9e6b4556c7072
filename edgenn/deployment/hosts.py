"""The devices of a command: ssh destinations as a person types them, or an inventory (TOML) of named ones.

Reads and checks; every wrong key or value is one line that names it, before anything is connected to. It resolves no
host name, opens no connection and knows no secret: how one logs in is the business of ssh and its configuration.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError
from edgenn_device.files import read_toml
from edgenn_device.options import Options

# How one gets there. Everything else in the inventory is a key of run.toml.
_WAY = ("address", "user", "port", "identity")
# A release brings its own model; a run that ends after some frames is no service.
_NOT_OPTIONS = ("model", "limit", "fast")
# Names stand in tables, in front of log lines and in file names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# What sshd's and Linux's own tools take (useradd(8)), and Active Directory's DOMAIN\user.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\\+@-]*\$?")
# Names, IPv4 and IPv6 addresses with a zone, and aliases of ssh_config(5).
_HOSTNAME = re.compile(r"[A-Za-z0-9_:.%-]+")


@dataclass(frozen=True)
class Host:
    """One device.

    Attributes:
      name: as the user typed it: an ssh destination, or its name in the inventory.
      hostname: a name, an address or an alias of the user's ssh configuration.
      user, port, identity: None leaves them to ssh and its configuration. `identity` is a private key's path.
      groups: of the inventory.
      options: keys of run.toml (with "-" between words) for this device: source, delegate, labels, web, sink, name ….
        `labels` is a file of the workstation, as an absolute path.
    """

    name: str
    hostname: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    groups: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def destination(self) -> str:
        """`[user@]hostname`, as ssh takes it; the port is not part of it."""
        return f"{self.user}@{self.hostname}" if self.user else self.hostname

    def bare(self, error: Exception) -> str:
        """What went wrong there, for a place where the device's name stands already."""
        return str(error).removeprefix(f"{self.name}: ")


def host(text: str) -> Host:
    """The device of an ssh destination.

    Args:
      text: `[user@]host[:port]` or `ssh://[user@]host[:port]`; an IPv6 address with a port stands in brackets.

    Raises:
      EdgennError: it is none. One that begins with "-" is refused, since ssh would take it for an option.

    >>> host("pi@porch.local:2222").port
    2222
    >>> host("pi@[fe80::1%wlan0]:22").hostname
    'fe80::1%wlan0'
    """
    rest = text.removeprefix("ssh://").removesuffix("/") if text.startswith("ssh://") else text
    user, at, place = rest.rpartition("@")
    port = ""
    if place.startswith("["):
        hostname, closed, after = place[1:].partition("]")
        wrong = not closed or (after != "" and not after.startswith(":")) or after == ":"
        port = after[1:]
    elif place.count(":") == 1:
        hostname, _, port = place.partition(":")
        wrong = not port
    else:  # a plain name, or an IPv6 address without a port
        hostname, wrong = place, False
    wrong = wrong or (bool(at) and not _USER.fullmatch(user)) or not _HOSTNAME.fullmatch(hostname)
    if wrong or hostname.startswith("-") or (port and not port.isdecimal()):
        raise EdgennError(f"{text!r} is no device: [user@]host[:port], such as pi@raspberrypi.local")
    return Host(text, hostname, user or None, _port(int(port), text) if port else None)


def inventory(path: str | os.PathLike[str], group: str | None = None) -> list[Host]:
    """The devices of an inventory, in its order. docs/pis.toml is an annotated example.

    Args:
      path: TOML with `[hosts.NAME]`, and optional `[defaults]` and `[groups.NAME]`. What a host says holds against its
        groups (the last named first), and these against the defaults.
      group: only the devices of this group.

    Raises:
      EdgennError: the file cannot be read, has an unknown key or a value that cannot be, names a device twice, or has
        no such group.
    """
    read = read_toml(path, "inventory")
    _known(read, ("defaults", "groups", "hosts"), str(path))
    sections = {key: _table(read.get(key, {}), f"{path}: [{key}]") for key in ("defaults", "groups", "hosts")}
    groups = {name: _table(said, f"{path}: [groups.{name}]") for name, said in sections["groups"].items()}
    for where, said in [
        ("defaults", sections["defaults"]),
        *((f"groups.{name}", said) for name, said in groups.items()),
    ]:
        if misplaced := {"address", "groups"} & said.keys():
            raise EdgennError(f"{path}: [{where}] has {sorted(misplaced)[0]}, which is for a host alone")
    base = Path(path).absolute().parent
    found = [
        _host(name, {"address": said} if isinstance(said, str) else said, sections["defaults"], groups, base, str(path))
        for name, said in sections["hosts"].items()
    ]
    if not found:
        raise EdgennError(f'{path} names no device: [hosts.porch] and below it address = "pi@porch.local"')
    places: dict[tuple[str | None, str, int | None], str] = {}
    for one in found:
        earlier = places.setdefault((one.user, one.hostname, one.port), one.name)
        if earlier != one.name:
            raise EdgennError(f"{path}: {earlier} and {one.name} are one device, {one.destination}: leave one out")
    if group is None:
        return found
    if group not in groups:
        raise EdgennError(f"{path}: no group {group!r}{_nearest(group, groups)}")
    return [one for one in found if group in one.groups]


def chosen(names: Sequence[str], path: str | os.PathLike[str] | None = None) -> list[Host]:
    """The devices that a command was given, each once.

    Args:
      names: without an inventory, ssh destinations; with one, names of its hosts or groups, none for all.
      path: of the inventory.

    Raises:
      EdgennError: nothing was named, or a name that is not there; or as `host` and `inventory`.
    """
    if path is None:
        if not names:
            raise EdgennError("no device: name one, such as pi@raspberrypi.local, or give --inventory pis.toml")
        return list({one.destination + f":{one.port or ''}": one for one in map(host, names)}.values())
    found = inventory(path)
    if not names:
        return found
    wanted: dict[str, Host] = {}
    for name in names:
        these = [one for one in found if one.name == name] or [one for one in found if name in one.groups]
        if not these:
            known = [*(one.name for one in found), *(group for one in found for group in one.groups)]
            raise EdgennError(f"{path}: no device or group {name!r}{_nearest(name, known)}")
        wanted.update((one.name, one) for one in these)
    return list(wanted.values())


def _host(
    name: str, said: Any, defaults: Mapping[str, Any], groups: Mapping[str, Any], base: Path, origin: str
) -> Host:
    where = f"{origin}: [hosts.{name}]"
    own = dict(_table(said, where))
    if not _NAME.fullmatch(name):
        raise EdgennError(f"{where}: a name is letters, digits, dots, dashes and underscores, at most 63")
    if name in groups:
        raise EdgennError(f"{where}: {name} is a group too: call one of them otherwise")
    member = own.pop("groups", [])
    if not isinstance(member, list) or not all(isinstance(group, str) for group in member):
        raise EdgennError(f'{where}: groups is a list of names, such as ["outdoor"]')
    for group in member:
        if group not in groups:
            raise EdgennError(f"{where}: no group {group!r}{_nearest(group, groups)}; or add [groups.{group}]")
    merged: dict[str, Any] = {}
    for layer in (defaults, *(groups[group] for group in member), own):
        merged.update((key.replace("_", "-"), value) for key, value in layer.items())
    way = {key: merged.pop(key) for key in _WAY if key in merged}
    for key in ("address", "user", "identity"):
        if key in way and (not isinstance(way[key], str) or not way[key]):
            raise EdgennError(f"{where}: {key} is a text")
    try:
        one = host(way.get("address", name))
    except EdgennError as error:
        raise EdgennError(f"{where}: address {error}") from None
    user, port = one.user or way.get("user"), one.port or way.get("port")
    if user is not None and not _USER.fullmatch(user):
        raise EdgennError(f"{where}: user {user!r} is not possible")
    if port is not None and type(port) is not int:
        raise EdgennError(f"{where}: port is a whole number")
    identity = str(_from(base, way["identity"])) if "identity" in way else None
    return replace(
        one,
        name=name,
        user=user,
        port=None if port is None else _port(port, where),
        identity=identity,
        groups=tuple(dict.fromkeys(member)),
        options=_options(merged, name, base, where),
    )


def _options(said: dict[str, Any], name: str, base: Path, where: str) -> dict[str, Any]:
    known = {entry.name.replace("_", "-") for entry in fields(Options)} - set(_NOT_OPTIONS)
    _known(said, (*_WAY, "groups", *sorted(known)), where)
    said.setdefault("name", name)
    # Checked as the device will, so that a wrong value is told before anything is sent.
    Options.of({"source": "synthetic", **said, "model": "model.tflite"}, where)
    if "labels" in said:
        labels = _from(base, said["labels"])
        if not labels.is_file():
            raise EdgennError(f"{where}: labels {labels} is no file of this machine")
        said["labels"] = str(labels)
    return said


def _from(base: Path, text: str) -> Path:
    """A path of the inventory: from the inventory's own folder, `~` is the home."""
    return base / Path(text).expanduser()


def _port(number: int, where: str) -> int:
    if not 1 <= number <= 65535:
        raise EdgennError(f"{where}: port {number} is not possible: 1 to 65535")
    return number


def _table(said: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(said, dict):
        raise EdgennError(f"{where} is no table of keys: see docs/pis.toml")
    return said


def _known(said: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in said:
        if key.replace("_", "-") not in known:
            raise EdgennError(f"{where}: unknown key {key!r}{_nearest(key, known)}")


def _nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    if near:
        return f", is it {near[0]!r}?"
    several = ", ".join(list(dict.fromkeys(known))[:12])
    return f": there is {several}" if several else ""
