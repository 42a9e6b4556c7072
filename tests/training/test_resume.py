"""Training that is stopped or killed, and goes on as if nothing had happened."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import edgenn
from edgenn.training import Run
from edgenn.training.checkpoint import Checkpoint, unfinished
from edgenn.training.recipe import Recipe
from edgenn.training.watcher import Watcher
from edgenn_device.errors import EdgennError
from tests.conftest import write_photos

# Everything that has a state of its own: dropout's seeds, averaged weights, statistics, warm-up, mixup.
SETTINGS = {
    "size": 16,
    "epochs": 3,
    "batch": 16,
    "ema": 0.9,
    "mixup": 0.2,
    "network_options": {"width": 4, "depth": 1, "dropout": 0.3},
}
CHILD = """
import json, os, signal, sys
import edgenn
from edgenn.training.watcher import Watcher

photos, out, resume, settings, die_in = sys.argv[1], sys.argv[2], sys.argv[3] == "resume", sys.argv[4], sys.argv[5]

class Loud(Watcher):
    def step(self, epoch, step, steps, loss, accuracy):
        print("step", epoch, step, flush=True)

if die_in == "checkpoint":  # in the middle of writing the second one
    import numpy
    write, written = numpy.savez, []
    def savez(file, **arrays):
        written.append(file)
        if len(written) == 2:
            file.write(b"half a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        write(file, **arrays)
    numpy.savez = savez
if die_in == "finish":  # between the old run's end and the new one's beginning
    from edgenn.training import finish
    from pathlib import Path
    rename = Path.replace
    def replace(self, target):
        if self.name == "labels.txt" and self.parent.name == "complete":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)
    Path.replace = replace
