"""Weights from Keras files, from TFLite files and from the internet, and what does not fit."""

import shutil
import urllib.error
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from edgenn import networks
from edgenn.extras import require
from edgenn.networks import tflite_weights, weights
from edgenn_device.errors import EdgennError

SHARED = Path(__file__).parents[3] / "shared"
V1 = networks.network("mobilenet_v1")


def randomised(name, size=32, classes=3, channels=3, **options):
    """A model, no weight of which is what a new one has."""
    model = networks.build(name, (size, size, channels), classes, **options)
    random = np.random.RandomState(5)
    for layer in model.layers:
        layer.set_weights([weight + random.uniform(0.0, 0.2, weight.shape) for weight in layer.get_weights()])
    return model


def features(model, pictures):
    keras = require("keras")
    return np.asarray(keras.Model(model.input, model.get_layer("pool").output)(pictures))


def pictures_of(model, count=2):
    return np.random.RandomState(3).randint(0, 256, (count, *model.input_shape[1:])).astype("float32")


def equal_backbones(one, other):
    return all(
        np.array_equal(a, b)
        for mine, theirs in zip(weights.backbone(one), weights.backbone(other), strict=True)
        for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True)
    )


def without_names(path):
    """As Keras before 3.6 wrote it: layers are found by class and number only."""
    with h5py.File(path, "a") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None))


def legacy(model, path, renamed=False):
    """As Keras 2 wrote it, and as keras.applications publishes its weights."""
    with h5py.File(path, "w") as file:
        layers = weights.backbone(model)
        names = [f"old_{number}" if renamed else layer.name for number, layer in enumerate(layers)]
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name, layer in zip(names, layers, strict=True):
            group = file.create_group(name)
            keys = [f"{name}/weight_{index}:0" for index in range(len(layer.weights))]
            group.attrs["weight_names"] = [key.encode() for key in keys]
            for key, array in zip(keys, layer.get_weights(), strict=True):
                group[key] = array


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("a.weights.h5", lambda model, path: model.save_weights(path)),
        ("old.weights.h5", lambda model, path: (model.save_weights(path), without_names(path))),
        ("published.h5", legacy),
        ("renamed.h5", lambda model, path: legacy(model, path, renamed=True)),
        ("model.keras", lambda model, path: model.save(path)),
        (  # keras.applications' own, without top: the layout of `include_top=False`
            "notop.weights.h5",
            lambda model, path: (
                require("keras")
                .Model(model.get_layer("normalisation").output, model.get_layer("pool").input)
                .save_weights(path)
            ),
        ),
        (  # the backbone as a model within a model, as transfer recipes build it
            "nested.keras",
            lambda model, path: (
                require("keras")
                .Sequential(
                    [
                        require("keras").Input((32, 32, 3)),
                        require("keras").Model(model.get_layer("normalisation").output, model.get_layer("pool").input),
                    ]
                )
                .save(path)
            ),
        ),
    ],
)
def test_a_keras_file_fills_the_backbone_and_leaves_the_scores(file, write, tmp_path):
    theirs, mine = randomised("mobilenet_v1"), networks.build("mobilenet_v1", (48, 48, 3), 7)
    scores = mine.get_layer("scores").get_weights()
    write(theirs, tmp_path / file)
    assert weights.load(mine, V1, tmp_path / file) is True  # the means are not 0
    assert equal_backbones(mine, theirs)
    assert all(np.array_equal(a, b) for a, b in zip(scores, mine.get_layer("scores").get_weights(), strict=True))


def test_a_new_model_has_no_statistics(tmp_path):
    networks.build("mobilenet_v1", (32, 32, 3), 3).save(tmp_path / "new.keras")
    assert weights.load(networks.build("mobilenet_v1", (32, 32, 3), 3), V1, tmp_path / "new.keras") is False


def test_a_grey_network_sees_grey_pictures_as_its_colour_weights_do(tmp_path):
    colour = randomised("mobilenet_v1")
    colour.save(tmp_path / "colour.keras")
    grey = networks.build("mobilenet_v1", (32, 32, 1), 3)
    weights.load(grey, V1, tmp_path / "colour.keras")
    pictures = pictures_of(grey)
    assert np.allclose(features(grey, pictures), features(colour, pictures.repeat(3, -1)), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "scheme", "io", "correlation"),
    [
        ("resnet8", "tensorflow", "uint8", 0.99),  # forks: a convolution on the short way, biases beside normalisation
        ("resnet8", "float32", "uint8", 0.999999),  # its normalisation is still in the graph
        ("resnet8", "float16", "uint8", 0.9999),  # weights pass a DEQUANTIZE
        ("ds_cnn", "tensorflow", "int8", 0.99),  # signed bytes at the input
        ("ds_cnn", "dynamic", "uint8", 0.99),  # integer weights, float everything else
        ("mobilenet_v1", "tensorflow", "uint8", 0.99),  # no biases: they go into the normalisation
    ],
)
def test_a_tflite_file_fills_the_backbone(name, scheme, io, correlation, convert, tmp_path):
    theirs = networks.build(name, (64, 64, 3), 3)
    convert(theirs, scheme, io)
    mine = networks.build(name, (64, 64, 3), 5)
    assert weights.load(mine, networks.network(name), tmp_path / "model.tflite") is False
    pictures = pictures_of(mine)
    ours, expected = features(mine, pictures).ravel(), features(theirs, pictures).ravel()
    assert np.corrcoef(ours, expected)[0, 1] >= correlation
    assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(expected), rel=0.1)


