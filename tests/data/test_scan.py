"""Folders to a data set: layouts, the split by content, duplicates, problems, and every refusal."""

import hashlib
import os
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn.data import VALIDATION_SHARE, scan
from edgenn.data.split import validation_contents
from edgenn_device.errors import EdgennError


def photo(number, extension=".png"):
    """A small picture file, another for every number."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return cv2.imencode(extension, pixels)[1].tobytes()


def put(folder, numbers, extension=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number}{extension}").write_bytes(photo(number, extension))


def where(dataset):
    """(label name, path below the root) -> split."""
    return {
        (dataset.labels[picture.label], picture.path.relative_to(dataset.root).as_posix()): split
        for split, pictures in dataset.splits.items()
        for picture in pictures
    }


@pytest.fixture
def photos(tmp_path):
    """Two classes of twelve pictures that no folder splits."""
    put(tmp_path / "photos" / "shirt", range(12))
    put(tmp_path / "photos" / "jacket", range(100, 112))
    return tmp_path / "photos"


def test_class_folders_are_split_by_content(photos):
    dataset = scan(photos)
    assert dataset.labels == ("jacket", "shirt")
    assert dataset.split_rule == "content hash"
    assert set(dataset.splits) == {"train", "validation"}
    assert sum(map(len, dataset.splits.values())) == 24
    assert dataset.problems == dataset.duplicates == ()
    for split, pictures in dataset.splits.items():
        assert {picture.label for picture in pictures} == {0, 1}
        assert list(pictures) == sorted(pictures, key=lambda picture: (picture.label, picture.path))
        for picture in pictures:
            digest = hashlib.sha256(picture.path.read_bytes()).hexdigest()
            assert picture.sha256 == digest
            assert (int(digest, 16) / 2**256 < VALIDATION_SHARE) == (split == "validation")
            assert picture.path.parent.name == dataset.labels[picture.label]


def test_the_split_is_of_the_intended_size():
    digests = [hashlib.sha256(bytes([a, b])).hexdigest() for a in range(100) for b in range(100)]
    assert abs(len(validation_contents([digests])) / len(digests) - VALIDATION_SHARE) < 0.02


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "Val"])
def test_split_folders_are_taken_as_they_are(tmp_path, validation):
    put(tmp_path / "train" / "shirt", range(3))
    put(tmp_path / "train" / "jacket", range(10, 14))
    put(tmp_path / validation / "shirt", [20])
    put(tmp_path / validation / "jacket", [21])
    put(tmp_path / "test" / "jacket", [30, 31])
    put(tmp_path / "raw", [40])  # beside the splits: not part of the data set
    dataset = scan(tmp_path)
    assert dataset.split_rule == "folders"
    assert dataset.labels == ("jacket", "shirt")
    assert {split: len(pictures) for split, pictures in dataset.splits.items()} == {
        "train": 7,
        "validation": 2,
        "test": 2,
    }
    for (_, path), split in where(dataset).items():
        assert path.startswith(validation if split == "validation" else split)


def test_a_missing_validation_folder_is_split_off_train_and_test_stays_test(tmp_path):
    put(tmp_path / "train" / "shirt", range(40))
    put(tmp_path / "train" / "jacket", range(100, 140))
    put(tmp_path / "test" / "shirt", range(200, 220))
    dataset = scan(tmp_path)
    assert dataset.split_rule == "content hash"
    assert len(dataset.splits["train"]) + len(dataset.splits["validation"]) == 80
    assert {picture.label for picture in dataset.splits["validation"]} == {0, 1}
    assert len(dataset.splits["test"]) == 20
    assert all(path.startswith("test/") == (split == "test") for (_, path), split in where(dataset).items())


def test_a_picture_that_is_also_in_test_stays_where_its_folder_says(tmp_path):
    put(tmp_path / "train" / "shirt", [1, 2])
    put(tmp_path / "train" / "jacket", [3, 4])
    put(tmp_path / "test" / "shirt", [1, 5])
    dataset = scan(tmp_path)
    assert len(dataset.splits["test"]) == 2
    assert dataset.duplicates == ((tmp_path / "test/shirt/1.png", tmp_path / "train/shirt/1.png"),)


def test_a_class_called_train_is_a_class(tmp_path):
    put(tmp_path / "train", range(5))
    put(tmp_path / "aeroplane", range(10, 15))
    put(tmp_path / "test", range(20, 25))
    assert scan(tmp_path).labels == ("aeroplane", "test", "train")


def test_what_counts_as_a_picture(tmp_path):
    put(tmp_path / "b", range(4))
    shirt = tmp_path / "a"
    put(shirt, range(10, 13))
    put(shirt / "2024" / "summer", range(20, 22))
    put(shirt / ".trash", [30])
    put(shirt, [31], ".jpg")
    put(shirt, [32], ".webp")
    put(shirt, [33], ".bmp")
    put(shirt, [34], ".tif")
    (shirt / "LOUD.JPEG").write_bytes(photo(40, ".jpg"))
    (shirt / "in truth a png.jpg").write_bytes(photo(41))
    (shirt / "größe ☺ 'x'\n.png").write_bytes(photo(42))
    (shirt / ".hidden.png").write_bytes(photo(43))
    (shirt / "notes.txt").write_text("not a picture")
    (shirt / "Thumbs.db").write_bytes(b"neither")
    (tmp_path / "README.md").write_text("nor this")
    (tmp_path / ".git").mkdir()
    dataset = scan(tmp_path)
    names = {path for label, path in where(dataset) if label == "a"}
    assert len(names) == 12
    assert {"a/2024/summer/20.png", "a/LOUD.JPEG", "a/in truth a png.jpg", "a/größe ☺ 'x'\n.png"} <= names
    assert not any("hidden" in name or "trash" in name for name in names)
    assert dataset.labels == ("a", "b")
    assert dataset.problems == ()


def test_problems_are_listed_by_path_and_never_fatal(photos):
    shirt = photos / "shirt"
    (shirt / "a-empty.jpg").write_bytes(b"")
    (shirt / "b-truncated.jpg").write_bytes(photo(50, ".jpg")[:-20])
    (shirt / "c-text.png").write_text("hello")
    (shirt / "d-phone.HEIC").write_bytes(b"....ftypheic")
    (shirt / "e-link.jpg").symlink_to(photos / "nowhere.jpg")
    (shirt / "f-self.jpg").symlink_to(shirt / "f-self.jpg")
    os.mkfifo(shirt / "g-pipe.jpg")  # reading it would wait for ever
    (photos / "loose.jpg").write_bytes(photo(51, ".jpg"))
    dataset = scan(photos)
    assert sum(map(len, dataset.splits.values())) == 24
    assert [problem.path.name for problem in dataset.problems] == [
        "loose.jpg",
        "a-empty.jpg",
        "b-truncated.jpg",
        "c-text.png",
        "d-phone.HEIC",
        "e-link.jpg",
        "f-self.jpg",
        "g-pipe.jpg",
    ]
    for problem, word in zip(
        dataset.problems,
        ["no class folder", "empty", "truncated", "not a picture", "HEIC", "link", "link", "link"],
        strict=True,
    ):
        assert word in problem.reason
        assert "\n" not in problem.reason


def refuse(monkeypatch, name, path):
    """Deny reading one path, as permissions do; root, who may run these tests, is denied nothing by them."""
    original = getattr(os, name)

    def denying(target, *rest, **options):
        if str(target) == str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return original(target, *rest, **options)

    monkeypatch.setattr(os, name, denying)


def test_a_folder_that_may_not_be_read_is_a_problem_and_the_root_an_error(photos, monkeypatch):
    put(photos / "shirt" / "private", [60])
    refuse(monkeypatch, "scandir", photos / "shirt" / "private")
    (problem,) = scan(photos).problems
    assert problem.path == photos / "shirt" / "private"
    assert "Permission denied" in problem.reason
    refuse(monkeypatch, "scandir", photos)
    with pytest.raises(EdgennError, match="Permission denied"):
        scan(photos)


def test_links_are_followed_but_not_in_circles(photos, tmp_path):
    put(tmp_path / "elsewhere", range(200, 203))
    shirt = photos / "shirt"
    (shirt / "more").symlink_to(tmp_path / "elsewhere")
    (shirt / "again").symlink_to(tmp_path / "elsewhere")  # the same folder counts once
    (shirt / "loop").symlink_to(shirt)
    (shirt / "up").symlink_to(photos)  # would make every jacket a shirt
    (tmp_path / "elsewhere" / "back").symlink_to(shirt)
    dataset = scan(photos)
    assert sum(label == "shirt" for label, _ in where(dataset)) == 15
    assert dataset.duplicates == ()


def test_classes_choose_and_order(photos):
    put(photos / "coat", range(200, 210))
    put(photos / "empty", [])
    assert scan(photos, classes=["shirt", "coat"]).labels == ("shirt", "coat")
    dataset = scan(photos, classes=["shirt", "jacket"])
    assert dataset.labels == ("shirt", "jacket")
    assert where(dataset) == {**where(scan(photos, classes=["jacket", "shirt"]))}
    assert scan(photos, classes=["jacket", "shirt"]).fingerprint == dataset.fingerprint
    assert all(picture.path.parent.name == "shirt" for picture in dataset.splits["train"] if picture.label == 0)


def test_duplicates_are_reported_across_splits_and_labels_and_left_in(tmp_path):
    put(tmp_path / "train" / "shirt", [1, 2, 3])
    put(tmp_path / "train" / "jacket", [4, 5])
    put(tmp_path / "validation" / "shirt", [6])
    put(tmp_path / "validation" / "jacket", [7])
    (tmp_path / "train" / "shirt" / "same split and label.png").write_bytes(photo(3))
    (tmp_path / "validation" / "shirt" / "leak.png").write_bytes(photo(1))
    (tmp_path / "train" / "jacket" / "mislabelled.png").write_bytes(photo(2))
    dataset = scan(tmp_path)
    assert dataset.duplicates == (
        (tmp_path / "train/jacket/mislabelled.png", tmp_path / "train/shirt/2.png"),
        (tmp_path / "train/shirt/1.png", tmp_path / "validation/shirt/leak.png"),
    )
    assert sum(map(len, dataset.splits.values())) == 10


def test_identical_pictures_fall_on_the_same_side_by_content(photos):
    for number in range(12):
        (photos / "shirt" / f"copy of {number}.png").write_bytes(photo(number))
        (photos / "jacket" / f"mislabelled {number}.png").write_bytes(photo(number))
    dataset = scan(photos)
    side = {}
    for split, pictures in dataset.splits.items():
        for picture in pictures:
            assert side.setdefault(picture.sha256, split) == split
    assert len(dataset.duplicates) == 12
    assert all(len(group) == 3 for group in dataset.duplicates)


def test_fingerprint_is_of_labels_splits_and_contents_alone(photos):
    before = scan(photos).fingerprint
    (photos / "shirt" / "3.png").rename(photos / "shirt" / "renamed.png")
    (photos / "shirt" / "notes.txt").write_text("hello")
    assert scan(photos).fingerprint == before
    (photos / "shirt" / "renamed.png").write_bytes(photo(77))
    other = scan(photos).fingerprint
    assert other != before
    (photos / "shirt").rename(photos / "blouse")
    assert scan(photos).fingerprint not in (before, other)


def test_fingerprint_tells_splits_apart(tmp_path):
    put(tmp_path / "train" / "a", [1, 2])
    put(tmp_path / "train" / "b", [3, 4])
    put(tmp_path / "validation" / "a", [5])
    put(tmp_path / "validation" / "b", [6])
    before = scan(tmp_path).fingerprint
    (tmp_path / "train" / "a" / "2.png").rename(tmp_path / "validation" / "a" / "2.png")
    assert scan(tmp_path).fingerprint != before


def test_progress_counts_every_file_on_the_calling_thread(photos):
    calls = []
    scan(photos, progress=lambda *count: calls.append((*count, threading.current_thread())))
    assert calls[-1][:2] == (24, 24)
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert {thread for _, _, thread in calls} == {threading.current_thread()}


# --- what is refused, in one line that says how to mend it -------------------------------------------------------


def nothing(root):
    pass


def a_file(root):
    root.write_text("a file")


def empty(root):
    root.mkdir()


def empty_train(root):
    (root / "train").mkdir(parents=True)


def no_class_folders(root):
    put(root, [1, 2, 3])


def no_class_folders_in_train(root):
    put(root / "train", [1, 2, 3])
    put(root / "validation", [4])


def one_class(root):
    put(root / "shirt", range(5))


def no_pictures_in_a_class(root):
    put(root / "shirt", range(5))
    (root / "jacket").mkdir()


def one_picture_in_a_class(root):
    put(root / "shirt", range(5))
    put(root / "jacket", [7])


def one_picture_in_train_and_more_in_test(root):
    put(root / "train" / "shirt", range(5))
    put(root / "train" / "jacket", [7])
    put(root / "test" / "jacket", [8, 9])


def two_copies_of_one_picture(root):
    one_picture_in_a_class(root)
    (root / "jacket" / "copy.png").write_bytes(photo(7))


def two_broken_pictures(root):
    put(root / "shirt", range(5))
    put(root / "jacket", [])
    for name in ("a.png", "b.png"):
        (root / "jacket" / name).write_bytes(b"broken")


def a_phones_pictures(root):
    put(root / "shirt", range(5))
    (root / "jacket").mkdir()
    for number in (1, 2):
        (root / "jacket" / f"IMG_{number}.HEIC").write_bytes(b"....ftypheic")


def no_training_picture(root):
    put(root / "train" / "shirt", range(5))
    put(root / "validation" / "shirt", [6])
    put(root / "validation" / "jacket", [7])


def no_validation_picture(root):
    put(root / "train" / "shirt", range(5))
    put(root / "train" / "jacket", [7, 8])
    put(root / "validation" / "shirt", [6])


def two_validation_folders(root):
    no_training_picture(root)
    put(root / "val" / "shirt", [9])


def line_end_in_a_class_name(root):
    put(root / "shirt", range(5))
    put(root / "jac\nket", range(10, 15))


def class_name_of_undecodable_bytes(root):
    put(root / "shirt", range(5))
    put(root / os.fsdecode(b"jack\xe9t"), range(10, 15))


@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (nothing, ["does not exist"]),
        (a_file, ["is a file", "folder"]),
        (empty, ["holds no pictures", "one folder per class"]),
        (empty_train, ["train holds no pictures"]),
        (no_class_folders, ["have no label", "one folder per class"]),
        (no_class_folders_in_train, ["photos/train have no label", "one folder per class"]),
        (one_class, ["one class, 'shirt'", "takes two"]),
        (no_pictures_in_a_class, ["'jacket' has no readable picture", "leave the class out"]),
        (one_picture_in_a_class, ["'jacket' has only one picture", "add some"]),
        (one_picture_in_train_and_more_in_test, ["'jacket' has only one picture"]),
        (two_copies_of_one_picture, ["'jacket' has only one picture", "copies"]),
        (two_broken_pictures, ["'jacket' has no readable picture", "2 left out", "not a picture"]),
        (a_phones_pictures, ["'jacket' has no readable picture", "IMG_1.HEIC: HEIC is not read: save it as JPEG"]),
        (no_training_picture, ["'jacket' has no readable picture", "train/jacket", "add some"]),
        (
            no_validation_picture,
            ["'jacket' has no readable picture", "validation/jacket", "remove the validation folder"],
        ),
        (two_validation_folders, ["val and validation", "join them"]),
        (line_end_in_a_class_name, ["cannot be a label", "rename"]),
        (class_name_of_undecodable_bytes, ["cannot be a label", "rename"]),
    ],
)
def test_refused(tmp_path, arrange, words):
    arrange(tmp_path / "photos")
    with pytest.raises(EdgennError) as caught:
        scan(tmp_path / "photos")
    message = str(caught.value)
    assert "\n" not in message
    message.encode()  # printable, whatever the folder is called
    for word in words:
        assert word in message


def test_unknown_and_repeated_classes_are_refused(photos):
    with pytest.raises(EdgennError, match=r"no class 'shrit': choose from jacket, shirt"):
        scan(photos, classes=["shrit", "jacket"])
    with pytest.raises(EdgennError, match="twice"):
        scan(photos, classes=["shirt", "shirt"])
    with pytest.raises(EdgennError, match="one class"):
        scan(photos, classes=["shirt"])


def test_a_null_character_in_the_path_is_refused():
    with pytest.raises(EdgennError, match="cannot be read"):
        scan("pho\0tos")


# --- the split: nothing moves when photos are added --------------------------------------------------------------

digests = st.binary(min_size=1, max_size=3).map(lambda content: hashlib.sha256(content).hexdigest())
classes = st.lists(st.sets(digests, min_size=2, max_size=12), min_size=1, max_size=4)


def below(digest):
    return int(digest, 16) / 2**256 < VALIDATION_SHARE


@settings(deadline=None)
@given(classes, classes)
def test_adding_photos_moves_only_stand_ins(before, added):
    """The guarantee and its only exception: a picture whose digest alone does not put it where it stands."""
    after = [group | more for group, more in zip(before, added, strict=False)] + before[len(added) :]
    old, new = validation_contents(before), validation_contents(after)
    for content in set().union(*before):
        if (content in old) == below(content):  # stood where its own digest says …
            moved = (content in new) != (content in old)
            # … and moves only into the place of a stand-in, which is the extreme of some class without the other side.
            assert not moved or any(content in (min(group), max(group)) for group in after)


@settings(deadline=None)
@given(st.sets(digests, min_size=2, max_size=12), st.sets(digests, max_size=12))
def test_a_class_with_both_sides_keeps_every_photo_in_place(group, added):
    if {below(content) for content in group} == {True, False}:
        assert validation_contents([group | added]) & group == validation_contents([group]) & group


@settings(deadline=None)
@given(st.sets(digests, min_size=2, max_size=12))
def test_a_class_of_its_own_always_has_both_sides(group):
    chosen = validation_contents([group])
    assert chosen
    assert chosen < group
    stand_ins = [content for content in group if (content in chosen) != below(content)]
    assert len(stand_ins) <= 1  # only where one side would be empty
    if stand_ins:
        assert stand_ins == [max(group) if below(max(group)) else min(group)]


def test_small_classes_on_disk_have_a_picture_on_each_side(tmp_path):
    pictures = iter(sorted(range(300), key=lambda number: hashlib.sha256(photo(number)).hexdigest()))
    low = [next(pictures) for _ in range(3)]  # all below the threshold
    put(tmp_path / "all low", low)
    high = list(pictures)[-3:]  # all above it
    put(tmp_path / "all high", high)
    sides = where(scan(tmp_path))
    assert [sides["all low", f"all low/{number}.png"] for number in low] == ["validation", "validation", "train"]
    assert [sides["all high", f"all high/{number}.png"] for number in high] == ["validation", "train", "train"]


def test_adding_photos_on_disk_moves_none(photos):
    before = where(scan(photos))
    put(photos / "shirt", range(300, 340))
    put(photos / "coat", range(400, 410))
    after = where(scan(photos))
    assert before.items() <= after.items()


def test_a_small_class_of_other_classes_pictures_is_refused(tmp_path):
    """The shirts need the second picture for training, and it is all that the coats have for validation."""
    first, second, *_, last = sorted(range(300), key=lambda number: hashlib.sha256(photo(number)).hexdigest())
    put(tmp_path / "shirt", [first, second])
    put(tmp_path / "coat", [second, last])
    with pytest.raises(EdgennError, match="class 'coat' has hardly a picture that is not in another class too"):
        scan(tmp_path)


def test_photos_to_evaluate_may_be_one_class_with_one_picture(tmp_path):
    (tmp_path / "hat").mkdir()
    cv2.imwrite(str(tmp_path / "hat" / "only.png"), np.full((8, 8, 3), 7, np.uint8))
    with pytest.raises(EdgennError, match="one class"):
        scan(tmp_path)
    dataset = scan(tmp_path, for_training=False)
    assert sum(len(pictures) for pictures in dataset.splits.values()) == 1
