"""What the simulated network computes, its .tflite computes: the same scales, no float inside, the same labels."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgenn.conversion import calibrate, quantization_aware, worker
from edgenn.conversion.fake_quant import mending, ranges
from edgenn.conversion.tflite import mixed_in_child
from edgenn.extras import require
from edgenn_device import flatbuffer
from edgenn_device.errors import EdgennError

keras = require("keras")
layers = keras.layers
SIDE = 16


def noise(n=48, seed=0, side=SIDE):
    """Pictures of blobs: noise at 4x4, enlarged, so that neighbouring pixels go together as in photos."""
    random = np.random.default_rng(seed)
    return np.repeat(np.repeat(random.integers(0, 256, (n, side // 4, side // 4, 3)), 4, 1), 4, 2).astype(np.uint8)


def excite(model, seed=0):
    """Give a fresh network weights like a trained one's: statistics that are not the identity, scores that differ."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            width = layer.moving_mean.shape
            for variable, values in (
                (layer.gamma, random.uniform(0.5, 1.5, width)),
                (layer.beta, random.normal(0, 0.3, width)),
                (layer.moving_mean, random.normal(0, 0.2, width)),
                (layer.moving_variance, random.uniform(0.5, 2.0, width)),
            ):
                variable.assign(values)
        elif isinstance(layer, layers.Dense):
            layer.kernel.assign(random.normal(0, 3 / np.sqrt(layer.kernel.shape[0]), layer.kernel.shape))
    return model


def tflite_of(aware, folder, scheme="simulated", calibration=()):
    """Converted as the child process does it, but in this one: starting TensorFlow takes longer than the conversion."""
    aware.save(folder / "aware.keras")
    np.save(folder / "calibration.npy", calibration)
    job = {"keras": "aware.keras", "out": "aware.tflite", "scheme": scheme, "io": "uint8"}
    job["calibration"] = str(folder / "calibration.npy")
    job = {**job, "per_tensor_dense": False, "keep_float": []}
    job.update({name: str(folder / job[name]) for name in ("keras", "out")})
    (folder / "job.json").write_text(json.dumps(job))
    worker.main(str(folder / "job.json"))
    return (folder / "aware.tflite").read_bytes()


def scores_of(content, pictures):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    given, got = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    rows = []
    for picture in pictures:
        interpreter.set_tensor(given, picture[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(got)[0] / 256)
    return np.array(rows)


def simulated_scores(aware, pictures):
    return np.concatenate([values[0] for values in ranges.compute(aware, [aware.output], pictures)])


def check_the_file_is_the_simulation(aware, content, pictures):
    graph = flatbuffer.parse(content)
    inside = [tensor for tensor in graph.tensors if tensor.dtype.startswith("float")]
    assert not inside, f"float tensors: {[tensor.name for tensor in inside]}"
    names = [operator.name for operator in graph.operators]
    # uint8 at both ends costs one QUANTIZE each; there is none between.
    assert "QUANTIZE" not in names[1:-1]
    assert not {"DEQUANTIZE", "FAKE_QUANT", "MUL", "SUB", "DIV"} & set(names)
    constants = {index for index, tensor in enumerate(graph.tensors) if tensor.constant}
    outputs = [graph.tensors[i] for operator in graph.operators[:-1] for i in operator.outputs if i not in constants]
    got = {(np.float32(tensor.scales[0]), tensor.zero_points[0]) for tensor in outputs}
    wanted = {layer.scale() for layer in aware.layers if hasattr(layer, "bounds")}
    assert len(got) <= len(wanted)
    for scale, zero_point in got:
        assert any(zero_point == z and scale == pytest.approx(s, rel=1e-6) for s, z in wanted), (scale, zero_point)
    kernels = [layer for layer in aware.layers if hasattr(layer, "rounded_kernel")]
    ours = sorted(float(abs(layer.rounded_kernel().numpy()).max() / 127) for layer in kernels)
    reading = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    theirs = sorted(max(graph.tensors[o.inputs[1]].scales) for o in graph.operators if o.name in reading)
    assert theirs == pytest.approx(ours, rel=1e-5)
    simulated, actual = simulated_scores(aware, pictures), scores_of(content, pictures)
    close = np.sort(simulated, 1)[:, -1] - np.sort(simulated, 1)[:, -2] < 3 / 256
    assert (simulated.argmax(1) == actual.argmax(1))[~close].mean() >= 0.97
    assert np.abs(simulated - actual).mean() < 0.02


@st.composite
def networks(draw):
    """A small network of every kind of layer that can be simulated, in an order that a person might choose."""
    keras.utils.set_random_seed(draw(st.integers(0, 100)))
    pictures = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 128, -1.0)(pictures) if draw(st.booleans()) else pictures
    x = layers.Conv2D(8, 3, draw(st.sampled_from([1, 2])), padding="same", use_bias=draw(st.booleans()))(x)
    for _ in range(draw(st.integers(1, 3))):
        x = _block(draw, x)
    if draw(st.booleans()):
        x = layers.GlobalAveragePooling2D(keepdims=draw(st.booleans()))(x)
    x = layers.Flatten()(x) if len(x.shape) == 4 else x
    x = layers.Dropout(0.2)(x) if draw(st.booleans()) else x
    x = layers.Dense(6, activation="relu")(x) if draw(st.booleans()) else x
    x = layers.Dense(4, activation="softmax")(x) if draw(st.booleans()) else layers.Softmax()(layers.Dense(4)(x))
    return excite(keras.Model(pictures, x, name="network"), draw(st.integers(0, 100)))


