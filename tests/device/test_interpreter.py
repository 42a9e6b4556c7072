import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenn_device import interpreter as room
from edgenn_device import model_file
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError
from edgenn_device.interpreter import Interpreter
from tests.conftest import CLASSES, draw

ROOT = Path(__file__).parents[2]
OLD_PYTHON = ROOT / ".venv-tflite-runtime" / "bin" / "python"
CORAL = ROOT.parent / "shared" / "models" / "coral"

needs_old = pytest.mark.skipif(
    not OLD_PYTHON.exists(), reason="no environment with tflite-runtime: make test makes one"
)
needs_coral = pytest.mark.skipif(not CORAL.exists(), reason="Coral's test models are not here")


@pytest.fixture(scope="module")
def model(tiny: Path) -> model_file.ModelFile:
    return model_file.load(tiny / "run" / "model.tflite")


def test_litert_is_the_default_and_named(model):
    interpreter = Interpreter(model, threads=1)
    assert interpreter.runtime == "litert"
    assert interpreter.description.startswith("ai-edge-litert 2.")
    assert interpreter.description.endswith("XNNPACK kernels, 1 thread")


def test_scores_are_the_integers_with_the_scale_applied(model):
    interpreter = Interpreter(model)
    tensor = Classifier(model).preprocess(draw("cross", 1))
    raw, scores = interpreter.invoke_raw(tensor), interpreter.invoke(tensor)
    assert raw.dtype == np.uint8
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, raw / 256, atol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "zero_point", "scale", "raw", "real"),
    [
        ("uint8", 0, 1 / 256, [0, 128, 255], [0, 0.5, 255 / 256]),
        # int8 at the end of a softmax begins at -128.
        ("int8", -128, 1 / 256, [-128, 0, 127], [0, 0.5, 255 / 256]),
        # Scores before a softmax lie on both sides of 0.
        ("int8", 10, 0.5, [-128, 10, 127], [-69, 0, 58.5]),
        ("uint8", 200, 2.0, [0, 200, 255], [-400, 0, 110]),
        # No scale: it is not quantized.
        ("float32", 0, 0.0, [-1.5, 0, 2], [-1.5, 0, 2]),
    ],
)
def test_integers_become_real_by_zero_point_and_scale(dtype, zero_point, scale, raw, real):
    interpreter = Interpreter(model_file.load(ROOT / "models" / "garments" / "garments.tflite"), threads=1)
    interpreter.output = replace(interpreter.output, dtype=np.dtype(dtype), zero_point=zero_point, scale=scale)
    scores = interpreter.dequantize(np.array(raw, dtype))
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, np.array(real, np.float32))


def test_an_output_stays_what_it_was_after_the_next_picture(model):
    classifier = Classifier(model)
    first = classifier.interpreter.invoke_raw(classifier.preprocess(draw("cross", 1)))
    before = first.copy()
    classifier.interpreter.invoke_raw(classifier.preprocess(draw("circle", 2)))
    np.testing.assert_array_equal(first, before)


def test_threads_do_not_change_the_result(model):
    tensor = Classifier(model).preprocess(draw("square", 3))
    np.testing.assert_array_equal(
        Interpreter(model, threads=1).invoke_raw(tensor), Interpreter(model, threads=2).invoke_raw(tensor)
    )


_IN_THE_OLD_RUNTIME = """
import json, sys
import numpy as np
from edgenn_device.classifier import Classifier
classifier = Classifier(sys.argv[1], labels=sys.argv[2] or None)
assert classifier.interpreter.runtime == "tflite-runtime", classifier.interpreter.description
inputs = np.load(sys.argv[3])
print(json.dumps([classifier.interpreter.invoke_raw(x[None]).tolist() for x in inputs]))
"""


