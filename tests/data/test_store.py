import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgenn.data import Picture, load, scan
from edgenn.data import store as module
from edgenn.data.store import Stored
from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError
from tests.conftest import write_photos

SPEC = InputSpec(16, 16)
ROW = 16 * 16 * 3


@pytest.fixture
def pictures(photos):
    return scan(photos).splits["train"]


def everything(stored: Stored) -> np.ndarray:
    return stored.rows(np.arange(len(stored.labels)))


def test_what_is_stored_is_what_load_decodes(pictures, tmp_path):
    seen = []
    stored = Stored(pictures, SPEC, lambda *given: seen.append(given), folder=tmp_path / "store")
    loaded = load(pictures, SPEC)
    assert np.array_equal(everything(stored), loaded.tensors)
    assert np.array_equal(stored.labels, loaded.labels)
    assert stored.pictures == loaded.pictures
    assert bytes(stored.digests[3]).hex() == pictures[3].sha256
    assert seen[-1] == (len(pictures), len(pictures))
    some = np.array([5, 0, 5])
    assert np.array_equal(stored.rows(some), loaded.tensors[some])


def test_the_next_run_decodes_nothing_and_finds_photos_by_content(pictures, tmp_path):
    first = Stored(pictures, SPEC, folder=tmp_path / "store")
    assert first.decoded == len(pictures)
    renamed = []
    for number, picture in enumerate(reversed(pictures)):
        path = tmp_path / f"{number}.png"
        path.write_bytes(picture.path.read_bytes())
        renamed.append(type(picture)(path, picture.label, picture.sha256))
    seen = []
    again = Stored(renamed, SPEC, lambda *given: seen.append(given), folder=tmp_path / "store")
    assert (again.decoded, again.on_disk) == (0, len(pictures))
    assert seen == [(len(pictures), len(pictures))]
    assert np.array_equal(everything(again), everything(first)[::-1])


def test_another_input_is_another_set_of_pictures(pictures, tmp_path):
    Stored(pictures, SPEC, folder=tmp_path / "store")
    for other in (InputSpec(8, 16), InputSpec(16, 16, 3, "rgb", "crop"), InputSpec(16, 16, 1, "grey")):
        stored = Stored(pictures, other, folder=tmp_path / "store")
        assert stored.decoded == len(pictures)
        assert np.array_equal(everything(stored), load(pictures, other).tensors)


