"""Frames that the model is unsure of: which are kept, within what bounds, and where a label takes them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgenn.data import scan
from edgenn_device import uncertain
from edgenn_device.cameras.base import Frame
from edgenn_device.classifier import Classification
from edgenn_device.errors import EdgennError
from edgenn_device.likeness import ALIKE, as_jpeg, difference, fingerprint
from edgenn_device.pipeline import Result
from edgenn_device.uncertain import NONE_OF_THEM, UNLABELLED, Keeper, is_folder_name, stamp

LABELS = ("jacket", "shirt", "t-shirt")


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


def picture(seed: int, size: int = 64) -> np.ndarray:
    """Patches of grey: each seed gives another fingerprint."""
    patches = np.random.RandomState(seed).randint(0, 256, (8, 9), np.uint8)
    return cv2.cvtColor(cv2.resize(patches, (size, size), interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2BGR)


def result(
    seed: int = 0,
    scores: tuple[float, ...] = (0.4, 0.35, 0.25),
    label: str | None = None,
    image: Any = None,
    path: str | None = "a.jpg",
    moment: float | None = None,
    skipped: bool = False,
) -> Result:
    """A result of a picture that stands by itself, unless `path` is None."""
    array = np.array(scores, np.float32)
    order = np.argsort(-array)
    top = tuple((LABELS[index % 3], float(array[index])) for index in order[:3])
    said = Classification(label or top[0][0], top[0][1], top, array)
    frame = Frame(picture(seed) if image is None else image, time.monotonic(), seed, path, moment=moment)
    return Result(frame, said, {}, 0.01, skipped)


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.setattr(uncertain, "_PACE", 0.0)
    with Keeper(tmp_path / "kept", LABELS, model="garments") as made:
        yield made


def keep(keeper: Keeper, *results: Result) -> None:
    """Give results one by one, each taken up before the next comes."""
    for each in results:
        considered = threading.Event()
        real = keeper._consider

        def consider(*arguments: Any, real: Any = real, considered: threading.Event = considered) -> None:
            try:
                real(*arguments)
            finally:
                considered.set()

        keeper._consider = consider  # type: ignore[method-assign]
        keeper.take(each)
        assert considered.wait(60)
        keeper._consider = real  # type: ignore[method-assign]


def test_an_unsure_frame_is_kept_whole_with_what_was_said_of_it(keeper: Keeper) -> None:
    keep(keeper, result(1))
    [kept] = keeper.waiting()
    folder = keeper.folder / UNLABELLED
    assert {path.name for path in folder.iterdir()} == {f"{kept.name}.jpg", f"{kept.name}.json"}
    seen = cv2.imread(str(folder / f"{kept.name}.jpg"))
    assert seen.shape == (64, 64, 3)
    assert np.abs(seen.astype(int) - picture(1)).mean() < 4
    said = json.loads((folder / f"{kept.name}.json").read_text())
    assert said["label"] == "jacket"
    assert said["scores"] == [0.4, 0.35, 0.25]
    assert said["model"] == "garments"
    assert said["margin"] == pytest.approx(0.05, abs=1e-4)
    assert abs(said["time"] - time.time()) < 60


def test_a_jpeg_is_kept_as_it_came(keeper: Keeper) -> None:
    data = as_jpeg(picture(1))
    keep(keeper, result(1, image=data))
    assert keeper.picture(keeper.waiting()[0].name) == data


@pytest.mark.parametrize(
    ("given", "looked_at"),
    [
        (result(1, (0.9, 0.05, 0.05)), False),  # sure
        (result(1, (0.9, 0.05, 0.05), label="unknown"), True),  # below the card's minimum confidence
        (result(1, (0.5, 0.45, 0.05)), True),  # a small lead
        (result(1, (float("nan"),) * 3), True),  # a model that gives no numbers is sure of nothing
        (result(1, (1.0,)), False),  # one class: there is nothing to be unsure between
        (result(1, skipped=True), False),  # a still scene: the scores are of an earlier frame
        (result(1, path=None, moment=5.0), False),  # a camera's first unsure frame: on the way to another label
    ],
)
def test_what_is_looked_at(tmp_path: Path, given: Result, looked_at: bool) -> None:
    keeper = Keeper(tmp_path, LABELS)  # not started: nothing takes the candidate away
    keeper.take(given)
    assert (keeper._candidate is not None) is looked_at


def test_a_change_of_label_is_no_uncertainty_but_one_that_lasts_is(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, LABELS)
    for moment in (0.0, 0.2, 0.4):
        keeper.take(result(1, path=None, moment=moment))
    keeper.take(result(1, (0.9, 0.1, 0.0), path=None, moment=0.5))
    keeper.take(result(1, path=None, moment=0.7))
    assert keeper._candidate is None
    keeper.take(result(1, path=None, moment=1.4))
    assert keeper._candidate is not None


def test_of_frames_that_come_together_the_most_unsure_is_taken_up(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, LABELS)
    for scores in ((0.5, 0.3, 0.2), (0.4, 0.39, 0.21), (0.45, 0.35, 0.2)):
        keeper.take(result(1, scores))
    assert keeper._candidate is not None
    assert keeper._candidate[0] == pytest.approx(0.01, abs=1e-4)


def test_what_looks_alike_is_kept_once_even_after_it_was_labelled(keeper: Keeper) -> None:
    noisy = np.clip(picture(1).astype(int) + np.random.RandomState(0).randint(-3, 4, (64, 64, 3)), 0, 255)
    keep(keeper, result(1), result(1, image=noisy.astype(np.uint8)))
    assert keeper.count == 1
    keeper.label(keeper.waiting()[0].name, "shirt")
    keep(keeper, result(1))
    assert keeper.count == 0
    keep(keeper, result(2))
    assert keeper.count == 1


def test_rubbish_is_passed_over(keeper: Keeper) -> None:
    keep(keeper, result(image=b"no picture"), result(image=np.zeros((4, 4), np.uint8)), result(3))
    assert keeper.count == 1
    assert "error" not in keeper.state()


def test_the_least_useful_makes_way_and_the_bytes_stay_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertain, "_PACE", 0.0)
    each = len(as_jpeg(picture(1, 200))) + 400
    with Keeper(tmp_path, LABELS, limit=4 * each) as keeper:
        leads = [0.40, 0.30, 0.20, 0.10, 0.05, 0.01, 0.45]
        for seed, lead in enumerate(leads):
            keep(keeper, result(image=picture(seed, 200), scores=((1 + lead) / 2, (1 - lead) / 2, 0.0)))
            size = sum(path.stat().st_size for path in (tmp_path / UNLABELLED).iterdir())
            assert size <= 4 * each
        kept = [round(it.margin, 2) for it in keeper.waiting()]
        assert kept == sorted(leads)[: len(kept)]  # the most unsure ones; 0.45 was not worth its room
        assert len(kept) >= 3
        assert keeper.state()["bytes"] == size


def test_the_number_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertain, "_PACE", 0.0)
    monkeypatch.setattr(uncertain, "_MOST", 3)
    with Keeper(tmp_path, LABELS) as keeper:
        keep(keeper, *(result(seed, (0.5 - seed / 100, 0.3, 0.2)) for seed in range(6)))
        assert keeper.count == 3
        assert len(list((tmp_path / UNLABELLED).iterdir())) == 6


def test_a_disk_that_refuses_is_told_and_nothing_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertain, "_PACE", 0.0)
    monkeypatch.setattr(uncertain, "_BACK_OFF", 0.0)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / UNLABELLED).write_text("a file stands in the way")
    with Keeper(tmp_path / "kept", LABELS) as keeper:
        keep(keeper, result(1))
        until(lambda: "error" in keeper.state())
        assert keeper.count == 0
        (tmp_path / "kept" / UNLABELLED).unlink()
        keep(keeper, result(2))
        until(lambda: "error" not in keeper.state())
        assert keeper.count == 1


def test_a_picture_that_finds_no_room_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertain, "_PACE", 0.0)
    monkeypatch.setattr(uncertain, "_BACK_OFF", 0.0)
    write = uncertain.write_atomically

    def full(path: Path, content: str | bytes) -> None:
        if path.suffix == ".jpg":
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(uncertain, "write_atomically", full)
    with Keeper(tmp_path / "kept", LABELS) as keeper:
        keep(keeper, result(1))
        until(lambda: "error" in keeper.state())
        assert list((tmp_path / "kept" / UNLABELLED).iterdir()) == []


def test_a_restart_finds_what_was_kept_and_tolerates_what_is_odd(keeper: Keeper) -> None:
    keep(keeper, result(1), result(2, (0.5, 0.3, 0.2)))
    before = keeper.waiting()
    keeper.close()
    room = keeper.folder / UNLABELLED
    (room / "orphan.json").write_text("{}")
    (room / "by hand.jpg").write_bytes(as_jpeg(picture(7)))
    (room / "odd.jpg").write_bytes(as_jpeg(picture(8)))
    (room / "odd.json").write_text('{"margin": "x", "fingerprint": 3, "top": [["a"]], "label": ["<b>"]}')
    (room / "link.jpg").symlink_to("/etc/passwd")
    with Keeper(keeper.folder, LABELS) as again:
        until(lambda: again.count == 4)
        assert {it.name for it in again.waiting()} == {*(it.name for it in before), "by hand", "odd"}
        assert again.picture("link") is None
        assert not (room / "orphan.json").exists()
        assert [it for it in again.waiting() if it.name == before[0].name] == [before[0]]
        keep(again, result(1))  # alike what the earlier run kept
        assert again.count == 4


def test_a_label_moves_the_frame_to_where_training_reads(keeper: Keeper) -> None:
    keep(keeper, *(result(seed) for seed in range(6)))
    names = sorted(it.name for it in keeper.waiting())
    for name, label in zip(names, ("shirt", "jacket", "shirt", "jacket", None), strict=False):
        keeper.label(name, label)
    assert keeper.count == 1
    found = scan(keeper.folder, for_training=False)
    assert found.labels == ("jacket", "shirt")
    pictures = [it for split in found.splits.values() for it in split]
    assert sorted((found.labels[it.label], it.path.stem) for it in pictures) == sorted(
        [("shirt", names[0]), ("jacket", names[1]), ("shirt", names[2]), ("jacket", names[3])]
    )
    assert not found.problems
    assert (keeper.folder / "shirt" / f"{names[0]}.json").exists()
    assert (keeper.folder / UNLABELLED / NONE_OF_THEM / f"{names[4]}.jpg").exists()


def test_a_label_can_be_taken_back_by_the_name_of_its_frame(keeper: Keeper) -> None:
    keep(keeper, result(1), result(2))
    mine, theirs = keeper.waiting()
    keeper.label(mine.name, "shirt")
    keeper.label(theirs.name, "shirt")
    assert keeper.undo(mine.name) == mine  # and not the last one, which somebody else gave
    assert keeper.waiting() == [mine]
    assert keeper.picture(mine.name)
    assert {it.stem for it in (keeper.folder / "shirt").iterdir()} == {theirs.name}
    for gone in (mine.name, "../secret"):
        with pytest.raises(EdgennError, match="can no longer be taken back: move the file by hand"):
            keeper.undo(gone)


def test_a_label_whose_file_was_moved_by_hand_is_told_and_can_be_tried_again(keeper: Keeper) -> None:
    keep(keeper, result(1))
    [kept] = keeper.waiting()
    keeper.label(kept.name, "shirt")
    there = keeper.folder / "shirt" / f"{kept.name}.jpg"
    there.rename(keeper.folder / "aside.jpg")
    with pytest.raises(EdgennError, match="no longer there"):
        keeper.undo(kept.name)
    (keeper.folder / "aside.jpg").rename(there)
    assert keeper.undo(kept.name) == kept


def test_a_file_whose_name_is_not_utf_8_is_left_alone(keeper: Keeper, caplog: pytest.LogCaptureFixture) -> None:
    keep(keeper, result(1))
    [kept] = keeper.waiting()
    odd = keeper.folder / UNLABELLED / os.fsdecode(b"bad\xff.jpg")
    odd.write_bytes(keeper.picture(kept.name) or b"")
    with Keeper(keeper.folder, LABELS) as again:
        until(lambda: again.count == 1)
        assert again.waiting() == [kept]
    assert "not UTF-8" in caplog.text
    assert odd.exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "", "secret", f"{NONE_OF_THEM}/x", "a\0b"])
def test_only_a_name_that_waits_is_moved_or_read(keeper: Keeper, name: str) -> None:
    keeper.folder.mkdir()
    (keeper.folder / "secret.jpg").write_bytes(b"secret")
    assert keeper.picture(name) is None
    with pytest.raises(EdgennError, match="no longer there"):
        keeper.label(name, "shirt")
    assert (keeper.folder / "secret.jpg").read_bytes() == b"secret"


@pytest.mark.parametrize("label", ["trousers", "../shirt", "/tmp", "", ".hidden", UNLABELLED, "unknown"])
def test_only_a_class_of_the_model_is_a_folder(keeper: Keeper, label: str) -> None:
    keeper.labels = (*LABELS, "../shirt", "/tmp", "", ".hidden", UNLABELLED, "unknown")
    assert keeper.classes == LABELS
    keep(keeper, result(1))
    with pytest.raises(EdgennError, match="no class"):
        keeper.label(keeper.waiting()[0].name, label)
    assert keeper.count == 1


def test_links_lead_nowhere(keeper: Keeper, tmp_path: Path) -> None:
    keep(keeper, result(1), result(2))
    first, second = keeper.waiting()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (keeper.folder / "shirt").symlink_to(elsewhere)
    with pytest.raises(EdgennError, match="is a link"):
        keeper.label(first.name, "shirt")
    assert list(elsewhere.iterdir()) == []
    place = keeper.folder / UNLABELLED / f"{second.name}.jpg"
    place.unlink()
    place.symlink_to("/etc/passwd")
    assert keeper.picture(second.name) is None
    with pytest.raises(EdgennError, match="no longer there"):
        keeper.label(second.name, "jacket")


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgennError, match="no folder"):
        Keeper(tmp_path / "file", LABELS)
    with pytest.raises(EdgennError, match="no folder"):
        Keeper(tmp_path / "file" / "below" / "it", LABELS)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / UNLABELLED).symlink_to(tmp_path)
    with pytest.raises(EdgennError, match="no folder"):
        Keeper(tmp_path / "kept", LABELS)


def test_taking_never_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold, held = threading.Event(), threading.Event()

    def stuck(*arguments: Any) -> None:
        held.set()
        hold.wait(60)

    monkeypatch.setattr(uncertain, "write_atomically", stuck)
    with Keeper(tmp_path, LABELS) as keeper:
        keeper.take(result(1))
        assert held.wait(60)
        for seed in range(100):  # would never come back if one waited
            keeper.take(result(seed))
        assert keeper.waiting() == []
        hold.set()


def test_names_sort_by_time() -> None:
    assert stamp(1735689600.25) == "20250101T000000-250"
    assert stamp(1735689599.999) < stamp(1735689600.0) < stamp(1735689600.001)


@pytest.mark.parametrize(
    ("label", "possible"),
    [("shirt", True), ("T-Shirt größe XL", True), ("a/b", False), ("a\nb", False), ("x" * 300, False), ("..", False)],
)
def test_what_can_be_a_folder(label: str, possible: bool) -> None:
    assert is_folder_name(label) is possible


def test_likeness_survives_size_and_coding_and_tells_scenes_apart() -> None:
    large = picture(1, 640)
    prints = [fingerprint(large), fingerprint(picture(1, 180)), fingerprint(as_jpeg(large))]
    assert max(difference(prints[0], other) for other in prints) <= 2
    others = [fingerprint(picture(seed, 180)) for seed in range(2, 30)]
    assert min(difference(prints[0], other) for other in others) > ALIKE
    flat = np.full((90, 90, 3), 100, np.uint8)
    noisy = flat + np.random.RandomState(0).randint(0, 2, flat.shape).astype(np.uint8)
    assert difference(fingerprint(flat), fingerprint(noisy)) == 0
