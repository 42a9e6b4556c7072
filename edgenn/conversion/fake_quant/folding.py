"""Convolutions as kernel and bias, with the affine layers around them multiplied in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn_device.errors import EdgennError

from .network import Step

CONVOLUTIONS = {"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense"}
AFFINE = {"BatchNormalization", "Rescaling"}


@dataclass
class Kernel:
    """A convolution or Dense layer in numbers.

    Attributes:
      name: of the layer it comes from.
      kind: "Conv2D", "DepthwiseConv2D" or "Dense".
      weights: float32; Conv2D (height, width, in, out), DepthwiseConv2D (height, width, in, multiplier),
        Dense (in, out).
      bias: float32 (channels,).
      options: strides, padding and dilation_rate of a convolution.
      activation: "linear", "relu" or "relu6".
    """

    name: str
    kind: str
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    options: dict[str, Any]
    activation: str = "linear"

    @property
    def channels(self) -> int:
        """Output channels."""
        depthwise = self.kind == "DepthwiseConv2D"
        return int(self.weights.shape[2] * self.weights.shape[3] if depthwise else self.weights.shape[-1])

    def then(self, gain: NDArray[np.float32], offset: NDArray[np.float32]) -> None:
        """Multiply each output channel by `gain` and add `offset`, both (channels,)."""
        shape = self.weights.shape[2:] if self.kind == "DepthwiseConv2D" else (-1,)
        self.weights = self.weights * gain.reshape(shape)
        self.bias = self.bias * gain + offset


def kernels(step: Step, shape: tuple[int | None, ...]) -> list[Kernel]:
    """The kernels that compute a step: two for a SeparableConv2D, a 1×1 depthwise one for an affine layer.

    Args:
      shape: of what the step reads.

    Raises:
      EdgennError: the layer has an option that TFLite does not compute in int8.
    """
    layer = step.layer
    if step.kind in AFFINE:
        gain, offset = affine(step, shape)
        options = {"strides": (1, 1), "padding": "valid", "dilation_rate": (1, 1)}
        return [Kernel(step.name, "DepthwiseConv2D", gain.reshape(1, 1, -1, 1), offset, options)]
    activation = activation_of(step)
    if step.kind == "Dense":
        if len(shape) != 2:
            raise EdgennError(
                f"{step.name} (Dense) reads {len(shape)} dimensions: put a Flatten or a pooling before it"
            )
        weights = _array(layer.kernel)
        return [Kernel(step.name, "Dense", weights, _bias(layer, weights.shape[-1]), {}, activation)]
    if layer.data_format != "channels_last":
        raise EdgennError(f"{step.name} ({step.kind}) has channels first: TFLite computes with channels last")
    if getattr(layer, "groups", 1) != 1:
        raise EdgennError(f"{step.name} ({step.kind}) has groups: the Edge TPU and old runtimes lack them; use 1 group")
    options = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    if step.kind == "SeparableConv2D":
        depthwise, pointwise = _array(layer.depthwise_kernel), _array(layer.pointwise_kernel)
        zeros = np.zeros(depthwise.shape[2] * depthwise.shape[3], np.float32)
        plain = {"strides": (1, 1), "padding": "valid", "dilation_rate": (1, 1)}
        return [
            Kernel(f"{step.name}_depthwise", "DepthwiseConv2D", depthwise, zeros, options),
            Kernel(step.name, "Conv2D", pointwise, _bias(layer, pointwise.shape[-1]), plain, activation),
        ]
    weights = _array(layer.kernel)
    made = Kernel(step.name, step.kind, weights, np.zeros(0, np.float32), options, activation)
    made.bias = _bias(layer, made.channels)
    return [made]


def input_scaling(layer: Any, low: float = 0.0, high: float = 255.0) -> tuple[float, float] | None:
    """Scale and offset of a Rescaling that an int8 input carries by itself; None where it cannot, or for another layer.

    A tensor's scale is positive and its zero point one of the 256 steps, so 0 must be among the values.

    Args:
      layer: what stands directly behind the input.
      low, high: the lowest and the highest value of the input.
    """
    if type(layer).__name__ != "Rescaling" or np.ndim(layer.scale) or np.ndim(layer.offset):
        return None
    scale, offset = float(layer.scale), float(layer.offset)
    nearly = 1e-6 * abs(scale) * (high - low)
    carried = scale > 0 and low * scale + offset <= nearly and high * scale + offset >= -nearly
    return (scale, offset) if carried else None


def affine(step: Step, shape: tuple[int | None, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A BatchNormalization (with its moving statistics) or Rescaling as gain and offset, float32 (channels,).

    Args:
      shape: of what the step reads; channels last.
    """
    layer, channels = step.layer, int(shape[-1] or 0)
    if step.kind == "Rescaling":
        gain, offset = (
            np.broadcast_to(np.asarray(value, np.float32), channels) for value in (layer.scale, layer.offset)
        )
        return gain.copy(), offset.copy()
    if layer.axis not in (-1, len(shape) - 1):
        raise EdgennError(f"{step.name} (BatchNormalization) normalises axis {layer.axis}: channels are the last axis")
    gamma = _array(layer.gamma) if layer.scale else np.ones(channels, np.float32)
    beta = _array(layer.beta) if layer.center else np.zeros(channels, np.float32)
    gain = gamma / np.sqrt(_array(layer.moving_variance) + layer.epsilon)
    return gain, beta - _array(layer.moving_mean) * gain


def activation_of(step: Step) -> str:
    """What a step applies to each value: "linear", "relu", "relu6", "softmax", or the name of something else."""
    layer = step.layer
    if step.kind == "ReLU":
        if layer.negative_slope or layer.threshold or layer.max_value not in (None, 6, 6.0):
            return "a ReLU with a slope, a threshold or another maximum than 6"
        return "relu" if layer.max_value is None else "relu6"
    if step.kind == "Softmax":
        return "softmax"
    function = getattr(layer, "activation", None)
    if function is None:
        return "linear"
    # An activation may be a layer too, or a partial, which have no name of their own.
    return str(getattr(function, "__name__", type(function).__name__))


def _bias(layer: Any, channels: int) -> NDArray[np.float32]:
    return _array(layer.bias) if layer.use_bias else np.zeros(channels, np.float32)


def _array(variable: Any) -> NDArray[np.float32]:
    return np.array(variable.numpy(), np.float32)
