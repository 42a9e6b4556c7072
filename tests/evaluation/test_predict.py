"""The same call for .keras and .tflite; TensorFlow is needed here and is imported once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgenn.evaluation import Predictions, input_spec, model, opened, predict
from edgenn.evaluation.predict import probabilities
from edgenn.extras import require
from edgenn_device import preprocess
from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError

TFLITE = Path(__file__).parents[1] / "data_files" / "tiny_int8.tflite"
SHAPE = (6, 5, 3)


@pytest.fixture(scope="module")
def keras():
    return require("keras")


def dense(keras, shape=SHAPE, classes=4, activation="softmax"):
    """The least that is a classifier."""
    pictures = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 128, -1.0)(pictures)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3)(x))
    return keras.Model(pictures, keras.layers.Dense(classes, activation=activation)(x))


@pytest.fixture(scope="module")
def network(keras):
    keras.utils.set_random_seed(3)
    return dense(keras)


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    """A run's folder, its input in an order that no default would give."""
    folder = tmp_path_factory.mktemp("run")
    network.save(folder / "model.keras")
    record = {
        "labels": ["a", "b", "c", "d"],
        "fingerprint": "f00d",
        "input": asdict(InputSpec(6, 5, 3, "bgr", "crop")),
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def bytes_of(count, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_keras_from_a_run_from_its_file_and_from_memory(run, network, keras):
    tensors = bytes_of(150)  # more than two batches
    steps = []
    from_run = predict(run, tensors, progress=lambda done, total: steps.append((done, total)))
    assert isinstance(from_run, Predictions)
    assert from_run.runtime == f"keras {keras.__version__}, tensorflow {require('tensorflow').__version__}"
    assert from_run.probabilities.shape == (150, 4)
    assert from_run.probabilities.dtype == np.float32
    np.testing.assert_allclose(from_run.probabilities, network.predict(tensors, verbose=0), atol=1e-6)
    np.testing.assert_array_equal(from_run.probabilities, predict(run / "model.keras", tensors).probabilities)
    np.testing.assert_allclose(from_run.probabilities, predict(network, tensors).probabilities, atol=1e-6)
    np.testing.assert_array_equal(from_run.top1, from_run.probabilities.argmax(1))
    assert steps == [(64, 150), (128, 150), (150, 150)]


def test_a_run_says_labels_input_and_photos(run):
    asked = opened(run)
    assert asked.labels == ("a", "b", "c", "d")
    assert asked.input == input_spec(run) == InputSpec(6, 5, 3, "bgr", "crop")
    assert (asked.fingerprint, asked.notes) == ("f00d", ())


def test_a_foreign_keras_model_is_asked_for_its_shape(run, network, keras, tmp_path):
    foreign = tmp_path / "foreign.keras"
    network.save(foreign)
    assert input_spec(foreign) == InputSpec(6, 5, 3)
    assert opened(foreign).notes == ("The input takes pixels 0 to 255, rgb; pictures are stretched to 6x5.",)
    labels = tmp_path / "labels.txt"
    labels.write_text("w\nx\ny\nz\n\n")
    assert opened(foreign, labels=labels).labels == ("w", "x", "y", "z")
    labels.write_text("0  w\n1  x\n2  y\n3  z\n")  # Coral's, read as for a .tflite
    assert opened(foreign, labels=labels).labels == ("w", "x", "y", "z")
    labels.write_text("w\nx\n")
    with pytest.raises(EdgennError, match="2 labels and the model 4 scores"):
        opened(foreign, labels=labels)
    # Another model beside a run's record: what the record says is not about it.
    (tmp_path / "model.keras").write_bytes(b"")
    dense(keras, (8, 8, 1), 4).save(tmp_path / "model.keras")
    (tmp_path / "run.json").write_text((run / "run.json").read_text())
    assert opened(tmp_path).input == InputSpec(8, 8, 1, "grey")


def test_logits_become_probabilities(keras):
    logits = predict(dense(keras, activation=None), bytes_of(20)).probabilities
    np.testing.assert_allclose(logits.sum(axis=1), 1, atol=1e-6)


def test_scores_within_0_and_1_are_left_alone():
    # Softmax of int8 (multiples of 1/256, sums a little off 1), sigmoids, nothing at all.
    for scores in ([[255 / 256, 0, 0]], [[0.9, 0.8]], np.empty((0, 3))):
        scores = np.array(scores, np.float32)
        assert probabilities(scores) is scores
    np.testing.assert_allclose(probabilities(np.array([[1000.0, 1000.0]], np.float32)), [[0.5, 0.5]])


def two_inputs(keras):
    a, b = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    return keras.Model([a, b], keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Add()([a, b]))))


