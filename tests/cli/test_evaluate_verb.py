"""`edgenn evaluate`, on the tiny run that the tests share: its .keras, its .tflite, and what may go wrong."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgenn.cli.evaluate import command
from edgenn.evaluation import predict
from edgenn_device import preprocess
from edgenn_device.errors import EdgennError


def evaluate(*arguments):
    """Run the verb; EdgennError comes through, as `edgenn.cli.main` turns it into a line."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def model(tiny):
    return tiny / "run" / "model.tflite"


@pytest.fixture(scope="module")
def document(tiny, model):
    """The JSON of the .tflite on all photos, on which every figure can be checked."""
    done = evaluate(model, tiny / "photos", "--split", "all", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_json_says_what_counting_by_hand_says(tiny, model, document):
    from edgenn_device.model_file import load

    file = load(model)
    right, pictures = 0, 0
    for index, label in enumerate(file.labels):
        paths = sorted((tiny / "photos" / label).iterdir())
        tensors = np.stack([preprocess.to_bytes(preprocess.read(path), file.input) for path in paths])
        top1 = predict(model, tensors).top1
        assert document["classes"][label]["pictures"] == len(paths)
        assert document["classes"][label]["recall"] == np.mean(top1 == index)
        right, pictures = right + int(np.sum(top1 == index)), pictures + len(paths)
    assert (document["pictures"], document["accuracy"]) == (pictures, right / pictures)
    assert document["split"] == "all"
    assert "litert" in document["runtime"]
    assert np.sum(document["confusion"]) == pictures


def test_a_run_and_its_tflite_are_tried_on_the_same_photos(tiny, model):
    one = json.loads(evaluate(tiny / "run", tiny / "photos", "--json").stdout)
    two = json.loads(evaluate(model, tiny / "photos", "--json").stdout)
    assert one["runtime"].startswith("keras ")
    assert one["model"].endswith("model.keras")
    assert one["split"] == two["split"] == "validation"
    assert one["pictures"] == two["pictures"] < 120
    assert list(one["classes"]) == list(two["classes"])
    record = json.loads((tiny / "run" / "run.json").read_text())
    assert (one["accuracy"], one["pictures"]) == (pytest.approx(record["accuracy"]), record["pictures"])


def test_what_a_person_reads(tiny, model, document):
    done = evaluate(model, tiny / "photos", "--split", "all")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"accuracy {document['accuracy']:.3f} (95% interval ")
    assert f"{document['pictures']} pictures, {document['runtime']}" in lines[0]
    for label in document["classes"]:
        assert any(line.startswith(label) for line in lines)
    if document["worst"]:
        assert document["worst"][0]["path"] in done.stdout


def test_a_report_is_written_and_not_written_over(tiny, model, tmp_path):
    report = tmp_path / "made" / "report.html"
    done = evaluate(model, tiny / "photos", "--report", report, "--json")
    assert json.loads(done.stdout)["pictures"] > 0  # what was written is told on stderr
    assert str(report) in done.stderr
    assert report.read_text().startswith("<!doctype html>")
    report.write_text("mine")
    with pytest.raises(EdgennError, match="give --overwrite"):
        evaluate(model, tiny / "photos", "--report", report)
    assert report.read_text() == "mine"
    evaluate(model, tiny / "photos", "--report", report, "--overwrite")
    assert "<h1>" in report.read_text()
    with pytest.raises(EdgennError, match=r"ends in \.html"):
        evaluate(model, tiny / "photos", "--report", tmp_path)


def test_labels_from_a_file_and_folders_by_name(tiny, model, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("square\ncross\ncircle\n")  # the other way round: nearly all circles and squares are now wrong
    done = evaluate(model, tiny / "photos", "--labels", labels, "--classes", "square, circle", "--json")
    document = json.loads(done.stdout)
    assert document["pictures"] <= 80
    straight = json.loads(evaluate(model, tiny / "photos", "--classes", "square,circle", "--json").stdout)
    assert document["accuracy"] < straight["accuracy"]


def test_a_folder_named_to_trick_a_terminal_is_shown_as_letters(tiny, tmp_path):
    photos = tmp_path / "photos"
    for name in ("circle", "cross"):
        (photos / name).mkdir(parents=True)
        for index in range(3):
            picture = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(photos / name / f"{index}\x1b[2J.png"), picture)
    done = evaluate(tiny / "run" / "model.tflite", photos)
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["MODEL", "PHOTOS/circle"], "class"),  # pictures, but no class folders
        (["MODEL", "missing"], "missing"),  # no photos
        (["missing.tflite", "PHOTOS"], "there is no model"),
        (["PHOTOS", "PHOTOS"], r"a folder without model\.keras"),
        (["MODEL", "PHOTOS", "--split", "test"], "no test pictures"),
        (["MODEL", "PHOTOS", "--classes", "circle,star"], "star"),
    ],
)
def test_a_wrong_request_is_one_line(tiny, model, arguments, line):
    places = {"MODEL": str(model), "PHOTOS": str(tiny / "photos")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    with pytest.raises(EdgennError, match=line) as refusal:
        evaluate(*arguments)
    assert "\n" not in str(refusal.value)
