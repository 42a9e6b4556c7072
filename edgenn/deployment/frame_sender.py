"""Sent to a device and run there as the service's user: lists, sends and removes the frames that the service has kept.

Only the standard library of Python 3.11. It follows no link, opens only plain pictures below the folder that the
current release names, and removes only what still has the content that it was told.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIXES = (".jpg", ".jpeg")
# Bytes of a picture. A frame of 4K as JPEG has some four million.
LARGEST = 32 << 20


def main(asked: dict[str, Any], root: Path) -> Any:
    """Do one thing.

    Args:
      asked: {"do": "list"}, {"do": "send", "paths": […]} or {"do": "remove", "files": [[path, sha256]…]}.
      root: "/"; another one in tests.

    Returns:
      list: {"folder": text or None, "files": [[path, bytes, sha256]…]}; send: [[path, base64 or None]…];
      remove: the paths that were removed.
    """
    folder = _folder(root)
    if folder is None:
        return {"folder": None, "files": []} if asked["do"] == "list" else []
    if asked["do"] == "list":
        found = []
        for path in _pictures(folder):
            content = _read(folder, path)
            if content is not None:
                found.append([path, len(content), hashlib.sha256(content).hexdigest()])
        return {"folder": str(folder), "files": found}
    if asked["do"] == "send":
        sent = ((path, _read(folder, path)) for path in asked["paths"])
        return [[path, None if content is None else base64.b64encode(content).decode()] for path, content in sent]
    return [path for path, sha256 in asked["files"] if _remove(folder, path, sha256)]


def _folder(root: Path) -> Path | None:
    """Where the service keeps frames; None if it keeps none."""
    try:
        options = tomllib.loads((root / "opt/edgenn/current/run.toml").read_text())
    except (OSError, ValueError):
        return None
    name = options.get("keep-uncertain", options.get("keep_uncertain"))
    # An absolute path holds by itself.
    return root / "var/lib/edgenn" / name if isinstance(name, str) and name else None


def _pictures(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield str((Path(place) / name).relative_to(folder))


def _read(folder: Path, path: str) -> bytes | None:
    """The content of a plain file below the folder, None for anything else."""
    handle = _open(folder, path)
    if handle is None:
        return None
    with os.fdopen(handle, "rb") as file:
        content = file.read(LARGEST + 1)
    return content if len(content) <= LARGEST else None


def _open(folder: Path, path: str) -> int | None:
    """A handle, reached without following any link below the folder."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return None
    at = None
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        handle = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
        return None
    except OSError:
        return None
    finally:
        if at is not None:
            os.close(at)


def _remove(folder: Path, path: str, sha256: str) -> bool:
    content = _read(folder, path)
    if content is None or hashlib.sha256(content).hexdigest() != sha256:
        return False
    try:
        (folder / path).unlink()
        # What the model said of it is of no use without it.
        (folder / path).with_suffix(".json").unlink(missing_ok=True)
        return True
    except OSError:
        return False


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin), Path("/")), sys.stdout)
