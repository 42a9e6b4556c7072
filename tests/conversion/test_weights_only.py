"""float16 and dynamic-range files load in the oldest runtime, and compute there what Keras computes.

A file that loads is not enough: tflite-runtime 2.14 takes a FULLY_CONNECTED of version 1 with a scale for each output,
and computes it wrongly without a word.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgenn.conversion import targets
from edgenn.conversion.tflite import convert_in_child
from edgenn.extras import require
from edgenn_device import model_file
from edgenn_device.interpreter import Interpreter

OLD_PYTHON = Path(__file__).parents[2] / ".venv-tflite-runtime" / "bin" / "python"
needs_old_runtime = pytest.mark.skipif(
    not OLD_PYTHON.exists(), reason="no environment with tflite-runtime: make test makes one"
)
# How far scores may be from Keras's, as share of the largest: 11 bits of mantissa, and 8 bits of weights.
CLOSE = {"float16": 2e-3, "dynamic": 5e-2}
HIGHEST = {"FULLY_CONNECTED": 9, "CONV_2D": 5, "DEPTHWISE_CONV_2D": 6}

_IN_THE_OLD_RUNTIME = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
model, pictures, out = sys.argv[1:]
interpreter = Interpreter(model, num_threads=1)
interpreter.allocate_tensors()
scores = []
for picture in np.load(pictures):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
    interpreter.invoke()
    scores.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
np.save(out, scores)
"""


def network():
    """Every kind of layer with more than 1024 weights: those with fewer are left in float."""
    keras = require("keras")
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((24, 24, 3)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(64, 3, strides=2),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(5, activation="relu6"),
            layers.Conv2D(32, 3),
            layers.SeparableConv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(128, activation="relu", name="dense_128"),
            layers.Dense(10, name="dense_10"),
        ]
    )
    for name in ("dense_128", "dense_10"):
        kernel, bias = made.get_layer(name).get_weights()
        # Outputs of very different size, which one scale for all of them can hardly hold.
        made.get_layer(name).set_weights([kernel * np.geomspace(1, 8, kernel.shape[1]), bias])
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures as a file, Keras's scores of them, and the .tflite of each scheme."""
    require("keras").utils.set_random_seed(3)
    folder, model = tmp_path_factory.mktemp("weights"), network()
    pictures = np.random.RandomState(0).randint(0, 256, (6, 24, 24, 3)).astype(np.float32)
    np.save(folder / "pictures.npy", pictures)
    model.save(folder / "model.keras")
    for scheme in CLOSE:
        (folder / f"{scheme}.tflite").write_bytes(convert_in_child(folder / "model.keras", scheme=scheme))
    return folder, model.predict_on_batch(pictures)


each = pytest.mark.parametrize("scheme", CLOSE)


def check(scores, expected, scheme):
    close = CLOSE[scheme] * np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, atol=close, rtol=0)
    assert np.ptp(expected, axis=1).min() > 5 * close, "else any scores would pass"


@each
def test_versions_that_load_everywhere(scheme, made):
    model = model_file.load(made[0] / f"{scheme}.tflite")
    verdict = targets.check(model, "pi")
    assert verdict.ok, verdict.reasons
    small = {"float16", "int8"} & {tensor.dtype for tensor in model.graph.tensors}
    assert small == {"float16" if scheme == "float16" else "int8"}, "else nothing became smaller"
    for operator in model.graph.operators:
        assert operator.version <= HIGHEST.get(operator.name, 99)
        if operator.name == "FULLY_CONNECTED":
            weights = model.graph.tensors[operator.inputs[1]]
            assert len(weights.scales) <= 1, "a scale for each output is computed wrongly by old runtimes"


@each
def test_litert_computes_what_keras_computes(scheme, made):
    folder, expected = made
    interpreter = Interpreter(model_file.load(folder / f"{scheme}.tflite"))
    pictures = np.load(folder / "pictures.npy")
    check(np.array([interpreter.invoke(picture[None]) for picture in pictures]), expected, scheme)


@needs_old_runtime
@each
def test_tflite_runtime_computes_what_keras_computes(scheme, made, tmp_path):
    folder, expected = made
    model, scores = folder / f"{scheme}.tflite", tmp_path / "scores.npy"
    command = [OLD_PYTHON, "-c", _IN_THE_OLD_RUNTIME, model, folder / "pictures.npy", scores]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    check(np.load(scores), expected, scheme)
