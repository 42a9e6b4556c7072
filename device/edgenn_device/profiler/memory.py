"""How much memory a model takes: weights, arena, and what of this process is resident now and at its peak.

The arena, which holds the tensors between operators, is worked out from the graph the way TFLite's planner does it, and
read off the addresses of a runtime's tensors where they can be seen. Scratch buffers that kernels ask for are not in
the graph and so not in the estimate; XNNPACK keeps its tensors in a workspace of its own, which nothing shows. Resident
memory comes from /proc and counts shared libraries whole, so two processes together take less than the sum of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..graph import Graph

if TYPE_CHECKING:
    from ..interpreter import Interpreter

_FIELDS = {"VmRSS": "resident", "VmHWM": "resident_peak"}
# tflite::kDefaultTensorAlignment (tensorflow/lite/util.h).
_ALIGNMENT = 64


@dataclass(frozen=True)
class Arena:
    """Where a planner puts the tensors between the operators.

    Attributes:
      bytes: size of the arena.
      floor: the largest sum of tensors that are needed at one time; no planner can do with less.
      offsets: of each tensor in it, by index.
      busiest: index of the operator at which `floor` is reached; None for a graph without operators.
    """

    bytes: int
    floor: int
    offsets: dict[int, int]
    busiest: int | None


def arena(graph: Graph) -> Arena:
    """Plan the arena of a graph as TFLite's ArenaPlanner does.

    Tensors are placed from the largest to the smallest, each into the smallest gap between those that live at the same
    time, aligned to 64 bytes (tensorflow/lite/arena_planner.cc and simple_memory_arena.cc; Y. Pisarchyk and J. Lee,
    "Efficient Memory Management for Deep Neural Net Inference", 2020, "greedy by size"). Inputs and
    outputs live to the end; variables have an arena of their own and are not counted. A kernel's scratch buffers
    (im2col) come on top; newer runtimes save some by letting RESHAPE and the like write into their input.
    """
    spans = _lifetimes(graph)
    end = len(graph.operators)
    sizes = {tensor: graph.tensors[tensor].bytes for tensor in spans}

    def order(tensor: int) -> tuple[int, int, int, int]:
        first, last = spans[tensor]
        whole = first == 0 and last == end
        return (0, 0, 0, tensor) if whole else (1, -sizes[tensor], first, tensor)

    placed: list[tuple[int, int, int]] = []  # offset, end, tensor, by offset
    offsets: dict[int, int] = {}
    high = 0
    for tensor in sorted(spans, key=order):
        first, last = spans[tensor]
        beside = [place for place in placed if spans[place[2]][0] <= last and first <= spans[place[2]][1]]
        offset = _gap(beside, sizes[tensor])
        offsets[tensor] = offset
        placed.append((offset, offset + sizes[tensor], tensor))
        placed.sort()
        high = max(high, offset + sizes[tensor])
    needed = [
        sum(sizes[tensor] for tensor, (first, last) in spans.items() if first <= index <= last) for index in range(end)
    ]
    busiest = max(range(end), key=needed.__getitem__, default=None)
    return Arena(high, max(needed, default=high), offsets, busiest)


def weights(graph: Graph) -> int:
    """Bytes of the graph's constants; tensors that share their values in the file count once."""
    places = {(tensor.offset or index, tensor.bytes) for index, tensor in enumerate(graph.tensors) if tensor.constant}
    return sum(size for _, size in places)


def measured_arena(interpreter: Interpreter, graph: Graph) -> int | None:
    """Bytes from the first to behind the last tensor that the runtime keeps between operators, by their addresses.

    Scratch buffers beyond the last tensor are not seen. None with XNNPACK, whose tensors have no address here; it may
    have a part of the graph to itself, as float32 operators in tflite-runtime.
    """
    if interpreter.kernels != "builtin":
        return None
    begin: list[int] = []
    ends: list[int] = []
    for index in _lifetimes(graph):
        try:
            view = interpreter._native.tensor(index)()
        except (ValueError, RuntimeError):
            return None
        if not isinstance(view, np.ndarray):  # a tensor without dimensions comes as a copy, which has another address
            continue
        begin.append(view.ctypes.data)
        ends.append(view.ctypes.data + view.nbytes)
    return max(ends) - min(begin) if begin else None


def resident(root: str | Path = "/") -> dict[str, int | None]:
    """{"resident", "resident_peak"} of this process in bytes, each None where the kernel does not say.

    Source: VmRSS and VmHWM in /proc/self/status (proc_pid_status(5)), in units of 1024 bytes.
    """
    values: dict[str, int | None] = dict.fromkeys(_FIELDS.values())
    try:
        lines = (Path(root) / "proc/self/status").read_text().splitlines()
    except OSError:
        return values
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if name in _FIELDS and words and words[0].isdigit():
            values[_FIELDS[name]] = int(words[0]) * 1024
    return values


def available(root: str | Path = "/") -> tuple[int | None, int | None]:
    """(total, available) memory of the machine in bytes. Source: MemTotal and MemAvailable in /proc/meminfo."""
    found: dict[str, int] = {}
    try:
        lines = (Path(root) / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None, None
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found.get("MemTotal"), found.get("MemAvailable")


def _lifetimes(graph: Graph) -> dict[int, tuple[int, int]]:
    """(first, last) operator at which each tensor of the arena must be there; the number of operators means the end."""
    end = len(graph.operators)
    spans: dict[int, tuple[int, int]] = {}
    for index, operator in enumerate(graph.operators):
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor >= 0 and _in_arena(graph, tensor):
                first, last = spans.get(tensor, (index, index))
                spans[tensor] = (first, max(last, index))
    for tensor in graph.inputs:
        spans[tensor] = (0, end)
    for tensor in graph.outputs:
        if _in_arena(graph, tensor):
            spans[tensor] = (spans.get(tensor, (0, 0))[0], end)
    return spans


def _in_arena(graph: Graph, tensor: int) -> bool:
    found = graph.tensors[tensor]
    return not found.constant and not found.variable and found.bytes > 0


def _gap(beside: list[tuple[int, int, int]], size: int) -> int:
    """The start of the smallest gap that holds `size` bytes, else of what lies behind everything."""
    best, best_room = -1, -1
    at = 0
    for offset, end, _ in beside:
        start = -(-at // _ALIGNMENT) * _ALIGNMENT
        room = offset - start
        if room >= size and (best < 0 or room < best_room):
            best, best_room = start, room
        at = max(at, end)
    return best if best >= 0 else -(-at // _ALIGNMENT) * _ALIGNMENT