def test_only_new_photos_are_decoded(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SEGMENT", 7 * ROW)
    monkeypatch.setattr(module, "_BLOCK", 3 * ROW)
    Stored(pictures[:20], SPEC, folder=tmp_path / "store")
    stored = Stored(pictures, SPEC, folder=tmp_path / "store")
    assert stored.decoded == len(pictures) - 20
    assert len(list((tmp_path / "store").glob("*/*.rows"))) > 6
    assert np.array_equal(everything(stored), load(pictures, SPEC).tensors)


def test_photos_beyond_the_bound_are_decoded_each_time(pictures, tmp_path):
    stored = Stored(pictures, SPEC, folder=tmp_path / "store", most=10 * ROW + 5)
    assert stored.on_disk == 10
    assert np.array_equal(everything(stored), load(pictures, SPEC).tensors)
    assert sum(path.stat().st_size for path in (tmp_path / "store").glob("*/*.rows")) == 10 * ROW
    nothing = Stored(pictures, SPEC, folder=tmp_path / "none", most=0)
    assert nothing.on_disk == 0
    assert np.array_equal(everything(nothing), load(pictures, SPEC).tensors)


def test_what_this_run_reads_is_not_removed_to_make_room_for_what_it_adds(pictures, tmp_path):
    Stored(pictures[:10], SPEC, folder=tmp_path / "store")
    stored = Stored(pictures[:30], SPEC, folder=tmp_path / "store", most=15 * ROW)
    assert stored.on_disk == 15
    assert np.array_equal(everything(stored), load(pictures[:30], SPEC).tensors)
    assert Stored(pictures[:10], SPEC, folder=tmp_path / "store").decoded == 0


def test_what_another_run_is_writing_is_not_swept_away(pictures, tmp_path):
    Stored(pictures[:2], SPEC, folder=tmp_path / "store")
    rows = next((tmp_path / "store").glob("*/*.rows")).with_name("begun.rows")
    with rows.open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        Stored(pictures[:2], SPEC, folder=tmp_path / "store")
        assert rows.exists()
    Stored(pictures[:2], SPEC, folder=tmp_path / "store")
    assert not rows.exists()


def test_what_was_used_least_recently_goes_first_and_stays_readable_to_who_has_it(pictures, tmp_path):
    folder = tmp_path / "store"
    oldest, older, newest = pictures[:10], pictures[10:20], pictures[20:30]
    first = Stored(oldest, SPEC, folder=folder)
    expected = everything(first)
    Stored(older, SPEC, folder=folder)
    for path, second in zip(sorted(folder.glob("*/*.rows"), key=lambda p: p.stat().st_mtime), (1, 2), strict=True):
        os.utime(path, (second, second))
    Stored(older, SPEC, folder=folder)  # is used again
    os.utime(first._paths[0], (3, 3))
    Stored(newest, SPEC, folder=folder, most=20 * ROW)
    assert Stored(older, SPEC, folder=folder).decoded == 0
    assert np.array_equal(everything(first), expected), "an open segment was lost"
    assert Stored(oldest, SPEC, folder=folder, most=0).decoded == 10


def test_photos_that_do_not_decode_are_told_and_left_out(pictures, tmp_path):
    good = [picture for index, picture in enumerate(pictures) if index not in (0, 7, 9)]
    expected = load(good, SPEC).tensors
    content = pictures[7].path.read_bytes()[:100]
    pictures[7].path.write_bytes(content)
    damaged = Picture(pictures[7].path, pictures[7].label, hashlib.sha256(content).hexdigest())
    pictures[0].path.unlink()
    pictures[9].path.write_bytes(pictures[10].path.read_bytes())  # another photo than was scanned
    given = [*pictures[:7], damaged, *pictures[8:]]
    stored = Stored(given, SPEC, folder=tmp_path / "store")
    assert [problem.path for problem in stored.problems] == [pictures[i].path for i in (0, 7, 9)]
    words = ["cannot be read", "truncated", "changed"]
    assert all(word in problem.reason for problem, word in zip(stored.problems, words, strict=True))
    assert stored.pictures == tuple(good)
    assert np.array_equal(everything(stored), expected)


def test_a_photo_that_goes_away_is_one_line(pictures, tmp_path):
    stored = Stored(pictures, SPEC, folder=tmp_path / "store", most=0)
    pictures[4].path.unlink()
    with pytest.raises(EdgennError, match="cannot be read any more"):
        stored.rows(np.array([4]))


def test_a_store_that_was_cut_off_is_not_used_and_one_cut_off_while_open_is_one_line(pictures, tmp_path):
    stored = Stored(pictures, SPEC, folder=tmp_path / "store")
    rows = stored._paths[0]
    os.truncate(rows, rows.stat().st_size - 1)
    with pytest.raises(EdgennError, match="is damaged: remove it"):
        everything(stored)
    assert Stored(pictures, SPEC, folder=tmp_path / "store").decoded == len(pictures)


def test_a_folder_that_cannot_be_written_says_what_to_set(pictures, tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(EdgennError, match="set XDG_CACHE_HOME"):
        Stored(pictures, SPEC, folder=tmp_path / "store")


_CHILD = """
import os, signal, sys
from pathlib import Path
from edgenn.data import scan, store
store._SEGMENT = store._BLOCK = 10 * 16 * 16 * 3
written = []
real = os.fsync
def fsync(file):  # the rows of the third segment are written, its digests are not
    real(file)
    written.append(file)
    if len(written) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
from edgenn_device.card import InputSpec
store.Stored(scan(sys.argv[1]).splits["train"], InputSpec(16, 16), folder=Path(sys.argv[2]))
"""


def test_killed_while_it_decodes_it_keeps_whole_segments_and_nothing_else(photos, pictures, tmp_path):
    folder = tmp_path / "store"
    # Each segment is flushed once for its rows and once for its digests.
    killed = subprocess.run([sys.executable, "-c", _CHILD, photos, folder, "5"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(folder.glob("*/*.rows"))) == 3
    stored = Stored(pictures, SPEC, folder=folder)
    assert stored.decoded == len(pictures) - 20
    assert np.array_equal(everything(stored), load(pictures, SPEC).tensors)
    complete = {path.with_suffix(".rows") for path in folder.glob("*/*.digests")}
    assert set(folder.glob("*/*.rows")) == complete, "half a segment was left behind"


def test_two_runs_at_once_do_not_disturb_each_other(photos, pictures, tmp_path):
    folder = tmp_path / "store"
    runs = [subprocess.Popen([sys.executable, "-c", _CHILD, photos, folder, "-1"]) for _ in range(2)]
    stored = Stored(pictures, SPEC, folder=folder)
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert np.array_equal(everything(stored), load(pictures, SPEC).tensors)
    assert Stored(pictures, SPEC, folder=folder).decoded == 0


def test_the_default_store_lies_in_the_cache_folder(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Stored(pictures[:3], SPEC)
    assert len(list((tmp_path / "cache" / "edgenn" / "pictures").glob("*/*.rows"))) == 1
    write_photos(tmp_path / "more", each=2)
    assert Path(module.cache_folder()) == tmp_path / "cache" / "edgenn"
