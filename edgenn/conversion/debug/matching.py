"""Which operator of a .tflite computes which layer.

The converter fuses layers, drops some and calls tensors by every layer that went into them. So operators are found by
what they read: from the input on, a layer's operator is the one of its kind that reads what the layer reads; of
several, the one with the layer's weights. Names (LAYER, or LAYER_1 where the network was put together anew) are only
asked where that ends. What stays open is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgenn_device.errors import EdgennError
from edgenn_device.graph import Graph, Operator, Tensor
from edgenn_device.model_file import ModelFile

from ..fake_quant.network import Network, Step

_CHANGES_TYPE = {"QUANTIZE", "DEQUANTIZE"}
KERNEL_OPERATORS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
_COMPUTED_BY = {
    "QuantizedConv2D": KERNEL_OPERATORS,
    "QuantizedDepthwiseConv2D": KERNEL_OPERATORS,
    "QuantizedDense": KERNEL_OPERATORS,
    "Activation": {"RELU", "RELU6", "SOFTMAX"},
    "Add": {"ADD"},
    "AveragePooling2D": {"AVERAGE_POOL_2D"},
    "Concatenate": {"CONCATENATION"},
    "Flatten": {"RESHAPE"},
    "GlobalAveragePooling2D": {"MEAN", "AVERAGE_POOL_2D"},
    "GlobalMaxPooling2D": {"REDUCE_MAX", "MAX_POOL_2D"},
    "MaxPooling2D": {"MAX_POOL_2D"},
    "ReLU": {"RELU", "RELU6"},
    "Reshape": {"RESHAPE"},
    "Softmax": {"SOFTMAX"},
    "ZeroPadding2D": {"PAD", "PADV2"},
}
# Layers that may have no operator of their own: fused into the one before, folded into the input's scale, or nothing.
_MAY_VANISH = {
    "Activation",
    "Dropout",
    "FakeQuant",
    "Flatten",
    "ReLU",
    "Rescaling",
    "Reshape",
    "SpatialDropout2D",
}
_RELUS = {"Activation", "ReLU"}
_SUFFIXES = ("_1", "", "_2")
_INTEGERS = {"int8": (-128, 127), "uint8": (0, 255)}


@dataclass
class Matches:
    """What was found.

    Attributes:
      places: tensor of the network -> index of the tensor of the file that holds it.
      operators: index of an operator -> the step whose value it gives (with a fused ReLU, that ReLU's).
      layers: index of an operator -> name of the layer that it computes.
      kernels: name of a layer with weights -> index of its operator.
    """

    places: dict[int, int] = field(default_factory=dict)
    operators: dict[int, Step] = field(default_factory=dict)
    layers: dict[int, str] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)


class Wiring:
    """A graph in which a change of type is no step: a tensor, and the same at another scale or in float, are one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._above: dict[int, int] = {}
        for operator in graph.operators:
            if operator.name in _CHANGES_TYPE:
                self._above[operator.outputs[0]] = self.root(operator.inputs[0])
        self.readers: dict[tuple[int, ...], list[int]] = {}
        for index, operator in enumerate(graph.operators):
            if operator.name not in _CHANGES_TYPE:
                self.readers.setdefault(self.reads(operator), []).append(index)

    def root(self, tensor: int) -> int:
        """The tensor of which this one is a copy of another type."""
        return self._above.get(tensor, tensor)

    def reads(self, operator: Operator) -> tuple[int, ...]:
        """What an operator reads besides constants, sorted: sums may have their sides exchanged."""
        roots = [self.root(tensor) for tensor in operator.inputs if tensor >= 0]
        return tuple(sorted(tensor for tensor in roots if not self.graph.tensors[tensor].constant))

    def bounds(self, tensor: int) -> tuple[float, float] | None:
        """The range that the file rounds a tensor to; None if it is kept in float."""
        tensors = self.graph.tensors
        alike = [tensor, *(copy for copy, root in self._above.items() if root == tensor)]
        for found in (tensors[index] for index in alike):
            if found.scales and found.dtype in _INTEGERS:
                (low, high), scale, zero = _INTEGERS[found.dtype], found.scales[0], found.zero_points[0]
                return (low - zero) * scale, (high - zero) * scale
        return None


def match(network: Network, model: ModelFile) -> Matches:
    """Find the operators of a simulated network's layers in its file.

    Args:
      network: `steps_of` a network of `quantization_aware`.
      model: the file.
    """
    graph = model.graph
    wiring, found = Wiring(graph), Matches()
    found.places[network.input] = wiring.root(graph.inputs[0])
    names = [graph.tensors[operator.outputs[0]].name for operator in graph.operators]
    suffix = suffix_of([step.name for step in network.steps], names)
    for step in network.steps:
        reads = [found.places.get(tensor) for tensor in step.inputs]
        index = None
        if None not in reads:
            known = tuple(sorted(tensor for tensor in reads if tensor is not None))
            index = _of_kind(step, wiring.readers.get(known, []), model, found)
        if index is None and step.kind in _COMPUTED_BY:
            named = [index for index, name in enumerate(names) if f"/{step.name}{suffix}/" in name]
            index = _of_kind(step, [i for i in named if i not in found.operators], model, found)
        if index is not None:
            found.operators[index], found.layers[index] = step, step.name
            found.places[step.output] = wiring.root(graph.operators[index].outputs[0])
            if hasattr(step.layer, "kernel"):
                found.kernels[step.name] = index
        elif step.kind in _MAY_VANISH and reads[0] is not None:
            found.places[step.output] = reads[0]
            if step.kind in _RELUS:
                _fused(step, reads[0], found, graph)
    return found


def suffix_of(layers: Sequence[str], tensors: Sequence[str]) -> str:
    """What stands behind each layer's name in names of tensors: that with which most layers are found."""
    text = "\n".join(tensors)
    return max(_SUFFIXES, key=lambda suffix: sum(f"/{name}{suffix}/" in text for name in set(layers)))


def _of_kind(step: Step, candidates: list[int], model: ModelFile, found: Matches) -> int | None:
    """The operator among candidates that computes a step: of its kind, not taken yet, with its weights."""
    kinds = _COMPUTED_BY.get(step.kind, set())
    fitting = [index for index in candidates if model.graph.operators[index].name in kinds]
    if hasattr(step.layer, "kernel"):
        kernel = step.layer.get_weights()[0]
        likeness = {i: _likeness(kernel_of(model, model.graph.operators[i], kernel.shape), kernel) for i in fitting}
        fitting = sorted((i for i in fitting if likeness[i] > 0), key=lambda i: -likeness[i])
    # Equal steps may have become one operator.
    return next((index for index in fitting if index not in found.operators), fitting[0] if fitting else None)


def _likeness(first: NDArray[np.float32] | None, second: NDArray[np.float32]) -> float:
    """Cosine of the angle between two kernels; −1 for one that is not there, 0.01 where there is none."""
    if first is None:
        return -1.0
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return max(0.01, float(np.sum(first * second)) / length) if length else 0.01


def _fused(relu: Step, tensor: int, found: Matches, graph: Graph) -> None:
    """The operator that gives `tensor` has this ReLU inside: what it gives is the ReLU's."""
    for index in found.operators:
        if graph.operators[index].outputs[0] == tensor:
            found.operators[index] = relu


def constant(model: ModelFile, index: int) -> NDArray[np.float32] | None:
    """Values of a constant as real numbers, float32 of its shape; None if it is computed.

    Raises:
      EdgennError: its type is none that edgenn writes.
    """
    tensors = model.graph.tensors
    tensor: Tensor = tensors[index]
    if not tensor.constant:
        widened = [o.inputs[0] for o in model.graph.operators if o.name == "DEQUANTIZE" and o.outputs[0] == index]
        if not widened or not tensors[widened[0]].constant:
            return None
        tensor = tensors[widened[0]]
    try:
        values = np.frombuffer(model.content, tensor.dtype, offset=tensor.offset, count=int(np.prod(tensor.shape)))
    except (TypeError, ValueError):
        raise EdgennError(
            f"{model.path} has weights of type {tensor.dtype}, which edgenn does not write: convert it again"
        ) from None
    real = values.reshape(tensor.shape).astype(np.float32)
    if not tensor.scales:
        return real
    shape = [1] * real.ndim
    shape[tensor.quantized_dimension] = len(tensor.scales)
    zero_points = np.asarray(tensor.zero_points, np.float32).reshape(shape if len(tensor.zero_points) > 1 else -1)
    scales = np.asarray(tensor.scales, np.float32).reshape(shape if len(tensor.scales) > 1 else -1)
    return (real - zero_points) * scales


def kernel_of(model: ModelFile, operator: Operator, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """An operator's weights in the order and shape of a Keras kernel; None if it has none of that size."""
    if operator.name not in KERNEL_OPERATORS:
        return None
    weights = constant(model, operator.inputs[1])
    if weights is None or weights.size != int(np.prod(shape)):
        return None
    if operator.name == "CONV_2D":
        weights = weights.transpose(1, 2, 3, 0)
    elif operator.name == "FULLY_CONNECTED":
        weights = weights.T
    return weights.reshape(shape)


def bias_of(model: ModelFile, operator: Operator) -> NDArray[np.float32] | None:
    """An operator's bias, float32 (channels,); None if it has none."""
    return constant(model, operator.inputs[2]) if len(operator.inputs) > 2 and operator.inputs[2] >= 0 else None


def match_by_name(network: Network, graph: Graph) -> Matches:
    """Operators of a network that is not simulated, found by the names of their outputs.

    A name holds all layers that went into the operator: what it gives is the last one's; it is counted for the first
    that has a kernel. Of several operators that are parts of one layer, the last gives what the layer gives.
    """
    found = Matches()
    end = Wiring(graph).root(graph.outputs[0])
    names = {
        index: graph.tensors[operator.outputs[0]].name
        for index, operator in enumerate(graph.operators)
        if operator.name not in _CHANGES_TYPE
    }
    suffix = suffix_of([step.name for step in network.steps], list(names.values()))
    last: dict[int, tuple[int, Step]] = {}
    for index, name in names.items():
        mentioned = [step for step in network.steps if f"/{step.name}{suffix}/" in name]
        if graph.operators[index].outputs[0] == end:  # called by the network's output
            mentioned = [step for step in network.steps if step.output == network.output]
        if mentioned:
            found.layers[index] = next((step.name for step in mentioned if _has_kernel(step)), mentioned[-1].name)
            last[id(mentioned[-1])] = (index, mentioned[-1])
    found.operators.update(last.values())
    return found


def _has_kernel(step: Step) -> bool:
    return step.kind == "SeparableConv2D" or hasattr(step.layer, "kernel")
