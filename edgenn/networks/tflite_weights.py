"""The weights of a TFLite classifier, as those of the same network in Keras.

Convolutions are matched in the order in which they run, by kind, shape and stride; integers become reals by their
scales. A converter has folded each BatchNorm into the convolution before it, so here it becomes the identity plus the
bias. Reads verified files only, runs nothing, and refuses a file of another network rather than guess.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgenn_device import model_file
from edgenn_device.errors import EdgennError
from edgenn_device.graph import Operator, Tensor
from edgenn_device.model_file import ModelFile

# Position of the stride and the dilation, each height and width, in the options of the operator (TFLite's schema,
# Conv2DOptions and DepthwiseConv2DOptions: both name the width first).
_OPTIONS = {"CONV_2D": ((2, 1), (5, 4)), "DEPTHWISE_CONV_2D": ((2, 1), (6, 5))}
_POOLING = ("MEAN", "AVERAGE_POOL_2D")
Array = NDArray[np.float64]


class _Convolution(NamedTuple):
    """A convolution of the file: its weights as Keras lays them out, float64."""

    name: str
    depthwise: bool
    kernel: Array
    bias: Array
    strides: tuple[int, int]
    dilation: tuple[int, int]

    def __str__(self) -> str:
        return f"{_kind(self.depthwise)} {self.kernel.shape} with stride {self.strides}" + (
            f" and dilation {self.dilation}" if self.dilation != (1, 1) else ""
        )


def read(model: Any, name: str, path: Path) -> dict[str, list[NDArray[np.float32]]]:
    """Weights for every layer of a model's backbone.

    Args:
      model: the Keras model, whose first layer is "normalisation" (x / 128 - 1).
      name: of the network, for the error.
      path: a .tflite classifier of the same network, of any width or classes; the width must be the model's.

    Returns:
      For each layer its weights in the order of Keras, by its name in the model.

    Raises:
      EdgennError: the file cannot be read, or is of another network: the line names the layer and both shapes.
    """
    file = model_file.load(path)
    theirs, first = _convolutions(file, path), True
    weights: dict[str, list[NDArray[np.float32]]] = {}
    for layer in _layers(model):
        found = _match(layer, theirs, name, path)
        theirs = [it for it in theirs if it is not found]
        if first:
            found, first = _for_our_pictures(found, file, path), False
        _put(layer, found, weights)
    if theirs:
        raise EdgennError(
            f"{path} is no {name}: it has {len(theirs)} more convolutions than the network, "
            f"the first is {theirs[0].name!r}, a {theirs[0]}"
        )
    return weights


def _layers(model: Any) -> list[Any]:
    """The model's convolutions in their order."""
    return [layer for layer in model.layers if type(layer).__name__ in ("Conv2D", "DepthwiseConv2D")]


def _match(layer: Any, theirs: list[_Convolution], name: str, path: Path) -> _Convolution:
    """The next convolution of the file that can be this layer.

    Where a network forks, either branch may run first, so one that does not fit is left for a later layer.
    """
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    mine = _Convolution(
        layer.name, depthwise, np.asarray(layer.kernel), np.zeros(0), tuple(layer.strides), tuple(layer.dilation_rate)
    )
    for found in theirs:
        # A network for grey pictures takes weights for colour; whoever assigns them sums over the channels.
        shape = mine.kernel.shape
        shapes = (shape, (*shape[:2], 3, *shape[3:])) if shape[2] == 1 and found is theirs[0] else (shape,)
        if found.depthwise == depthwise and found.kernel.shape in shapes:
            if (found.strides, found.dilation) == (mine.strides, mine.dilation):
                return found
            break
    else:
        found = theirs[0] if theirs else mine
    there = "no more" if found is mine else f"a {found} ({found.name!r})"
    raise EdgennError(f"{path} does not fit {name}: layer {layer.name!r} is a {mine} here, and there comes {there}")


def _kind(depthwise: bool) -> str:
    return "depthwise convolution" if depthwise else "convolution"


def _convolutions(file: ModelFile, path: Path) -> list[_Convolution]:
    """Those of the backbone, which ends where pictures are pooled to one pixel (or at a fully connected layer)."""
    found = []
    for operator in file.graph.operators:
        tensors = file.graph.tensors
        if operator.name in _POOLING and tensors[operator.outputs[0]].shape[-3:-1] in ((1, 1), (1,), ()):
            break
        if operator.name in ("FULLY_CONNECTED", "SOFTMAX"):
            break
        if operator.name in _OPTIONS:
            found.append(_convolution(file, operator, path))
    if not found:
        raise EdgennError(f"{path} has no convolutions to take weights from: give a classifier made of them")
    return found


