"""The camera that is not there: endless, seeded, truthful, and at the pace of its clock."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edgenn_device.cameras import open_source
from edgenn_device.cameras.synthetic import SyntheticSource
from edgenn_device.errors import EdgennError
from edgenn_device.garments import LABELS


class Clock:
    """Time that passes only when somebody waits, or says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def fast(seed: int = 0, size: int = 48, fps: float = 10.0) -> SyntheticSource:
    return SyntheticSource(seed=seed, size=size, fps=fps, fast=True)


def test_a_label_holds_for_seconds_and_then_changes() -> None:
    with fast(fps=10.0) as source:
        frames = [source.read() for _ in range(600)]
    truths = [frame.truth for frame in frames if frame]
    changes = [0, *(i for i in range(1, 600) if truths[i] != truths[i - 1])]
    lengths = np.diff(changes)
    assert len(truths) == 600
    assert set(truths) == set(LABELS)
    assert lengths.min() >= 30  # 3 s at 10 frames a second
    assert lengths.max() <= 60


def test_frames_are_numbered_and_all_alike() -> None:
    with SyntheticSource(size=(60, 80), fast=True) as source:
        frames = [source.read() for _ in range(5)]
    assert [frame.index for frame in frames if frame] == [0, 1, 2, 3, 4]
    assert all(frame and frame.image.shape == (60, 80, 3) and frame.image.dtype == np.uint8 for frame in frames)
    assert all(frame.path is None for frame in frames if frame)


def test_same_seed_same_frames() -> None:
    def seen(seed: int) -> list[bytes]:
        with fast(seed) as source:
            return [source.read().image.tobytes() for _ in range(80)]  # type: ignore[union-attr]

    assert seen(4) == seen(4)
    assert seen(4) != seen(5)


def test_paced_by_the_clock() -> None:
    clock = Clock()
    with SyntheticSource(size=48, fps=25.0, clock=clock, wait=clock.wait) as source:
        times = [source.read().time for _ in range(10)]  # type: ignore[union-attr]
    assert source.live
    np.testing.assert_allclose(np.diff(times), 0.04)


def test_after_a_pause_it_goes_on_without_a_burst() -> None:
    clock = Clock()
    with SyntheticSource(size=48, fps=25.0, clock=clock, wait=clock.wait) as source:
        source.read()
        clock.now += 3.0
        times = [source.read().time for _ in range(5)]  # type: ignore[union-attr]
    assert times[0] == pytest.approx(103.0)
    np.testing.assert_allclose(np.diff(times), 0.04)


def test_fast_never_waits_and_loses_nothing() -> None:
    clock = Clock()
    with SyntheticSource(size=48, fast=True, clock=clock, wait=clock.wait) as source:
        for _ in range(10):
            source.read()
    assert not source.live
    assert source.continuous
    assert clock.waits == []


def test_closing_wakes_a_reader_that_waits() -> None:
    source = SyntheticSource(size=48, fps=0.001)
    source.open()
    source.read()
    frames: list[object] = []
    reader = threading.Thread(target=lambda: frames.append(source.read()), daemon=True)
    reader.start()
    source.close()
    reader.join(20)
    assert frames == [None]
    assert source.read() is None
    source.close()


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"fps": -5.0}, {"fps": float("nan")}, {"seed": -1}, {"size": 3}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(EdgennError):
        SyntheticSource(**wrong)


def test_named_on_the_command_line() -> None:
    assert open_source("synthetic").live
    assert not open_source("synthetic", fast=True).live
