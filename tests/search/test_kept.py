"""DIR/best is the run of the best trial, and is never taken away while it is that."""

import shutil

import pytest

from edgenn.search import kept
from edgenn.search.limits import Limits
from tests.search.made_up import trial
from tests.search.test_page import made_search


@pytest.fixture
def out(tmp_path, monkeypatch):
    """DIR with a run of trials 0 and 1; nothing is drawn there."""
    monkeypatch.setattr("edgenn.search.plot.pareto", lambda *_: b"")
    monkeypatch.setattr("edgenn.search.page.page", lambda _: "")
    for number in (0, 1):
        run(tmp_path, number).mkdir(parents=True)
        (run(tmp_path, number) / "model.tflite").write_bytes(bytes([number]))
    return tmp_path


def run(out, number):
    return out / kept.TRIALS / f"{number:04d}"


def written(out, *outcomes, limits=None):
    """What is in DIR/best then: bytes, None if it is not there."""
    search = made_search(out, outcomes, limits)
    kept.write(search)
    model = out / kept.BEST / "model.tflite"
    assert search.kept == (search.best is not None and model.is_file())
    return model.read_bytes() if model.is_file() else None


def test_best_follows_the_best_trial(out):
    assert written(out, trial(0)) == b"\0"
    assert written(out, trial(0), trial(1, 0.95)) == b"\1"
    assert written(out, trial(0)) == b"\0"


def test_best_stays_when_its_trial_is_tidied_up(out):
    written(out, trial(0))
    shutil.rmtree(run(out, 0))
    assert written(out, trial(0)) == b"\0"
    assert written(out, trial(0), trial(1, 0.8)) == b"\0"
    assert written(out, trial(0), trial(1, 0.95)) == b"\1"


def test_best_goes_when_another_was_trained_elsewhere(out):
    written(out, trial(0))
    assert written(out, trial(0), trial(2, 0.95, host="another")) is None


def test_best_of_another_search_is_not_taken_for_this_one(out):
    written(out, trial(0, seconds=1.25))
    shutil.rmtree(run(out, 0))
    assert written(out, trial(0, seconds=1.5)) is None


def test_best_goes_when_the_last_timing_found_it_too_slow_but_not_the_last_copy(out):
    written(out, trial(0, latency=0.01))
    slow = trial(0, latency=0.03)
    assert written(out, slow, limits=Limits(0.02)) is None
    written(out, trial(0))
    shutil.rmtree(run(out, 0))
    kept.write(made_search(out, [slow], Limits(0.02)))
    assert (out / kept.BEST / "model.tflite").is_file()


def test_best_that_does_not_say_whose_it_is_stays_until_it_can_be_written(out):
    (out / kept.BEST).mkdir()
    (out / kept.BEST / "model.tflite").write_bytes(b"unknown")
    kept.write(made_search(out, [trial(2, host="another")]))
    assert (out / kept.BEST / "model.tflite").read_bytes() == b"unknown"
    assert written(out, trial(0)) == b"\0"
