"""What a network costs on a device, from its layers: multiplications, int8 size, and whether the Edge TPU takes it.

Counts and estimates: nothing is converted, run or timed. `edgenn inspect` judges the converted file itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

# Bytes that an int8 .tflite holds besides weights: for each channel of a convolution or dense layer an int32 bias, and
# a float32 scale and an int64 zero point for the weights and once more for the bias; for each such layer its tensors'
# and operators' tables and names; and the rest. The last two are a fit to converted models of every network here.
_CHANNEL, _LAYER, _MODEL = 4 + 2 * (4 + 8), 850, 700

# Layers that become operators the Edge TPU compiler maps (coral.ai, "TensorFlow models on the Edge TPU"), or none.
_MAPPED = {
    "Activation",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "Functional",
    "GlobalAveragePooling2D",
    "InputLayer",
    "MaxPooling2D",
    "Maximum",
    "Minimum",
    "Multiply",
    "ReLU",
    "Rescaling",
    "Reshape",
    "SeparableConv2D",
    "Sequential",
    "Softmax",
    "SpatialDropout2D",
    "Subtract",
    "ZeroPadding2D",
}
_ACTIVATIONS = {"linear", "relu", "relu6", "sigmoid", "softmax", "tanh"}


def macs(model: Any) -> int:
    """Multiplications with an addition that one picture costs: those of convolutions and dense layers.

    Counted as the papers count them: biases, normalisation (folded at conversion), activations, pooling and additions
    are left out.

    Args:
      model: a functional keras.Model with a fixed input size; models within it are counted too.
    """
    return sum(_macs(layer) for layer in _layers(model))


def int8_size(model: Any) -> int:
    """Bytes of the int8 .tflite, without metadata, card and labels; within 3% for the networks here."""
    size = _MODEL
    for layer in _layers(model):
        for weight in _kernels(layer):
            size += math.prod(weight) + _CHANNEL * _channels(layer, weight) + _LAYER
    return size


def edgetpu(model: Any) -> tuple[bool, str]:
    """Whether the Edge TPU can take the whole model, and if not, which layer it cannot take."""
    for layer in _layers(model):
        kind, activation = type(layer).__name__, getattr(getattr(layer, "activation", None), "__name__", "linear")
        if kind not in _MAPPED:
            return False, f"layer {layer.name!r} is a {kind}, which it does not map, or not reliably"
        if activation not in _ACTIVATIONS:
            return False, f"layer {layer.name!r} has the activation {activation}, which it does not map"
        if kind == "Conv2D" and layer.groups > 1:
            return False, f"layer {layer.name!r} is a grouped convolution, which it does not map"
        if kind == "ReLU" and layer.negative_slope:
            return False, f"layer {layer.name!r} is a leaky ReLU, which it does not map"
    return True, ""


def _layers(model: Any) -> Iterator[Any]:
    """Every layer, those of models within the model instead of these."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _kernels(layer: Any) -> list[tuple[int, ...]]:
    """Shapes of the weights that are multiplied with: matrices and kernels, no vectors."""
    return [tuple(weight.shape) for weight in layer.weights if len(weight.shape) > 1]


def _channels(layer: Any, kernel: tuple[int, ...]) -> int:
    return math.prod(kernel[2:]) if _is_depthwise(layer, kernel) else kernel[-1]


def _is_depthwise(layer: Any, kernel: tuple[int, ...]) -> bool:
    """A separable convolution has two kernels, of which the first has a side above 1 and is the depthwise one."""
    kind = type(layer).__name__
    return kind == "DepthwiseConv2D" or (kind == "SeparableConv2D" and kernel == _kernels(layer)[0])


def _macs(layer: Any) -> int:
    """A kernel's numbers are all used once for each place of the output, whatever its kind and groups."""
    kernels = _kernels(layer)
    if not kernels:
        return 0
    places: int = sum(math.prod(node.outputs[0].shape[1:-1]) for node in layer._inbound_nodes)
    if type(layer).__name__ == "Conv2DTranspose":  # there for each place of the input
        places = sum(math.prod(node.input_tensors[0].shape[1:-1]) for node in layer._inbound_nodes)
    return places * sum(math.prod(kernel) for kernel in kernels)
