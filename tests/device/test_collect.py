"""Collecting with sources that the test drives: frames carry their own time, so nothing here waits for a clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgenn.cli.collect import command
from edgenn.data import scan
from edgenn_device.cameras.base import Frame, Source
from edgenn_device.cameras.view import View
from edgenn_device.collect import GIVE_UP_AFTER, collect
from edgenn_device.errors import AnswerIsNo, EdgennError
from edgenn_device.likeness import as_jpeg


def picture(seed: int, size: int = 64) -> np.ndarray:
    patches = np.random.RandomState(seed).randint(0, 256, (8, 9), np.uint8)
    return cv2.cvtColor(cv2.resize(patches, (size, size), interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2BGR)


class Driven(Source):
    """Gives frames of (seconds, picture), each after the one before was looked at."""

    def __init__(self, frames: Sequence[tuple[float, object]], live: bool = False, continuous: bool = True) -> None:
        self.name, self.live, self.continuous = "driven", live, continuous
        self.frames = list(frames)
        self.closed = False

    def open(self) -> None:
        self._rest = iter(enumerate(self.frames))

    def read(self) -> Frame | None:
        for index, (moment, image) in self._rest:
            return Frame(image, 1000.0 + moment, index)  # type: ignore[arg-type]
        return None

    def close(self) -> None:
        self.closed = True


def one_by_one(source: Driven, monkeypatch: pytest.MonkeyPatch) -> Driven:
    """A live source of which no frame is displaced, so that a test can say what happens to each."""
    from edgenn_device import collect as module

    real = module.Channel
    monkeypatch.setattr(module, "Channel", lambda capacity, newest_wins: real(capacity, newest_wins=False))
    return source


def test_pictures_come_at_their_pace_and_none_twice(tmp_path: Path) -> None:
    frames = [(index / 10, picture(index // 10)) for index in range(50)]  # another scene every second
    source = Driven(frames)
    told: list[tuple[str, float]] = []
    done = collect(source, "shirt", tmp_path, every=0.5, report=lambda step, value: told.append((step, value)))
    assert (done.pictures, done.alike, done.unreadable) == (5, 5, 0)
    assert told == [("taken", number) for number in range(1, 6)]
    assert len(list((tmp_path / "shirt").glob("*.jpg"))) == 5
    assert source.closed


def test_what_is_there_is_not_taken_again_and_count_ends_it(tmp_path: Path) -> None:
    frames = [(index, picture(index)) for index in range(10)]
    assert collect(Driven(frames), "shirt", tmp_path, count=4).pictures == 4
    again = collect(Driven(frames), "shirt", tmp_path, count=4)
    assert (again.pictures, again.alike) == (4, 4)
    assert len(list((tmp_path / "shirt").iterdir())) == 8


def test_a_live_source_has_a_countdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = one_by_one(Driven([(index / 2, picture(index)) for index in range(10)], live=True), monkeypatch)
    told: list[tuple[str, float]] = []
    done = collect(source, "shirt", tmp_path, countdown=3.0, report=lambda step, value: told.append((step, value)))
    assert [value for step, value in told if step == "countdown"] == [3.0, 2.5, 2.0, 1.5, 1.0, 0.5]
    assert done.pictures == 4


def test_when_nothing_moves_it_says_so_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = one_by_one(Driven([(index, picture(1)) for index in range(200)], live=True), monkeypatch)
    told: list[tuple[str, float]] = []
    done = collect(source, "shirt", tmp_path, countdown=0.0, report=lambda step, value: told.append((step, value)))
    assert done.still
    assert done.pictures == 1
    still = [value for step, value in told if step == "still"]
    assert still[0] == 5.0
    assert still[-1] == GIVE_UP_AFTER + 1


def test_unrelated_pictures_are_all_looked_at(tmp_path: Path) -> None:
    frames = [(0.0, picture(1)), (0.0, b"rubbish"), (0.0, as_jpeg(picture(2))), (0.0, picture(1))]
    done = collect(Driven(frames, continuous=False), "shirt", tmp_path)
    assert (done.pictures, done.alike, done.unreadable) == (2, 1, 1)
    assert as_jpeg(picture(2)) in {path.read_bytes() for path in (tmp_path / "shirt").iterdir()}  # as it came


def test_the_view_is_applied(tmp_path: Path) -> None:
    source = Driven([(0.0, picture(1))])
    source.view = View(roi=(0.0, 0.0, 0.5, 1.0))
    [path] = collect(source, "shirt", tmp_path).folder.iterdir()
    assert cv2.imread(str(path)).shape == (64, 32, 3)


def test_training_reads_it(tmp_path: Path) -> None:
    for number, label in enumerate(("jacket", "shirt")):
        collect(Driven([(index, picture(100 * number + index)) for index in range(12)]), label, tmp_path)
    found = scan(tmp_path)
    assert found.labels == ("jacket", "shirt")
    assert sum(map(len, found.splits.values())) == 24
    assert not found.problems


@pytest.mark.parametrize("label", ["", ".", "..", "../shirt", "/tmp/shirt", ".hidden", "a/b", "unlabelled", "a\nb"])
def test_a_label_that_is_no_folder_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(EdgennError, match="cannot be a class"):
        collect(Driven([(0.0, picture(1))]), label, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_for_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shirt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EdgennError, match="no folder"):
        collect(Driven([(0.0, picture(1))]), "shirt", tmp_path)


def test_nothing_readable_is_no(tmp_path: Path) -> None:
    with pytest.raises(AnswerIsNo, match="no picture"):
        collect(Driven([(0.0, b"rubbish")]), "shirt", tmp_path)


def test_the_error_of_a_source_arrives_and_what_was_taken_stays(tmp_path: Path) -> None:
    class Failing(Driven):
        def read(self) -> Frame | None:
            frame = super().read()
            if frame is None:
                raise EdgennError("the camera is gone")
            return frame

    source = Failing([(0.0, picture(1))])
    with pytest.raises(EdgennError, match="the camera is gone"):
        collect(source, "shirt", tmp_path)
    assert len(list((tmp_path / "shirt").iterdir())) == 1
    assert source.closed


def test_the_verb(tmp_path: Path) -> None:
    for seed in range(5):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{seed}.jpg").write_bytes(as_jpeg(picture(seed)))
    arguments = ["--source", str(tmp_path / "in"), "--label", "shirt", "--out", str(tmp_path / "out"), "--count", "3"]
    outcome = CliRunner().invoke(command, [*arguments, "--json"])
    assert outcome.exit_code == 0, outcome.output
    said = json.loads(outcome.stdout)
    assert (said["pictures"], said["alike"], said["folder"]) == (3, 0, str(tmp_path / "out" / "shirt"))
    outcome = CliRunner().invoke(command, arguments)
    assert outcome.stdout.startswith("2 pictures, 3 left out as too alike: ")


def test_ctrl_c_ends_it_and_what_was_taken_stays(tmp_path: Path) -> None:
    script = f"""
import sys
from edgenn_device import collect as module
module.collect.__kwdefaults__["countdown"] = 0.0
sys.argv = ["edgenn", "--source", "synthetic", "--label", "shirt", "--out", {str(tmp_path)!r}, "--every", "0.1"]
from edgenn.cli.collect import command
command(standalone_mode=False)
"""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'device'}"},
        # A shell starts what it puts into the background with SIGINT ignored, and so may whoever runs the tests.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(tmp_path.glob("shirt/2*.jpg")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert f"pictures in {tmp_path / 'shirt'}" in told
    assert process.returncode != 0
    assert all(cv2.imread(str(path)) is not None for path in tmp_path.glob("shirt/2*.jpg"))
