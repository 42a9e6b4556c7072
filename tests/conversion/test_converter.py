import json
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgenn
from edgenn import data
from edgenn.conversion import quantize, tflite, worker
from edgenn.conversion.converter import check_passed
from edgenn.conversion.debug import diagnosis
from edgenn.extras import require
from edgenn.training import Run
from edgenn_device import golden, model_file, preprocess
from edgenn_device.classifier import Classifier
from edgenn_device.errors import AnswerIsNo, EdgennError
from edgenn_device.interpreter import Interpreter
from tests.conftest import CLASSES, draw


@pytest.fixture(scope="module")
def model(tiny: Path) -> model_file.ModelFile:
    return model_file.load(tiny / "run" / "model.tflite")


def test_no_float_tensor_and_no_normalisation_is_left(model):
    assert {tensor.dtype for tensor in model.graph.tensors} <= {"int8", "uint8", "int32"}
    names = [operator.name for operator in model.graph.operators]
    assert not {"MUL", "ADD", "SUB", "DEQUANTIZE"} & set(names)


def test_the_input_takes_bytes_as_they_are(model):
    pictures = model.graph.tensors[model.graph.inputs[0]]
    assert (pictures.dtype, pictures.shape) == ("uint8", (1, 32, 32, 3))
    # The network's normalisation is byte / 128 - 1, so one step is 1/128 and byte 128 is zero.
    assert pictures.scales == pytest.approx((1 / 128,), rel=1e-6)
    assert pictures.zero_points == (128,)


def test_the_file_says_what_it_is(model, tiny):
    card, run = model.card, Run.load(tiny / "run")
    assert card.labels == CLASSES == model.labels
    assert card.training["fingerprint"] == run.fingerprint
    assert data.among(data.scan(run.photos).splits["train"], card.training["trained_on"])
    assert not data.among(data.scan(run.photos).splits["validation"], card.training["trained_on"])
    assert card.metrics["pictures"] == run.pictures
    assert card.metrics["float"]["accuracy"] == pytest.approx(run.accuracy)
    assert "ai-edge-litert" in card.metrics["int8"]["runtime"]
    assert card.target == "pi"


def test_the_stated_int8_accuracy_is_what_evaluate_measures(model, tiny):
    measured = edgenn.evaluate(tiny / "run" / "model.tflite", tiny / "photos", split="validation")
    assert measured.accuracy == pytest.approx(model.card.metrics["int8"]["accuracy"])


def test_this_machine_computes_the_golden_outputs(model):
    for kernels in ("default", "builtin"):
        assert golden.check(model, Interpreter(model, kernels=kernels)) is True


def test_a_model_that_computes_something_else_fails_its_golden_outputs(model):
    shifted = [[(value + 3) % 256 for value in row] for row in model.card.golden["builtin"]]
    liar = replace(model, card=replace(model.card, golden={"builtin": shifted}))
    assert golden.check(liar, Interpreter(liar, kernels="builtin")) is False
    assert golden.check(liar, Interpreter(liar)) is None, "there are no vectors for XNNPACK to compare with"


def test_int8_at_the_ends_gives_the_same_numbers(tiny, tmp_path, model):
    edgenn.convert(tiny / "run", io="int8", out=tmp_path / "signed.tflite", max_drop=100)
    signed, unsigned = Classifier(tmp_path / "signed.tflite"), Classifier(model)
    assert signed.model.input.dtype == "int8"
    for seed in range(6):
        picture = draw(CLASSES[seed % 3], 9000 + seed)
        np.testing.assert_array_equal(
            signed.interpreter.invoke_raw(signed.preprocess(picture)).astype(int) + 128,
            unsigned.interpreter.invoke_raw(unsigned.preprocess(picture)).astype(int),
        )


