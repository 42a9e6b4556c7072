"""Which pictures a path names, and in which order."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenn.tagging import listing
from edgenn.tagging.listing import pictures
from edgenn.tagging.reading import picture_bytes
from edgenn_device.errors import EdgennError


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_gives_its_pictures_in_order_then_those_of_its_folders(tmp_path):
    make(tmp_path, "b.jpg", "a.PNG", "d.heic", "z/1.jpg", "c/2.webp", "c/1.jpeg")
    make(tmp_path, "notes.txt", ".hidden.jpg", ".git/1.jpg")
    (tmp_path / "link-to-folder").symlink_to(tmp_path / "c")
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    found = [os.path.relpath(path, tmp_path) for path in pictures([str(tmp_path)])]
    # The broken link, the one to itself and the HEIC are listed: their rows say what is wrong with them.
    assert found == ["a.PNG", "b.jpg", "broken.jpg", "d.heic", "itself.jpg", "c/1.jpeg", "c/2.webp", "z/1.jpg"]


def test_paths_keep_their_order_and_a_named_file_needs_no_suffix(tmp_path):
    make(tmp_path, "scan", "b.jpg", "a/1.jpg", "a/2.jpg")
    given_ = [str(tmp_path / name) for name in ("scan", "a/*.jpg", "b.jpg", "a", "b.jpg")]
    names = [os.path.relpath(path, tmp_path) for path in pictures(given_)]
    assert names == ["scan", "a/1.jpg", "a/2.jpg", "b.jpg", "a/1.jpg", "a/2.jpg", "b.jpg"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    make(tmp_path, "a[1].jpg", "a1.jpg")
    assert [*pictures([str(tmp_path / "a[1].jpg")])] == [str(tmp_path / "a[1].jpg")]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no picture"),  # an empty folder
        (["notes.txt"], "no picture"),  # nothing that is one
        (None, "does not exist"),  # nothing at all
    ],
)
def test_a_path_that_names_nothing_is_an_error(tmp_path, names, said):
    folder = tmp_path / "folder"
    if names is not None:
        folder.mkdir()
        make(folder, *names)
    with pytest.raises(EdgennError, match=said):
        [*pictures([str(folder)])]


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("**/*.jpg", ["1.jpg", "a/2.jpg", "a/b/3.jpg", "a[1]/4.jpg"]),
        ("a/**/*.jpg", ["a/2.jpg", "a/b/3.jpg"]),
        ("a/**", ["a/2.jpg", "a/b/3.jpg", "a/notes.txt"]),  # all files
        ("**/b/*.jpg", ["a/b/3.jpg"]),
        ("**/3.jpg", ["a/b/3.jpg"]),
        ("**/**/*.jpg", ["1.jpg", "a/2.jpg", "a/b/3.jpg", "a[1]/4.jpg"]),  # each once
        ("./**/3.jpg", ["./a/b/3.jpg"]),
        ("[a]/**/*.jpg", ["a/2.jpg", "a/b/3.jpg"]),
        ("loop/**/3.jpg", ["loop/a/b/3.jpg"]),  # a link that is named is meant
        ("*/[23].jpg", ["a/2.jpg"]),
        ("**.jpg", ["1.jpg"]),  # no ** of its own: as *
        ("1.jpg/**/*.jpg", None),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_glob_follows_no_link_to_a_folder(tmp_path, monkeypatch, glob, found, absolute):
    make(tmp_path, "1.jpg", "a/2.jpg", "a/b/3.jpg", "a[1]/4.jpg", "a/notes.txt", ".hidden/5.jpg", "a/.6.jpg")
    for place in ("loop", "a/loop", "a/b/loop", "a/b/other"):
        (tmp_path / place).symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    start = f"{tmp_path}/" if absolute else ""
    if found is None:
        with pytest.raises(EdgennError, match="no picture"):
            [*pictures([start + glob])]
    else:
        assert [*pictures([start + glob])] == [start + name for name in found]


def test_a_folder_that_cannot_be_listed_is_an_error_or_told_and_passed_over(tmp_path, monkeypatch):
    make(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    scan = os.scandir

    def scandir(path):  # as for a user who may not read it; root may all
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(listing.os, "scandir", scandir)
    with pytest.raises(EdgennError, match=r"/b cannot be listed \(Permission denied\)"):
        [*pictures([str(tmp_path)])]
    told = []
    found = [*listing.folder(str(tmp_path), lambda *failure: told.append(failure))]
    assert [os.path.relpath(path, tmp_path) for path in found] == ["a/1.jpg", "c/3.jpg"]
    assert [(path, str(error.strerror)) for path, error in told] == [(str(tmp_path / "b"), "Permission denied")]


def test_a_glob_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(EdgennError, match="no picture"):
        [*pictures([str(tmp_path / "*.jpg")])]


def test_a_folder_larger_than_a_run_is_sorted_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_RUN", 7)
    names = [f"{number * 37 % 101:03d}.jpg" for number in range(101)]
    make(tmp_path, *names)
    assert [Path(path).name for path in pictures([str(tmp_path)])] == sorted(names)


# Any bytes but a null character may stand in a path; a line feed only where entries end with null characters.
_PATHS = st.lists(st.binary(min_size=1, max_size=40).filter(lambda path: b"\0" not in path), max_size=30)


@given(_PATHS, st.integers(1, 50))
def test_a_list_ended_by_null_characters_gives_every_path(paths, piece):
    class Slow(io.BytesIO):
        """The first read must see a null character, as of `find -print0`; later ones may end anywhere."""

        def read(self, size=-1):
            return super().read(size if self.tell() == 0 else min(size, piece))

    stream = Slow(b"".join(path + b"\0" for path in paths))
    assert [os.fsencode(path) for path in listing.lines(stream)] == paths


@given(_PATHS)
def test_a_list_of_lines_gives_every_path(paths):
    paths = [path for path in paths if not set(path) & set(b"\n\r")]
    stream = io.BytesIO(b"\n".join(paths))
    assert [os.fsencode(path) for path in listing.lines(stream)] == paths


def test_lines_may_end_like_those_of_windows_and_be_empty():
    assert [*listing.lines(io.BytesIO(b"a.jpg\r\n\nb c.jpg\r\n"))] == ["a.jpg", "b c.jpg"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("s3://shop/new", ["a::b.jpg", "br1.jpg", "br[1].jpg"]),  # a folder
        ("s3://shop/new/a::b.jpg", ["a::b.jpg"]),  # not one URL in another
        ("s3://shop/new/br[1].jpg", ["br[1].jpg"]),  # it exists: no glob
        ("s3://shop/new/br[12].jpg", ["br1.jpg"]),  # a glob
        ("S3://shop/new/br1.jpg", ["br1.jpg"]),  # schemes are the same in capitals
    ],
)
def test_an_object_may_have_any_name(storage, url, found):
    for name in ("a::b.jpg", "br1.jpg", "br[1].jpg"):
        storage.pipe(f"shop/new/{name}", name.encode())
    urls = [*pictures([url])]
    assert urls == [f"s3://shop/new/{name}" for name in found]
    assert [picture_bytes(url).decode() for url in urls] == found
