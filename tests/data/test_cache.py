"""What is kept goes by its last use, within its bound, and never under whoever writes it."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.data.cache import Kept, by_use, evict, remove_abandoned, share_of_disk


def test_the_least_recently_used_stands_first_and_what_has_gone_is_left_out(tmp_path: Path) -> None:
    for name, used in (("b", 2), ("c", 3), ("a", 1)):
        (tmp_path / name).write_bytes(bytes(used))
        os.utime(tmp_path / name, (used, used))
    kept = by_use([*tmp_path.iterdir(), tmp_path / "gone"])
    assert kept == [Kept(float(used), used, tmp_path / name) for name, used in (("a", 1), ("b", 2), ("c", 3))]


@given(
    sizes=st.lists(st.integers(0, 9), max_size=8),
    most=st.integers(-5, 50),
    keep=st.sets(st.integers(0, 7)),
)
def test_no_more_goes_than_has_to_and_what_is_kept_stays(sizes: list[int], most: int, keep: set[int]) -> None:
    kept = [Kept(float(age), size, Path(str(age))) for age, size in enumerate(sizes)]
    removed: list[Path] = []
    left = evict(kept, most, keep={Path(str(age)) for age in keep}, remove=removed.append)
    stays = [one for one in kept if one.path not in removed]
    assert left == sum(one.bytes for one in stays)
    may_go = [one.path for one in kept if int(one.path.name) not in keep]
    # The oldest of those that may go, and not one after there was room.
    assert removed == may_go[: len(removed)]
    assert left <= most or len(removed) == len(may_go)
    if removed:
        assert left + kept[int(removed[-1].name)].bytes > most


def test_a_file_goes_by_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (ord(name), ord(name)))
    assert evict(by_use(tmp_path.iterdir()), 10) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_share_is_of_what_is_free_and_what_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 900, 100))  # type: ignore[attr-defined]
    held = [Kept(1.0, 30, Path("a")), Kept(2.0, 10, Path("b"))]
    assert share_of_disk(tmp_path / "not" / "there", 0.5, held) == 70


def test_only_a_file_without_a_writer_is_abandoned(tmp_path: Path) -> None:
    path = tmp_path / "begun"
    with path.open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        remove_abandoned(path)
        assert path.exists()
    remove_abandoned(path, finished=lambda: True)
    assert path.exists()
    remove_abandoned(path)
    assert not path.exists()
    remove_abandoned(path)  # another run was faster
