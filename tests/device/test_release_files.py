"""In which order the disk is asked for what: after a loss of power a name stands for a whole file or for none."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from edgenn_device.release_files import Places, write_synced
from edgenn_device.releases import Releases


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """("sync" or "rename", the name, bytes of the file by then), one after the other."""
    seen: list[tuple[str, str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").readlink()
        seen.append(("sync", place.name, 0 if place.is_dir() else os.fstat(handle).st_size))
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        seen.append(("rename", target.name, 0 if path.is_symlink() else path.stat().st_size))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    return seen


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, happened: list[tuple[str, str, int]]) -> None:
    write_synced(tmp_path / "proved.json", "whole")
    assert happened == [("sync", ".proved.json.new", 5), ("rename", "proved.json", 5), ("sync", tmp_path.name, 0)]
    assert (tmp_path / "proved.json").read_text() == "whole"


def test_the_link_is_on_the_disk_before_anything_builds_upon_it(
    tmp_path: Path, happened: list[tuple[str, str, int]]
) -> None:
    releases = Releases(Places(tmp_path))
    releases.places.base.mkdir(parents=True)
    releases._point("one")
    assert happened == [("rename", "current", 0), ("sync", "edgenn", 0)]
    assert releases.current == "one"
    happened.clear()
    releases._point(None)
    assert happened == [("sync", "edgenn", 0)]
    assert releases.current is None


def test_a_disk_that_is_full_leaves_what_was_there_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_synced(tmp_path / "mark", "old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left"):
        write_synced(tmp_path / "mark", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]
    assert (tmp_path / "mark").read_text() == "old"
