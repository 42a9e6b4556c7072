"""`edgenn debug` on the tiny run that the tests share: every figure of its JSON, its page, and what may go wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from edgenn import data
from edgenn.cli.debug import command
from edgenn.evaluation import predict
from edgenn.extras import require
from edgenn.training.run import Run
from edgenn_device import model_file
from edgenn_device.errors import EdgennError


def debug(*arguments):
    """Run the verb; EdgennError comes through, as `edgenn.cli.main` turns it into a line."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    """A folder with the page and the figures of the tiny run's file."""
    out = tmp_path_factory.mktemp("debug") / "why"
    done = debug(tiny / "run", "--out", out)
    assert done.exit_code == 0
    return out, done.stdout


@pytest.fixture(scope="module")
def document(written):
    return json.loads((written[0] / "debug.json").read_text())


@pytest.fixture(scope="module")
def mixed_up(tiny, tmp_path_factory):
    """A copy of the run whose float model calls the first class the second and the other way round."""
    run = tmp_path_factory.mktemp("mixed") / "run"
    shutil.copytree(tiny / "run", run)
    model = require("keras").models.load_model(run / "model.keras", compile=False)
    kernel, bias = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([kernel[:, [1, 0, 2]], bias[[1, 0, 2]]])
    model.save(run / "model.keras")
    (run / "model.tflite").rename(run / "model.rejected.tflite")
    return run


def test_what_it_says_of_photos_is_what_asking_both_models_says(tiny, document):
    run, file = Run.load(tiny / "run"), tiny / "run" / "model.tflite"
    photos = data.load(data.scan(tiny / "photos", run.labels).splits["validation"], run.recipe.input)
    before, after = predict(run.model, photos.tensors).top1, predict(file, photos.tensors).top1
    assert document["pictures"] == len(photos.labels)
    assert document["float_accuracy"] == pytest.approx(np.mean(before == photos.labels))
    assert document["int8_accuracy"] == pytest.approx(np.mean(after == photos.labels))
    assert document["agreement"] == pytest.approx(np.mean(before == after))
    assert len(document["flips"]) == np.sum(before != after)
    for entry in document["classes"]:
        here = photos.labels == run.labels.index(entry["label"])
        assert entry["pictures"] == here.sum()
        assert entry["int8_right"] == np.sum(after[here] == photos.labels[here])
    assert "litert" in document["runtime"]


def test_a_good_run_is_said_to_be_healthy(document, written):
    assert document["verdict"]["healthy"] is True
    assert document["verdict"]["guilty"] == ""
    assert sum(layer["share"] for layer in document["layers"]) == pytest.approx(1)
    ratios = [layer["ratio"] for layer in document["layers"]]
    assert ratios == sorted(ratios)
    assert {layer["name"] for layer in document["layers"]} <= set(document["order"])
    assert "int8 is healthy" in written[1]
    assert document["layers"][0]["name"] in written[1]
    assert document["size"]["file"] == (model_file.load(document["model"])).path.stat().st_size


def test_the_page_stands_alone_and_says_the_same(written, document):
    page = (written[0] / "report.html").read_text()
    assert "model.tflite: healthy" in page
    assert "int8 is healthy" in page
    for layer in document["layers"]:
        assert layer["name"] in page.replace("<wbr>", "")
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png") == 1


def test_photos_that_flipped_and_classes_that_lost_are_shown(mixed_up, tmp_path):
    done = debug(mixed_up, "--out", tmp_path / "why", "--json")
    document = json.loads(done.stdout)
    assert document["model"].endswith("model.rejected.tflite")
    assert document["verdict"]["healthy"] is False
    labels = Run.load(mixed_up).labels
    swapped = {labels[0]: labels[1], labels[1]: labels[0]}
    flips = document["flips"]
    assert flips
    assert all(swapped[flip["float_label"]] == flip["int8_label"] for flip in flips)
    right = [flip["float_label"] == flip["true"] for flip in flips]
    assert right == sorted(right, reverse=True), "first what float has right"
    page = (tmp_path / "why" / "report.html").read_text()
    assert page.count("data:image/jpeg") == min(24, len(flips))
    assert "only the rounding of activations" in document["notes"][0], "its weights are not those of this run"
    text = debug(mixed_up).stdout
    assert "photos that flipped" in text
    assert "int8 loses" in text


def test_a_file_elsewhere_is_compared_with_the_run_that_is_named(tiny, tmp_path):
    shutil.copy(tiny / "run" / "model.tflite", tmp_path / "away.tflite")
    done = debug(tmp_path / "away.tflite", "--run", tiny / "run", "--photos", tiny / "photos", "--json")
    assert json.loads(done.stdout)["run"] == str(tiny / "run")
    with pytest.raises(EdgennError, match="--run"):
        debug(tmp_path / "away.tflite")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda run, here: here / "nowhere.tflite", "there is no model"),  # no such file
        (lambda run, here: run / "model.keras", "is not a .tflite"),  # the float model itself
        (lambda run, here: _emptied(run, here), "edgenn convert"),  # a run that was not converted yet
        (lambda run, here: here, "is not a run"),  # a folder of something else
        (lambda run, here: _cut(run, here), "truncated|damaged"),  # half a file
        (lambda run, here: _of_other_photos(run, here), "was not made from"),  # another run's file
        (lambda run, here: _of_other_size(run, here), "was not made from"),  # of the same photos at another size
    ],
)
def test_what_cannot_be_compared_is_one_line(tiny, tmp_path, make, said):
    with pytest.raises(EdgennError, match=said) as caught:
        debug(make(tiny / "run", tmp_path))
    assert "\n" not in str(caught.value)


def _emptied(run, here):
    shutil.copytree(run, here / "run")
    (here / "run" / "model.tflite").unlink()
    return here / "run"


def _cut(run, here):
    shutil.copytree(run, here / "run")
    whole = (run / "model.tflite").read_bytes()
    (here / "run" / "model.tflite").write_bytes(whole[: len(whole) // 2])
    return here / "run"


def _of_other_photos(run, here):
    shutil.copytree(run, here / "run")
    settings = json.loads((here / "run" / "run.json").read_text())
    (here / "run" / "run.json").write_text(json.dumps({**settings, "fingerprint": "another"}))
    return here / "run"


def _of_other_size(run, here):
    shutil.copytree(run, here / "run")
    settings = json.loads((here / "run" / "run.json").read_text())
    settings["recipe"]["size"] = 2 * settings["recipe"]["size"]
    (here / "run" / "run.json").write_text(json.dumps(settings))
    return here / "run"


def test_photos_that_are_gone_and_places_that_are_taken_are_said_before_any_work(tiny, tmp_path):
    with pytest.raises(EdgennError, match="give their place with --photos"):
        debug(tiny / "run", "--photos", tmp_path / "gone")
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(EdgennError, match="--overwrite"):
        debug(tiny / "run", "--out", tmp_path)
    with pytest.raises(EdgennError, match="is a file"):
        debug(tiny / "run", "--out", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "mine"
