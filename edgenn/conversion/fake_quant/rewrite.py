"""A float network becomes one that computes what its int8 file will: folded, and rounded where the device rounds.

BatchNorm is folded into the convolution before it (Jacob et al. 2018, arXiv:1712.05877, section 3.2) with its moving
statistics; a BatchNorm or Rescaling that has none before it becomes a 1×1 depthwise convolution. Activations are
rounded once behind each operator that TFLite runs, after a ReLU that it fuses; what TFLite wants at one scale shares
one `FakeQuant`. A layer it does not know is refused by name with the reason; nothing is quantized by guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from .folding import AFFINE, CONVOLUTIONS, Kernel, activation_of, affine, input_scaling, kernels
from .network import Network, Step, steps_of

# TFLite computes these at one scale for all they read and give (TensorFlow, tfl_ops.td: SameOperandsAndResultsScale).
_SAME_SCALE = {
    "Activation",
    "AveragePooling2D",
    "Concatenate",
    "Dropout",
    "Flatten",
    "GlobalMaxPooling2D",
    "MaxPooling2D",
    "Reshape",
    "SpatialDropout2D",
    "ZeroPadding2D",
}
# Name of the input.
PICTURES = "pictures"
# What they give lies between the steps of what they read.
_AVERAGES = {"AveragePooling2D"}
# The range of TFLite's int8 softmax, whatever is measured (tensorflow/lite/kernels/activations.cc: 1/256 and −128).
SOFTMAX_RANGE = (0.0, 255 / 256)
SUPPORTED = (
    "Conv2D, DepthwiseConv2D, SeparableConv2D, Dense, BatchNormalization, ReLU (to 6 or without end), Add, "
    "Concatenate, MaxPooling2D, AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, ZeroPadding2D, "
    "Rescaling, Flatten, Reshape, Dropout, Softmax"
)


def quantization_aware(model: Any, *, input_range: tuple[float, float] = (0.0, 255.0)) -> Any:
    """The network with weights and activations rounded to 8 bits, to be calibrated, trained and converted.

    Args:
      model: a functional keras.Model of the layers in `SUPPORTED`; it is left as it is.
      input_range: lowest and highest value of an input.

    Returns:
      A keras.Model of the same input and output. Its ranges are empty: `ranges.calibrate` sets them.

    Raises:
      EdgennError: a layer is of a kind, or has an option, that TFLite does not compute in int8 as one operator.

    >>> aware = quantization_aware(model)                                   # doctest: +SKIP
    >>> calibrate(aware, pictures)                                          # doctest: +SKIP
    """
    network = steps_of(model)
    parts = _Partition(network, input_range).parts()
    return _assembled(network, parts, model.name)


@dataclass
class _Part:
    """One operator as TFLite will run it.

    Attributes:
      layer: computes `output` from `inputs`; None for the input itself.
      same_scale: TFLite computes it at one scale for what it reads and gives.
      rounded: what it gives is rounded; not so between an Add and the ReLU that TFLite fuses into it.
      fixed: the range of what it gives, where that is known.
      kernel: weights and bias that the layer gets once it is built.
    """

    layer: Any
    inputs: tuple[int, ...]
    output: int
    same_scale: bool = False
    rounded: bool = True
    fixed: tuple[float, float] | None = None
    kernel: Kernel | None = None


class _Partition:
    """Sorts the steps of a network into parts."""

    def __init__(self, network: Network, input_range: tuple[float, float]) -> None:
        self._network = network
        self._input_range = input_range
        self._parts: list[_Part] = []
        self._done: set[int] = set()  # outputs of steps that became part of an earlier one
        self._made: dict[tuple[Any, ...], list[tuple[Any, Kernel]]] = {}  # a layer used twice stays one layer
        self._names = {PICTURES}
        self._fresh = 0

    def parts(self) -> list[_Part]:
        self._begin()
        for step in self._network.steps:
            if step.output not in self._done:
                self._take(step)
        return self._parts

    def _begin(self) -> None:
        """The input, rounded to bytes; a Rescaling directly behind it comes before that, as the input's scale."""
        network, (low, high) = self._network, self._input_range
        first = network.only_reader(network.input)
        scaling = input_scaling(first.layer, low, high) if first else None
        if first and scaling:
            scale, offset = scaling
            ends = low * scale + offset, high * scale + offset
            self._add(self._again(first), (network.input,), first.output, fixed=ends)
            self._done.add(first.output)
        else:
            self._add(None, (), network.input, fixed=(low, high))

    def _take(self, step: Step) -> None:
        kind, activation = step.kind, activation_of(step)
        if kind in CONVOLUTIONS or kind in AFFINE:
            self._convolution(step)
        elif kind == "Add" and len(step.inputs) > 1:
            self._sum(step)
        elif kind in ("ReLU", "Activation") and activation in ("relu", "relu6"):
            self._add(self._again(step), step.inputs, step.output)
        elif kind in ("Softmax", "Activation") and activation == "softmax":
            self._add(self._again(step), step.inputs, step.output, fixed=SOFTMAX_RANGE)
        elif kind in _SAME_SCALE and activation == "linear":
            self._add(self._again(step), step.inputs, step.output, same_scale=True, rounded=kind in _AVERAGES)
        elif kind == "GlobalAveragePooling2D":
            self._add(self._again(step), step.inputs, step.output)
        else:
            reason = f"it is {activation}" if kind in ("ReLU", "Activation") else f"what can be is {SUPPORTED}"
            raise EdgennError(
                f"layer {step.name!r} ({kind}) cannot be computed with simulated int8: {reason}; "
                "replace it for equalized and qat"
            )

    def _sum(self, step: Step) -> None:
        """TFLite adds two tensors at a time."""
        layers = require("keras").layers
        left = step.inputs[0]
        for count, right in enumerate(step.inputs[1:], 1):
            last = count == len(step.inputs) - 1
            output, name = (step.output, step.name) if last else (self._new(), f"{step.name}_{count}")
            relu = self._relu_behind(output) if last else None
            self._add(layers.Add(name=self._name(name), dtype="float32"), (left, right), output, rounded=relu is None)
            left = output

    def _convolution(self, step: Step) -> None:
        """A convolution, Dense or affine layer, with the BatchNorm, Rescaling and ReLU behind it."""
        shape = self._network.shapes[step.inputs[0]]
        made, end, used = kernels(step, shape), step.output, [id(step.layer)]
        last = made[-1]
        while last.activation == "linear" and (behind := self._network.only_reader(end)) and behind.kind in AFFINE:
            last.then(*affine(behind, self._network.shapes[end]))
            end = behind.output
            used.append(id(behind.layer))
            self._done.add(end)
        relu = self._relu_behind(end) if last.activation == "linear" else None
        if relu:
            last.activation, end = activation_of(relu), relu.output
            self._done.add(end)
        softmax, last.activation = (True, "linear") if last.activation == "softmax" else (False, last.activation)
        if last.activation not in ("linear", "relu", "relu6"):
            raise EdgennError(
                f"layer {step.name!r} ({step.kind}) has the activation {last.activation}: int8 can be simulated for "
                "relu, relu6 and softmax"
            )
        key = (*used, last.activation)
        if key not in self._made:
            self._made[key] = [(self._layer(kernel), kernel) for kernel in made]
        self._chain(self._made[key], step, shape, self._new() if softmax else end)
        if softmax:
            keras = require("keras")
            layer = keras.layers.Softmax(name=self._name(f"{step.name}_softmax"), dtype="float32")
            self._add(layer, (self._parts[-1].output,), end, fixed=SOFTMAX_RANGE)

    def _chain(self, layers: list[tuple[Any, Kernel]], step: Step, shape: tuple[int | None, ...], end: int) -> None:
        """One part for each kernel; an affine layer over (batch, channels) is a convolution over one pixel."""
        flat = len(shape) == 2 and layers[0][1].kind == "DepthwiseConv2D"
        keras = require("keras")
        read = step.inputs
        if flat:
            pixel = self._new()
            name = self._name(f"{step.name}_pixel")
            reshape = keras.layers.Reshape((1, 1, shape[-1]), name=name, dtype="float32")
            self._add(reshape, read, pixel, same_scale=True, rounded=False)
            read = (pixel,)
        for position, (layer, kernel) in enumerate(layers):
            last = position == len(layers) - 1 and not flat
            output = end if last else self._new()
            self._add(layer, read, output, kernel=kernel)
            read = (output,)
        if flat:
            reshape = keras.layers.Reshape((shape[-1],), name=self._name(f"{step.name}_flat"), dtype="float32")
            self._add(reshape, read, end, same_scale=True, rounded=False)

    def _layer(self, kernel: Kernel) -> Any:
        from . import layers

        kind = getattr(layers, f"Quantized{kernel.kind}")
        name = self._name(kernel.name)
        shared = {"name": name, "activation": kernel.activation, "dtype": "float32", **kernel.options}
        if kernel.kind == "Conv2D":
            return kind(kernel.channels, kernel.weights.shape[:2], **shared)
        if kernel.kind == "DepthwiseConv2D":
            return kind(kernel.weights.shape[:2], depth_multiplier=kernel.weights.shape[3], **shared)
        return kind(kernel.channels, **shared)

    def _relu_behind(self, tensor: int) -> Step | None:
        """The ReLU that TFLite fuses into what gives `tensor`."""
        behind = self._network.only_reader(tensor)
        fits = behind and behind.kind in ("ReLU", "Activation") and activation_of(behind) in ("relu", "relu6")
        return behind if fits else None

    def _again(self, step: Step) -> Any:
        """A layer of the same settings for another network; it has no weights. Where a step uses a layer once more, it
        is a layer of its own."""
        config = {**step.layer.get_config(), "name": self._name(step.name)}
        if isinstance(step.layer, require("keras").layers.Layer):  # not so a function of keras.ops
            config["dtype"] = "float32"
        return type(step.layer).from_config(config)

    def _name(self, wanted: str) -> str:
        """A name of its own: a layer may be used again, and networks within a network may use a name each."""
        name, uses = wanted, 1
        while name in self._names:
            uses += 1
            name = f"{wanted}_use{uses}"
        self._names.add(name)
        return name

    def _new(self) -> int:
        """A number for a tensor that the float network does not have."""
        self._fresh -= 1
        return self._fresh

    def _add(self, layer: Any, inputs: tuple[int, ...], output: int, **more: Any) -> None:
        self._parts.append(_Part(layer, inputs, output, **more))


