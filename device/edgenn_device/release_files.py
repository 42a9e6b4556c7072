"""The folders of the releases, and how a file in them is written so that it is whole after a loss of power.

Names places and touches files; what may be done with a release is decided in `releases`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNIT = "edgenn.service"
# Written last into an environment.
COMPLETE = "complete"


@dataclass(frozen=True)
class Places:
    """Where everything is; tests give another root."""

    root: Path = Path("/")

    @property
    def base(self) -> Path:
        return self.root / "opt/edgenn"

    @property
    def releases(self) -> Path:
        return self.base / "releases"

    @property
    def environments(self) -> Path:
        return self.base / "environments"

    @property
    def wheels(self) -> Path:
        return self.base / "wheels"

    @property
    def incoming(self) -> Path:
        return self.base / "incoming"

    @property
    def current(self) -> Path:
        return self.base / "current"

    @property
    def intent(self) -> Path:
        return self.base / "switching.json"

    @property
    def units(self) -> Path:
        return self.root / "etc/systemd/system"

    @property
    def socket(self) -> Path:
        return self.root / "run/edgenn/health.sock"


def reached(point: str) -> None:
    """Does nothing: where tests end the process, to see that `recover` mends what was left."""


def tell(step: str) -> None:
    """A step that is done, for whoever waits; nobody may, since a lost connection must change nothing."""
    try:
        print(step, file=sys.stderr, flush=True)
    except OSError:
        pass


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"{argv[0]} does not answer")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; {} where there is none or it is not one."""
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Wait until the entries of a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, text: str, mode: int = 0o640) -> None:
    """Write a file beside its place, wait for the disk, rename it into it, and wait again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
