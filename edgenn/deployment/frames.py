"""Brings home the frames that devices have kept because the model was unsure of them, for labelling and training.

DIR becomes what `edgenn train` reads: DIR/unlabelled/ (passed over until a person has labelled it) and DIR/<label>/ for
frames that were labelled on the device's page. A device is a stranger: only JPEGs of a bounded size are written, only
where their name and label say, never over anything. A journal in DIR says what has come, so that a frame that was
moved or thrown away here does not come again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically
from edgenn_device.picture_header import read_header
from edgenn_device.uncertain import NONE_OF_THEM, UNLABELLED, is_folder_name

from . import frame_sender
from .connection import Connection
from .hosts import Host
from .remote import ask

JOURNAL = ".collected"
# The service's user, which owns the frames.
_USER = "edgenn"
# Of one question: some seconds over a slow radio, and what is lost when the connection is.
_BATCH_BYTES, _BATCH_FILES = 4 << 20, 64
# A device keeps 5,000 at most (edgenn_device.uncertain), and what was labelled beside them.
_MOST = 100_000
_NAME = re.compile(r"\w[\w.-]{0,119}\.jpe?g", re.ASCII | re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")

Ask = Callable[[Any], Any]


@dataclass(frozen=True)
class Brought:
    """What came from one device.

    Attributes:
      host: its name.
      frames: new in DIR.
      known: had come before.
      refused: were no picture, too large, had an impossible name, or were other than announced.
      removed: from the device.
      reason: why it ended early, or what is missing; "" if all is well.
    """

    host: str
    frames: int = 0
    known: int = 0
    refused: int = 0
    removed: int = 0
    reason: str = ""

    @property
    def ok(self) -> bool:
        return not self.reason


@dataclass
class _Journal:
    """SHA-256 of every frame that has come, and where it was put."""

    path: Path
    places: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise EdgennError(f"{self.path} cannot be read ({error}): move it away to have all frames again") from None
        for line in lines:
            sha256, _, place = line.partition(" ")
            if _SHA256.fullmatch(sha256):  # a last line that was cut off is none
                self.places[sha256] = place

    def add(self, new: dict[str, str]) -> None:
        """Written after the pictures themselves: a frame is rather asked for twice than never."""
        self.places |= new
        try:
            with self.path.open("a", encoding="utf-8") as file:
                if file.tell() and not self.path.read_bytes().endswith(b"\n"):
                    file.write("\n")
                file.writelines(f"{sha256} {place}\n" for sha256, place in new.items())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EdgennError(f"{self.path} cannot be written: {error.strerror or error}") from None


def bring(
    hosts: Sequence[Host],
    out: Path,
    *,
    remove: bool = False,
    told: Callable[[str, int, int], None] | None = None,
    asking: Callable[[Host], Ask] | None = None,
) -> list[Brought]:
    """Bring the frames of some devices, one device after the other.

    Args:
      hosts: the devices.
      out: DIR. The same command again goes on where it was.
      remove: from the device, what is in DIR for certain.
      told: is given a host's name, how many frames have come and how many there are to come.
      asking: what answers for `frame_sender` on a host; None asks over SSH.

    Raises:
      EdgennError: DIR cannot be written. A device that cannot be asked is no error but has a reason.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgennError(f"{out} cannot be made: {error.strerror or error}") from None
    journal = _Journal(out / JOURNAL)
    brought = []
    for one in hosts:
        arrival = _Arrival(one.name, out, journal, told)
        try:
            if asking is not None:
                arrival.all(asking(one), remove)
            else:
                with Connection(one) as connection:
                    arrival.all(_over(connection), remove)
            reason = arrival.reason
        except _FromDevice as error:
            reason = str(error)
        brought.append(Brought(one.name, arrival.frames, arrival.known, arrival.refused, arrival.removed, reason))
    return brought


class _FromDevice(EdgennError):
    """What a device did wrong, as opposed to this machine."""


def _over(connection: Connection) -> Ask:
    return lambda asked: ask(connection, frame_sender, asked, user=_USER, timeout=600)


