"""Counts against what papers and repositories publish, and estimates against converted models."""

import math

import pytest

from edgenn import networks
from edgenn.conversion import targets
from edgenn.extras import require
from edgenn.networks import ds_cnn, figures

FAMILIES = networks.names()
ENTRIES = [(name, it) for name in FAMILIES for it in networks.network(name).figures]


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=[f"{n}-{e.options}-{e.size}" for n, e in ENTRIES])
def test_the_registry_says_what_the_layers_say(name, entry):
    model = networks.build(name, (entry.size, entry.size, 3), 10, **entry.options)
    assert entry.parameters == model.count_params()
    assert entry.macs == figures.macs(model)
    assert entry.int8_bytes == figures.int8_size(model)
    assert figures.edgetpu(model) == (True, "")


@pytest.mark.parametrize(
    ("name", "options", "size", "millions", "tolerance"),
    [
        ("mobilenet_v1", {"alpha": 1.0}, 224, 569, 0.002),  # arXiv:1704.04861, table 6
        ("mobilenet_v1", {"alpha": 0.25}, 224, 41, 0.01),  # the same
        ("mobilenet_v1", {"alpha": 1.0}, 128, 186, 0.005),  # table 7
        ("mobilenet_v2", {"alpha": 1.0}, 224, 300, 0.005),  # arXiv:1801.04381, table 4
        ("efficientnet_lite0", {}, 224, 407, 0.06),  # tensorflow/tpu, efficientnet/lite/README.md
    ],
)
def test_macs_are_those_published_for_a_thousand_classes(name, options, size, millions, tolerance):
    model = networks.build(name, (size, size, 3), 1000, **options)
    assert figures.macs(model) / 1e6 == pytest.approx(millions, rel=tolerance)


def test_parameters_are_those_published():
    keras = require("keras")
    assert networks.build("resnet8", (32, 32, 3), 10).count_params() == 78_666  # mlcommons/tiny
    spotting = ds_cnn.build((49, 10, 1), 12, width=64, depth=4, dropout=0.0, kernel=(10, 4), stride=2)
    assert spotting.count_params() == 24_908  # mlcommons/tiny
    lite0 = networks.build("efficientnet_lite0", (32, 32, 3), 1000)
    assert sum(math.prod(weight.shape) for weight in lite0.trainable_variables) == 4_652_008  # timm, Keras Hub
    v3 = networks.build("mobilenet_v3_small", (32, 32, 3), 10)
    theirs = keras.applications.MobileNetV3Small((32, 32, 3), minimalistic=True, include_top=False, weights=None)
    assert v3.count_params() - (576 * 10 + 10) == theirs.count_params()


def test_macs_of_a_network_worked_out_by_hand():
    keras = require("keras")
    layers = keras.layers
    inner = keras.Sequential([keras.Input((4, 4, 6)), layers.Conv2D(8, 3, groups=2, use_bias=False)])
    pictures = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(6, 3, strides=2, padding="same")(pictures)
    x = layers.Flatten()(inner(x))
    model = keras.Model(pictures, layers.Dense(5)(x))
    separable = 4 * 4 * (3 * 3 * 3 + 3 * 6)
    grouped = 2 * 2 * (3 * 3 * 3) * 8
    assert figures.macs(model) == separable + grouped + 2 * 2 * 8 * 5
    upward = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2DTranspose(2, 3, strides=2)])
    assert figures.macs(upward) == 4 * 4 * 3 * 3 * 3 * 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda layers: layers.Activation("hard_swish"), "activation hard_silu"),
        (lambda layers: layers.Conv2D(4, 3, groups=2), "grouped convolution"),
        (lambda layers: layers.LeakyReLU(), "LeakyReLU"),
        (lambda layers: layers.ReLU(negative_slope=0.1), "leaky ReLU"),
        (lambda layers: layers.Conv2D(4, 3, activation="gelu"), "activation gelu"),
    ],
)
def test_the_layer_the_edge_tpu_does_not_map_is_named(make, said):
    keras = require("keras")
    layer = make(keras.layers)
    inner = keras.Sequential([keras.Input((8, 8, 4)), layer])
    able, reason = figures.edgetpu(keras.Sequential([keras.Input((8, 8, 4)), inner, keras.layers.Flatten()]))
    assert not able
    assert said in reason
    assert layer.name in reason


def check_converted(name, options, convert):
    model = networks.build(name, (96, 96, 3), 10, **options)
    for target in targets.TARGETS:
        found = convert(model, target=target)
        verdict = targets.check(found, target)
        assert verdict.ok, verdict.reasons
        assert verdict.ok == figures.edgetpu(model)[0]
        assert not any(tensor.dtype.startswith("float") for tensor in found.graph.tensors)
        assert "PAD" not in {operator.name for operator in found.graph.operators}
        assert len(found.content) == pytest.approx(figures.int8_size(model), rel=0.03)


def test_a_small_network_converts_as_estimated(convert):
    check_converted("ds_cnn", {}, convert)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in FAMILIES), ("mobilenet_v2", {"alpha": 0.35}), ("mobilenet_v3_small", {"alpha": 0.5})],
)
def test_every_network_converts_as_estimated_and_runs_on_both_targets(name, options, convert):
    check_converted(name, options, convert)
