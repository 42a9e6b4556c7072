import errno
import os

import pytest

from edgenn_device.errors import EdgennError
from edgenn_device.files import folder_written_aside, write_atomically, written_aside


def test_a_file_is_there_whole(tmp_path):
    write_atomically(tmp_path / "deep" / "a.txt", "héllo")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "héllo".encode()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), written_aside(tmp_path / "a.txt") as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    with pytest.raises(ZeroDivisionError), folder_written_aside(tmp_path / "run") as aside:
        (aside / "new").touch()
        raise ZeroDivisionError
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["old"]
    with folder_written_aside(tmp_path / "run") as aside:
        (aside / "new").touch()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no room left on the disk"),  # full
        (errno.EROFS, "cannot be written"),  # read-only
        (errno.EIO, "cannot be written"),  # a card that dies
    ],
)
def test_a_disk_that_refuses_is_one_line(tmp_path, number, said):
    with pytest.raises(EdgennError, match=said), written_aside(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []
