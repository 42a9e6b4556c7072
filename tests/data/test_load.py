"""Pictures to one array, and the choice of calibration pictures."""

import threading
import time
from collections import Counter
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenn.data import Picture, calibration, load
from edgenn.data.parallel import in_parallel
from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.preprocess import to_bytes

SPEC = InputSpec(12, 16)


def write(path, number, extension=".jpg"):
    pixels = cv2.resize(np.random.default_rng(number).integers(0, 256, (4, 6, 3)).astype(np.uint8), (60, 40))
    content = cv2.imencode(extension, pixels)[1].tobytes()
    path.write_bytes(content)
    return Picture(path, number % 3, sha256(content).hexdigest())


@pytest.fixture
def pictures(tmp_path):
    return [write(tmp_path / f"{number}.jpg", number) for number in range(50)]


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        InputSpec(9, 9, 1, "grey", "pad"),
        InputSpec(8, 8, resize="crop", dtype="int8"),  # bytes stay bytes, whatever the model takes
        InputSpec(8, 8, dtype="float32", mean=127.5, std=127.5),
    ],
)
def test_every_row_is_what_the_device_would_see(pictures, spec):
    loaded = load(pictures, spec)
    assert loaded.tensors.shape == (50, *spec.shape)
    assert loaded.tensors.dtype == np.uint8
    assert loaded.tensors.flags.c_contiguous
    assert loaded.labels.dtype == np.int64
    assert loaded.labels.tolist() == [picture.label for picture in pictures]
    assert loaded.pictures == tuple(pictures)
    assert loaded.problems == ()
    for row, picture in zip(loaded.tensors, pictures, strict=True):
        assert np.array_equal(row, to_bytes(picture.path.read_bytes(), spec))


def test_what_does_not_decode_is_reported_and_the_rest_closes_up(pictures):
    good = [picture for index, picture in enumerate(pictures) if index not in (0, 7, 8, 20, 49)]
    expected = load(good, SPEC)
    pictures[0].path.write_bytes(b"")
    pictures[7].path.write_bytes(pictures[7].path.read_bytes()[:200])
    pictures[8].path.unlink()
    pictures[49].path.write_bytes(b"not a picture")
    pictures[20].path.write_bytes(pictures[21].path.read_bytes())  # another photo than was scanned
    loaded = load(pictures, SPEC)
    assert np.array_equal(loaded.tensors, expected.tensors)
    assert np.array_equal(loaded.labels, expected.labels)
    assert loaded.pictures == tuple(good)
    assert [problem.path.name for problem in loaded.problems] == ["0.jpg", "7.jpg", "8.jpg", "20.jpg", "49.jpg"]
    words = ["empty", "truncated", "cannot be read", "changed", "not a picture"]
    assert all(word in problem.reason for problem, word in zip(loaded.problems, words, strict=True))


def test_nothing_to_load_gives_empty_arrays(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    for given_pictures in ([], [Picture(tmp_path / "bad.jpg", 0, "0" * 64)]):
        loaded = load(given_pictures, SPEC)
        assert loaded.tensors.shape == (0, 12, 16, 3)
        assert loaded.labels.shape == (0,)
        assert len(loaded.problems) == len(given_pictures)


def test_progress_counts_every_picture_on_the_calling_thread(pictures):
    calls = []
    load(pictures, SPEC, progress=lambda *count: calls.append((*count, threading.current_thread())))
    assert calls[-1][:2] == (50, 50)
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert {thread for _, _, thread in calls} == {threading.current_thread()}


def test_more_than_the_memory_holds_is_refused_before_it_begins(pictures, monkeypatch):
    module = import_module("edgenn.data.load")  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "free_memory", lambda: 50 * 12 * 16 * 3 - 1)
    with pytest.raises(EdgennError, match="50 pictures at 12x16 take"):
        load(pictures, SPEC)
    monkeypatch.setattr(module, "free_memory", lambda: 50 * 12 * 16 * 3)
    assert len(load(pictures, SPEC).labels) == 50
    monkeypatch.setattr(module, "free_memory", lambda: None)  # not Linux
    assert len(load(pictures, SPEC).labels) == 50


@pytest.mark.parametrize("place", ["thread", "caller"])
def test_an_error_or_ctrl_c_ends_the_work_early(place):
    begun = []

    def interrupt(done, total):
        raise KeyboardInterrupt

    def work(item):
        begun.append(item)
        if item == 0 and place == "thread":
            raise KeyError(item)
        time.sleep(0.001)  # stands for decoding: all of them would take seconds

    with pytest.raises(KeyError if place == "thread" else KeyboardInterrupt):
        in_parallel(work, range(10_000), None if place == "thread" else interrupt)
    assert len(begun) < 5_000


# --- calibration -------------------------------------------------------------------------------------------------

some_pictures = st.lists(
    st.builds(Picture, st.just(Path("x")), st.integers(0, 4), st.integers(0, 2**64).map("{:064x}".format)),
    unique_by=lambda picture: picture.sha256,
    max_size=40,
)


@settings(deadline=None)
@given(some_pictures, st.integers(1, 50), st.randoms())
def test_calibration_takes_every_class_in_turn(pictures, n, random):
    chosen = calibration(pictures, n)
    assert len(chosen) == min(n, len(pictures))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(pictures)
    available, taken = Counter(p.label for p in pictures), Counter(p.label for p in chosen)
    for label, count in taken.items():
        # Nobody has two more than a class that had more to give.
        assert all(count <= taken[other] + 1 for other in available if taken[other] < available[other]), label
    shuffled = random.sample(pictures, len(pictures))
    assert calibration(shuffled, n) == chosen
    assert calibration(pictures, n + 1)[: len(chosen)] == chosen


def test_calibration_depends_on_the_seed_and_not_on_names():
    pictures = [Picture(Path(f"{number}.jpg"), number % 2, f"{number:064x}") for number in range(200)]
    renamed = [Picture(Path(f"other/{p.path}"), p.label, p.sha256) for p in pictures]
    chosen = [p.sha256 for p in calibration(pictures, 20, seed=1)]
    assert chosen == [p.sha256 for p in calibration(renamed, 20, seed=1)]
    assert chosen != [p.sha256 for p in calibration(pictures, 20, seed=2)]
    assert chosen != sorted(chosen)


@pytest.mark.parametrize("n", [0, -1])
def test_calibration_with_nothing_is_refused(n):
    with pytest.raises(EdgennError, match="at least 1"):
        calibration([], n)
