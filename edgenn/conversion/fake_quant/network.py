"""A functional Keras network as a plain list of steps, so that it can be taken apart and put together differently.

Networks inside networks are laid open. Knows nothing of quantization; refuses what is not one chain of layers from one
input to one output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError


@dataclass
class Step:
    """One use of a layer.

    Attributes:
      layer: a keras layer, or the operation of a functional network (`a + b` of two tensors is one too).
      inputs: numbers of the tensors it reads, in order.
      output: number of the tensor it gives.
    """

    layer: Any
    inputs: tuple[int, ...]
    output: int

    @property
    def kind(self) -> str:
        """Class name of the layer: "Conv2D", "Add", …"""
        return type(self.layer).__name__

    @property
    def name(self) -> str:
        return str(self.layer.name)


@dataclass
class Network:
    """Steps in an order in which they can be computed, from tensor `input` to tensor `output`; `shapes` by tensor."""

    steps: list[Step]
    input: int
    output: int
    shapes: dict[int, tuple[int | None, ...]]

    def readers(self, tensor: int) -> list[Step]:
        """The steps that read a tensor."""
        return [step for step in self.steps if tensor in step.inputs]

    def only_reader(self, tensor: int) -> Step | None:
        """The step that alone reads a tensor, which is not the network's output either."""
        readers = self.readers(tensor)
        return readers[0] if len(readers) == 1 and tensor != self.output else None


def steps_of(model: Any) -> Network:
    """Take a functional (or Sequential) keras.Model apart.

    Raises:
      EdgennError: it is not functional, or has more than one input or output.
    """
    keras = require("keras")
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise EdgennError(f"{model.name} has no input shape yet: build it, or begin it with keras.Input")
        model = model._functional
    if not isinstance(model, keras.Model) or not getattr(model, "_nodes_by_depth", None):
        raise EdgennError(f"{model.name} is not a functional Keras model: build it from keras.Input and layers")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise EdgennError(f"{model.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs: one of each")
    return _Reader(keras).read(model)


class _Reader:
    def __init__(self, keras: Any) -> None:
        self._keras = keras
        self._steps: list[Step] = []
        self._shapes: dict[int, tuple[int | None, ...]] = {}

    def read(self, model: Any) -> Network:
        start = self._tensor(model.inputs[0])
        end = self._walk(model, (start,))[0]
        return Network(self._steps, start, end, self._shapes)

    def _tensor(self, keras_tensor: Any) -> int:
        number = len(self._shapes)
        self._shapes[number] = tuple(keras_tensor.shape)
        return number

    def _walk(self, model: Any, starts: tuple[int, ...]) -> tuple[int, ...]:
        """Append the steps of `model`, fed with the tensors `starts`; gives its outputs' numbers."""
        known = {id(tensor): start for tensor, start in zip(model.inputs, starts, strict=True)}
        for node in _in_order(model):
            layer, inputs, outputs = node.operation, node.input_tensors, node.outputs
            if isinstance(layer, self._keras.layers.InputLayer):
                continue
            read = tuple(known[id(tensor)] for tensor in inputs)
            if isinstance(layer, self._keras.Sequential):
                ends = self._walk(layer._functional, read)
            elif isinstance(layer, self._keras.Model) and getattr(layer, "_nodes_by_depth", None):
                ends = self._walk(layer, read)
            elif len(outputs) != 1:
                raise EdgennError(f"{layer.name} ({type(layer).__name__}) gives {len(outputs)} tensors, not one")
            else:
                ends = (self._tensor(outputs[0]),)
                self._steps.append(Step(layer, read, ends[0]))
            known.update((id(tensor), end) for tensor, end in zip(outputs, ends, strict=True))
        return tuple(known[id(tensor)] for tensor in model.outputs)


def _in_order(model: Any) -> Iterator[Any]:
    """Nodes of a functional model, inputs first."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]
