"""What is told of a camera's pictures, to health and to the log."""

from __future__ import annotations

import numpy as np
import pytest

from edgenn_device.card import InputSpec
from edgenn_device.picture_watch import BRIEF, PictureWatch

SPEC = InputSpec(height=32, width=32, channels=3)
SCENE = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
BLACK = np.zeros((1, 32, 32, 3), np.uint8)


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> PictureWatch:
    caplog.set_level("WARNING")
    return PictureWatch("camera 0")


def test_rubbish_and_its_end_stand_in_the_log_each_time(watch: PictureWatch, caplog: pytest.LogCaptureFixture) -> None:
    bad, good = "its pictures cannot be read (not a picture)", "its pictures are good again"
    for _ in range(2):
        for _ in range(20):
            watch.unreadable("not a picture")
        assert watch.trouble == bad
        watch.shows_nothing(SCENE, SPEC, 1.0)
        assert watch.trouble == ""
    assert [record.getMessage() for record in caplog.records] == [f"camera 0: {bad}", f"camera 0: {good}"] * 2


def test_a_covered_lens_stands_in_the_log_once(watch: PictureWatch, caplog: pytest.LogCaptureFixture) -> None:
    for time in (1.0, 1.0 + BRIEF, 2.0, 3.0):
        assert watch.shows_nothing(BLACK, SPEC, time)
    watch.shows_nothing(SCENE, SPEC, 4.0)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "camera 0: its pictures are of one colour all over: is the lens covered?",
        "camera 0: its pictures are good again",
    ]


def test_what_is_covered_when_it_can_be_read_again_is_not_good_in_between(watch: PictureWatch) -> None:
    for _ in range(5):
        watch.unreadable("not a picture")
    for time, trouble in (
        (1.0, "cannot be read"),  # black, as it may be in passing
        (1.0 + BRIEF, "one colour"),
    ):
        watch.shows_nothing(BLACK, SPEC, time)
        assert trouble in watch.trouble


def test_another_size_stands_in_the_log_and_is_no_fault(watch: PictureWatch, caplog: pytest.LogCaptureFixture) -> None:
    for size in ((320, 240), (320, 240), (1280, 720), (1280, 720)):
        watch.of_size(*size)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["camera 0: its pictures are 1280x720 now, 320x240 before"]
