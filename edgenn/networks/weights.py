"""Weights from elsewhere: fills a network's backbone from keras.applications, a Keras file or a TFLite classifier.

The backbone is every layer but the last, which gives the scores of other classes than those of the file. Everything is
compared before anything is changed: weights that do not fit leave the model as it was. Reads arrays only: no code that
a file may hold (a Lambda layer of a .keras) is run.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from . import tflite_weights
from .registry import Network

IMAGENET = "imagenet"
Arrays = list[NDArray[Any]]


def load(
    model: Any, network: Network, weights: str | os.PathLike[str], options: Mapping[str, Any] | None = None
) -> bool:
    """Fill the backbone of `model` with weights from elsewhere, in place.

    Args:
      model: made by `network`.
      network: the network.
      weights: "imagenet" for those that keras.applications publishes, fetched from the internet once; or the path of a
        .weights.h5 or .h5 (keras.applications' layout, with or without top), of a .keras, or of a .tflite classifier
        of the same network, quantized or not.
      options: those the model was built with; the network's defaults if None. Only "imagenet" asks for them.

    Returns:
      Whether its BatchNorm layers now hold means and variances of real activations. If not (they were folded into the
      convolutions, as in every .tflite), keep them frozen.

    Raises:
      EdgennError: there is no such file, or it cannot be read; or a layer does not fit, with both shapes.
    """
    if str(weights) == IMAGENET:
        found = _imagenet(model, network, {**network.options, **(options or {})})
    else:
        found = _file(model, network, Path(weights))
    _fill(model, network, found, str(weights))
    return _calibrated(model)


def backbone(model: Any) -> list[Any]:
    """The layers that hold weights, without the last, in the model's order."""
    return [layer for layer in model.layers[:-1] if layer.weights]


def _file(model: Any, network: Network, path: Path) -> dict[str, Arrays]:
    """Arrays for the layers of the model's backbone, by the names that they have in the model."""
    if path.is_dir():
        raise EdgennError(f"--weights {path} is a folder: give the file in it, such as {path / 'model.keras'}")
    if not path.is_file():
        raise EdgennError(f"there are no weights {path}: check the path, or use --weights {IMAGENET}")
    if path.suffix == ".tflite":
        return tflite_weights.read(model, network.name, path)
    if path.suffix not in (".h5", ".keras"):
        raise EdgennError(f"--weights {path} is none of .weights.h5, .keras, .tflite: give one of these")
    try:
        content = path.read_bytes()
        if path.suffix == ".keras":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = archive.read("model.weights.h5")
        with require("h5py").File(io.BytesIO(content), "r") as file:
            return _legacy(model, file, path) if "layer_names" in file.attrs else _hierarchy(model, file, path)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:120]
        raise EdgennError(f"the weights {path} are damaged or no Keras weights ({reason}): fetch them again") from None


def _hierarchy(model: Any, file: Any, path: Path) -> dict[str, Arrays]:
    """Keras 3: a group for each layer, called after its class and counted, in it "vars" with the layer's name.

    Files of Keras before 3.6 have no names; there the layers of each class are taken in their order. The layers may be
    those of a model within the model.
    """
    found: list[Any] = []
    file.visititems(lambda name, group: found.append(group) if name.rpartition("/")[2] == "layers" else None)
    if not found:
        raise EdgennError(f"the weights {path} have no layers: give a file that Keras wrote")
    groups = max(found, key=len)
    named, counted = {}, defaultdict(list)
    for key in sorted(groups, key=_number):
        variables = groups[key].get("vars", {})
        arrays = [np.asarray(variables[index]) for index in sorted(variables, key=int)]
        if arrays:
            counted[re.sub(r"_\d+$", "", key)].append(arrays)
            named[str(variables.attrs.get("name", ""))] = arrays
    wanted = backbone(model)
    if all(layer.name in named for layer in wanted):
        return {layer.name: named[layer.name] for layer in wanted}
    chosen = {}
    taken: dict[str, int] = defaultdict(int)
    for layer in wanted:
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", type(layer).__name__).lower()
        if taken[kind] == len(counted[kind]):
            raise EdgennError(
                f"the weights {path} are of another network: they have {len(counted[kind])} layers of the kind {kind} "
                f"and {layer.name!r} of {model.name} is one more"
            )
        chosen[layer.name] = counted[kind][taken[kind]]
        taken[kind] += 1
    return chosen


