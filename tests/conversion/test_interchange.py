"""Networks that were not trained here: loaded without running anything, understood, and converted as our own are."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import edgenn
from edgenn.conversion import beginning, interchange, loading, pixel_range
from edgenn.conversion.pixel_range import RARER, USUAL, Form
from edgenn.extras import require
from edgenn_device import model_file
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError
from tests.conftest import CLASSES, draw, write_photos

# Trained and saved by Keras 2 (tools/make_keras2_model.py), with what it computed.
KERAS2 = Path(__file__).parents[1] / "data_files" / "keras2.h5"


def rgb(seeds: range) -> np.ndarray:
    drawn = [cv2.cvtColor(draw(CLASSES[seed % 3], seed), cv2.COLOR_BGR2RGB) for seed in seeds]
    return np.array(drawn, np.uint8)


@pytest.fixture(scope="module")
def bare():
    """The network of KERAS2 without its arithmetic: it wants pixels −1 to 1, and does not say so."""
    return beginning.without_beginning(loading.load(KERAS2), (32, 32, 3))[1]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("interchange") / "photos", each=24)


def opened(path, photos, labels=None):
    """What `interchange.opened` makes of a file."""
    with interchange.opened(path, photos, labels) as original:
        return original


# --- files ---


def test_a_file_of_keras_2_computes_what_keras_2_computed():
    expected = h5py.File(KERAS2)["/"].attrs["expected"]
    np.testing.assert_allclose(loading.load(KERAS2).predict_on_batch(rgb(range(6)).astype("f4")), expected, atol=1e-6)
    with pytest.raises((TypeError, ValueError)):
        require("keras").models.load_model(KERAS2, compile=False)  # else this would show nothing


def keras_network(*layers, shape=(32, 32, 3)):
    keras = require("keras")
    x = given = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(given, keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalMaxPooling2D()(x)))


def lambda_file(folder, suffix):
    keras = require("keras")
    path = folder / f"model{suffix}"
    keras_network(keras.layers.Lambda(lambda x: x / 255, name="sneaky")).save(path)
    return path


def weights_only(folder):
    keras_network().save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5"


def tensorflow_call(folder):
    """A call that is no arithmetic with a number, as Keras 2 kept it."""
    path = folder / "model.h5"
    path.write_bytes(KERAS2.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace("math.truediv", "image.resize")
    return path


def own_layer(folder):
    """A .keras whose config names a class of another module."""
    path = folder / "model.keras"
    keras_network(require("keras").layers.ReLU(name="mine")).save(folder / "good.keras")
    with zipfile.ZipFile(folder / "good.keras") as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            if name == "config.json":
                content = content.replace(
                    b'"module": "keras.layers", "class_name": "ReLU"', b'"module": "os", "class_name": "ReLU"'
                )
            bad.writestr(name, content)
    return path


def saved_model_that_reads(folder):
    tf = require("tensorflow")
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32)])
    def scores(pictures):
        secret = tf.strings.length(tf.io.read_file("/etc/hostname"))
        return tf.reduce_mean(pictures, [1, 2]) + tf.cast(secret, tf.float32)

    tf.saved_model.save(module, str(folder / "saved"), signatures=scores)
    return folder / "saved"


def broken(folder, name, content=b"nonsense"):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return (folder / name).parent if name.endswith(".pb") else folder / name


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: lambda_file(folder, ".keras"), "layer 'sneaky' .Lambda. .* is code"),  # never run, never loaded
        (lambda folder: lambda_file(folder, ".h5"), "layer 'sneaky' .Lambda. .* is code"),  # the same in the old form
        (own_layer, "layer 'mine' .ReLU. .* not one of Keras's own"),  # a module that loading would import
        (tensorflow_call, "calls tf.image.resize, which Keras 3 cannot load"),  # no arithmetic with a number
        (weights_only, "holds weights without their network"),  # what save_weights writes
        (lambda folder: broken(folder, "model.h5"), "not a Keras .h5"),  # no HDF5 at all
        (lambda folder: broken(folder, "model.keras"), "not a .keras file"),  # no zip at all
        (lambda folder: broken(folder, "saved/saved_model.pb"), "no SavedModel"),  # no protobuf
        (saved_model_that_reads, "reads or writes files or calls Python .ReadFile."),  # a program, not a network
    ],
)
def test_what_is_damaged_or_a_program_is_refused_in_one_line(make, said, tmp_path, pictures):
    with pytest.raises(EdgennError, match=said) as caught:
        opened(make(tmp_path), pictures)
    assert "\n" not in str(caught.value)


# --- pixels ---


@pytest.mark.parametrize(
    "form", [*USUAL, *RARER, Form("-1 to 1, BGR", 1 / 127.5, -1.0, "bgr")], ids=lambda form: form.name
)
def test_the_form_of_pixels_is_found(form, bare):
    """A network that wants `form`: it undoes it, and does then what a network for −1 to 1 does."""
    seeds = range(500, 590)
    pixels, truth = rgb(seeds), np.array([seed % 3 for seed in seeds])

    def wants_form(x):
        pixels = (x - np.float32(form.offset)) / np.float32(form.scale)
        pixels = pixels[..., ::-1] if form.colour == "bgr" else pixels
        return bare.predict_on_batch(np.float32(pixels / 127.5 - 1))

    choice = pixel_range.choose(wants_form, pixels, truth)
    chosen = choice.form
    asked = pixels[..., ::-1] if chosen.colour == "bgr" else pixels
    said = wants_form(asked * np.float32(chosen.scale) + np.float32(chosen.offset))
    assert (said.argmax(1) == truth).mean() > 0.95
    assert chosen.colour == form.colour
    if form in USUAL:
        assert chosen == form
    assert "0 to 255: 0." in choice.figures or "0 to 255: 1." in choice.figures


def test_labels_in_another_order_are_refused_and_not_hidden(bare, pictures, tmp_path):
    keras = require("keras")
    moved = keras.layers.Dense(3, use_bias=False, name="moved")
    network = keras.Model(bare.inputs, moved(bare.outputs[0]))
    moved.set_weights([np.float32([[0, 10, 0], [0, 0, 10], [10, 0, 0]])])
    network.save(tmp_path / "moved.keras")
    with pytest.raises(EdgennError, match=r"no better than chance.*0 to 255: .*--labels FILE"):
        opened(tmp_path / "moved.keras", pictures)
    (tmp_path / "labels.txt").write_text("square\ncircle\ncross\n")
    original = opened(tmp_path / "moved.keras", pictures, tmp_path / "labels.txt")
    assert original.labels == ("square", "circle", "cross")
    assert any("logits" in note for note in original.notes)
    assert np.allclose(original.model.predict_on_batch(rgb(range(9)).astype("f4")).sum(1), 1)


def test_photos_of_some_classes_are_enough(bare, pictures, tmp_path):
    keras = require("keras")
    wider = keras.layers.ZeroPadding1D((1, 0))(keras.layers.Reshape((3, 1))(bare.outputs[0]))
    keras.Model(bare.inputs, keras.layers.Flatten(name="four")(wider)).save(tmp_path / "four.keras")
    (tmp_path / "labels.txt").write_text("background\ncircle\ncross\nsquare\n")
    original = opened(tmp_path / "four.keras", pictures, tmp_path / "labels.txt")
    assert original.partial
    assert {picture.label for picture in original.dataset.splits["train"]} == {1, 2, 3}
    with pytest.raises(EdgennError, match="training would forget"):
        edgenn.convert(tmp_path / "four.keras", photos=pictures, labels=tmp_path / "labels.txt", quantization="qat")


@pytest.mark.parametrize(
    ("layers", "form"),
    [
        (["Rescaling(1 / 255)"], (1 / 255, 0.0)),  # as Keras's tutorials have it
        (["RandomFlip()", "RandomRotation(0.1)", "Rescaling(1 / 127.5, -1)"], (1 / 127.5, -1.0)),  # augmentation first
        (["Rescaling(1 / 255)", "Rescaling(2, -1)"], (2 / 255, -1.0)),  # two in a row are one
        (["Dropout(0.1)"], None),  # nothing said
        (["Rescaling([1.0, 2.0, 3.0])"], None),  # one scale a channel is no scale of the input
        (["Normalization(mean=1.0, variance=2.0)"], None),  # knows a mean, and not whether of bytes or of 0 to 1
        (["RandomCrop(32, 32)", "Rescaling(1 / 255)"], None),  # it crops when training is over too
    ],
)
def test_what_a_network_says_of_its_pixels_is_read(layers, form):
    keras = require("keras")
    made = [eval(layer, vars(keras.layers)) for layer in layers]
    network = keras_network(*made, keras.layers.Conv2D(4, 3))
    head, inner = beginning.without_beginning(network, (32, 32, 3))
    assert (head and (head.scale, head.offset)) == (pytest.approx(form) if form else None)
    pixels = rgb(range(3)).astype("f4")
    scaled = pixels * np.float32(head.scale) + np.float32(head.offset) if head else pixels
    np.testing.assert_allclose(inner.predict_on_batch(scaled), network.predict_on_batch(pixels), atol=1e-5)
    sequential = keras.Sequential([keras.Input((32, 32, 3)), *made, keras.layers.Conv2D(4, 3)])
    assert (beginning.without_beginning(sequential, (32, 32, 3))[0] is None) == (form is None)


def test_arithmetic_in_a_network_is_read_as_what_it_says():
    """As keras.applications' preprocess_input leaves it in a functional network: operations and no layers."""
    keras = require("keras")
    given = keras.Input((32, 32, 3))
    x = keras.applications.mobilenet.preprocess_input(given) * 2.0 + 0.5
    network = keras.Model(given, keras.layers.Dense(3)(keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(4, 3)(x))))
    head, inner = beginning.without_beginning(network, (32, 32, 3))
    assert (head.scale, head.offset) == (pytest.approx(2 / 127.5), pytest.approx(-1.5))
    pixels = rgb(range(3)).astype("f4")
    scaled = pixels * np.float32(head.scale) + np.float32(head.offset)
    np.testing.assert_allclose(inner.predict_on_batch(scaled), network.predict_on_batch(pixels), atol=1e-4)