def test_float32_gives_the_keras_model_s_own_scores(tiny, tmp_path):
    result = edgenn.convert(tiny / "run", quantization="float32", out=tmp_path / "float.tflite")
    assert result.agreement == 1.0
    classifier = Classifier(tmp_path / "float.tflite")
    picture = draw("cross", 9100)
    keras = require("keras").models.load_model(tiny / "run" / "model.keras")
    pixels = preprocess.to_bytes(picture, classifier.model.input)[None].astype("float32")
    np.testing.assert_allclose(classifier.scores(classifier.preprocess(picture)), keras(pixels)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"quantization": "int4"}, "no quantization 'int4': choose one of int8"),
        ({"ranges": "foo"}, "no ranges 'foo': choose one of minmax"),
        ({"io": "float32"}, "no io 'float32': choose one of uint8, int8"),
        ({"keep_float": "stem"}, "keep_float 'stem' is not possible: give a list of names"),
        ({"epochs": 0}, "epochs 0 is not possible"),
        ({"max_drop": -5}, "max_drop -5 is not possible"),
        ({"max_drop": float("nan")}, "max_drop nan is not possible"),
    ],
)
def test_an_argument_that_cannot_be_is_said_before_anything_is_read(given, said):
    with pytest.raises(EdgennError, match=said):
        edgenn.convert("nowhere", **given)


def test_a_model_that_loses_too_much_is_kept_aside_and_refused(tiny, tmp_path, monkeypatch):
    """A converter that mixes up the classes, as a broken calibration would."""
    good = tflite.convert_in_child

    def broken(keras_model, *calibration, **options):
        model = quantize.trained(keras_model)
        scores = model.get_layer("scores")
        kernel, bias = scores.get_weights()
        scores.set_weights([kernel[:, [1, 2, 0]], bias[[1, 2, 0]]])
        model.save(tmp_path / "mixed.keras")
        return good(tmp_path / "mixed.keras", *calibration, **options)

    monkeypatch.setattr("edgenn.conversion.quantize.convert_in_child", broken)
    result = edgenn.convert(tiny / "run", out=tmp_path / "bad.tflite")
    assert not result.passed
    assert "points of validation accuracy" in result.reasons[0]
    assert result.model == tmp_path / "bad.rejected.tflite"
    assert not (tmp_path / "bad.tflite").exists()
    with pytest.raises(AnswerIsNo, match=r"kept as .*rejected"):
        check_passed(result)


def test_nothing_is_overwritten_unless_asked(tiny, tmp_path):
    (tmp_path / "mine.tflite").write_bytes(b"precious")
    with pytest.raises(EdgennError, match="--overwrite"):
        edgenn.convert(tiny / "run", out=tmp_path / "mine.tflite")
    assert (tmp_path / "mine.tflite").read_bytes() == b"precious"


def test_what_another_wrote_meanwhile_is_not_overwritten(tiny, tmp_path):
    def other(line):
        if line.startswith("converting"):  # behind every look before the work
            (tmp_path / "theirs.tflite").write_bytes(b"precious")

    with pytest.raises(EdgennError, match=r"theirs\.tflite exists: give --overwrite"):
        edgenn.convert(tiny / "run", quantization="float32", out=tmp_path / "theirs.tflite", progress=other)
    assert (tmp_path / "theirs.tflite").read_bytes() == b"precious"


@pytest.mark.parametrize("damage", [lambda whole: whole[:3000], lambda whole: b"{}"])
def test_a_damaged_model_of_a_run_is_one_line(tiny, tmp_path, damage):
    run = shutil.copytree(tiny / "run", tmp_path / "run")
    (run / "model.keras").write_bytes(damage((run / "model.keras").read_bytes()))
    for use in (
        lambda: edgenn.convert(run, out=tmp_path / "x.tflite"),
        lambda: diagnosis.diagnose(run / "model.tflite"),
        lambda: quantize.trained(run / "model.keras"),
    ):
        with pytest.raises(EdgennError, match=r"model\.keras is damaged \(no \.keras file\): train again"):
            use()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": "nowhere"}, "there is no run"),  # no such folder
        ({"run": "photos"}, "is not a run"),  # a folder of something else
        ({"photos": "nowhere"}, "give their place with --photos"),  # photos that were moved
        ({"out": "model.bin"}, "ends in .tflite"),  # a name that no tool would take for a model
    ],
)
def test_what_cannot_be_converted_is_said(tiny, tmp_path, change, said):
    given = {"run": tiny / "run", "out": tmp_path / "x.tflite"}
    given.update({key: tiny / value if key != "out" else tmp_path / value for key, value in change.items()})
    with pytest.raises(EdgennError) as caught:
        edgenn.convert(given.pop("run"), **given)
    assert said in str(caught.value)
    assert not (tmp_path / "x.tflite").exists()


