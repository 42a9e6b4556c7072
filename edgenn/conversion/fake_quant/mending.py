"""What can be done for a network that rounding hurts, without training: equal channels, and no bias from rounding.

Both change a network of `rewrite.quantization_aware` so that it computes the same in float; ranges are to be measured
anew afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require

from .ranges import compute, in_float

# What lies between two convolutions and hands on each channel by itself, in proportion.
_HANDS_ON = {
    "FakeQuant",
    "ZeroPadding2D",
    "MaxPooling2D",
    "AveragePooling2D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Dropout",
    "SpatialDropout2D",
}
_KERNELS = ("Conv2D", "DepthwiseConv2D", "Dense")
# What a ReLU6 gives at most.
_CAP = 6.0
# A channel is scaled by this at most; one that is never active has no range to go by.
_MOST = 1e4


@dataclass(frozen=True)
class Pair:
    """A layer with a kernel, and the one that alone reads it."""

    first: Any
    second: Any


def equalize(aware: Any, pictures: NDArray[np.uint8]) -> tuple[str, ...]:
    """Give the channels of each activation ranges alike, by scaling a layer's outputs and the next one's inputs.

    With s the factor of a channel, the first layer's weights and bias are divided by it and the second's multiplied:
    ReLU and pooling let it pass (Nagel et al. 2019, arXiv:1906.04721, section 4.1). There s makes the ranges of two
    kernels alike. Here kernels have a scale a channel, so that what is rounded coarsely is the activation: s = √(a/w),
    with a the channel's largest activation and w the second kernel's largest weight for it; before a depthwise
    convolution, whose every channel has its own scale, s = a. A ReLU6 between two layers lets no factor pass: where no
    picture reaches its 6 it becomes a ReLU, and otherwise the two are left as they are. (The paper replaces all; on
    MobileNetV1 0.25 that cost 5 points.)

    Args:
      pictures: uint8 (n, height, width, channels).

    Returns:
      Names of the layers whose outputs were scaled.
    """
    found = pairs(aware)
    if not found:
        return ()
    keras = require("keras")
    scaled = []
    largest = _largest(aware, [pair.first for pair in found], pictures)
    for pair, activation in zip(found, largest, strict=True):
        if pair.first.activation is keras.activations.relu6:
            if activation.max() >= _CAP:
                continue
            pair.first.activation = keras.activations.relu
        scaled.append(pair.first.name)
        weights, bias = pair.first.get_weights()
        after = pair.second.get_weights()
        depthwise = _kind(pair.second) == "DepthwiseConv2D"
        reach = np.ones_like(activation) if depthwise else _input_reach(pair.second, after[0])
        factor = _factors(activation, reach, depthwise)
        pair.first.set_weights([weights / _outputs(pair.first, weights, factor), bias / factor])
        shape = (-1, 1) if _kind(pair.second) != "DepthwiseConv2D" else (1, 1, -1, 1)
        pair.second.set_weights([after[0] * factor.reshape(shape), *after[1:]])
    return tuple(scaled)


def correct_biases(aware: Any, pictures: NDArray[np.uint8]) -> None:
    """Take from each bias what the rounding of the kernel adds on average (Nagel et al. 2019, section 4.2).

    With Δ the kernel's rounding error and x what the layer reads, that is Σ Δ·E[x], by channel; E[x] is measured on
    pictures in float. Padding is left out of account.

    Args:
      pictures: uint8 (n, height, width, channels).
    """
    kernels = [layer for layer in aware.layers if _kind(layer) in _KERNELS and hasattr(layer, "rounding")]
    total: list[Any] = [0.0] * len(kernels)
    with in_float(aware):
        for values in compute(aware, [layer.input for layer in kernels], pictures):
            for index, value in enumerate(values):
                total[index] = total[index] + value.reshape(-1, value.shape[-1]).mean(0) * len(value)
    for layer, summed in zip(kernels, total, strict=True):
        weights, bias = layer.get_weights()
        error, mean = layer.rounded_kernel().numpy() - weights, summed / len(pictures)
        if _kind(layer) == "DepthwiseConv2D":
            extra = (error.sum((0, 1)) * mean[:, None]).reshape(-1)
        else:
            extra = mean @ error.reshape(-1, *error.shape[-2:]).sum(0)
        layer.set_weights([weights, bias - extra])


def _factors(activation: NDArray[np.float32], reach: NDArray[np.float32], depthwise: bool) -> NDArray[np.float32]:
    """By what to divide each channel, (channels,); their geometric mean is 1 over the channels that are in use."""
    factor = np.ones_like(activation)
    used = (activation > 0) & (reach > 0)
    if not used.any():
        return factor
    ratio = activation[used] / reach[used]
    ratio = ratio if depthwise else np.sqrt(ratio)
    factor[used] = ratio / np.exp(np.log(ratio).mean())
    # The weights for a channel that is never active do nothing but must not set the others' scale either.
    silent = (activation == 0) & (reach > 0)
    factor[silent] = (reach[used] * factor[used]).min() / reach[silent]
    return np.clip(factor, 1 / _MOST, _MOST).astype(np.float32)


def pairs(aware: Any) -> list[Pair]:
    """Kernels that follow each other with nothing between that mixes channels or reads them too."""
    readers: dict[int, list[Any]] = {}
    for layer in aware.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                readers.setdefault(id(tensor), []).append(layer)
    found = []
    for layer in aware.layers:
        if _kind(layer) not in ("Conv2D", "DepthwiseConv2D") or len(layer._inbound_nodes) != 1:
            continue
        if layer.activation.__name__ not in ("linear", "relu", "relu6"):
            continue
        behind = layer
        while True:
            after = readers.get(id(behind.output), []) if len(behind._inbound_nodes) == 1 else []
            if len(after) != 1 or len(after[0]._inbound_nodes) != 1:
                break
            behind = after[0]
            if _kind(behind) in _KERNELS:
                found.append(Pair(layer, behind))
                break
            if type(behind).__name__ not in _HANDS_ON:
                break
    return found


def _kind(layer: Any) -> str:
    return type(layer).__name__.removeprefix("Quantized")


def _largest(aware: Any, layers: list[Any], pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Largest absolute value of each channel of what layers give, (channels,)."""
    most: list[Any] = [0.0] * len(layers)
    with in_float(aware):
        for values in compute(aware, [layer.output for layer in layers], pictures):
            for index, value in enumerate(values):
                most[index] = np.maximum(most[index], np.abs(value.reshape(-1, value.shape[-1])).max(0))
    return most


def _input_reach(layer: Any, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest absolute weight that each input channel of a Conv2D or Dense meets, (channels,)."""
    reach: NDArray[np.float32] = np.abs(weights.reshape(-1, *weights.shape[-2:])).max((0, 2))
    return reach


def _outputs(layer: Any, weights: NDArray[np.float32], factor: NDArray[np.float32]) -> NDArray[np.float32]:
    """`factor` (channels,) in a shape that goes with the layer's kernel."""
    return factor.reshape(weights.shape[2:]) if _kind(layer) == "DepthwiseConv2D" else factor
