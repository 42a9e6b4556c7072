"""What a model's bytes are: weights layer by layer, what stands around them in the file, and the arena in memory."""

from __future__ import annotations

from dataclasses import dataclass

from edgenn_device.errors import EdgennError
from edgenn_device.interpreter import Interpreter
from edgenn_device.model_file import ModelFile
from edgenn_device.profiler import memory


@dataclass(frozen=True)
class OperatorSize:
    """One operator, in the order in which they run.

    Attributes:
      name: of the layer that it computes; of the tensor that it gives, where no layer is known.
      operator: TFLite's name.
      weights: bytes of its constants (kernel, bias, and the like); shared ones count at the first that reads them.
      shape: of what it gives, and `activation` the bytes of it.
    """

    name: str
    operator: str
    weights: int
    shape: tuple[int, ...]
    activation: int


@dataclass(frozen=True)
class Size:
    """Bytes of a model.

    Attributes:
      file: on disk.
      weights: constants of the graph.
      structure: the rest of the flatbuffer: operators, scales, names, and metadata.
      attached: behind the flatbuffer: labels and card.
      arena: memory for the tensors between operators, as TFLite's planner places them (`profiler.memory.arena`).
      peak: the most that lives at one time, the least any planner needs; reached at operator `busiest`.
      measured: from the first to the last tensor in LiteRT's own arena with built-in kernels; None where not to be had.
      operators: each by itself.
    """

    file: int
    weights: int
    structure: int
    attached: int
    arena: int
    peak: int
    busiest: str
    measured: int | None
    operators: tuple[OperatorSize, ...]


def size_of(model: ModelFile, layers: dict[int, str] | None = None) -> Size:
    """Sizes of a model file.

    Args:
      layers: index of an operator -> name of the layer that it computes.
    """
    graph, names = model.graph, layers or {}
    operators: list[OperatorSize] = []
    counted: set[int] = set()
    for index, operator in enumerate(graph.operators):
        constants = 0
        for tensor in (graph.tensors[number] for number in operator.inputs if number >= 0):
            if tensor.constant and tensor.offset not in counted:
                counted.add(tensor.offset)
                constants += tensor.bytes
        given = graph.tensors[operator.outputs[0]]
        name = names.get(index) or given.name.partition(";")[0]
        operators.append(OperatorSize(name, operator.name, constants, given.shape, given.bytes))
    plan = memory.arena(graph)
    weights = memory.weights(graph)
    on_disk = model.path.stat().st_size
    return Size(
        file=on_disk,
        weights=weights,
        structure=len(model.content) - weights,
        attached=on_disk - len(model.content),
        arena=plan.bytes,
        peak=plan.floor,
        busiest=operators[plan.busiest].name if plan.busiest is not None else "",
        measured=_measured(model),
        operators=tuple(operators),
    )


def _measured(model: ModelFile) -> int | None:
    try:
        return memory.measured_arena(Interpreter(model, kernels="builtin", runtime="litert"), model.graph)
    except EdgennError:
        return None