def _assembled(network: Network, parts: list[_Part], name: str) -> Any:
    """The Keras model of the parts, with a FakeQuant for each group of tensors that has one scale."""
    from .layers import FakeQuant

    keras = require("keras")
    groups = _groups(parts)
    sites: dict[int, int] = {}
    for part in parts:
        if part.rounded and not part.same_scale:
            sites[groups[part.output]] = sites.get(groups[part.output], 0) + 1
    fixed = {groups[part.output]: part.fixed for part in parts if part.fixed}
    for part in parts:
        if part.fixed and sites[groups[part.output]] > 1:
            what = "the input" if part is parts[0] else f"what {part.layer.name!r} gives"
            raise EdgennError(f"{what} is joined with other values at one scale, and has a scale that cannot change")
    rounding: dict[int, Any] = {}
    used: dict[int, int] = {}
    labels: dict[str, int] = {}
    pictures = keras.Input(network.shapes[network.input][1:], name=PICTURES, dtype="float32")
    tensors = {network.input: pictures}
    for part in parts:
        read = [tensors[number] for number in part.inputs]
        x = pictures if part.layer is None else part.layer(read[0] if len(read) == 1 else read)
        if part.kernel:
            part.layer.set_weights([part.kernel.weights, part.kernel.bias])
        if part.rounded:
            group = groups[part.output]
            if group not in rounding:
                known = fixed.get(group) if sites[group] == 1 else None
                label = "input" if part.layer is None or part is parts[0] else part.layer.name
                uses = labels[label] = labels.get(label, 0) + 1
                ending = "range" if uses == 1 else f"range_use{uses}"
                rounding[group] = FakeQuant(sites[group], known, name=f"{label}_{ending}", dtype="float32")
            site = -1 if part.same_scale else used.get(group, 0)
            used[group] = max(used.get(group, 0), site + 1)
            x = rounding[group](x, site=site)
        tensors[part.output] = x
    return keras.Model(pictures, tensors[network.output], name=name)


def _groups(parts: list[_Part]) -> dict[int, int]:
    """Tensor -> a tensor that stands for all that have its scale."""
    above: dict[int, int] = {}

    def top(tensor: int) -> int:
        while above.setdefault(tensor, tensor) != tensor:
            tensor = above[tensor]
        return tensor

    for part in parts:
        top(part.output)
        if part.same_scale:
            for tensor in part.inputs:
                above[top(tensor)] = top(part.output)
    return {tensor: top(tensor) for tensor in list(above)}
