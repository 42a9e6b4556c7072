"""A user's own network: what works, from the file to the int8 model, and what is said when it does not."""

import numpy as np
import pytest

from edgenn import networks
from edgenn.evaluation import predict
from edgenn.extras import require
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError

PLAIN = """
import keras
from sizes import WIDTH

def build(input_shape, classes, width=WIDTH, dropout=0.1):
    layers = keras.layers
    return keras.Sequential([
        keras.Input(input_shape),
        layers.Conv2D(width, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(dropout),
        layers.Dense(classes, activation="softmax"),
    ])
"""


def written(folder, text, name="mine.py"):
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_python_file_is_a_network_with_the_options_of_its_build(tmp_path):
    (tmp_path / "sizes.py").write_text("WIDTH = 5\n")  # beside the script, as for any script
    path = written(tmp_path, PLAIN)
    network = networks.network(path)
    assert network.name == path
    assert network.options == {"width": 5, "dropout": 0.1}
    model = networks.build(path, (32, 24, 3), 4, width=7)
    assert model.layers[1].filters == 7
    assert model.input_shape == (None, 32, 24, 3)
    assert model.layers[-1].name == "scores"
    assert network.cuts(**network.options) == ()
    with pytest.raises(EdgennError, match="has no option 'depth': it takes width, dropout"):
        networks.build(path, (32, 24, 3), 4, depth=7)


