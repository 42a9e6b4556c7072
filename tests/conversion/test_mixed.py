"""Layers in float as the last resort: the fewest that pass, the right ones, read back from the file, and at a price."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgenn
from edgenn.conversion import gate, mixed, tflite
from edgenn.conversion.layer_names import keras_layers
from edgenn.conversion.quantize import Quantizer
from edgenn.extras import require
from edgenn_device import flatbuffer, golden, model_file
from edgenn_device.errors import EdgennError
from edgenn_device.interpreter import Interpreter
from tests.conversion.test_fake_quant import noise, scores_of, small

keras = require("keras")
# Of the tiny run's network: the layer whose tensor is ruined, and the one that reads it.
RUINED, READER = "block1_conv1", "block1_conv2"


@pytest.fixture(scope="module")
def ruined_run(tiny, tmp_path_factory):
    """The tiny run with one channel of 10,000 that nothing behind it heeds: it takes all steps of the tensor's one
    scale. Equalizing leaves a channel alone that no weight reads, and no gradient tells training to make it smaller."""
    run = tmp_path_factory.mktemp("ruined") / "run"
    shutil.copytree(tiny / "run", run)
    model = keras.models.load_model(run / "model.keras", compile=False)
    norm, reader = model.get_layer(f"{RUINED}_norm"), model.get_layer(READER)
    norm.gamma.assign(norm.gamma * (np.arange(norm.gamma.shape[0]) > 0))
    norm.beta.assign(np.where(np.arange(norm.beta.shape[0]) == 0, 1e4, norm.beta))
    kernel = reader.kernel.numpy()
    kernel[:, :, 0] = 0
    reader.kernel.assign(kernel)
    model.save(run / "model.keras")
    return run


def test_auto_ends_with_the_dearest_layers_in_float(ruined_run, tmp_path):
    said = []
    made = edgenn.convert(ruined_run, quantization="auto", epochs=1, out=tmp_path / "auto.tflite", progress=said.append)
    failed = [line.split(" fails")[0] for line in said if " fails: " in line]
    assert failed == ["int8", "equalized", "qat", f"mixed with {RUINED} in float"]
    assert (made.quantization, made.passed) == ("mixed", True)
    assert made.float_layers == (RUINED, READER)
    assert made.agreement > 0.95
    assert made.scheme == "int8 post-training by TensorFlow, minmax ranges, 2 layers in float"
    model = model_file.load(made.model)
    floats = {o.name for o in model.graph.operators if "float" in model.graph.tensors[o.outputs[0]].dtype}
    assert floats == {"CONV_2D", "DEQUANTIZE"}
    assert model.card.input.dtype == "uint8"
    assert golden.check(model, Interpreter(model)) is True
    kept = model.card.quantization
    assert kept["float_layers"] == [RUINED, READER]
    # 1152 weights of four bytes in place of one, less the scales of their channels.
    assert 0.8 < kept["float_cost"]["bytes"] / (3 * 2 * 9 * 8 * 8) < 1.2
    assert kept["float_cost"]["seconds"] > 0
    note = next(note for note in made.notes if note.startswith("in float"))
    assert f"in float: {RUINED}, {READER}; that costs" in note
    assert "kB more" in note


def test_a_way_that_is_closed_is_passed_over_and_told(ruined_run, tmp_path, monkeypatch):
    """LiteRT refuses some files outright, as where a scale is out of XNNPACK's range: that ends a way, not the walk."""
    make = Quantizer.make

    def refusing(self, scheme):
        if scheme == "int8":
            raise EdgennError("no int8 today")
        return make(self, scheme)

    monkeypatch.setattr(Quantizer, "make", refusing)
    options = {"max_drop": 100, "out": tmp_path / "auto.tflite"}
    monkeypatch.setattr(gate, "LEAST_AGREEMENT", 0.0)
    made = edgenn.convert(ruined_run, quantization="auto", **options)
    assert made.quantization == "equalized"
    assert made.notes[-1] == "int8 was not possible: no int8 today"
    with pytest.raises(EdgennError, match="no int8 today"):
        edgenn.convert(ruined_run, quantization="int8", overwrite=True, **options)


def test_what_the_edge_tpu_has_no_float_for(ruined_run, tmp_path):
    with pytest.raises(EdgennError, match="--quantization mixed is not for --target coral"):
        edgenn.convert(ruined_run, quantization="mixed", target="coral", out=tmp_path / "m.tflite")
    for quantization in ("auto", "qat", "float16"):
        with pytest.raises(EdgennError, match="kept in float by --quantization int8 only"):
            edgenn.convert(ruined_run, quantization=quantization, keep_float=[READER], out=tmp_path / "m.tflite")


@given(st.integers(1, 70), st.data())
def test_the_fewest_are_found(most, data):
    least = data.draw(st.integers(1, most + 1))
    prepared, asked = set(), []

    def passes(count):
        assert count in prepared, "it was not announced"
        asked.append(count)
        return count >= least

    assert mixed.fewest(most, prepared.update, passes) == (least if least <= most else None)
    assert len(asked) == len(set(asked)) <= 2 * most.bit_length() + 1


def test_no_layers_are_none():
    assert mixed.fewest(0, lambda counts: None, lambda count: True) is None


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """`small` as int8, and with sets of layers in float."""
    folder = tmp_path_factory.mktemp("mixed")
    model = small()
    model.save(folder / "small.keras")
    sets = [(), ("pointwise",), ("stem",), ("stem", "depthwise", "pointwise", "scores")]
    return model, dict(zip(sets, tflite.mixed_in_child(folder / "small.keras", noise(), sets), strict=True))


def test_a_first_layer_in_float_still_takes_bytes(files):
    model, made = files
    pictures = noise(16, 3)
    truth = model.predict(pictures.astype("float32"), verbose=0)
    for layers, content in made.items():
        graph = flatbuffer.parse(content)
        assert graph.tensors[graph.inputs[0]].dtype == graph.tensors[graph.outputs[0]].dtype == "uint8", layers
        np.testing.assert_allclose(scores_of(content, pictures), truth, atol=0.05)


def test_what_is_in_float_is_read_back(files):
    model, made = files
    names = keras_layers(model)
    for layers, content in made.items():
        assert mixed.not_as_asked(flatbuffer.parse(content), layers, names) == []
    graph = flatbuffer.parse(made[("pointwise",)])
    assert mixed.not_as_asked(graph, ["pointwise", "stem"], names) == ["layer 'stem' was to be in float and is not"]
    more = mixed.not_as_asked(flatbuffer.parse(made[("stem", "depthwise", "pointwise", "scores")]), ["stem"], names)
    assert [line.split(" is in float")[0] for line in more] == [
        "DEPTHWISE_CONV_2D of layer 'depthwise'",
        "CONV_2D of layer 'pointwise'",
        "FULLY_CONNECTED of layer 'scores'",
    ]


def test_the_price_is_that_of_the_weights(files, tmp_path):
    _, made = files
    loaded = []
    for number, layers in enumerate([("pointwise",), ()]):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(made[layers])
        loaded.append(model_file.load(path))
    price = mixed.cost(*loaded)
    assert price.bytes == len(made[("pointwise",)]) - len(made[()])
    assert min(price.seconds, price.whole_seconds) > 0
    assert "ai-edge-litert" in price.runtime
    assert str(replace(price, bytes=1500, seconds=0.002, whole_seconds=0.001)).startswith(
        "1.5 kB more, and 2 ms a picture in place of 1 ms here (ai-edge-litert"
    )