# --- sizes, labels, photos ---


def test_a_network_of_any_size_gets_the_photos_size(pictures, tmp_path):
    keras = require("keras")
    keras.utils.set_random_seed(0)
    given = keras.Input((None, None, 3))
    network = keras.Model(given, keras.layers.Activation("softmax")(keras.layers.GlobalAveragePooling2D()(given)))
    network.save(tmp_path / "any.keras")  # recognises the leaning of the colours
    (tmp_path / "labels.txt").write_text("square\ncross\ncircle\n")
    original = opened(tmp_path / "any.keras", pictures, tmp_path / "labels.txt")
    assert original.input.shape == (32, 32, 3)
    assert original.model.input_shape == (None, 32, 32, 3)
    mixed = write_photos(tmp_path / "mixed", each=6)
    for place in sorted(mixed.glob("*/*.png"))[::2]:
        cv2.imwrite(str(place), cv2.resize(cv2.imread(str(place)), (48, 40)))
    with pytest.raises(EdgennError, match="pictures of any size"):
        opened(tmp_path / "any.keras", mixed, tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"photos": None}, "give --photos"),  # nothing to calibrate with
        ({"photos": "two"}, "3 outputs and .*two 2 class folders"),  # a class without a folder
        ({"labels": "circle\ncross\n"}, "2 labels and the model 3 scores"),  # too few labels
        ({"labels": "circle\ncross\ncross\n"}, "repeated label"),  # two outputs of one name
        ({"labels": "round\ncross\nsquare\n"}, "class folder 'circle' .* is no label"),  # photos of no output
        ({"path": "model.bin"}, "is not a run"),  # a file of no kind that is known
        ({"path": "photos"}, "is not a run"),  # a folder of something else
        ({"path": "nowhere.h5"}, "there is no run"),  # nothing there
    ],
)
def test_what_does_not_fit_is_said(change, said, tmp_path, bare):
    write_photos(tmp_path / "photos", each=4)
    write_photos(tmp_path / "two", each=4, classes=CLASSES[:2])
    bare.save(tmp_path / "bare.keras")
    (tmp_path / "model.bin").write_bytes(b"x")
    photos = change.get("photos", "photos")
    labels = None
    if "labels" in change:
        labels = tmp_path / "labels.txt"
        labels.write_text(change["labels"])
    with pytest.raises(EdgennError, match=said):
        opened(tmp_path / change.get("path", "bare.keras"), photos and tmp_path / photos, labels)