def two_outputs(keras):
    a = keras.Input((4, 4, 3))
    flat = keras.layers.Flatten()(a)
    return keras.Model(a, [keras.layers.Dense(2)(flat), keras.layers.Dense(3)(flat)])


def a_map(keras):
    a = keras.Input((4, 4, 3))
    return keras.Model(a, keras.layers.Conv2D(2, 1)(a))


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (two_inputs, "2 inputs"),
        (two_outputs, r"gives \(\?, 2\) and \(\?, 3\)"),
        (a_map, r"gives \(\?, 4, 4, 2\)"),  # a segmentation, say
        (lambda keras: dense(keras, classes=1), r"gives \(\?, 1\)"),  # one sigmoid
        (lambda keras: dense(keras, (4, 4, 4)), r"takes \(\?, 4, 4, 4\)"),
        (lambda keras: dense(keras, (None, None, 3)), "any size"),
    ],
)
def test_what_is_no_classifier_of_pictures_is_refused(keras, build, line):
    with pytest.raises(EdgennError, match=line):
        predict(build(keras), bytes_of(1, (4, 4, 3)))


def test_tensors_that_do_not_fit_are_refused(run):
    with pytest.raises(EdgennError, match=r"shape \(6, 5, 3\), not uint8 of \(5, 6, 3\)"):
        predict(run, bytes_of(1, (5, 6, 3)))
    with pytest.raises(EdgennError, match="not float32"):
        predict(run, bytes_of(1).astype(np.float32))


def test_files_that_are_no_models(tmp_path, run):
    (tmp_path / "text.keras").write_text("not a model")
    (tmp_path / "cut.keras").write_bytes((run / "model.keras").read_bytes()[:3000])
    (tmp_path / "model.h5").touch()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.keras").write_bytes((run / "model.keras").read_bytes())
    (tmp_path / "bad" / "run.json").write_text("{")
    for name, line in (
        ("text.keras", "is damaged"),
        ("cut.keras", "is damaged"),
        ("model.h5", "neither a .keras nor a .tflite"),
        ("missing.keras", "there is no model"),
        (".", "a folder without model.keras"),
        ("bad", "run.json cannot be read"),
    ):
        with pytest.raises(EdgennError, match=line) as refusal:
            opened(tmp_path / name)
        assert "\n" not in str(refusal.value)
    with pytest.raises(EdgennError, match=r"is for a \.tflite"):
        opened(run, runtime="litert")


def test_tflite_from_its_file_and_from_a_classifier():
    from edgenn_device.classifier import Classifier

    tensors = bytes_of(70, (32, 32, 3))
    classifier = Classifier(TFLITE, threads=1)
    answers = predict(TFLITE, tensors, threads=1)
    assert answers.probabilities.shape == (70, 3)
    assert answers.runtime == classifier.interpreter.description
    np.testing.assert_array_equal(answers.probabilities, predict(classifier, tensors).probabilities)
    np.testing.assert_array_equal(answers.probabilities[69], classifier.interpreter.invoke(tensors[69:]))
    assert input_spec(TFLITE) == classifier.model.input


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(("channels", "colour"), [(3, "rgb"), (3, "bgr"), (1, "grey")])
@pytest.mark.parametrize(("dtype", "mean", "std"), [("uint8", 0.0, 1.0), ("int8", 0.0, 1.0), ("float32", 127.5, 64.0)])
def test_bytes_reach_an_interpreter_as_the_device_would_give_them(dtype, mean, std, channels, colour, resize):
    spec = InputSpec(7, 9, channels, colour, resize, dtype, mean, std)
    seen = []

    def scores(tensor):
        seen.append(tensor.copy())
        return np.zeros(2, np.float32)

    classifier = SimpleNamespace(
        model=SimpleNamespace(path="m.tflite", input=spec, labels=(), card=None, assumed=()),
        labels=("class 0", "class 1"),
        interpreter=SimpleNamespace(description="none"),
        scores=scores,
    )
    pictures = [np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8) for seed in range(3)]
    asked = model._of_classifier(classifier)
    asked.scores(np.stack([preprocess.to_bytes(picture, spec) for picture in pictures]))
    for tensor, picture in zip(seen, pictures, strict=True):
        expected = preprocess.to_tensor(picture, spec)
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(tensor, expected)
