"""Times every operator of a runtime that has no profiler, by cutting the graph after operator k and timing the rest.

A cut is made in place, in a copy of the flatbuffer: the operators' vector is shortened and the output re-pointed, and
the result is parsed again before a runtime sees it. What operator k takes is the time of the graph that ends with it
less that of the graph that ends before it. This holds only for kernels that run one operator each, so it refuses
XNNPACK, which merges operators: there a cut changes what is merged.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import flatbuffer
from ..errors import EdgennError
from ..tables import Buffer
from .operators import OperatorTimes, layers

if TYPE_CHECKING:
    from ..model_file import ModelFile

# Graphs alive at once. Each holds a copy of the file and an arena (about 6 MB for a MobileNet), and a Zero 2 W has
# 512 MB; a difference needs only neighbours.
_AT_ONCE = 8
# A median of fewer repetitions than this is moved by one disturbed run.
_FEWEST_ROUNDS = 5
_MOST_ROUNDS = 200
# Fields of the schema (tensorflow/lite/schema/schema.fbs): of Model, of SubGraph.
_SUBGRAPHS, _SIGNATURES = 2, 7
_OUTPUTS, _OPERATORS = 2, 3


@dataclass(frozen=True)
class Differences:
    """What differencing gave, in seconds.

    Attributes:
      operators: of each operator, never negative (see `difference`).
      whole: of the uncut graph.
      around: of a graph without operators, which is what calling costs; not part of `operators`.
      noise: the largest step back from one graph to the next longer one, as a positive number: what cannot be, and
        so what the method errs by.
      rounds: how often each graph was run.
    """

    operators: tuple[float, ...]
    whole: float
    around: float
    noise: float
    rounds: int


def cut(content: bytes, count: int) -> bytes:
    """The flatbuffer of a graph's first `count` operators, as long as the original.

    The output becomes what the last of them writes first; without operators it is the graph's input. Signatures are
    taken out, because they name the outputs.

    Args:
      content: flatbuffer of a model with one graph.
      count: 0 to the number of operators, with which the graph keeps its outputs.

    Raises:
      EdgennError: the graph cannot be cut there (control flow, an output that is missing).
    """
    graph = flatbuffer.parse(content)
    if not 0 <= count <= len(graph.operators):
        raise EdgennError(f"a graph of {len(graph.operators)} operators cannot be cut after {count}")
    if graph.subgraphs > 1:
        raise EdgennError("a graph with control flow cannot be cut: its operators call other graphs")
    if count == len(graph.operators):
        outputs: tuple[int, ...] = graph.outputs
    elif count:
        outputs = graph.operators[count - 1].outputs[:1]
    else:
        outputs = graph.inputs[:1]
    patched = bytearray(content)
    root = Buffer(content).root(flatbuffer.IDENTIFIER)
    subgraph = next(root.tables(_SUBGRAPHS))
    _shorten(patched, root.span(_SIGNATURES, 4), 0)
    _shorten(patched, subgraph.span(_OPERATORS, 4), count)
    place = subgraph.span(_OUTPUTS, 4)
    _shorten(patched, place, len(outputs))
    if place is not None:
        struct.pack_into(f"<{len(outputs)}i", patched, place[0], *outputs)
    done = bytes(patched)
    # Writers may share vectors between tables; what was meant must be what a reader finds.
    found = flatbuffer.parse(done)
    if (
        not outputs
        or (found.operators, found.outputs) != (graph.operators[:count], outputs)
        or (found.inputs != graph.inputs or found.tensors != graph.tensors)
    ):
        raise EdgennError("the graph cannot be cut in place: its tables share their parts")
    return done


def _shorten(data: bytearray, vector: tuple[int, int] | None, count: int) -> None:
    """Write a vector's new length, which stands in the four bytes before its first element."""
    if vector is not None and count <= vector[1]:
        struct.pack_into("<I", data, vector[0] - 4, count)