def test_a_run_knows_its_labels(tiny, tmp_path):
    with pytest.raises(EdgennError, match="leave out --labels"):
        opened(tiny / "run", None, tmp_path / "labels.txt")
    assert opened(tiny / "run" / "model.keras", None).labels == CLASSES, "the file in a run is the run"


# --- converted ---


def check(result, io="uint8"):
    assert result.passed
    assert result.float_accuracy > 0.9
    assert result.agreement > 0.9
    model = model_file.load(result.model)
    assert model.labels == CLASSES
    assert {tensor.dtype for tensor in model.graph.tensors} <= {"int8", "uint8", "int32"}
    assert not {"MUL", "ADD", "SUB"} & {operator.name for operator in model.graph.operators}, "no arithmetic on pixels"
    assert model.graph.tensors[model.graph.inputs[0]].scales == pytest.approx((1 / 127.5,), rel=1e-4)
    said = [Classifier(model).classify(draw(name, 700 + index)).label for index, name in enumerate(CLASSES)]
    assert said == list(CLASSES)
    return model


def test_a_file_of_keras_2_is_converted(pictures, tmp_path):
    result = edgenn.convert(KERAS2, photos=pictures, out=tmp_path / "old.tflite", max_drop=10)
    model = check(result)
    assert any("scales them itself" in note for note in result.notes)
    assert model.card.training["file"] == "keras2.h5"
    assert result.float_bytes == 4 * loading.load(KERAS2).count_params()