def test_branches_of_a_tflite_file_may_run_in_another_order(convert, monkeypatch, tmp_path):
    theirs, mine, other = (networks.build("resnet8", (32, 32, 3), 3) for _ in range(3))
    convert(theirs)
    weights.load(mine, networks.network("resnet8"), tmp_path / "model.tflite")
    in_order = tflite_weights._convolutions

    def short_ways_first(file, path):
        """As a converter may write it: the 1×1 of a stack before its two 3×3."""
        found = in_order(file, path)
        for index, it in enumerate(found):
            if it.kernel.shape[0] == 1:
                found.insert(index - 2, found.pop(index))
        assert [it.name for it in found] != [it.name for it in in_order(file, path)]
        return found

    monkeypatch.setattr(tflite_weights, "_convolutions", short_ways_first)
    weights.load(other, networks.network("resnet8"), tmp_path / "model.tflite")
    assert equal_backbones(mine, other)


@pytest.mark.parametrize(
    ("scale", "offset"),
    [
        (1 / 255, 0.0),  # 0..1
        (1 / 127.5, -1.0),  # -1..1, half a step from ours
        ([0.017, 0.0175, 0.0174], [-2.1, -2.0, -1.8]),  # mean and deviation of each channel
    ],
)
def test_another_normalisation_goes_into_the_first_convolution(scale, offset, convert, tmp_path):
    keras = require("keras")
    pictures = keras.Input((64, 64, 3))
    x = keras.layers.Rescaling(scale, offset)(pictures)
    for layer in networks.build("ds_cnn", (64, 64, 3), 3).layers[2:]:
        x = layer.from_config(layer.get_config())(x)
    theirs = keras.Model(pictures, x)
    convert(theirs, "float32")
    mine = networks.build("ds_cnn", (64, 64, 3), 3)
    weights.load(mine, networks.network("ds_cnn"), tmp_path / "model.tflite")
    ours, expected = (
        np.asarray(keras.Model(it.input, it.get_layer("block1_depthwise_relu").output)(pictures_of(mine)))
        for it in (mine, theirs)
    )
    # The border sees padding, which is 0 on either scale, and so does what looks at the border.
    ours, expected = ours[:, 3:-3, 3:-3], expected[:, 3:-3, 3:-3]
    assert np.allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    randomised("mobilenet_v1", alpha=0.5).save(tmp_path / "wide.keras")
    mine = randomised("mobilenet_v1")
    before = [weight.copy() for weight in mine.get_weights()]
    with pytest.raises(EdgennError) as caught:
        weights.load(mine, V1, tmp_path / "wide.keras")
    assert "layer 'conv1' has the shape (3, 3, 3, 8) here and (3, 3, 3, 16) there" in str(caught.value)
    assert "alpha" in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, mine.get_weights(), strict=True))


def test_a_tflite_file_of_another_network_is_named_with_both_shapes(convert, tmp_path):
    convert(networks.build("resnet8", (32, 32, 3), 3))
    mine = networks.build("mobilenet_v1", (32, 32, 3), 3)
    with pytest.raises(EdgennError) as caught:
        weights.load(mine, V1, tmp_path / "model.tflite")
    said = str(caught.value)
    assert "layer 'conv1' is a convolution (3, 3, 3, 8) with stride (2, 2) here" in said
    assert "a convolution (3, 3, 3, 16) with stride (1, 1)" in said
    small = networks.build("resnet8", (32, 32, 3), 3)
    convert(networks.build("ds_cnn", (32, 32, 3), 3, width=16, depth=2))
    with pytest.raises(EdgennError, match="does not fit resnet8: layer 'stem'"):
        weights.load(small, networks.network("resnet8"), tmp_path / "model.tflite")


