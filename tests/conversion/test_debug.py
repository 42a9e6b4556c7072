"""A network ruined on purpose must have its guilty layer named; and every figure must be one that can be checked."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from edgenn import data
from edgenn.conversion import calibrate, quantization_aware, worker
from edgenn.conversion.debug import ranking
from edgenn.conversion.debug.advice import Layer, Lost, Means, judge
from edgenn.conversion.debug.comparison import Spread, spread_of_kernel
from edgenn.conversion.debug.diagnosis import _flips, examine
from edgenn.conversion.debug.noise import decibels, own, readers, scores_tensor
from edgenn.conversion.debug.simulation import simulate
from edgenn.conversion.debug.size import size_of
from edgenn.conversion.fake_quant import mending, ranges
from edgenn.conversion.fake_quant.network import steps_of
from edgenn.evaluation.predict import Predictions
from edgenn.extras import require
from edgenn_device import model_file
from tests.conversion.test_fake_quant import excite, networks, noise, ruined, small, tflite_of

keras = require("keras")
layers = keras.layers
PICTURES = noise(64, 5)
MANY_LOST = Lost(64, 20, 30)


def file_of(aware, folder):
    path = folder / "model.tflite"
    path.write_bytes(tflite_of(aware, folder))
    return model_file.load(path)


def calibrated(model, method="minmax"):
    aware = quantization_aware(model)
    calibrate(aware, PICTURES, method)
    return aware


def outlying():
    """A network with one channel that is large at one place of 4096 and that nothing behind it heeds: with one scale
    for all channels the others are left with no steps."""
    inner = small()
    x = layers.ReLU()(inner.get_layer("pointwise").output)
    x = layers.ReLU()(layers.Conv2D(12, 1, name="after")(x))
    x = layers.Dense(4, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(x))
    model = excite(keras.Model(inner.input, x, name="outlying"))
    pointwise, after = model.get_layer("pointwise"), model.get_layer("after")
    values = keras.Model(model.input, pointwise.output).predict(PICTURES.astype("float32"), verbose=0)
    highest = np.sort(values[..., 0].ravel())[-2:]
    kernel, bias = pointwise.get_weights()
    gain = 400 * np.abs(values).max() / (highest[-1] - highest[0])
    kernel[..., 0], bias[0] = kernel[..., 0] * gain, (bias[0] - highest[0]) * gain
    pointwise.set_weights([kernel, bias])
    kernel, bias = after.get_weights()
    kernel[:, :, 0] = 0
    after.set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """(float model, simulated network, file) of a network that int8 does nothing to."""
    model = small()
    aware = calibrated(model)
    return model, aware, file_of(aware, tmp_path_factory.mktemp("healthy"))


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(model=networks())
def test_every_layer_is_found_in_the_file_with_its_weights_and_scale(model, tmp_path_factory):
    aware = calibrated(model)
    truth = {layer.name: layer.scale() for layer in aware.layers if hasattr(layer, "bounds")}
    file = file_of(aware, tmp_path_factory.mktemp("matched"))
    found = simulate(model, file)
    assert found.origin == "run"
    kernels = {layer.name: layer for layer in aware.layers if hasattr(layer, "kernel")}
    assert set(found.rounded) == set(kernels)
    for name, (kernel, _) in found.rounded.items():
        np.testing.assert_allclose(kernel, kernels[name].rounded_kernel().numpy(), rtol=1e-5, atol=1e-7)
    for layer in found.aware.layers:
        if hasattr(layer, "bounds"):
            assert layer.scale() == (pytest.approx(truth[layer.name][0], rel=1e-5), truth[layer.name][1])
    assert not found.in_float
    left = [o.name for i, o in enumerate(file.graph.operators) if i not in found.matches.operators]
    assert set(left) <= {"QUANTIZE", "RESHAPE"}


def test_two_arms_that_read_the_same_are_told_apart_by_their_weights(tmp_path):
    keras.utils.set_random_seed(3)
    pictures = keras.Input((16, 16, 3))
    arms = [layers.Conv2D(4, 3, padding="same", name=name)(pictures) for name in ("conv_1", "conv", "conv_2")]
    x = layers.GlobalAveragePooling2D()(layers.Concatenate()(arms))
    model = keras.Model(pictures, layers.Dense(3, activation="softmax", name="scores")(x))
    aware = calibrated(model)
    found = simulate(model, file_of(aware, tmp_path))
    for name in ("conv_1", "conv", "conv_2"):
        np.testing.assert_allclose(found.rounded[name][0], aware.get_layer(name).rounded_kernel().numpy(), atol=1e-6)


def test_channels_that_differ_are_found_though_their_layer_looks_well(tmp_path):
    model = ruined()
    found = examine(model, file_of(calibrated(model), tmp_path), PICTURES[:32])
    first = found.layers[0]
    assert first.name == "depthwise"
    assert first.ratio < 0 < 40 < first.accumulated, "by its own output it looks well"
    assert first.ratio_activation < first.ratio_weights
    assert first.activation.channels > 1000
    verdict = judge(found.layers, MANY_LOST, found.means)
    assert (verdict.guilty, verdict.cause, verdict.healthy) == ("depthwise", "channels", False)
    assert "--quantization equalized" in verdict.mend[0]
    assert verdict.mend[-1].endswith("--keep-float depthwise --keep-float pointwise")


def test_rare_large_values_are_found(tmp_path):
    model = outlying()
    found = examine(model, file_of(calibrated(model), tmp_path), PICTURES)
    first = found.layers[0]
    assert first.name == "pointwise"
    assert first.share > 0.9
    assert first.activation.outlier > 100
    verdict = judge(found.layers, MANY_LOST, found.means)
    assert (verdict.guilty, verdict.cause) == ("pointwise", "outlier")
    assert "--ranges mse" in verdict.mend[0]
    assert "--ranges percentile" in verdict.mend[0]
    mended = dict(ranking(calibrated(model, "percentile"), model, PICTURES))
    assert mended["pointwise"] > first.ratio + 20, "what is advised must help"


def test_a_range_that_is_too_narrow_is_found(tmp_path):
    model = small()
    aware = calibrated(model)
    aware.get_layer("depthwise_range").set_bounds(0, 0.0, aware.get_layer("depthwise_range").bounds()[1] / 10)
    found = examine(model, file_of(aware, tmp_path), PICTURES[:32])
    first = found.layers[0]
    assert first.name == "depthwise"
    assert first.clipping > 0.9
    assert 0 < first.activation.clipped < 1
    verdict = judge(found.layers, MANY_LOST, Means("int8 post-training, percentile ranges"))
    assert verdict.cause == "clipped"
    assert verdict.mend[0].endswith("--ranges minmax")


def test_a_healthy_network_is_said_to_be_healthy(healthy):
    model, _, file = healthy
    found = examine(model, file, PICTURES[:32])
    assert min(layer.ratio for layer in found.layers) > 20
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    verdict = judge(found.layers, Lost(64, 0, 1), found.means)
    assert verdict.healthy
    assert not verdict.mend
    assert "63 of 64" in verdict.why[0]


def test_together_is_what_the_simulation_computes_too(healthy):
    """The file's tensors and the simulated network's, which agree but for last bits, are equally far from float."""
    model, aware, file = healthy
    found = {layer.name: layer for layer in examine(model, file, PICTURES[:16]).layers}
    for name in ("stem", "depthwise", "scores"):
        place = aware.get_layer(name)
        rounded = [site.output for site in aware.layers if site.name == f"{name}_range"]
        exact = np.concatenate([values[0] for values in ranges.compute(aware, rounded, PICTURES[:16])])
        with ranges.in_float(aware):
            real = np.concatenate([values[0] for values in ranges.compute(aware, [place.output], PICTURES[:16])])
        expected = decibels(float(np.sum(real**2)), float(np.sum((real - exact) ** 2)))
        assert found[name].accumulated == pytest.approx(expected, abs=0.5)


def test_a_layer_alone_is_what_rounding_only_it_by_hand_gives(healthy):
    model, aware, _ = healthy
    logits = aware.get_layer("scores").output
    with ranges.in_float(aware):
        real = np.concatenate([values[0] for values in ranges.compute(aware, [logits], PICTURES[:16])])
        aware.get_layer("pointwise").rounding = True
        weights = np.concatenate([values[0] for values in ranges.compute(aware, [logits], PICTURES[:16])])
        aware.get_layer("pointwise").rounding = False
        aware.get_layer("pointwise_range").rounding = True
        values = np.concatenate([values[0] for values in ranges.compute(aware, [logits], PICTURES[:16])])
    real, weights, values = (scores - scores.mean(1, keepdims=True) for scores in (real, weights, values))
    noise = np.sum((weights - real) ** 2) + np.sum((values - real) ** 2)
    expected = decibels(float(np.sum(real**2)), float(noise))
    assert dict(ranking(aware, model, PICTURES[:16]))["pointwise"] == pytest.approx(expected, abs=0.05)


def test_measuring_leaves_the_network_as_it_was(healthy):
    model, aware, _ = healthy
    before = [array.copy() for layer in aware.layers for array in layer.get_weights()]
    ranking(aware, model, PICTURES[:8])
    after = [array for layer in aware.layers for array in layer.get_weights()]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    assert all(layer.rounding for layer in aware.layers if hasattr(layer, "rounding"))


def test_channels_that_were_evened_out_are_recognized(tmp_path):
    model = ruined()
    aware = quantization_aware(model)
    mending.equalize(aware, PICTURES)
    calibrate(aware, PICTURES)
    mending.correct_biases(aware, PICTURES)
    found = simulate(model, file := file_of(aware, tmp_path))
    assert found.origin == "equalized"
    np.testing.assert_allclose(
        found.aware.get_layer("pointwise").get_weights()[0], aware.get_layer("pointwise").get_weights()[0], rtol=1e-4
    )
    examined = examine(model, file, PICTURES[:32])
    assert min(layer.ratio for layer in examined.layers) > 20
    assert "evened out" in examined.notes[0]


def test_weights_that_were_trained_on_are_recognized_and_said(tmp_path):
    model = small()
    aware = calibrated(model)
    for layer in aware.layers:
        if hasattr(layer, "kernel"):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel + np.random.default_rng(0).normal(0, 0.03, kernel.shape), bias])
    calibrate(aware, PICTURES)
    found = examine(model, file_of(aware, tmp_path), PICTURES[:16])
    assert "only the rounding of activations" in found.notes[0]
    assert all(math.isinf(layer.ratio_weights) for layer in found.layers)


def test_a_network_that_cannot_be_simulated_is_compared_by_name(tmp_path):
    keras.utils.set_random_seed(2)
    pictures = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, name="stem")(layers.Rescaling(1 / 128, -1.0)(pictures))
    x = layers.Conv2D(6, 3, name="second")(layers.LeakyReLU(name="leaky")(layers.BatchNormalization(name="norm")(x)))
    x = layers.Dense(3, activation="softmax", name="scores")(layers.GlobalAveragePooling2D(name="pool")(x))
    model = keras.Model(pictures, x)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "calibration.npy", PICTURES)
    job = {"keras": "model.keras", "out": "model.tflite", "calibration": "calibration.npy"}
    job = {key: str(tmp_path / name) for key, name in job.items()}
    job |= {"scheme": "tensorflow", "io": "uint8", "per_tensor_dense": False, "keep_float": []}
    (tmp_path / "job.json").write_text(json.dumps(job))
    worker.main(str(tmp_path / "job.json"))
    found = examine(model, model_file.load(tmp_path / "model.tflite"), PICTURES[:8])
    assert "LeakyReLU" in found.notes[0]
    assert {"stem", "second", "scores", "pool"} <= {layer.name for layer in found.layers}
    assert all(layer.accumulated > 20 and layer.ratio is None for layer in found.layers)
    verdict = judge(found.layers, MANY_LOST, found.means)
    assert verdict.cause == "unknown"


def test_names_are_those_of_the_run_and_readers_are_the_layers_behind():
    keras.utils.set_random_seed(1)
    pictures = keras.Input((16, 16, 3))
    x = layers.ReLU()(layers.SeparableConv2D(6, 3, name="halves")(pictures))
    inner = layers.Conv2D(6, 1, name="inner")(x)
    x = layers.ReLU(name="relu")(layers.Add(name="sum")([layers.Dropout(0.1)(x), inner]))
    x = layers.Dense(3, activation="softmax", name="scores")(layers.GlobalAveragePooling2D(name="pool")(x))
    model = keras.Model(pictures, x)
    found = ranking(calibrated(model), model, PICTURES[:8])
    assert {name for name, _ in found} == {"halves", "inner", "sum", "pool", "scores"}
    assert [ratio for _, ratio in found] == sorted(ratio for _, ratio in found)
    assert set(readers(model, "halves")) == {"inner", "sum"}
    assert readers(model, "sum") == ("scores",)


def test_scores_are_taken_before_the_softmax_and_without_what_they_share():
    aware = calibrated(small())
    network = steps_of(aware)
    tensor, softmax = scores_tensor(network)
    assert softmax
    assert [step.name for step in network.steps if step.output == tensor] == ["scores_range"]
    kernel, bias = aware.get_layer("scores").get_weights()
    shifted = {"scores": [kernel, bias + 5.0]}
    assert own(network, shifted, PICTURES[:8])["scores"].weights == pytest.approx(0, abs=1e-6)


def test_sizes_are_those_that_counting_by_hand_gives(healthy):
    _, _, file = healthy
    size = size_of(file, {1: "stem"})
    # Kernels of a byte and biases of four: stem 3x3x3 to 8, depthwise 3x3 of 8, pointwise 8 to 12, scores 12 to 4.
    weights = {entry.operator: entry.weights for entry in size.operators}
    assert weights["DEPTHWISE_CONV_2D"] == 72 + 32
    stem = size.operators[1]
    assert (stem.name, stem.weights, stem.shape, stem.activation) == ("stem", 216 + 32, (1, 8, 8, 8), 512)
    # MEAN's two axes are a constant of int32 too. TensorFlow leaves out a bias of zeros, as that of scores.
    assert size.weights == sum(entry.weights for entry in size.operators) == 248 + 104 + 96 + 48 + 48 + 8
    assert size.file == size.weights + size.structure + size.attached == file.path.stat().st_size
    # The fullest moment is the stem: 16x16x3 bytes twice, as the input stays to the end, and 8x8x8 of its own.
    assert (size.peak, size.busiest) == (2 * 768 + 512, "stem")
    assert size.arena >= size.peak
    assert size.measured >= size.arena


def test_constants_that_operators_share_count_once(healthy):
    _, _, file = healthy
    stem = file.graph.operators[1]
    twice = replace(file, graph=replace(file.graph, operators=(*file.graph.operators, stem)))
    size = size_of(twice)
    assert [entry.weights for entry in size.operators if entry.shape == (1, 8, 8, 8)] == [248, 104, 0]
    assert size.weights == size_of(file).weights == sum(entry.weights for entry in size.operators)


def test_flips_begin_with_what_float_had_right_and_was_surest_of():
    #                 truth, float, int8, float's score
    photos = np.array([(0, 1, 0, 0.9), (0, 0, 1, 0.6), (1, 1, 0, 0.8), (2, 0, 1, 0.7), (1, 1, 1, 0.9)])
    truth, first, second = photos[:, :3].T.astype(int)

    def said(top1, scores):
        probabilities = np.full((len(top1), 3), 0.01, np.float32)
        probabilities[np.arange(len(top1)), top1] = scores
        return Predictions(probabilities, "")

    pictures = tuple(data.Picture(Path(f"{index}.jpg"), int(label), "") for index, label in enumerate(truth))
    loaded = data.Loaded(np.zeros((5, 1, 1, 3), np.uint8), truth, pictures, ())
    found = _flips(SimpleNamespace(labels=("a", "b", "c")), loaded, said(first, photos[:, 3]), said(second, 0.5))
    assert [flip.path.stem for flip in found] == ["2", "1", "3", "0"]
    assert (found[0].true, found[0].float_label, found[0].int8_label) == ("b", "b", "a")
    assert (found[0].float_score, found[0].int8_score) == (pytest.approx(0.8), pytest.approx(0.5))


def test_spreads_are_by_the_channels_that_a_kernel_gives():
    kernel = np.ones((3, 3, 2, 2), np.float32)
    kernel[..., 1] = 4
    assert spread_of_kernel(kernel, depthwise=False).channels == 4
    assert spread_of_kernel(kernel, depthwise=False).inputs == 1
    kernel = np.ones((3, 3, 4, 1), np.float32)
    kernel[:, :, 2] = 8
    assert spread_of_kernel(kernel, depthwise=False).inputs == pytest.approx(8 ** (3 / 4))
    found = spread_of_kernel(kernel, depthwise=True)
    assert found.channels == 8
    assert found.typical == pytest.approx(8 ** (3 / 4))
    assert spread_of_kernel(np.zeros((2, 3), np.float32), depthwise=False).channels == 1


def row(name, share, **more):
    base = {"kind": "Conv2D", "operator": "CONV_2D", "ratio": 10.0, "ratio_weights": 20.0, "ratio_activation": 10.0}
    rest = {"clipping": 0.0, "accumulated": 10.0, "weights": None, "activation": None}
    return Layer(name=name, share=share, **{**base, **rest, **more})


@pytest.mark.parametrize(
    ("layers_", "lost", "means", "guilty", "cause", "first"),
    [
        # Nothing lost: nothing to do, whatever the shares are.
        ([row("a", 0.9)], Lost(300, 0, 2), Means(), "", "", ""),
        # Three photos of 300 are within the gate's point of accuracy.
        ([row("a", 0.9)], Lost(300, 3, 3), Means(), "", "", ""),
        # Four are not.
        ([row("a", 0.9)], Lost(300, 4, 4), Means(), "a", "activation", "--quantization qat"),
        # One photo of ten is no evidence.
        ([row("a", 0.9)], Lost(10, 1, 1), Means(), "", "", ""),
        # Equal accuracy, but another model: a tenth of the labels differ.
        ([row("a", 0.9)], Lost(300, 0, 40), Means(), "a", "activation", "--quantization qat"),
        # Many a little.
        ([row("a", 0.3), row("b", 0.3), row("c", 0.2)], Lost(300, 9, 9), Means(), "", "many", "--quantization qat"),
        # Weights: keeping this one layer in float is enough.
        ([row("a", 0.8, ratio_weights=5.0)], Lost(300, 9, 9), Means(), "a", "weights", "--quantization qat"),
        # Trained already: that is not advised again.
        ([row("a", 0.3)], Lost(300, 9, 9), Means("int8 quantization-aware training"), "", "many", "--epochs"),
        # The Edge TPU has no float.
        ([row("a", 0.8)], Lost(300, 9, 9), Means(target="coral"), "a", "activation", "qat"),
    ],
)
def test_the_answer(layers_, lost, means, guilty, cause, first):
    verdict = judge(layers_, lost, means)
    assert (verdict.guilty, verdict.cause) == (guilty, cause)
    assert first in (verdict.mend[0] if verdict.mend else "")
    assert verdict.healthy is (cause == "")
    assert ("--keep-float a" in " ".join(verdict.mend)) == (guilty == "a" and means.target != "coral")


@pytest.mark.parametrize("dearest", ["before", "after"])
def test_channels_that_differ_are_the_fault_of_the_layer_that_gives_them(dearest):
    """Their noise is in what the one layer gives and in the weights of the next; which has more is chance."""
    uneven = Spread(0.0, 9.0, 1.0, 500.0, 60.0, bounds=(0.0, 9.0))
    kernel = Spread(-1.0, 1.0, 1.0, 2.0, 1.5, inputs=60.0)
    before = row("before", 0.46, activation=uneven, ratio=10, ratio_activation=10, ratio_weights=40)
    after = row("after", 0.47, weights=kernel, ratio=10, ratio_activation=40, ratio_weights=10)
    rows = [before, after] if dearest == "before" else [after, before]
    verdict = judge([*rows, row("other", 0.07)], Lost(300, 90, 90), Means(pairs={"before": "after"}))
    assert (verdict.guilty, verdict.cause) == ("before", "channels")
    assert "93%" in verdict.why[1]
    assert "equalized" in verdict.mend[0]


def test_decibels():
    assert decibels(100.0, 1.0) == 20
    assert decibels(1.0, 0.0) == math.inf
    assert decibels(0.0, 1.0) == -math.inf