def timed(
    model: ModelFile, *, runtime: str, threads: int, kernels: str = "builtin", seconds: float = 10.0
) -> OperatorTimes:
    """Time every operator for about `seconds` altogether (more where a model is too slow for five repetitions).

    Args:
      runtime, threads, kernels: of the interpreter whose figures these explain; kernels must be "builtin".

    `reason` says how large the noise of the differences was.
    """
    untimed = layers(model.graph)
    if kernels != "builtin":
        return OperatorTimes(untimed, reason="cutting the graph changes what XNNPACK merges: no times by prefixes")
    if runtime == "tflite-runtime" and any(
        layer.macs and model.graph.tensors[operator.outputs[0]].dtype == "float32"
        for layer, operator in zip(untimed, model.graph.operators, strict=True)
    ):
        # It has XNNPACK switched on for float32, whatever it says of int8.
        return OperatorTimes(untimed, reason="tflite-runtime gives float32 operators to XNNPACK: no times by prefixes")
    from ..interpreter import Interpreter

    def prepared(count: int) -> Callable[[], object]:
        interpreter = Interpreter(
            replace(model, content=cut(model.content, count)),
            runtime=runtime,
            threads=threads,
            kernels="builtin",
        )
        native = interpreter._native
        interpreter.invoke_raw(_noise(interpreter.input.shape, interpreter.input.dtype))
        invoke: Callable[[], object] = native.invoke
        return invoke

    try:
        found = difference(prepared, len(untimed), seconds)
    except EdgennError as error:
        return OperatorTimes(untimed, reason=f"no times by prefixes: {error}")
    total = sum(found.operators) or 1.0
    rows = tuple(
        replace(layer, kernel=layer.name, microseconds=spent * 1e6, share=spent / total)
        for layer, spent in zip(untimed, found.operators, strict=True)
    )
    return OperatorTimes(rows, found.rounds, found.whole * 1e6, explanation(found))


def difference(prepared: Callable[[int], Callable[[], object]], operators: int, seconds: float) -> Differences:
    """Time the graphs of 0 to `operators` operators and take neighbours' times from each other.

    A few neighbouring graphs at a time are run in turns, forwards and backwards, so that a drifting clock or a busy
    neighbour hits them alike. A graph's time is the median of the faster half of its runs: a disturbance only ever
    adds time, and a difference of two large numbers forgives none. A longer graph cannot take less, so the times are
    replaced by the nearest ones that never decrease, which leaves their sum as it is where clipping would inflate it.

    Args:
      prepared: makes a graph of that many operators ready and returns what runs it once.
      seconds: for all runs together.
    """
    spent: list[float] = []
    around = whole = noise = 0.0
    rounds = _MOST_ROUNDS
    groups = [range(first, min(first + _AT_ONCE, operators) + 1) for first in range(0, max(operators, 1), _AT_ONCE)]
    for group in groups:
        runs = [prepared(count) for count in group]
        times, done = _times(runs, seconds / len(groups))
        rounds = min(rounds, done)
        if group[0] == 0:
            around = times[0]
        whole = times[-1]
        noise = max(noise, *(before - after for before, after in pairwise(times)))
        spent += [after - before for before, after in pairwise(never_decreasing(times))]
    return Differences(tuple(spent), whole, around, noise, rounds)


def never_decreasing(values: Sequence[float]) -> list[float]:
    """The sequence nearest to `values` (least squares) that never decreases.

    Pool adjacent violators: M. Ayer et al., "An empirical distribution function for sampling with incomplete
    information", Annals of Mathematical Statistics 26(4), 1955.
    """
    blocks: list[tuple[float, int]] = []  # mean, length
    for value in values:
        mean, length = value, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean = (before * count + mean * length) / (count + length)
            length += count
        blocks.append((mean, length))
    return [mean for mean, length in blocks for _ in range(length)]


def explanation(found: Differences) -> str:
    """A sentence on how the times came about and how far to trust them."""
    return (
        f"Timed by cutting the graph after each operator, each graph run {found.rounds} times; calling the runtime "
        f"takes {found.around * 1e6:.0f} µs besides, and an operator's time errs by about {found.noise * 1e6:.0f} µs."
    )


def _times(runs: Sequence[Callable[[], object]], seconds: float) -> tuple[list[float], int]:
    """(seconds that each takes, rounds made)."""
    clock = time.perf_counter_ns
    order = list(range(len(runs)))
    times: list[list[int]] = [[] for _ in runs]
    began = time.perf_counter()
    rounds = 0
    while rounds < _FEWEST_ROUNDS or (rounds < _MOST_ROUNDS and time.perf_counter() - began < seconds):
        for place in order:
            run = runs[place]
            begin = clock()
            run()
            times[place].append(clock() - begin)
        order.reverse()
        rounds += 1
    return [median(sorted(values)[: (rounds + 1) // 2]) / 1e9 for values in times], rounds


def _noise(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """An input of noise: kernels take the same time for every content."""
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