def test_a_dilated_or_deeper_tflite_file_is_another_network(convert, tmp_path):
    keras = require("keras")
    ours = networks.build("ds_cnn", (32, 32, 3), 3, width=8, depth=2)

    def dilated(layer):
        config = layer.get_config()
        if layer.name == "block2_depthwise":
            config["dilation_rate"] = (2, 2)
        return type(layer).from_config(config)

    convert(keras.models.clone_model(ours, clone_function=dilated))
    with pytest.raises(EdgennError, match=r"'block2_depthwise' is a depthwise .* here, and there comes .*dilation"):
        weights.load(ours, networks.network("ds_cnn"), tmp_path / "model.tflite")
    convert(networks.build("ds_cnn", (32, 32, 3), 3, width=8, depth=3))
    with pytest.raises(EdgennError, match="is no ds_cnn: it has 2 more convolutions"):
        weights.load(ours, networks.network("ds_cnn"), tmp_path / "model.tflite")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("missing.keras", None, "there are no weights"),
        ("weights.npz", b"PK", "is none of .weights.h5, .keras, .tflite"),
        ("broken.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "damaged or no Keras weights"),
        ("broken.keras", b"not a zip", "damaged or no Keras weights"),
        ("broken.tflite", b"nothing at all", "broken.tflite"),
    ],
)
def test_what_is_no_weights_file_is_said(file, content, said, tmp_path):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(EdgennError, match=said):
        weights.load(networks.build("mobilenet_v1", (32, 32, 3), 3), V1, tmp_path / file)


def test_a_folder_is_no_weights_file(tmp_path):
    with pytest.raises(EdgennError, match="is a folder: give the file in it"):
        weights.load(networks.build("mobilenet_v1", (32, 32, 3), 3), V1, tmp_path)


def test_imagenet_weights_come_through_keras_and_its_cache(tmp_path, monkeypatch, capsys):
    """keras.applications reads a file in its own format; only fetching it is replaced."""
    theirs, published = randomised("mobilenet_v1"), tmp_path / "published.h5"
    legacy(theirs, published)
    asked = []

    def get_file(name, origin, **_):
        asked.append(origin)
        print("Downloading data from", origin)
        return str(published)

    require("keras")
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    mine = networks.build("mobilenet_v1", (96, 96, 3), 3)
    assert weights.load(mine, V1, "imagenet") is True
    assert equal_backbones(mine, theirs)
    assert asked[0].endswith("mobilenet_2_5_128_tf_no_top.h5")  # 128 is the nearest that is published for 96
    assert capsys.readouterr().out == ""  # stdout may be a JSON document


def test_without_internet_the_line_says_where_the_file_is(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("Network is unreachable")

    require("keras")
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    mine = networks.build("mobilenet_v1", (128, 128, 3), 3)
    with pytest.raises(EdgennError) as caught:
        weights.load(mine, V1, "imagenet")
    assert "mobilenet_2_5_128_tf_no_top.h5 elsewhere" in str(caught.value)
    assert "--weights PATH" in str(caught.value)


def test_imagenet_weights_that_nobody_publishes(tmp_path):
    lite0 = networks.build("efficientnet_lite0", (32, 32, 3), 3)
    with pytest.raises(EdgennError, match="Keras publishes no ImageNet weights for efficientnet_lite0"):
        weights.load(lite0, networks.network("efficientnet_lite0"), "imagenet")
    thin = networks.build("mobilenet_v1", (32, 32, 3), 3, alpha=0.3)
    with pytest.raises(EdgennError, match="no ImageNet weights for mobilenet_v1 with these options"):
        weights.load(thin, V1, "imagenet", {"alpha": 0.3})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "name", "options", "size"),
    [
        ("mobilenet_v1_0.25_128_quant.tflite", "mobilenet_v1", {}, 128),
        ("mobilenet_v2_1.0_224_quant.tflite", "mobilenet_v2", {}, 224),
        ("mobilenet_v1_1.0_224_quant_embedding_extractor.tflite", "mobilenet_v1", {"alpha": 1.0}, 224),
    ],
)
def test_features_of_real_photos_are_those_of_the_quantized_original(file, name, options, size, tmp_path):
    photos = sorted((SHARED / "data/clothing/validation").glob("*/*.jpg"))[::10]
    if not photos:
        pytest.skip("needs the photos and models beside the checkout")
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    shutil.copy(SHARED / "models/coral" / file, tmp_path / file)
    model = networks.build(name, (size, size, 3), 10, **options)
    weights.load(model, networks.network(name), tmp_path / file)
    interpreter = litert.Interpreter(
        str(tmp_path / file),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    pooled = next(op for op in interpreter._get_ops_details() if op["op_name"] in ("AVERAGE_POOL_2D", "MEAN"))
    ours, theirs = [], []
    for photo in photos:
        picture = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
        interpreter.invoke()
        raw = interpreter.get_tensor(pooled["outputs"][0]).ravel()
        detail = next(it for it in interpreter.get_tensor_details() if it["index"] == pooled["outputs"][0])
        scale, zero_point = detail["quantization"]
        theirs.append(scale * (raw.astype(np.float64) - zero_point))
        ours.append(features(model, picture[None].astype("float32"))[0])
    assert np.corrcoef(np.ravel(ours), np.ravel(theirs))[0, 1] >= 0.99
    each = [np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True)]
    assert np.median(each) >= 0.99