class _Arrival:
    """The frames of one device, counted."""

    def __init__(self, host: str, out: Path, journal: _Journal, told: Callable[[str, int, int], None] | None) -> None:
        self._host, self._out, self._journal, self._told = host, out, journal, told
        # A destination holds signs that no file name should.
        self._prefix = re.sub(r"[^\w.-]+", "-", host, flags=re.ASCII).strip("-.") or "device"
        self.frames = self.known = self.refused = self.removed = 0
        self.reason = ""

    def all(self, asking: Ask, remove: bool) -> None:
        listed = self._listed(self._ask(asking, {"do": "list"}))
        wanted = []
        for path, size, sha256 in listed:
            if sha256 in self._journal.places:
                self.known += 1
                self._labelled_since(path, sha256)
            else:
                wanted.append((path, size, sha256))
        for batch in _batches(wanted):
            self._take(self._ask(asking, {"do": "send", "paths": [path for path, _, _ in batch]}), batch)
            if self._told is not None:
                self._told(self._host, self.frames, len(wanted))
        if remove:
            files = [[path, sha256] for path, _, sha256 in listed if sha256 in self._journal.places]
            gone = self._ask(asking, {"do": "remove", "files": files}) if files else []
            self.removed = len(gone) if isinstance(gone, list) else 0

    def _ask(self, asking: Ask, asked: Any) -> Any:
        try:
            return asking(asked)
        except EdgennError as error:
            raise _FromDevice(str(error)) from None

    def _listed(self, said: Any) -> list[tuple[str, int, str]]:
        """Paths that are possible, with bytes and SHA-256."""
        if not isinstance(said, dict) or not isinstance(said.get("files"), list):
            raise _FromDevice(f"{self._host} answers something that is no list of frames")
        if said.get("folder") is None:
            self.reason = f'{self._host} keeps no frames: deploy it with keep-uncertain = "unsure"'
        found: dict[str, tuple[str, int, str]] = {}
        for entry in said["files"][:_MOST]:
            if not isinstance(entry, list) or len(entry) != 3:
                self.refused += 1
                continue
            path, size, sha256 = entry
            if (
                isinstance(path, str)
                and type(size) is int
                and 0 < size <= frame_sender.LARGEST
                and isinstance(sha256, str)
                and _SHA256.fullmatch(sha256)
                and _place(path) is not None
            ):
                found.setdefault(sha256, (path, size, sha256))
            else:
                self.refused += 1
        return list(found.values())

    def _take(self, said: Any, batch: Sequence[tuple[str, int, str]]) -> None:
        expected = {path: (size, sha256) for path, size, sha256 in batch}
        arrived: dict[str, str] = {}
        for entry in said if isinstance(said, list) else []:
            if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
                continue
            path, encoded = entry
            if path not in expected:
                continue
            size, sha256 = expected.pop(path)
            if encoded is None:
                continue  # has made way for another since it was listed
            content = _decoded(encoded, size)
            if content is None or hashlib.sha256(content).hexdigest() != sha256 or not _is_jpeg(content):
                self.refused += 1
                continue
            arrived[sha256] = self._put(path, content)
        self.frames += len(arrived)
        if arrived:
            self._journal.add(arrived)

    def _put(self, path: str, content: bytes) -> str:
        """Write a frame where its label says, never over another; where that is, below DIR."""
        place = _place(path)
        assert place is not None
        folder, name = place
        stem, suffix = Path(name).stem, Path(name).suffix.lower()
        number = 1
        while True:
            below = f"{folder}/{self._prefix}-{stem}{f'-{number}' if number > 1 else ''}{suffix}"
            target = self._out / below
            if target.is_symlink() or (self._out / folder).is_symlink():
                raise EdgennError(f"{target.parent} is a link: make it a folder, and run the command again")
            if not target.exists():
                write_atomically(target, content)
                return below
            if target.read_bytes() == content:  # written before the journal was
                return below
            number += 1

    def _labelled_since(self, path: str, sha256: str) -> None:
        """A frame that came unlabelled, still lies here so, and has its label on the device by now, gets it here."""
        place = _place(path)
        here = self._journal.places[sha256]
        if place is None or place[0].startswith(UNLABELLED) or not here.startswith(f"{UNLABELLED}/"):
            return
        there, target = self._out / here, self._out / place[0] / Path(here).name
        if there.is_file() and not there.is_symlink() and not target.exists() and not target.parent.is_symlink():
            target.parent.mkdir(exist_ok=True)
            there.rename(target)
            self._journal.add({sha256: f"{place[0]}/{target.name}"})


def _place(path: str) -> tuple[str, str] | None:
    """Folder and name of a frame's path on the device, None if no service has put it there."""
    *folders, name = path.split("/")
    if not _NAME.fullmatch(name):
        return None
    if folders in ([UNLABELLED], [UNLABELLED, NONE_OF_THEM]):
        return "/".join(folders), name
    return (folders[0], name) if len(folders) == 1 and is_folder_name(folders[0]) else None


def _batches(files: Sequence[tuple[str, int, str]]) -> Iterator[list[tuple[str, int, str]]]:
    batch: list[tuple[str, int, str]] = []
    size = 0
    for file in files:
        if batch and (len(batch) == _BATCH_FILES or size + file[1] > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file[1]
    if batch:
        yield batch


def _decoded(encoded: Any, size: int) -> bytes | None:
    if not isinstance(encoded, str) or len(encoded) != -(-size // 3) * 4:
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_jpeg(content: bytes) -> bool:
    try:
        return read_header(content).format == "JPEG"
    except EdgennError:
        return False
