import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgenn
from edgenn.training import Run, finish
from edgenn.training.watcher import Watcher
from edgenn_device.errors import EdgennError
from tests.conftest import write_photos

SMALL = {"size": 16, "epochs": 2, "batch": 16, "network_options": {"width": 4, "depth": 1, "dropout": 0.0}}


def test_a_run_holds_what_it_says(tiny: Path):
    run = Run.load(tiny / "run")
    names = {path.name for path in run.path.iterdir()}
    assert names >= {"model.keras", "labels.txt", "run.json", "history.csv", "curves.png", "confusion.png"}
    assert (run.path / "labels.txt").read_text().split() == ["circle", "cross", "square"]
    rows = list(csv.DictReader((run.path / "history.csv").open()))
    assert len(rows) == run.epochs
    assert float(rows[run.best_epoch - 1]["val_accuracy"]) == pytest.approx(run.accuracy, abs=1e-4)
    settings = json.loads((run.path / "run.json").read_text())
    assert settings["recipe"]["network_options"] == {"width": 8, "depth": 2, "dropout": 0.0}
    assert settings["fingerprint"]
    assert settings["versions"]["tensorflow"]
    for name in ("curves.png", "confusion.png"):
        assert cv2.imread(str(run.path / name)).shape[1] > 300


def test_the_model_of_a_run_reaches_the_accuracy_that_run_json_states(tiny: Path):
    run = Run.load(tiny / "run")
    assert run.accuracy > 0.6, "the shapes were not learnt at all"
    measured = edgenn.evaluate(run.model, tiny / "photos", split="validation")
    assert measured.accuracy == pytest.approx(run.accuracy)
    assert measured.pictures == run.pictures


def test_a_seed_gives_the_same_split_and_the_same_starting_weights(photos, tmp_path):
    class Starting:
        """Takes the splits and nothing else."""

        def __init__(self):
            self.seen = []

        def __getattr__(self, name):
            return lambda *given: self.seen.append(given) if name == "photos" else None

    watchers = [Starting(), Starting()]
    runs = [edgenn.train(photos, tmp_path / f"{k}", watcher=w, seed=3, **SMALL) for k, w in enumerate(watchers)]
    first, second = (w.seen[0][0].splits for w in watchers)
    assert first == second
    histories = [list(csv.DictReader((run.path / "history.csv").open())) for run in runs]
    assert float(histories[0][0]["loss"]) == pytest.approx(float(histories[1][0]["loss"]), rel=1e-4)


def test_nothing_is_overwritten_unless_asked(photos, tmp_path):
    out = tmp_path / "run"
    edgenn.train(photos, out, **SMALL)
    before = (out / "run.json").read_text()
    with pytest.raises(EdgennError, match="give --overwrite"):
        edgenn.train(photos, out, **SMALL)
    assert (out / "run.json").read_text() == before
    edgenn.train(photos, out, overwrite=True, seed=1, **SMALL)
    assert json.loads((out / "run.json").read_text())["recipe"]["seed"] == 1
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [], "leftovers beside the run"


def test_a_folder_that_is_not_a_run_is_never_replaced(photos, tmp_path):
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter1.txt").write_text("years of work")
    with pytest.raises(EdgennError, match="not a run's: choose another --out"):
        edgenn.train(photos, mine, overwrite=True, **SMALL)
    assert (mine / "chapter1.txt").read_text() == "years of work"


def test_a_run_is_not_written_among_the_photos(photos, tmp_path):
    inside = photos / "circle" / "x"
    with pytest.raises(EdgennError, match="lies in the photos, and its plots would be trained on"):
        edgenn.train(photos, inside, **SMALL)
    assert not inside.exists()


def test_of_two_that_train_into_one_folder_the_second_is_refused(photos, tmp_path):
    out, refused = tmp_path / "run", []

    class Second(Watcher):
        """Begins the same run while the first is under way."""

        def epoch(self, epoch):
            for how in ({"overwrite": True}, {"resume": True}):
                with pytest.raises(EdgennError, match="is being trained by another edgenn train: give another --out"):
                    edgenn.train(photos, out, **how, **SMALL)
                refused.append(how)

    run = edgenn.train(photos, out, watcher=Second(), **SMALL)
    assert len(refused) == 2 * run.epochs
    assert run.model.is_file()
    assert not list(out.glob("*.lock")), "the lock goes with the run"