def in_the_old_runtime(path: Path, tensors: np.ndarray, tmp_path: Path) -> np.ndarray:
    """Outputs of a model for tensors (n, h, w, c), computed by tflite-runtime in its own environment."""
    np.save(tmp_path / "inputs.npy", tensors)
    done = subprocess.run(
        [OLD_PYTHON, "-c", _IN_THE_OLD_RUNTIME, path, "", tmp_path / "inputs.npy"],
        env={"PYTHONPATH": str(ROOT / "device")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return np.array(__import__("json").loads(done.stdout))


@needs_old
def test_tflite_runtime_computes_what_litert_s_built_in_kernels_compute(model, tmp_path):
    pictures = np.stack([draw(CLASSES[k % 3], 7000 + k) for k in range(12)])
    old = in_the_old_runtime(model.path, pictures, tmp_path)
    interpreter = Interpreter(model, kernels="builtin")
    np.testing.assert_array_equal(old, [interpreter.invoke_raw(x[None]) for x in pictures])


@needs_old
@needs_coral
def test_tflite_runtime_agrees_on_other_people_s_models(tmp_path):
    path = CORAL / "mobilenet_v1_0.25_128_quant.tflite"
    tensors = np.random.RandomState(0).randint(0, 256, (4, 128, 128, 3)).astype(np.uint8)
    interpreter = Interpreter(model_file.load(path), kernels="builtin")
    np.testing.assert_array_equal(
        in_the_old_runtime(path, tensors, tmp_path), [interpreter.invoke_raw(x[None]) for x in tensors]
    )


@needs_coral
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("parrot.jpg", "macaw"),
        ("cat.bmp", "Egyptian cat"),
        ("sunflower.bmp", "daisy"),
        ("grace_hopper.bmp", "uniform"),
    ],
)
def test_coral_s_mobilenet_names_its_pictures_as_the_bare_interpreter_does(name, expected):
    from ai_edge_litert.interpreter import Interpreter as Bare

    path = CORAL / "mobilenet_v2_1.0_224_quant.tflite"
    classifier = Classifier(path, labels=CORAL / "imagenet_labels.txt", threads=1)
    result = classifier.classify(CORAL / name)
    assert expected in result.label
    import cv2

    bare = Bare(str(path), num_threads=1)
    bare.allocate_tensors()
    picture = cv2.imread(str(CORAL / name))
    bare.set_tensor(bare.get_input_details()[0]["index"], classifier.preprocess(picture))
    bare.invoke()
    expected_scores = bare.get_tensor(bare.get_output_details()[0]["index"])[0]
    actual = classifier.interpreter.invoke_raw(classifier.preprocess(picture))
    np.testing.assert_array_equal(actual, expected_scores)


@needs_coral
def test_a_model_compiled_for_the_edge_tpu_says_so():
    with pytest.raises(EdgennError, match="compiled for an Edge TPU"):
        Classifier(CORAL / "mobilenet_v2_1.0_224_quant_edgetpu.tflite")


def test_numpy_2_beside_tflite_runtime_is_told_before_it_is_imported(model, monkeypatch):
    monkeypatch.setattr(room, "_version", lambda name: "2.14.0" if name == "tflite-runtime" else None)
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(EdgennError, match="pip install 'numpy<2'"):
        Interpreter(model)


def test_no_runtime_at_all_says_what_to_install(model, monkeypatch):
    monkeypatch.setattr(room, "_version", lambda name: None)
    with pytest.raises(EdgennError, match="pip install ai-edge-litert"):
        Interpreter(model)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runtime": "onnx"}, "choose one of auto, litert"),
        ({"threads": 0}, "--threads takes 1 to 256"),
        ({"threads": 30000}, "--threads takes 1 to 256"),  # from run.toml or Python
    ],
)
def test_impossible_options_are_said(model, options, said):
    with pytest.raises(EdgennError, match=said):
        Interpreter(model, **options)


def test_loading_prints_nothing(tiny):
    code = f"from edgenn_device import Classifier; Classifier({str(tiny / 'run' / 'model.tflite')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_import_is_light():
    code = "import sys, edgenn_device; print([m for m in ('cv2', 'numpy', 'ai_edge_litert') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