edgenn.train(photos, out, resume=resume, watcher=Loud(), **json.loads(settings))
"""


def child(photos: Path, out: Path, resume: bool = False, die_in: str = "", settings=SETTINGS) -> subprocess.Popen:
    """A process that trains on one thread, where sums do not depend on the order in which threads come."""
    one = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, photos, out, "resume" if resume else "", json.dumps(settings), die_in],
        env={**os.environ, **one},
        stdout=subprocess.PIPE,
        text=True,
    )


def weights(run: Path) -> list[np.ndarray]:
    from edgenn.extras import require

    return require("keras").models.load_model(run / "model.keras").get_weights()


def same(one: Path, other: Path) -> bool:
    figures = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader((run / "history.csv").open())]
        for run in (one, other)
    ]
    pairs = zip(weights(one), weights(other), strict=True)
    return figures[0] == figures[1] and all(np.array_equal(a, b) for a, b in pairs)


class Stop(Watcher):
    """Presses Ctrl-C in an epoch."""

    def __init__(self, epoch: int) -> None:
        self.at = epoch

    def step(self, epoch, step, steps, loss, accuracy):
        if epoch == self.at:
            raise KeyboardInterrupt


def test_killed_while_a_checkpoint_is_written_and_resumed_to_the_same_bits(photos, tmp_path):
    processes = [child(photos, tmp_path / "whole"), child(photos, tmp_path / "killed", die_in="checkpoint")]
    for process in processes:
        process.communicate(timeout=300)
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL]
    assert not (tmp_path / "killed" / "run.json").exists()
    assert unfinished(tmp_path / "killed") is not None
    resumed = child(photos, tmp_path / "killed", resume=True)
    said, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0
    assert said.startswith("step 2 "), "the first epoch was kept"
    assert same(tmp_path / "killed", tmp_path / "whole")
    assert not (tmp_path / "killed" / "unfinished").exists()
    assert len(list((tmp_path / "killed" / "tensorboard" / "train").iterdir())) == 1


def test_killed_while_the_run_takes_its_place_and_resumed(photos, tmp_path):
    settings = {**SETTINGS, "epochs": 1}
    edgenn.train(photos, tmp_path / "run", **{**settings, "seed": 7})
    (tmp_path / "run" / "model.tflite").write_bytes(b"of the earlier run")
    process = child(photos, tmp_path / "run", die_in="finish", settings={**settings, "overwrite": True})
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(EdgennError, match="not a run"):
        Run.load(tmp_path / "run")
    steps = []
    watcher = Watcher()
    watcher.step = lambda *given: steps.append(given)
    run = edgenn.train(photos, tmp_path / "run", resume=True, watcher=watcher)
    assert not steps, "all epochs were done"
    assert run.recipe.seed == 0
    assert {path.name for path in run.path.iterdir()} >= {"model.keras", "run.json", "tensorboard", "curves.png"}
    assert not (run.path / "model.tflite").exists(), "what was made from the earlier run went with it"


@pytest.mark.slow
def test_killed_at_any_moment_again_and_again_and_resumed_to_the_same_bits(tmp_path):
    photos, chance = write_photos(tmp_path / "photos", each=60), random.Random(4)
    assert child(photos, tmp_path / "whole").wait() == 0
    killed, out = 0, tmp_path / "killed"
    for _ in range(60):
        process = child(photos, out, resume=unfinished(out) is not None)
        process.stdout.readline()  # the first step
        time.sleep(chance.uniform(0, 0.6))
        process.kill()
        if process.wait() == 0:
            break
        killed += 1
        assert not list(out.glob("*.npz")), "nothing but RUN/unfinished is touched"
        if (out / "run.json").exists():
            break
    else:
        assert child(photos, out, resume=True).wait() == 0
    assert killed >= 3
    assert same(out, tmp_path / "whole")


def test_stopped_by_ctrl_c_it_is_a_run_and_can_go_on(photos, tmp_path):
    whole = edgenn.train(photos, tmp_path / "whole", **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        edgenn.train(photos, tmp_path / "run", watcher=Stop(3), **SETTINGS)
    stopped = Run.load(tmp_path / "run")
    assert (stopped.interrupted, stopped.epochs) == (True, 2)
    with pytest.raises(EdgennError, match=r"unfinished run: give --resume to go on with it, or --overwrite"):
        edgenn.train(photos, tmp_path / "run", **SETTINGS)
    run = edgenn.train(photos, tmp_path / "run", resume=True)
    assert (run.interrupted, run.epochs, run.best_epoch) == (False, whole.epochs, whole.best_epoch)
    assert run.seconds > stopped.seconds / 2
    for a, b in zip(weights(run.path), weights(whole.path), strict=True):
        assert a == pytest.approx(b, abs=1e-3)
    with pytest.raises(EdgennError, match="holds no unfinished run"):
        edgenn.train(photos, tmp_path / "run", resume=True)


def test_epochs_that_the_number_of_photos_chose_are_those_of_the_run_that_goes_on(photos, tmp_path):
    settings = {name: value for name, value in SETTINGS.items() if name != "epochs"}
    with pytest.raises(KeyboardInterrupt):
        edgenn.train(photos, tmp_path / "run", watcher=Stop(2), **settings)
    assert unfinished(tmp_path / "run")["recipe"].epochs == 1200 / 5
    with pytest.raises(KeyboardInterrupt):
        edgenn.train(photos, tmp_path / "run", resume=True, recipe=Recipe(**settings), watcher=Stop(3))
    assert Run.load(tmp_path / "run").epochs == 2


def test_what_differs_from_the_run_to_resume_is_refused(photos, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        edgenn.train(photos, tmp_path / "run", watcher=Stop(2), **SETTINGS)
    with pytest.raises(EdgennError, match=r"begun with learning_rate 0\.002, not 0\.5"):
        edgenn.train(photos, tmp_path / "run", resume=True, learning_rate=0.5)
    (photos / "circle" / "00.png").unlink()
    with pytest.raises(EdgennError, match="are not the photos that"):
        edgenn.train(photos, tmp_path / "run", resume=True)
    again = edgenn.train(photos, tmp_path / "run", overwrite=True, **{**SETTINGS, "epochs": 1})
    assert again.epochs == 1
    assert not (tmp_path / "run" / "unfinished").exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", None])
def test_a_damaged_checkpoint_is_one_line(tmp_path, damage):
    checkpoint = Checkpoint(tmp_path / "unfinished", {"recipe": {}, "fingerprint": "f"})
    checkpoint.save({"state": [np.arange(3)], "best": []}, {"finished": False})
    arrays, facts = checkpoint.load()
    assert (arrays["state"][0].tolist(), arrays["best"], facts) == ([0, 1, 2], [], {"finished": False})
    if damage is None:
        (tmp_path / "unfinished" / "training.json").write_text("{")
        with pytest.raises(EdgennError, match="damaged"):
            unfinished(tmp_path)
        return
    checkpoint.path.write_bytes(damage)
    with pytest.raises(EdgennError, match="damaged"):
        checkpoint.load()