def test_what_was_finished_since_the_first_look_is_kept(photos, tmp_path, monkeypatch):
    out, look = tmp_path / "run", finish.usable

    def finished_then(*given):
        monkeypatch.setattr(finish, "usable", look)
        look(*given)
        edgenn.train(photos, out, **SMALL)
        return out

    monkeypatch.setattr(finish, "usable", finished_then)
    with pytest.raises(EdgennError, match="holds a run already"):
        edgenn.train(photos, out, seed=1, **SMALL)
    assert Run.load(out).recipe.seed == 0


def test_the_lock_of_a_killed_process_holds_nobody_up(photos, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / finish.LOCK).touch()
    edgenn.train(photos, out, **SMALL)
    assert not (out / finish.LOCK).exists()


def test_ctrl_c_keeps_the_best_epoch_so_far(photos, tmp_path):
    class Impatient:
        def __getattr__(self, name):
            def told(*given):
                if name == "step" and given[0] == 2:
                    raise KeyboardInterrupt

            return told

    with pytest.raises(KeyboardInterrupt):
        edgenn.train(photos, tmp_path / "run", watcher=Impatient(), **{**SMALL, "epochs": 5})
    run = Run.load(tmp_path / "run")
    assert run.interrupted
    assert run.epochs == 1
    assert edgenn.evaluate(run.model, photos, split="validation").accuracy == pytest.approx(run.accuracy)


def test_ctrl_c_before_the_first_epoch_leaves_nothing(photos, tmp_path):
    class Impatient:
        def __getattr__(self, name):
            def told(*given):
                if name == "step":
                    raise KeyboardInterrupt

            return told

    with pytest.raises(KeyboardInterrupt):
        edgenn.train(photos, tmp_path / "run", watcher=Impatient(), **SMALL)
    assert not (tmp_path / "run").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_unreadable_photos_are_left_out_and_told(photos, tmp_path):
    (photos / "circle" / "zz.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    told = []

    class Listening:
        def __getattr__(self, name):
            return lambda *given: told.extend(given[0]) if name == "unreadable" else None

    edgenn.train(photos, tmp_path / "run", watcher=Listening(), **SMALL)
    assert [Path(problem.path).name for problem in told] == ["zz.jpg"]


def test_classes_choose_folders_and_their_order(photos, tmp_path):
    run = edgenn.train(photos, tmp_path / "run", classes=("square", "circle"), **SMALL)
    assert run.labels == ("square", "circle")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda root: None, "does not exist"),  # no such folder
        (lambda root: root.mkdir(), "folder"),  # an empty one
        (lambda root: write_photos(root, each=5, classes=("only",)), "class"),  # a single class
        (lambda root: write_photos(root, each=1, classes=("a", "b")), "picture"),  # two photos in all
    ],
)
def test_photos_that_cannot_be_trained_on_are_one_line_and_leave_nothing(tmp_path, prepare, said):
    prepare(tmp_path / "photos")
    with pytest.raises(EdgennError) as caught:
        edgenn.train(tmp_path / "photos", tmp_path / "run", **SMALL)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_class_without_a_readable_validation_photo_is_named(tmp_path):
    for split, each in (("train", 6), ("validation", 3)):
        write_photos(tmp_path / "photos" / split, each=each, first_seed=len(split))
    for path in (tmp_path / "photos/validation/cross").iterdir():
        path.write_bytes(b"")
    with pytest.raises(EdgennError, match="cross"):
        edgenn.train(tmp_path / "photos", tmp_path / "run", **SMALL)


@pytest.mark.parametrize("damage", ["{", '{"schema": 99}', "{}", "[]"])
def test_a_damaged_run_is_one_line(tmp_path, damage):
    (tmp_path / "model.keras").write_bytes(b"")
    (tmp_path / "run.json").write_text(damage)
    with pytest.raises(EdgennError, match=r"train again"):
        Run.load(tmp_path)


def test_a_run_of_a_version_that_kept_no_sample_of_its_photos_is_read(tiny, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"")
    settings = json.loads((tiny / "run" / "run.json").read_text())
    assert settings.pop("trained_on")
    (tmp_path / "run.json").write_text(json.dumps(settings))
    assert Run.load(tmp_path).trained_on == ""


def test_grey_pictures_train_a_network_of_one_channel(photos, tmp_path):
    run = edgenn.train(photos, tmp_path / "run", colour="grey", **SMALL)
    from edgenn.extras import require

    model = require("keras").models.load_model(run.model)
    assert model.input_shape == (None, 16, 16, 1)
    assert np.isfinite(model.predict(np.zeros((1, 16, 16, 1), "float32"), verbose=0)).all()
