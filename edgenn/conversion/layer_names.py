"""Which layer of the user's network an operator of the .tflite is.

The converter writes the names of Keras layers into the names of tensors: "functional_1/stem_relu_1/Relu;functional_1/
stem_1/convolution", with a number behind each layer's name when the network was called more than once. With the names
of the Keras layers the answer is exact; without them (a file alone) it is read off the name, and where nothing can be
read the tensor's own name is given. Nothing is guessed from shapes or positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from edgenn_device.graph import Graph

# The outermost scope, which Keras names for a network that the user did not name.
_SCOPE = re.compile(r"(functional|model|sequential)(_\d+)*")
# Several layers may be fused into one operator; the one that gave it its kind is the one to name.
_KINDS = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "matmul",
    "TRANSPOSE_CONV": "conv_transpose",
}
# The simulated network has the two halves of a SeparableConv2D as layers of their own (`fake_quant`).
_HALF = "_depthwise"
# And a layer that no network of a user has, for the input's range.
_RANGE = "input_range"


def keras_layers(model: Any) -> tuple[str, ...]:
    """Names of a keras.Model's layers, those of networks within it included, from input to output."""
    names: list[str] = []
    for layer in model.layers:
        names.append(layer.name)
        if hasattr(layer, "layers"):
            names.extend(keras_layers(layer))
    return tuple(names)


def name_layers(graph: Graph, layers: Sequence[str] = ()) -> tuple[str, ...]:
    """For each operator of `graph` the layer that it belongs to, as one would say it: "layer 'stem'".

    Args:
      layers: names of the Keras layers; () when the network is not known.
    """
    names = [tensor.name for tensor in graph.tensors]
    find = _Finder(names, layers)
    own = [_own(graph, index, names, find) for index in range(len(graph.operators))]
    return tuple(
        f"layer {layer!r}" if layer else _unnamed(graph, index) for index, layer in enumerate(_neighbours(graph, own))
    )


class _Finder:
    """Finds a layer in a tensor's name, having looked once at how all the names are made."""

    def __init__(self, names: Sequence[str], layers: Sequence[str]) -> None:
        parts = {tuple(part.split("/")) for name in names for part in name.split(";")}
        if layers:
            components = {name for part in parts for component in part for name in (component, _whole(component))}
            # "conv_1" is either the layer conv_1, or conv in a network that was called twice: whichever explains more.
            tables = [{layer + suffix: layer for layer in layers} for suffix in ("", "_1", "_2")]
            self._layers = max(tables, key=lambda table: len(components & set(table)))
            self._suffix = None
        else:
            scopes = [part[1] for part in parts if len(part) > 2 and _SCOPE.fullmatch(part[0])]
            self._layers = {}
            self._suffix = "_1" if scopes and all(scope.endswith("_1") for scope in scopes) else ""

    def __call__(self, part: str) -> str | None:
        components = part.split("/")
        if self._suffix is not None:
            if len(components) < 3 or not _SCOPE.fullmatch(components[0]):
                return None
            layer = components[1].removesuffix(self._suffix)
            return layer if layer != _RANGE else None
        for component in reversed(components):
            for name in (component, _whole(component)):
                if name in self._layers:
                    return self._layers[name]
        return None


def _whole(component: str) -> str:
    """The SeparableConv2D of which a component of a name may be the first half; else the component."""
    return re.sub(rf"{_HALF}(_\d+)?$", r"\1", component)


def _own(graph: Graph, index: int, names: Sequence[str], find: _Finder) -> str | None:
    """The layer that stands in the names of what an operator computes, or of the weights that it computes it from."""
    operator = graph.operators[index]
    constants = [tensor for tensor in operator.inputs if tensor >= 0 and graph.tensors[tensor].constant]
    parts = [part for tensor in (*operator.outputs, *constants[:1]) for part in names[tensor].split(";")]
    kind = _KINDS.get(operator.name)
    fitting = [part for part in parts if kind and kind in part.rsplit("/", 1)[-1].lower()]
    return next(filter(None, map(find, (*fitting, *parts))), None)


def _neighbours(graph: Graph, own: list[str | None]) -> Iterator[str | None]:
    """Operators that the converter put in carry no layer's name: DEQUANTIZE serves who reads it, all others (QUANTIZE,
    the softmax of a Dense layer) come after who wrote it."""
    writer = {tensor: index for index, operator in enumerate(graph.operators) for tensor in operator.outputs}
    for index, operator in enumerate(graph.operators):
        if own[index] is None and operator.name == "DEQUANTIZE":
            readers = (at for at, other in enumerate(graph.operators) if set(operator.outputs) & set(other.inputs))
            own[index] = next((own[at] for at in readers if own[at]), None)
        if own[index] is None:
            before = (writer[tensor] for tensor in operator.inputs if tensor in writer)
            own[index] = next((own[at] for at in before if own[at]), None)
        yield own[index]


def _unnamed(graph: Graph, index: int) -> str:
    operator = graph.operators[index]
    if operator.name == "QUANTIZE" and set(operator.inputs) & set(graph.inputs):
        return "the input"
    return f"tensor {graph.tensors[operator.outputs[0]].name.split(';')[0]!r}" if operator.outputs else operator.name