def _relu(draw, x):
    kind = draw(st.sampled_from(["relu", "relu6", "activation", "none"]))
    if kind == "none":
        return x
    return layers.Activation("relu")(x) if kind == "activation" else layers.ReLU(6.0 if kind == "relu6" else None)(x)


def _block(draw, x):
    kind = draw(
        st.sampled_from(["conv", "depthwise", "separable", "padded", "residual", "fork", "pool", "rescaling", "norm"])
    )
    if kind == "conv":
        return _relu(draw, layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(x)))
    if kind == "depthwise":
        multiplier = draw(st.sampled_from([1, 2]))
        return _relu(draw, layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(x))
    if kind == "separable":
        return _relu(draw, layers.BatchNormalization()(layers.SeparableConv2D(8, 3, padding="same")(x)))
    if kind == "padded":
        return layers.Conv2D(8, 3, 2, activation="relu")(layers.ZeroPadding2D(((0, 1), (0, 1)))(x))
    if kind == "residual":
        inner = layers.Conv2D(x.shape[-1], 1)(_relu(draw, x))
        return _relu(draw, layers.Add()([x, inner]) if draw(st.booleans()) else x + inner)
    if kind == "fork":
        arms = [layers.Conv2D(4, 1, activation="relu")(x), layers.Conv2D(4, 3, padding="same")(x), x]
        return layers.Concatenate()(arms[: draw(st.integers(2, 3))])
    if kind == "pool":
        pool = draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))
        return pool(2, padding="same")(x)
    if kind == "rescaling":
        return layers.Rescaling(0.5, 0.1)(x)
    return _relu(draw, layers.BatchNormalization()(x))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(model=networks())
def test_what_is_simulated_is_what_the_file_computes(model, tmp_path_factory):
    pictures = noise()
    aware = quantization_aware(model)
    calibrate(aware, pictures)
    content = tflite_of(aware, tmp_path_factory.mktemp("aware"))
    check_the_file_is_the_simulation(aware, content, pictures)


def small():
    keras.utils.set_random_seed(1)
    pictures = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 128, -1.0, name="normalisation")(pictures)
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(12, 1, name="pointwise")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return excite(keras.Model(pictures, layers.Dense(4, activation="softmax", name="scores")(x), name="small"))


def test_without_rounding_it_is_the_float_network():
    model, pictures = small(), noise()
    aware = quantization_aware(model)
    with ranges.in_float(aware):
        folded = simulated_scores(aware, pictures)
    np.testing.assert_allclose(folded, model.predict(pictures.astype("float32"), verbose=0), atol=1e-5)