def model_of(body, end='x = L.Dense(classes, activation="softmax")(x)'):
    return f"""
import keras
from keras import layers as L

def build(input_shape, classes):
    pictures = x = keras.Input(input_shape)
    {body}
    x = L.GlobalAveragePooling2D()(x)
    {end}
    return keras.Model(pictures, x)
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def build(input_shape, classes)\n    pass\n", "mine.py, line 1: expected ':'"),  # not Python
        ("import keras\n\n1 / 0\n", "mine.py, line 3: ZeroDivisionError: division by zero"),  # fails when read
        ("import nowhere_to_be_found\n", "mine.py, line 1: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "mine.py, line 1: SystemExit: 3"),  # must not end edgenn
        ("x = 1\n", "has no function build(input_shape, classes)"),
        ("build = 3\n", "has no function build(input_shape, classes)"),
        ("def build(shape):\n    pass\n", "build(shape) must take input_shape and classes"),
        ("def build(a, b, c):\n    pass\n", "build(a, b, c) must take input_shape and classes"),
        ("def build(a, b):\n    c = {}\n    return c['d']\n", "mine.py, line 3: KeyError: 'd'"),  # fails when built
        ("def build(a, b):\n    pass\n", "gives NoneType, not a keras.Model"),  # forgot to return
        (model_of("x = L.Conv2D(4, 99)(x)"), "mine.py, line 7: ValueError"),  # Keras refuses, at the user's line
        (model_of("", "x = L.Dense(classes)(x)"), "gives no probabilities"),  # forgot the softmax
        (model_of("", 'x = L.Dense(7, activation="softmax")(x)'), "gives (None, 7), not (None, 3)"),
        (model_of("pictures = x = keras.Input((8, 8, 3))"), "takes pictures of (8, 8, 3), not (32, 32, 3)"),
        (model_of("x = L.Lambda(lambda v: v / 255)(x)"), "a Lambda, whose code a saved model does not hold"),
        (
            "import keras\nclass M(keras.Model):\n    def call(self, x):\n        return x\n"
            "def build(a, b):\n    return M()\n",
            "gives a model without a graph",
        ),
    ],
)
def test_a_python_file_that_cannot_be_used_is_one_line_with_its_place(text, said, tmp_path):
    with pytest.raises(EdgennError) as caught:
        networks.build(written(tmp_path, text), (32, 32, 3), 3)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_file_is_said(tmp_path):
    for name in ("mine.py", "mine.keras"):
        with pytest.raises(EdgennError, match="there is no network"):
            networks.network(str(tmp_path / name))
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04 no model")
    with pytest.raises(EdgennError, match="is not a model that Keras"):
        networks.network(str(tmp_path / "broken.keras"))


def saved(folder, shape=(32, 32, 3), classes=4, end=None):
    keras = require("keras")
    pictures = keras.Input(shape)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="seen")(pictures)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = end(x) if end else keras.layers.Dense(classes, activation="softmax", name="answers")(x)
    model = keras.Model(pictures, x)
    model.save(folder / "mine.keras")
    return str(folder / "mine.keras"), model


def test_a_keras_file_keeps_its_weights_and_its_head_if_the_classes_are_as_many(tmp_path):
    path, original = saved(tmp_path)
    assert networks.network(path).size == 32
    same = networks.build(path, (32, 32, 3), 4)
    assert all(np.array_equal(a, b) for a, b in zip(same.get_weights(), original.get_weights(), strict=True))
    other = networks.build(path, (32, 32, 3), 9)
    assert other.output_shape == (None, 9)
    assert other.layers[-1].name == same.layers[-1].name == "scores"
    assert np.array_equal(other.get_layer("seen").get_weights()[0], original.get_layer("seen").get_weights()[0])
    assert networks.build(path, (32, 32, 3), 9) is not other


def test_a_keras_file_for_any_size_is_fixed_to_the_one_asked_for(tmp_path):
    path, original = saved(tmp_path, (None, None, 3))
    model = networks.build(path, (40, 24, 3), 4)
    assert model.input_shape == (None, 40, 24, 3)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), original.get_weights(), strict=True))


def test_a_keras_file_of_another_size_colour_or_ending_is_said(tmp_path):
    path, _ = saved(tmp_path)
    with pytest.raises(EdgennError, match="takes pictures of 32x32 in colour, not 48x48x3"):
        networks.build(path, (48, 48, 3), 4)
    with pytest.raises(EdgennError, match="takes pictures of 32x32 in colour, not 32x32x1"):
        networks.build(path, (32, 32, 1), 4)
    keras = require("keras")
    path, _ = saved(tmp_path, end=lambda x: keras.layers.Softmax()(keras.layers.Dense(4)(x)))
    assert networks.build(path, (32, 32, 3), 4).output_shape == (None, 4)
    with pytest.raises(EdgennError, match="its last layer is a Softmax, and only a Dense is replaced"):
        networks.build(path, (32, 32, 3), 5)


def test_the_model_of_a_run_is_a_network(tmp_path):
    networks.build("ds_cnn", (32, 32, 3), 3).save(tmp_path / "model.keras")
    model = networks.build(str(tmp_path / "model.keras"), (32, 32, 3), 5)
    assert [layer.name for layer in model.layers[:2]] == ["pictures", "normalisation"]
    assert [layer.name for layer in model.layers[-3:]] == ["pool", "dropout", "scores"]


@pytest.mark.parametrize(
    ("body", "first"),
    [
        ("x = L.Conv2D(8, 3, strides=2, activation='relu')(x)", "CONV_2D"),  # none: bytes go into the convolution
        ("x = L.Conv2D(8, 3, strides=2, activation='relu')(L.Rescaling(1 / 127.5, -1.0)(x))", "CONV_2D"),  # another
        ("x = L.Conv2D(8, 3, activation='relu')(L.Rescaling([0.01, 0.02, 0.03], [0, -1, -2])(x))", "MUL"),  # by channel
        ("x = L.Concatenate()([L.Rescaling(1 / 255)(x), L.Rescaling(1 / 128, -1.0)(x)])", "MUL"),  # two of them
    ],
)
def test_an_own_network_is_right_from_bytes_to_int8_whatever_its_normalisation(body, first, convert, tmp_path):
    model = networks.build(written(tmp_path, model_of(body)), (32, 32, 3), 3)
    kernel, bias = model.layers[-1].get_weights()
    random = np.random.RandomState(2)
    # Pictures whose mean colours differ, and scores that tell them apart.
    pictures = np.clip(random.randint(0, 256, (40, 1, 1, 3)) + random.randint(-40, 41, (40, 32, 32, 3)), 0, 255).astype(
        np.uint8
    )
    inner = require("keras").Model(model.input, model.layers[-1].input)
    features = np.asarray(inner(pictures.astype(np.float32)))
    kernel = random.normal(size=kernel.shape) * 2 / features.std(0).max()
    model.layers[-1].set_weights([kernel, bias - features.mean(0) @ kernel])
    expected = np.asarray(model(pictures.astype(np.float32)))
    converted = convert(model, calibration=pictures)
    actual = predict(Classifier(converted), pictures).probabilities
    assert next(op.name for op in converted.graph.operators if op.name != "QUANTIZE") == first
    assert np.abs(actual - expected).mean() < 0.03
    assert (actual.argmax(1) == expected.argmax(1)).mean() >= 0.9
    assert len(set(expected.argmax(1))) == 3  # or it would show nothing
