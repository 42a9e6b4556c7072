"""What is kept on disk to save work: where it lies, how much of the disk it takes, and that what was used longest ago
goes first.

Whoever keeps something marks it as used by its time of modification, and holds a lock on a file while it writes it.
Knows nothing of what is in the files, and removes only paths that it is given.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Kept:
    """A file or folder: when it was used last (Unix seconds), its bytes, where it is. Ordered by use."""

    used: float
    bytes: int
    path: Path


def cache_folder() -> Path:
    """Where edgenn keeps what can be made again: $XDG_CACHE_HOME/edgenn or ~/.cache/edgenn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgenn"


def by_use(paths: Iterable[Path]) -> list[Kept]:
    """Those that are still there, least recently used first."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):  # another run is removing it
            status = path.stat()
            found.append(Kept(status.st_mtime, status.st_size, path))
    return sorted(found)


def share_of_disk(folder: Path, share: float, kept: Iterable[Kept]) -> int:
    """Bytes that a cache may take: a share of what is free on the disk of `folder`, which need not be there yet, and
    what the cache has already."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return int(share * (shutil.disk_usage(there).free + sum(one.bytes for one in kept)))


def evict(
    kept: Iterable[Kept], most: int, *, keep: Collection[Path] = (), remove: Callable[[Path], None] | None = None
) -> int:
    """Remove what was used least recently until at most `most` bytes are left; return how many are.

    Args:
      kept: as `by_use` gives it.
      keep: paths that stay whatever they take.
      remove: removes one; None: the file alone. Who has it open can go on reading it.
    """
    kept = list(kept)
    total = sum(one.bytes for one in kept)
    for one in kept:
        if total <= most:
            break
        if one.path not in keep:
            if remove is None:
                one.path.unlink(missing_ok=True)
            else:
                remove(one.path)
            total -= one.bytes
    return total


def remove_abandoned(path: Path, finished: Callable[[], bool] = lambda: False) -> None:
    """Remove a file that a killed process was writing; one whose writer lives, and so holds its lock, stays.

    Args:
      finished: asked when the lock is held: whether the writer has come to its end meanwhile.
    """
    with suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not finished():
            path.unlink()