def test_it_is_saved_and_loaded_with_its_ranges(tmp_path):
    pictures, aware = noise(), quantization_aware(small())
    calibrate(aware, pictures)
    aware.save(tmp_path / "aware.keras")
    again = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(simulated_scores(again, pictures), simulated_scores(aware, pictures))
    assert [layer.scale() for layer in again.layers if hasattr(layer, "bounds")] == [
        layer.scale() for layer in aware.layers if hasattr(layer, "bounds")
    ]


def test_training_moves_weights_and_ranges_and_still_converts(tmp_path):
    pictures, aware = noise(64), quantization_aware(small())
    calibrate(aware, pictures)
    before = [layer.scale() for layer in aware.layers if hasattr(layer, "bounds") and not layer.fixed]
    aware.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    labels = np.arange(64) % 4
    history = aware.fit(pictures.astype("float32"), labels, epochs=6, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    after = [layer.scale() for layer in aware.layers if hasattr(layer, "bounds") and not layer.fixed]
    assert all(a != b for a, b in zip(after, before, strict=True))
    check_the_file_is_the_simulation(aware, tflite_of(aware, tmp_path), pictures)


def ruined():
    """`small` with the depthwise channels scaled by 1/400 to 400 and the pointwise kernel scaled back: the float
    network is the same, and one scale cannot hold all channels."""
    model = small()
    factor = np.exp(np.linspace(-6, 6, 8)).astype(np.float32)
    norm, pointwise = model.get_layer("norm"), model.get_layer("pointwise")
    norm.gamma.assign(norm.gamma * factor)
    norm.beta.assign(norm.beta * factor)
    kernel, bias = pointwise.get_weights()
    pointwise.set_weights([kernel / factor[None, None, :, None], bias])
    return model


def test_equalizing_restores_a_network_whose_channels_differ():
    model, pictures = ruined(), noise(64)
    truth = model.predict(pictures.astype("float32"), verbose=0)
    plain = quantization_aware(model)
    calibrate(plain, pictures)
    spoilt = np.abs(simulated_scores(plain, pictures) - truth).mean()

    mended = quantization_aware(model)
    assert "depthwise" in mending.equalize(mended, pictures)
    with ranges.in_float(mended):
        np.testing.assert_allclose(simulated_scores(mended, pictures), truth, atol=1e-4)
    calibrate(mended, pictures)
    assert np.abs(simulated_scores(mended, pictures) - truth).mean() < spoilt / 5


def test_corrected_biases_take_the_mean_error_away():
    model, pictures = small(), noise(64)
    aware = quantization_aware(model)
    scores = aware.get_layer("scores")
    before = scores.get_weights()[1]
    rounding = scores.rounded_kernel().numpy() - scores.get_weights()[0]
    with ranges.in_float(aware):
        read = np.concatenate([values[0] for values in ranges.compute(aware, [scores.input], pictures)])
    mending.correct_biases(aware, pictures)
    np.testing.assert_allclose(before - scores.get_weights()[1], (read @ rounding).mean(0), atol=1e-6)


def test_percentiles_and_errors_leave_out_what_is_rare():
    sample = np.concatenate([np.random.default_rng(0).normal(0, 1, 100_000), [500.0]]).astype(np.float32)
    seen = ranges.Observed(sample.min(keepdims=True), sample.max(keepdims=True), sample)
    assert ranges.bounds(seen, "minmax")[1] == 500
    assert ranges.bounds(seen, "percentile")[1] < 10
    # A step of 500/255 rounds nearly everything to zero; clipping one value in a hundred thousand costs less.
    assert ranges.bounds(seen, "mse")[1] < 500
    for method in ("minmax", "percentile", "mse"):
        low, high = ranges.bounds(seen, method)
        assert low <= 0 <= high


def test_pictures_that_reach_half_the_range_are_said_to():
    aware = quantization_aware(small())
    dark, all_of_it = (noise() // 8 + 112).astype(np.uint8), noise()
    part = ranges.reach(ranges.observe(aware, dark), ranges.observe(aware, all_of_it))
    whole = ranges.reach(ranges.observe(aware, all_of_it), ranges.observe(aware, dark))
    assert min(part.values()) < 0.6
    assert min(whole.values()) > 0.8


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda x: layers.LeakyReLU()(x), "LeakyReLU"),  # a layer of another kind
        (lambda x: layers.ReLU(4.0)(x), "another maximum"),  # an activation that TFLite does not fuse
        (lambda x: layers.Conv2D(4, 1, activation="gelu")(x), "gelu"),  # within a convolution
        (lambda x: layers.Conv2D(4, 1, activation=layers.LeakyReLU())(x), "LeakyReLU"),  # the same as a layer
        (lambda x: layers.Activation(layers.ReLU(1.0))(x), "it is ReLU"),
        (lambda x: keras.ops.split(x, 2)[0], "gives 2 tensors"),  # not one tensor
        # The device feeds bytes as they are: the input has one scale only.
        (lambda x: layers.Concatenate()([x, layers.Conv2D(4, 1)(x)]), "the input is joined with other values"),
        (lambda x: layers.Concatenate()([layers.Softmax(name="odds")(x), x]), "'odds' gives is joined|the input is"),
        (lambda x: layers.Conv2D(4, 3, groups=2)(x), "groups"),  # what old runtimes lack
        (lambda x: layers.Multiply()([x, x]), "Multiply"),  # two inputs
        (lambda x: layers.LayerNormalization()(x), "LayerNormalization"),  # normalises what it sees
    ],
)
def test_a_layer_that_cannot_be_simulated_is_named_with_the_reason(layer, named):
    pictures = keras.Input((8, 8, 4))
    model = keras.Model(pictures, layers.Flatten()(layer(pictures)))
    with pytest.raises(EdgennError, match=named) as caught:
        quantization_aware(model)
    assert "\n" not in str(caught.value)


