"""Where a picture goes: into its label's folder, under a free name, and nowhere else."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.tagging import sorting
from edgenn.tagging.records import Tagged
from edgenn.tagging.sorting import Sorter, folder_name
from edgenn_device.errors import EdgennError


@given(st.text(max_size=300))
def test_any_label_is_one_visible_folder_name(label):
    name = folder_name(label)
    assert "/" not in name
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert name.isprintable()
    assert len(name.encode()) <= 200


@pytest.mark.parametrize("label", ["../x", "/etc", "..", "a/../../b", "\0", "-rf", "\u202egnp.exe"])
def test_a_hostile_label_stays_in_the_folder(tmp_path, label):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_text("a")
    place = Path(Sorter(str(tmp_path / "out" / "{label}"), link=False).place(Tagged(str(tmp_path / "in/a.jpg"), label)))
    assert place.parent.parent == tmp_path / "out"
    assert place.read_text() == "a"


def sort(sorter, paths, label="hat"):
    records = [Tagged(str(path), label, sorted_to=sorter.place(Tagged(str(path), label))) for path in paths]
    sorter.release(records)
    return [Path(record.sorted_to) for record in records]


def pictures_of_one_name(folder, count):
    paths = [folder / str(number) / "1.jpg" for number in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text(str(path))
    return paths


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("across", [False, True])
def test_names_that_are_taken_get_a_suffix_and_nothing_is_replaced(tmp_path, monkeypatch, link, across):
    if across:  # as between two file systems
        plain = os.link
        monkeypatch.setattr(
            sorting.os,
            "link",
            lambda a, b: plain(a, b) if ".edgenn-" in str(a) else (_ for _ in ()).throw(OSError(errno.EXDEV, "")),
        )
    paths = pictures_of_one_name(tmp_path / "in", 5)
    contents = [path.read_text() for path in paths]
    (tmp_path / "hat").mkdir()
    (tmp_path / "hat" / "1.jpg").write_text("was there")
    places = sort(Sorter(str(tmp_path / "{label}"), link=link), paths)
    assert [place.name for place in places] == ["1-2.jpg", "1-3.jpg", "1-4.jpg", "1-5.jpg", "1-6.jpg"]
    assert [place.read_text() for place in places] == contents
    assert (tmp_path / "hat" / "1.jpg").read_text() == "was there"
    assert all(path.exists() is link for path in paths)
    assert all(place.is_symlink() is link for place in places)
    assert len([*(tmp_path / "hat").iterdir()]) == 6


@pytest.mark.parametrize("across", [False, True])
def test_after_a_kill_what_was_placed_is_recognised(tmp_path, monkeypatch, across):
    if across:
        plain = os.link
        monkeypatch.setattr(
            sorting.os,
            "link",
            lambda a, b: plain(a, b) if ".edgenn-" in str(a) else (_ for _ in ()).throw(OSError(errno.EXDEV, "")),
        )
    paths = pictures_of_one_name(tmp_path / "in", 6)
    first = Sorter(str(tmp_path / "{label}"), link=False)
    placed = [first.place(Tagged(str(path), "hat")) for path in paths[:3]]  # and killed before any release
    places = sort(Sorter(str(tmp_path / "{label}"), link=False, resuming=True), paths)
    assert [str(place) for place in places[:3]] == placed
    assert len([*(tmp_path / "hat").iterdir()]) == 6
    assert not any(path.exists() for path in paths)


def test_two_names_of_one_file_are_two_pictures(tmp_path):
    (one,) = pictures_of_one_name(tmp_path / "in", 1)
    (tmp_path / "in" / "again").mkdir()
    os.link(one, tmp_path / "in" / "again" / "1.jpg")
    places = sort(Sorter(str(tmp_path / "{label}"), link=False), [one, tmp_path / "in" / "again" / "1.jpg"])
    assert [place.name for place in places] == ["1.jpg", "1-2.jpg"]
    assert all(place.exists() for place in places)


def test_release_leaves_alone_what_has_come_under_the_old_name_since(tmp_path):
    (path,) = pictures_of_one_name(tmp_path / "in", 1)
    sorter = Sorter(str(tmp_path / "{label}"), link=False)
    record = Tagged(str(path), "hat", sorted_to=sorter.place(Tagged(str(path), "hat")))
    path.unlink()
    path.write_text("another picture")
    sorter.release([record])
    assert path.read_text() == "another picture"


def test_a_link_is_moved_as_what_it_leads_to(tmp_path):
    (path,) = pictures_of_one_name(tmp_path / "in", 1)
    link = tmp_path / "in" / "link.jpg"
    link.symlink_to("0/1.jpg")
    (place,) = sort(Sorter(str(tmp_path / "{label}"), link=False), [link])
    assert place.read_text() == path.read_text()
    assert path.exists()
    assert not link.is_symlink()


def test_a_pattern_without_label_is_refused():
    with pytest.raises(EdgennError, match="label"):
        Sorter("out", link=False)
