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


def between_file_systems(monkeypatch):
    plain = os.link

    def link(one, other):
        if ".edgenn-" not in str(one):
            raise OSError(errno.EXDEV, "")
        plain(one, other)

    monkeypatch.setattr(sorting.os, "link", link)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("across", [False, True])
def test_names_that_are_taken_get_a_suffix_and_nothing_is_replaced(tmp_path, monkeypatch, link, across):
    if across:
        between_file_systems(monkeypatch)
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
        between_file_systems(monkeypatch)
    paths = pictures_of_one_name(tmp_path / "in", 6)
    first = Sorter(str(tmp_path / "{label}"), link=False)
    placed = [first.place(Tagged(str(path), "hat")) for path in paths[:3]]  # and killed before any release
    places = sort(Sorter(str(tmp_path / "{label}"), link=False, resuming=True), paths)
    assert [str(place) for place in places[:3]] == placed
    assert len([*(tmp_path / "hat").iterdir()]) == 6
    assert not any(path.exists() for path in paths)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("always", [False, True])
def test_after_a_kill_copies_of_one_name_and_content_are_all_kept(tmp_path, monkeypatch, across, always):
    if across:
        between_file_systems(monkeypatch)
    paths = pictures_of_one_name(tmp_path / "in", 8)
    for number, path in enumerate(paths):
        path.write_text("the same")
        os.utime(path, (number, number))
    (tmp_path / "hat").mkdir()
    (tmp_path / "hat" / "1.jpg").write_text("the same")  # no row's, and there before
    first = Sorter(str(tmp_path / "{label}"), link=False)
    places = sort(first, paths[:3])
    uncertain = [Path(first.place(Tagged(str(path), "hat"))) for path in paths[3:5]]  # and killed
    places += sort(Sorter(str(tmp_path / "{label}"), link=False, resuming=True, always_resuming=always), paths[3:])
    assert [place.name for place in places] == [f"1-{number}.jpg" for number in range(2, 10)]
    assert places[3:5] == uncertain
    assert len([*(tmp_path / "hat").iterdir()]) == 9
    assert not any(path.exists() for path in paths)
    assert [place.stat().st_mtime for place in places] == [*range(8)]


def test_names_that_are_as_long_as_can_be_still_get_a_suffix(tmp_path):
    names = ["n" * 251 + ".jpg", "ü" * 125 + "n.jpg", os.fsdecode(b"\xff" * 251 + b".jpg")]
    for name in names:
        paths = [tmp_path / "in" / str(number) / name for number in range(11)]
        for number, path in enumerate(paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name.encode(errors='replace')} {number}")
        contents = [path.read_text() for path in paths]
        places = sort(Sorter(str(tmp_path / "{label}"), link=False), paths)
        assert [place.read_text() for place in places] == contents
        assert places[10].name.endswith("n-11.jpg" if name.startswith("n") else "-11.jpg")
    assert len([*(tmp_path / "hat").iterdir()]) == 33


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


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("resuming", [False, True])
@pytest.mark.parametrize(
    "way",
    [
        "sorted/hat",  # from the folder itself
        "alias/hat",  # its parent is reached by a link
        "alias2",  # the label's folder is itself reached by a link
        "sorted/cap/../hat",
    ],
)
def test_a_picture_that_is_in_its_label_s_folder_stays(tmp_path, monkeypatch, link, resuming, way):
    monkeypatch.chdir(tmp_path)
    for folder in ("hat", "cap"):
        (tmp_path / "sorted" / folder).mkdir(parents=True)
    (tmp_path / "alias").symlink_to("sorted")
    (tmp_path / "alias2").symlink_to("sorted/hat")
    (tmp_path / "sorted" / "hat" / "1.jpg").write_text("the only copy")
    sorter = Sorter("sorted/{label}", link=link, resuming=resuming, always_resuming=resuming)
    # Also when others of its name were placed before it.
    for other in pictures_of_one_name(tmp_path / "in", 2):
        sorter.place(Tagged(str(other), "hat"))
    for path in (f"{way}/1.jpg", tmp_path / way / "1.jpg"):
        (place,) = sort(sorter, [path])
        assert place == tmp_path / "sorted" / "hat" / "1.jpg"
        assert place.read_text() == "the only copy"
        assert {path.name for path in place.parent.iterdir()} == {"1.jpg", "1-2.jpg", "1-3.jpg"}


def test_what_a_row_calls_moved_to_its_own_name_is_not_removed(tmp_path):
    (path,) = pictures_of_one_name(tmp_path / "in", 1)
    (tmp_path / "alias").symlink_to("in")
    Sorter(str(tmp_path / "{label}"), link=False).release(
        [Tagged(str(path), "hat", sorted_to=str(tmp_path / "alias" / "0" / "1.jpg"))]
    )
    assert path.exists()


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(
    "listed",
    [
        ["link.jpg"],  # what it leads to stays
        ["link.jpg", "0/1.jpg"],  # both are moved
        ["0/1.jpg", "link.jpg"],
    ],
)
def test_a_link_is_moved_as_the_picture_that_it_leads_to(tmp_path, monkeypatch, across, listed):
    if across:
        between_file_systems(monkeypatch)
    (path,) = pictures_of_one_name(tmp_path / "in", 1)
    content = path.read_text()
    (tmp_path / "in" / "link.jpg").symlink_to("0/1.jpg")
    places = sort(Sorter(str(tmp_path / "{label}"), link=False), [tmp_path / "in" / name for name in listed])
    assert [(place.read_text(), place.is_symlink()) for place in places] == [(content, False)] * len(listed)
    assert path.exists() is (listed == ["link.jpg"])
    assert not (tmp_path / "in" / "link.jpg").is_symlink()


def test_a_pattern_without_label_is_refused():
    with pytest.raises(EdgennError, match="label"):
        Sorter("out", link=False)