def test_networks_within_networks_are_laid_open():
    pictures = noise(side=8)
    inner_input = keras.Input((8, 8, 3))
    inner = keras.Model(inner_input, layers.ReLU()(layers.Conv2D(4, 3)(inner_input)), name="backbone")
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), inner, layers.Flatten()])
    aware = quantization_aware(model)
    with ranges.in_float(aware):
        np.testing.assert_allclose(
            simulated_scores(aware, pictures), model.predict(pictures.astype("float32"), verbose=0), atol=1e-5
        )


def two_outputs(x):
    pictures = keras.Input((8, 8, 3))
    first = layers.Conv2D(4, 3)(pictures)
    backbone = keras.Model(pictures, [first, layers.Conv2D(5, 3, strides=2)(first)])
    return layers.Concatenate()([layers.GlobalAveragePooling2D()(tensor) for tensor in backbone(x)])


def two_inputs(x):
    left, right = keras.Input((6, 6, 4)), keras.Input((6, 6, 4))
    neck = keras.Model([left, right], layers.Add()([layers.Conv2D(4, 1)(left), right]))
    return neck([layers.Conv2D(4, 3)(x), layers.Conv2D(4, 3)(x)])


def same_names(x):
    for channels in (3, 4):
        pictures = keras.Input((None, None, channels))
        block = layers.ReLU(name="relu")(layers.Conv2D(4, 3, name="conv")(pictures))
        x = keras.Model(pictures, block, name=f"block_{channels}")(x)
    return x


@pytest.mark.parametrize(
    "body",
    [
        two_outputs,
        two_inputs,
        same_names,
        lambda x: layers.Conv2D(4, 3, name="pictures")(x),  # the name of our own input
        lambda x: keras.ops.concatenate([layers.Conv2D(4, 3)(x), layers.Conv2D(4, 3)(x)], axis=-1),  # no layer
        lambda x: layers.Conv2D(4, 3)(layers.Rescaling(-1.0, 1.0)(x)),  # a scale that no tensor has
        lambda x: layers.Conv2D(4, 3)(layers.Rescaling(1.0, 0.5)(x)),  # no zero in its range, nor so a zero point
    ],
)
def test_however_it_is_put_together_it_computes_the_same(body, tmp_path):
    pictures, given = noise(side=8), keras.Input((8, 8, 3))
    scaled = given if "Rescaling" in body.__code__.co_names else layers.Rescaling(1 / 255)(given)
    model = keras.Model(given, layers.Dense(3, activation="softmax")(layers.Flatten()(body(scaled))))
    aware = quantization_aware(model)
    calibrate(aware, pictures)
    with ranges.in_float(aware):
        np.testing.assert_allclose(
            simulated_scores(aware, pictures), model.predict(pictures.astype("float32"), verbose=0), atol=1e-5
        )
    check_the_file_is_the_simulation(aware, tflite_of(aware, tmp_path), pictures)


