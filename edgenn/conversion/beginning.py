"""How a network begins: the arithmetic on pixels in front of its first convolution, taken off and put on.

A network is converted with one Rescaling at its beginning, which the int8 input then carries as its scale at no cost;
here any chain of layers that amounts to that becomes it. Nothing behind the first layer that computes more is touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from . import pixel_range
from .pixel_range import Form

# What `fake_quant.layers.FakeQuant.bounds` gives for the upper bound of a range that holds zero alone.
_NO_RANGE = 1e-6


def without_beginning(network: Any, shape: tuple[int, int, int]) -> tuple[Form | None, Any]:
    """The scaling of pixels with which a network begins, and the network behind it, for pictures of `shape`.

    Layers that only act in training and arithmetic with plain numbers are taken off as far as they come one behind
    the other. None: it does not begin with arithmetic.
    """
    keras = require("keras")
    functional = network._functional if isinstance(network, keras.Sequential) else network
    scale, offset, found = 1.0, 0.0, False
    tensor = functional.inputs[0]
    while (node := _only_reader(functional, tensor)) is not None:
        step = _arithmetic(node)
        if step is None and not _only_trains(node.operation):
            break
        if step is not None:
            scale, offset, found = scale * step[0], offset * step[0] + step[1], True
        tensor = node.outputs[0]
    inner = keras.Model(tensor, functional.outputs[0])
    if tuple(inner.inputs[0].shape[1:]) != shape:
        pictures = keras.Input(shape)
        inner = keras.Model(pictures, inner(pictures))
    if not found:
        return None, inner
    return Form(f"times {scale:.4g} plus {offset:.4g}", scale, offset), inner


def _only_reader(model: Any, tensor: Any) -> Any:
    """The node of a functional model that alone reads `tensor`, or None."""
    nodes = [node for depth in model._nodes_by_depth.values() for node in depth]
    readers = [node for node in nodes if any(read is tensor for read in node.input_tensors)]
    behind = len(readers) == 1 and len(readers[0].input_tensors) == 1 and tensor is not model.outputs[0]
    return readers[0] if behind else None


def _arithmetic(node: Any) -> tuple[float, float] | None:
    """(scale, offset) of a Rescaling, or of `x / 127.5` and its like; None for anything else."""
    operation, given = node.operation, node.arguments.args[1:]
    kind = type(operation).__name__
    if kind == "Rescaling" and not np.ndim(operation.scale) and not np.ndim(operation.offset):
        return float(operation.scale), float(operation.offset)
    if len(given) != 1 or not isinstance(given[0], (int, float)):
        return None
    number = float(given[0])
    return {
        "TrueDivide": (1 / number if number else 1.0, 0.0),
        "Multiply": (number, 0.0),
        "Subtract": (1.0, -number),
        "Add": (1.0, number),
    }.get(kind)


def _only_trains(layer: Any) -> bool:
    """A layer that does nothing once training is over."""
    keras = require("keras")
    if isinstance(layer, keras.Sequential):
        return all(map(_only_trains, layer.layers))
    kind = type(layer).__name__
    if kind == "RandomCrop":  # it crops when training is over too
        return False
    return kind.startswith("Random") or kind in ("AutoContrast", "Dropout", "GaussianNoise", "Identity", "InputLayer")


def form_of_simulated(network: Any) -> Form:
    """The pixels that a simulated network was made for: those that its input's fixed range holds."""
    roundings = [layer for layer in network.layers if type(layer).__name__ == "FakeQuant"]
    if unset := [layer.name for layer in roundings if not layer.fixed and layer.bounds()[1] <= _NO_RANGE]:
        raise EdgennError(f"the range of {unset[0]!r} was never measured: calibrate the network, or train it first")
    first = roundings[0]
    before = network.layers[network.layers.index(first) - 1]
    if type(before).__name__ == "Rescaling" or first.fixed is None:
        return pixel_range.BYTES
    low, high = first.fixed
    return Form(f"{low:g} to {high:g}", (high - low) / 255, low)


def with_bytes(network: Any, form: Form, shape: tuple[int, int, int]) -> Any:
    """The network for pixels 0 to 255: the form becomes its first layer, which the int8 input carries at no cost."""
    if form.plain and tuple(network.inputs[0].shape[1:]) == shape:
        return network
    keras = require("keras")
    x = pictures = keras.Input(shape, name="pictures")
    if not form.plain:
        scale, offset = (list(v) if isinstance(v, tuple) else v for v in (form.scale, form.offset))
        x = keras.layers.Rescaling(scale, offset, name="normalisation")(pictures)
    return keras.Model(pictures, network(x), name=network.name)