def _number(key: str) -> tuple[str, int]:
    """For sorting: "conv2d" before "conv2d_1", and that before "conv2d_10"."""
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", key)
    assert match is not None
    return match[1], int(match[2] or 0)


def _legacy(model: Any, file: Any, path: Path) -> dict[str, Arrays]:
    """Keras 1 and 2, and what keras.applications publishes: layers in the model's order, by name."""
    named = {}
    for name in file.attrs["layer_names"]:
        group = file[_text(name)]
        arrays = [np.asarray(group[_text(weight)]) for weight in group.attrs["weight_names"]]
        if arrays:
            named[_text(name)] = arrays
    wanted = backbone(model)
    if all(layer.name in named for layer in wanted):
        return {layer.name: named[layer.name] for layer in wanted}
    if len(named) < len(wanted):
        raise EdgennError(
            f"the weights {path} are of another network: {len(named)} layers, and {model.name} has {len(wanted)}"
        )
    # Names changed between versions of keras.applications, the order did not.
    return {layer.name: arrays for layer, arrays in zip(wanted, named.values(), strict=False)}


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _imagenet(model: Any, network: Network, options: Mapping[str, Any]) -> dict[str, Arrays]:
    """What keras.applications publishes for the network with these options."""
    if network.imagenet is None:
        raise EdgennError(
            f"Keras publishes no ImageNet weights for {network.name}: give a file with --weights PATH, for instance a "
            "TFLite classifier of the same network"
        )
    try:
        # What Keras says of its download belongs on stderr: stdout may be a JSON document.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = network.imagenet(model.input_shape[1:], **options)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise EdgennError(f"no ImageNet weights for {network.name} with these options: {reason}") from None
    except Exception as error:  # keras.utils.get_file raises Exception itself
        address = re.search(r"https?://\S+", str(error))
        if address is None:
            raise
        raise EdgennError(
            f"the ImageNet weights cannot be fetched: with an internet connection try again, or fetch "
            f"{address[0].rstrip(':')} elsewhere and give the file with --weights PATH"
        ) from None
    return {layer.name: layer.get_weights() for layer in body.layers if layer.weights}


def _fill(model: Any, network: Network, found: Mapping[str, Arrays], source: str) -> None:
    """Assign, once every shape is known to fit.

    A network for grey pictures takes a backbone for colour: with red, green and blue equal, the first convolution's
    sum over them is the same.
    """
    fitting = []
    for layer in backbone(model):
        arrays, wanted = list(found.get(layer.name, ())), [tuple(weight.shape) for weight in layer.weights]
        if arrays and arrays[0].ndim == 4 and arrays[0].shape[2] == 3 and wanted[0][2] == 1 == model.input_shape[-1]:
            arrays[0] = arrays[0].sum(2, keepdims=True)
        shapes = [array.shape for array in arrays]
        if shapes != wanted:
            mine, theirs = next(
                ((a, b) for a, b in zip(wanted, shapes, strict=False) if a != b), (wanted, shapes or "nothing")
            )
            shaping = [name for name in network.options if name != "dropout"]
            hint = f": give the network the {' and '.join(shaping)} that the weights have" if shaping else ""
            raise EdgennError(
                f"the weights {source} do not fit {network.name}: layer {layer.name!r} has the shape {mine} here and "
                f"{theirs} there{hint}"
            )
        fitting.append((layer, arrays))
    for layer, arrays in fitting:
        layer.set_weights(arrays)


def _calibrated(model: Any) -> bool:
    """Whether means were measured: those of a new layer, and of one that was folded, are all 0."""
    normalisation = require("keras").layers.BatchNormalization
    means = [layer.moving_mean for layer in backbone(model) if isinstance(layer, normalisation)]
    return not means or any(bool(np.any(np.asarray(mean))) for mean in means)