def test_a_network_in_mixed_precision_is_converted_in_float32(tmp_path):
    """TFLite computes nothing in float16: as it is, the converter finds no operator for any of its layers."""
    pictures = noise(side=8)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        given = keras.Input((8, 8, 3))
        x = layers.Conv2D(4, 3, activation="silu")(layers.Rescaling(1 / 255)(given))
        model = keras.Model(given, layers.Activation("softmax", dtype="float32")(layers.Dense(3)(layers.Flatten()(x))))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    expected = model.predict(pictures.astype("float32"), verbose=0)
    scores = scores_of(tflite_of(model, tmp_path, "tensorflow", pictures), pictures)
    np.testing.assert_allclose(scores, expected, atol=0.03)


def test_an_input_that_is_joined_with_features_takes_bytes_all_the_same(tmp_path):
    """TensorFlow's quantizer would give it the features' scale, and bytes would mean something else."""
    pictures, given = noise(side=8), keras.Input((8, 8, 3))
    scaled = layers.Rescaling(1 / 255)(given)
    joined = layers.Concatenate()([scaled, layers.Conv2D(4, 3, padding="same", bias_initializer="ones")(scaled)])
    model = keras.Model(given, layers.Dense(3, activation="softmax")(layers.Flatten()(joined)))
    content = tflite_of(model, tmp_path, "tensorflow", pictures)
    tensor = flatbuffer.parse(content).tensors[flatbuffer.parse(content).inputs[0]]
    assert (tensor.dtype, tensor.scales, tensor.zero_points) == ("uint8", (1.0,), (0,))
    expected = model.predict(pictures.astype("float32"), verbose=0)
    np.testing.assert_allclose(scores_of(content, pictures), expected, atol=0.05)
    bare = keras.Model(given, layers.Flatten()(layers.Concatenate()([given, 300 * layers.Conv2D(4, 1)(given)])))
    with pytest.raises(SystemExit, match="put a Rescaling behind the input"):
        tflite_of(bare, tmp_path, "tensorflow", pictures)


def test_layers_used_twice_stay_one_kernel():
    pictures, x = noise(side=8), keras.Input((8, 8, 3))
    shared, relu = layers.Conv2D(3, 3, padding="same", name="shared"), layers.ReLU(name="relu")
    once = layers.MaxPooling2D(2)(relu(shared(x)))
    model = keras.Model(x, layers.Softmax()(layers.Flatten()(layers.MaxPooling2D(2)(relu(shared(once))))))
    aware = quantization_aware(model)
    assert sum(hasattr(layer, "rounded_kernel") for layer in aware.layers) == 1
    calibrate(aware, pictures)
    with ranges.in_float(aware):
        np.testing.assert_allclose(
            simulated_scores(aware, pictures), model.predict(pictures.astype("float32"), verbose=0), atol=1e-5
        )


def test_a_layer_kept_in_float_is_float_in_the_file(tmp_path):
    small().save(tmp_path / "small.keras")
    pictures = noise()
    content = mixed_in_child(tmp_path / "small.keras", pictures, [["pointwise"]])[0]
    graph = flatbuffer.parse(content)
    kinds = [(o.name, graph.tensors[o.inputs[0]].dtype) for o in graph.operators if o.name.endswith("CONV_2D")]
    assert kinds == [("CONV_2D", "int8"), ("DEPTHWISE_CONV_2D", "int8"), ("CONV_2D", "float32")]
    assert graph.tensors[graph.inputs[0]].dtype == graph.tensors[graph.outputs[0]].dtype == "uint8"
    with pytest.raises(EdgennError, match="nowhere"):
        mixed_in_child(tmp_path / "small.keras", pictures, [["nowhere"]])
