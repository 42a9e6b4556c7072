"""Drawn garments as files: the folders that training reads, and the video that a model is shown."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenn import data
from edgenn.data import garments
from edgenn_device.errors import EdgennError
from edgenn_device.garments import LABELS, seed_in


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.jpg")}


def test_layout_is_what_scan_reads(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    written = garments.write(tmp_path / "photos", 8, size=64, progress=lambda done, total: steps.append((done, total)))
    dataset = data.scan(tmp_path / "photos")
    assert written == 3 * (8 + 2 + 2)
    assert steps[-1] == (written, written)
    assert dataset.labels == LABELS
    assert {split: len(pictures) for split, pictures in dataset.splits.items()} == {
        "train": 24,
        "validation": 6,
        "test": 6,
    }
    assert dataset.problems == ()
    assert dataset.duplicates == ()


def test_no_picture_is_in_two_splits_or_under_two_labels(tmp_path: Path) -> None:
    garments.write(tmp_path / "photos", 8, size=32)
    found = digests(tmp_path / "photos")
    assert len(set(found.values())) == len(found) == 36


def test_same_seed_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        garments.write(tmp_path / name, 2, seed=seed, size=48)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not set(digests(tmp_path / "a").values()) & set(digests(tmp_path / "c").values())


def test_quality_varies(tmp_path: Path) -> None:
    garments.write(tmp_path / "photos", 6, size=48)
    # The first quantization step of luminance (after the marker's length and table number) follows the quality.
    steps = {p.read_bytes().split(b"\xff\xdb")[1][3] for p in (tmp_path / "photos").rglob("*.jpg")}
    assert len(steps) > 3


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("keep")
    with pytest.raises(EdgennError, match="not empty"):
        garments.write(tmp_path / "photos", 2)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["mine.txt"]


def test_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        garments.write(tmp_path / "photos", 2, size=32, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_video_and_its_labels(tmp_path: Path) -> None:
    truth = garments.write_video(tmp_path / "film.avi", seconds=6.0, fps=6.0, size=(96, 128))
    capture = cv2.VideoCapture(str(tmp_path / "film.avi"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert len(frames) == len(truth) == 36
    assert frames[0].shape == (96, 128, 3)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(6.0)
    assert set(truth) == set(LABELS)
    # Where the label changes, the picture changes more than it moves.
    steps = np.array([np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)])
    cuts = [i for i in range(35) if truth[i] != truth[i + 1]]
    assert len(cuts) == 2
    assert steps[cuts].min() > np.delete(steps, cuts).max()


def test_video_shows_no_garment_of_the_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: dict[str, set[int]] = {"photos": set(), "video": set()}
    draw, moving = garments.draw, garments.Moving

    def drawn(label: str, seed: int, size: int) -> np.ndarray:
        seeds["photos"].add(seed)
        return draw(label, seed, size)

    def moved(label: int, seed: int, size: int) -> object:
        seeds["video"].add(seed)
        return moving(label, seed, size)

    monkeypatch.setattr(garments, "draw", drawn)
    monkeypatch.setattr(garments, "Moving", moved)
    garments.write(tmp_path / "photos", 4, seed=3, size=32)
    garments.write_video(tmp_path / "film.avi", seed=3, seconds=3, fps=2, size=32)
    assert len(seeds["photos"]) == 6  # 4 of training, 1 of validation, 1 of test; the label is not part of the seed
    assert len(seeds["video"]) == 2
    assert not seeds["photos"] & seeds["video"]
    # Nor one that the synthetic source shows, in its first hours at least.
    assert not seeds["video"] & {seed_in("live", 3, number) for number in range(10_000)}


@pytest.mark.parametrize(
    "call",
    [
        lambda p: garments.write(p / "x", 0),  # nothing to train on
        lambda p: garments.write(p / "x", 2, seed=-1),  # no such seed
        lambda p: garments.write_video(p / "film.mp4"),  # needs a codec that not every OpenCV has
        lambda p: garments.write_video(p / "film.avi", seconds=0),  # no frame
        lambda p: garments.write_video(p / "film.avi", fps=0),  # no pace
    ],
)
def test_wrong_requests_leave_nothing(tmp_path: Path, call) -> None:
    with pytest.raises(EdgennError):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