def test_a_converter_that_dies_costs_a_child_and_one_line(tiny, monkeypatch, tmp_path):
    """The child is a real process that ends as a native crash ends one."""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport os\nos.kill(os.getpid(), {int(signal.SIGSEGV)})\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(EdgennError, match=r"crashed \(SIGSEGV\)"):
        tflite.convert_in_child(tiny / "run" / "model.keras", np.zeros((1, 32, 32, 3), np.uint8))


def test_a_model_that_keras_cannot_read_is_one_line(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"not a model")
    with pytest.raises(EdgennError, match="the converter refuses") as caught:
        tflite.convert_in_child(tmp_path / "model.keras", np.zeros((1, 32, 32, 3), np.uint8))
    assert "\n" not in str(caught.value)


def test_only_a_scalar_rescaling_behind_the_input_is_absorbed():
    keras = require("keras")
    layers = keras.layers

    def network(*first):
        pictures = x = keras.Input((8, 8, 3))
        for layer in first:
            x = layer(x)
        return keras.Model(pictures, layers.Flatten()(x))

    cases = [
        ((layers.Rescaling(1 / 128, -1.0),), (1 / 128, -1.0)),  # the plain case
        ((layers.ReLU(), layers.Rescaling(1 / 128)), (1.0, 0.0)),  # not directly behind the input
        ((layers.Rescaling([0.1, 0.2, 0.3], 0.0),), (1.0, 0.0)),  # one scale a channel, which an input cannot carry
        ((layers.Rescaling(-1 / 255, 1.0),), (1.0, 0.0)),  # nor a negative one
        ((layers.Rescaling(1 / 255, 0.5),), (1.0, 0.0)),  # nor a range without zero
        ((), (1.0, 0.0)),  # none at all
    ]
    x = np.random.RandomState(0).randint(0, 256, (1, 8, 8, 3)).astype("float32")
    for first, expected in cases:
        model = network(*first)
        body, scale, offset = worker.absorbed_normalisation(keras, model)
        assert (scale, offset) == pytest.approx(expected)
        np.testing.assert_allclose(body(x * scale + offset), model(x), rtol=1e-5)


def test_a_picture_that_skips_the_rescaling_keeps_it_in_the_graph():
    keras = require("keras")
    pictures = keras.Input((8, 8, 3))
    scaled = keras.layers.Rescaling(1 / 255)(pictures)
    model = keras.Model(pictures, keras.layers.Concatenate()([scaled, pictures]))
    _, scale, offset = worker.absorbed_normalisation(keras, model)
    assert (scale, offset) == (1.0, 0.0)


def test_the_calibration_reaches_both_ends_of_a_byte():
    grey = np.full((3, 4, 4, 3), 100, np.uint8)
    seen = np.concatenate([batch[0] for batch in worker._representative(grey, 1 / 128, -1.0)])
    assert (seen.min(), seen.max()) == (-1.0, 255 / 128 - 1)
    assert (grey == 100).all(), "the pictures themselves must not change"


def test_the_command_fails_with_status_1_when_the_gate_refuses(tiny, tmp_path, capsys, monkeypatch):
    from edgenn.cli import main

    monkeypatch.setattr("edgenn.conversion.gate.Judge._structure", lambda *given: ["it is no good"])
    out = tmp_path / "x.tflite"
    monkeypatch.setattr(sys, "argv", ["edgenn", "convert", str(tiny / "run"), "--out", str(out), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["passed"] is False
    assert document["model"].endswith(".rejected.tflite")
    assert "it is no good" in printed.err
    assert Path(document["model"]).exists()


def test_auto_takes_the_first_that_passes_and_qat_trains_on(tiny, tmp_path):
    """What passes at once stays the cheapest; trained on, it is another file, int8 throughout, with its own card."""
    auto = edgenn.convert(tiny / "run", quantization="auto", out=tmp_path / "auto.tflite", max_drop=100)
    assert (auto.quantization, auto.passed) == ("int8", True)
    told = []
    trained = edgenn.convert(
        tiny / "run", quantization="qat", epochs=1, out=tmp_path / "qat.tflite", max_drop=100, progress=told.append
    )
    assert [line for line in told if line.startswith("epoch 1 ")]
    assert trained.scheme == "int8 quantization-aware training"
    made = model_file.load(trained.model)
    assert not [tensor.name for tensor in made.graph.tensors if tensor.dtype.startswith("float")]
    assert made.card.quantization["scheme"] == trained.scheme
    assert made.content != model_file.load(auto.model).content
