import functools
import re
from importlib import import_module

import numpy as np
import pytest

from edgenn import networks
from edgenn.extras import require
from edgenn_device.errors import EdgennError

FAMILIES = networks.names()


@functools.cache
def built(name):
    """For pictures of 64×48 in colour and four classes; building is what takes the time."""
    return networks.build(name, (64, 48, 3), 4)


def test_simple_cnn_has_the_shapes_that_its_options_say():
    model = networks.build("simple_cnn", (48, 64, 1), 5, width=6, depth=3, dropout=0.1)
    assert model.input_shape == (None, 48, 64, 1)
    assert model.output_shape == (None, 5)
    widths = [layer.filters for layer in model.layers if hasattr(layer, "filters")]
    assert widths == [6, 6, 6, 12, 12, 24, 24]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_takes_bytes_and_gives_probabilities(name):
    model = built(name)
    pictures = np.random.RandomState(0).randint(0, 256, (2, 64, 48, 3)).astype("float32")
    scores = np.asarray(model(pictures))
    assert scores.shape == (2, 4)
    assert np.allclose(scores.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_is_flat_between_the_ends_that_all_share(name):
    keras = require("keras")
    model = built(name)
    layers = [layer.name for layer in model.layers]
    assert layers[:2] == ["pictures", "normalisation"]
    assert layers[-3:] == ["pool", "dropout", "scores"]
    assert not any(hasattr(layer, "layers") for layer in model.layers)
    momenta = {it.momentum for it in model.layers if isinstance(it, keras.layers.BatchNormalization)}
    assert momenta == {0.99}


@pytest.mark.parametrize("name", FAMILIES)
def test_no_two_layers_start_from_the_same_weights(name):
    model = built(name)
    kernels = [np.asarray(weight) for layer in model.layers for weight in layer.weights if len(weight.shape) == 4]
    firsts = [tuple(kernel.ravel()[:4]) for kernel in kernels]
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in FAMILIES),
        ("simple_cnn", {"depth": 1}),  # one block, not pooled
        ("ds_cnn", {"depth": 1}),
        ("mobilenet_v1", {"alpha": 1.0}),
        ("mobilenet_v2", {"alpha": 0.35}),  # channels are rounded to 8: additions must not move
        ("mobilenet_v2", {"alpha": 1.4}),
        ("mobilenet_v3_small", {"alpha": 0.5}),  # here block 6 gains an addition
        ("mobilenet_v3_small", {"alpha": 0.25}),
    ],
)
def test_cuts_are_places_where_the_model_can_be_cut(name, options):
    network = networks.network(name)
    options = {**network.options, **options}
    model = built(name) if options == network.options else networks.build(name, (64, 64, 3), 3, **options)
    cuts, possible = network.cuts(**options), networks.cut_points(model)
    assert len(cuts) >= 2
    places = [possible.index(cut) for cut in cuts]
    assert places == sorted(places)
    assert network.cut(**options) in cuts


def test_a_model_cut_at_each_point_computes_the_same():
    keras = require("keras")
    model = networks.build("resnet8", (16, 16, 3), 3, width=2)
    points = networks.cut_points(model)
    assert "block2_add" in points
    assert "block2_conv1" not in points  # the short way goes around it
    assert "block1_relu" in points
    pictures = np.random.RandomState(0).randint(0, 256, (2, 16, 16, 3)).astype("float32")
    whole = np.asarray(model(pictures))
    for point in points:
        at = model.get_layer(point).output
        halves = keras.Model(model.input, at), keras.Model(at, model.output)
        assert np.allclose(np.asarray(halves[1](halves[0](pictures))), whole, atol=1e-6), point


@pytest.mark.parametrize("name", FAMILIES)
def test_the_docstring_says_what_the_entry_says(name):
    network = networks.network(name)
    text = " ".join(import_module(f"edgenn.networks.{name}").__doc__.split())
    figures = network.figures[0]
    assert figures.options == {}
    assert figures.size == network.size
    assert f"{figures.parameters:,} parameters and {figures.macs:,} MACs at {figures.size}×{figures.size}×3" in text
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", text)
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", network.source)
    assert network.size in network.sizes
    assert list(network.sizes) == sorted(network.sizes)
    assert network.smallest(**network.options) <= network.sizes[0]


@pytest.mark.parametrize(
    ("name", "shape", "options", "said"),
    [
        ("simple_cn", (64, 64, 3), {}, "did you mean simple_cnn"),  # a name that is nearly one
        ("perceptron", (64, 64, 3), {}, "choose one of simple_cnn"),  # one that is not
        ("simple_cnn", (64, 64, 3), {"wide": 3}, "has no option 'wide'"),  # an option that is not one
        ("simple_cnn", (64, 64, 3), {"width": 0}, "width 0 is not possible"),  # out of range
        ("simple_cnn", (64, 64, 3), {"depth": 7}, "needs pictures of 128 pixels or more"),  # pooled away to nothing
        ("simple_cnn", (64, 64, 3), {"depth": 9999}, "depth 9999 is not possible"),  # a picture of 3,000 digits
        ("simple_cnn", (64, 64, 3), {"depth": 15000}, "depth 15000 is not possible"),  # more than Python prints
        ("simple_cnn", (64, 64, 3), {"width": "a"}, "width 'a' is not possible: give a whole number"),  # the wrong kind
        ("simple_cnn", (64, 64, 3), {"width": 2.5}, "width 2.5 is not possible: give a whole number"),
        ("mobilenet_v1", (64, 64, 3), {"alpha": "a"}, "alpha 'a' is not possible: give a number"),
        ("simple_cnn", (64, 64, 3), {"dropout": 1.0}, "dropout 1.0 is not possible"),  # nothing would be left
        ("resnet8", (64, 64, 3), {"width": 1000}, "width 1000 is not possible"),
        ("ds_cnn", (64, 64, 3), {"depth": 0}, "depth 0 is not possible"),
        ("ds_cnn", (12, 64, 3), {}, "needs pictures of 16 pixels or more, got 12x64"),  # the lesser side counts
        ("mobilenet_v1", (64, 64, 3), {"alpha": 2.0}, "alpha 2.0 is not possible: 0.25 to 1"),
        ("mobilenet_v2", (64, 64, 3), {"alpha": 0.1}, "alpha 0.1 is not possible: 0.35 to 1.4"),
        ("mobilenet_v3_small", (24, 24, 3), {}, "needs pictures of 32 pixels or more"),
        ("efficientnet_lite0", (64, 64, 3), {"alpha": 1.0}, "has no option 'alpha': it takes dropout"),
    ],
)
def test_what_cannot_be_built_is_said(name, shape, options, said):
    with pytest.raises(EdgennError) as caught:
        networks.build(name, shape, 3, **options)
    assert said in str(caught.value)
