"""`edgenn inspect`: the fields that ARCHITECTURE fixes, and what a person reads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgenn.cli.inspect import command
from edgenn.conversion import metadata
from edgenn_device.card import Card, InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import attach, load

FOLDER = Path(__file__).parents[1] / "data_files"
CARD = Card(
    "garments",
    ("shirt", "jacket", "ümlaut <b>"),
    InputSpec(32, 32),
    quantization={"scheme": "int8 post-training", "calibration_pictures": 300},
    training={"network": "simple_cnn"},
    metrics={
        "float": {"accuracy": 0.9125},
        "int8": {"accuracy": 0.9, "runtime": "litert"},
        "agreement": 0.98,
        "pictures": 240,
        "split": "validation",
    },
    target="pi",
    minimum_confidence=0.4902,
)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.tflite"
    path.write_bytes(attach(metadata.add((FOLDER / "tiny_int8.tflite").read_bytes(), CARD), CARD))
    return path


def test_json_of_an_own_model(own: Path) -> None:
    result = run(own, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["model"] == str(own)
    assert found["bytes"] == own.stat().st_size
    assert found["inputs"] == [
        {
            "name": "serving_default_keras_tensor:0",
            "shape": [1, 32, 32, 3],
            "dtype": "uint8",
            "scale": pytest.approx(1 / 127.5, rel=1e-5),
            "zero_point": 127,
        }
    ]
    assert found["outputs"][0]["shape"] == [1, 3]
    assert {"name": "CONV_2D", "version": 3, "count": 2} in found["operators"]
    assert found["float_tensors"] == []
    assert found["labels"] == list(CARD.labels)
    assert found["targets"] == {"pi": {"ok": True, "reasons": []}, "coral": {"ok": True, "reasons": []}}
    assert found["card"]["metrics"] == CARD.metrics
    assert found["assumed"] == []


def test_json_of_a_float_model_from_elsewhere() -> None:
    found = json.loads(run(FOLDER / "tiny_float.tflite", "--json").output)
    assert found["card"] is None
    assert found["labels"] == []
    assert len(found["float_tensors"]) == 6  # input, two convolutions, mean, logits, output
    assert found["inputs"][0]["scale"] is None
    assert found["targets"]["pi"]["ok"] is True
    assert found["targets"]["coral"]["ok"] is False
    assert "--quantization int8" in found["targets"]["coral"]["reasons"][0]
    assert len(found["assumed"]) == 3


def test_text_of_an_own_model(own: Path) -> None:
    text = run(own).output
    for expected in (
        "garments",
        "uint8 1x32x32x3, scale 0.00784314, zero point 127",
        "bytes as they are",
        "simple_cnn",
        "int8 post-training, calibrated on 300",
        "float 0.912",
        "int8 0.900 on litert",
        "0.980 of 240 validation pictures",
        "CONV_2D                            3      2",
        "shirt, jacket, ümlaut <b>",
        "unknown   below a score of 0.49\n",
    ):
        assert expected in text, text


def test_text_of_a_model_from_elsewhere(tmp_path: Path) -> None:
    text = run(FOLDER / "tiny_float.tflite").output
    assert "unknown (3 classes): give --labels FILE" in text
    assert "The input is (byte - 127.5) / 127.5." in text
    assert "6 tensors" in text
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\ncow\n")
    assert "cat, dog, cow" in run(FOLDER / "tiny_float.tflite", "--labels", labels).output


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (FOLDER / "missing.tflite", "there is no model"),
        (FOLDER, "is a folder"),
        (FOLDER / "tiny_vector.tflite", "not a picture"),
        (Path(__file__), "not a TFLite model"),
    ],
)
def test_what_is_no_model_is_one_line(path: Path, reason: str) -> None:
    result = run(path)
    assert isinstance(result.exception, EdgennError)
    assert reason in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.output == ""


@pytest.mark.parametrize(("shift", "ok"), [(0, True), (5, False)])
def test_golden_vectors_are_computed_and_compared(tiny, tmp_path, shift, ok):
    model = load(tiny / "run" / "model.tflite")
    golden = {
        name: [[(value + shift) % 256 for value in row] for row in rows] if isinstance(rows, list) else rows
        for name, rows in model.card.golden.items()
    }
    path = tmp_path / "model.tflite"
    path.write_bytes(attach(model.content, dataclasses.replace(model.card, golden=golden)))
    document = json.loads(CliRunner().invoke(command, [str(path), "--json"]).stdout)
    assert document["golden"]["ok"] is ok
    assert "ai-edge-litert" in document["golden"]["runtime"]
    text = CliRunner().invoke(command, [str(path)]).stdout
    assert ("computes what the workstation did" in text) is ok