def _convolution(file: ModelFile, operator: Operator, path: Path) -> _Convolution:
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    kernel = _values(file, operator.inputs[1], path)
    if depthwise:  # (1, height, width, channels × multiplier)
        channels = file.graph.tensors[operator.inputs[0]].shape[-1]
        kernel = kernel[0].reshape(*kernel.shape[1:3], channels, -1)
    else:  # (filters, height, width, channels)
        kernel = kernel.transpose(1, 2, 3, 0)
    filters = kernel.shape[-1] * (kernel.shape[-2] if depthwise else 1)
    with_bias = len(operator.inputs) > 2 and operator.inputs[2] != -1
    bias = _values(file, operator.inputs[2], path) if with_bias else np.zeros(filters)
    strides, dilation = (
        (int(operator.options[a] or 1), int(operator.options[b] or 1)) for a, b in _OPTIONS[operator.name]
    )
    return _Convolution(
        file.graph.tensors[operator.outputs[0]].name.split(";")[0], depthwise, kernel, bias, strides, dilation
    )


def _values(file: ModelFile, index: int, path: Path) -> Array:
    """A constant as reals, float64. Half-precision ones pass a DEQUANTIZE first."""
    tensor = file.graph.tensors[index]
    for operator in file.graph.operators:
        if operator.name == "DEQUANTIZE" and index in operator.outputs:
            tensor = file.graph.tensors[operator.inputs[0]]
    if not tensor.constant or tensor.dtype not in ("float32", "float16", "int8", "uint8", "int32"):
        raise EdgennError(f"{path}: the weights {tensor.name!r} are not plain constants: give a file made for the CPU")
    raw = np.frombuffer(file.content, tensor.dtype, int(np.prod(tensor.shape)), tensor.offset)
    values = raw.reshape(tensor.shape).astype(np.float64)
    if not tensor.scales:
        return values
    return (values - _along(tensor, tensor.zero_points)) * _along(tensor, tensor.scales)


def _along(tensor: Tensor, numbers: tuple[float, ...] | tuple[int, ...]) -> Array:
    """One number for the tensor, or one for each index of its quantized dimension."""
    shape = [1] * len(tensor.shape)
    if len(numbers) > 1:
        shape[tensor.quantized_dimension] = -1
    return np.asarray(numbers, np.float64).reshape(shape)


def _for_our_pictures(found: _Convolution, file: ModelFile, path: Path) -> _Convolution:
    """The first convolution, for pixels normalised as here.

    There the convolution sees a·byte + b; here it sees x = byte / 128 - 1, so that a·byte + b = 128·a·x + (128·a + b).
    The factor goes into the kernel and the rest into the bias, which is exact but for the border, where padding is 0
    on either scale.
    """
    a, b = _first_scale(file, path)
    factor, rest = 128 * a, 128 * a + b
    kernel = found.kernel * factor[:, None] if factor.size > 1 else found.kernel * factor
    shift = (found.kernel * (rest[:, None] if rest.size > 1 else rest)).sum((0, 1) if found.depthwise else (0, 1, 2))
    return found._replace(kernel=kernel, bias=found.bias + shift.reshape(-1))


def _first_scale(file: ModelFile, path: Path) -> tuple[Array, Array]:
    """(a, b), each (1,) or (channels,): the first convolution sees a·byte + b."""
    graph = file.graph
    place = graph.inputs[0]
    tensor, spec = graph.tensors[place], file.input
    if tensor.dtype == "float32":
        a, b = np.array([1 / spec.std]), np.array([-spec.mean / spec.std])
    else:
        byte = 128 if tensor.dtype == "int8" else 0
        a = np.array([tensor.scales[0]])
        b = -a * (tensor.zero_points[0] + byte)
    for operator in graph.operators:
        if operator.name in _OPTIONS:
            return a, b
        if place not in operator.inputs:
            continue
        if operator.name in ("MUL", "ADD") or (operator.name in ("SUB", "DIV") and operator.inputs[0] == place):
            other = next(index for index in operator.inputs if index != place)
            value = _values(file, other, path).reshape(-1)
            if operator.name in ("MUL", "DIV"):
                by = value if operator.name == "MUL" else 1 / value
                a, b = a * by, b * by
            else:
                b = b + (value if operator.name == "ADD" else -value)
        elif operator.name not in ("QUANTIZE", "DEQUANTIZE", "PAD"):
            raise EdgennError(f"{path} begins with {operator.name}, not with a convolution: its weights are not read")
        place = operator.outputs[0]
    raise EdgennError(f"{path} has no convolution: give a classifier made of them")


def _put(layer: Any, found: _Convolution, weights: dict[str, list[NDArray[np.float32]]]) -> None:
    """The layer's kernel; its bias there or in the BatchNorm behind it, which is otherwise the identity."""
    readers = [node.operation for node in layer._outbound_nodes]
    behind = readers[0] if readers and type(readers[0]).__name__ == "BatchNormalization" else None
    kernel, bias = found.kernel.astype(np.float32), found.bias.astype(np.float32)
    weights[layer.name] = [kernel, bias] if layer.use_bias else [kernel]
    if behind is None:
        if not layer.use_bias and np.any(bias):
            raise EdgennError(f"layer {layer.name!r} has no bias here and {found.name!r} has one")
        return
    ones, zeros = np.ones_like(bias), np.zeros_like(bias)
    beta = zeros if layer.use_bias else bias
    weights[behind.name] = [ones, beta, zeros, ones * (1 - behind.epsilon)]