def test_a_saved_model_is_converted(pictures, tmp_path, bare):
    """One that takes a single picture at a time, as people export for TFLite."""
    tf = require("tensorflow")
    signature = tf.function(lambda x: bare(x), input_signature=[tf.TensorSpec([1, 32, 32, 3], tf.float32)])
    tf.saved_model.save(bare, str(tmp_path / "saved"), signatures=signature)
    result = edgenn.convert(tmp_path / "saved", photos=pictures, max_drop=10)
    assert result.model == tmp_path / "saved.tflite"
    check(result)
    assert any("-1 to 1, by which it recognises most" in note for note in result.notes)
    assert any("quantized by TensorFlow" in note for note in result.notes)
    assert result.float_bytes == 4 * bare.count_params()


def test_a_network_that_simulates_int8_is_converted_as_it_is(pictures, tmp_path, bare):
    """As a user of `edgenn.conversion.quantization_aware` saves it, for pixels −1 to 1."""
    aware = edgenn.conversion.quantization_aware(bare, input_range=(-1.0, 1.0))
    aware.save(tmp_path / "unmeasured.keras")
    with pytest.raises(EdgennError, match="was never measured"):
        opened(tmp_path / "unmeasured.keras", pictures)
    from edgenn.conversion.fake_quant.layers import FakeQuant

    aware.predict_on_batch(rgb(range(9)) / np.float32(127.5) - 1)
    roundings = [layer for layer in aware.layers if isinstance(layer, FakeQuant) and not layer.fixed]
    for layer in roundings:
        for site in range(layer.sites):
            layer.set_bounds(site, -6.0, 6.0)
    aware.save(tmp_path / "aware.keras")
    out = tmp_path / "aware.tflite"
    result = edgenn.convert(tmp_path / "aware.keras", photos=pictures, quantization="auto", out=out, max_drop=10)
    model = check(result)
    assert (result.quantization, result.scheme) == ("qat", "int8 as the network simulates it")
    scales = {scale for tensor in model.graph.tensors for scale in tensor.scales[:1]}
    assert any(abs(scale - 12 / 255) < 1e-6 for scale in scales), "the scales are those that the user chose"
    with pytest.raises(EdgennError, match="simulates int8 already"):
        edgenn.convert(tmp_path / "aware.keras", photos=pictures, quantization="float16", out=tmp_path / "x.tflite")


def test_the_command(pictures, tmp_path, capsys, monkeypatch, bare):
    from edgenn.cli import main

    bare.save(tmp_path / "bare.h5")
    (tmp_path / "labels.txt").write_text("\n".join(CLASSES))
    out = tmp_path / "mine.tflite"
    words = ["--photos", str(pictures), "--labels", str(tmp_path / "labels.txt"), "--out", str(out), "--json"]
    monkeypatch.setattr(
        sys, "argv", ["edgenn", "convert", str(tmp_path / "bare.h5"), "--quantization", "float32", *words]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"]
    assert document["agreement"] == 1.0
    assert any("Judged by" in note for note in document["notes"])
    assert Classifier(out).classify(draw("cross", 701)).label == "cross"
