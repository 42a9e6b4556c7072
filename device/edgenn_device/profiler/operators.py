"""What a model consists of and where its time goes: one row an operator, with multiply-adds, bytes and microseconds.

Counts come from the graph; times from LiteRT's own profiler, which `litert_child` runs in a process of its own. The
runtime runs kernels, not operators: XNNPACK merges some and adds others. Kernels are matched to operators in order and
by kind; what cannot be matched is shown without a layer rather than under a wrong one. Other runtimes have no profiler
in Python, and no time is made up for them.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..graph import Graph, Operator

if TYPE_CHECKING:
    from ..model_file import ModelFile

# tflite::Profiler::EventType (tflite/core/api/profiler.h): anything else, an operator, a delegate's kernel.
_AROUND, _OPERATOR, _DELEGATE_KERNEL = 1, 2, 8
# XNNPACK's kernel (the words before its first bracket, src/operators of XNNPACK) -> operators that it computes.
_KERNELS: dict[str, tuple[str, ...]] = {
    "Convolution": ("CONV_2D", "DEPTHWISE_CONV_2D"),
    "Fully Connected": ("FULLY_CONNECTED", "CONV_2D"),
    "Dynamic Fully Connected": ("FULLY_CONNECTED", "BATCH_MATMUL"),
    "Batch Matrix Multiply": ("BATCH_MATMUL", "FULLY_CONNECTED"),
    "Deconvolution": ("TRANSPOSE_CONV",),
    "Add": ("ADD",),
    "Subtract": ("SUB",),
    "Multiply": ("MUL",),
    "Divide": ("DIV",),
    "Maximum": ("MAXIMUM",),
    "Minimum": ("MINIMUM",),
    "Average Pooling": ("AVERAGE_POOL_2D", "MEAN"),
    "Global Average Pooling": ("MEAN", "AVERAGE_POOL_2D"),
    "Max Pooling": ("MAX_POOL_2D",),
    "Mean": ("MEAN",),
    "Sum": ("SUM", "MEAN"),
    "Softmax": ("SOFTMAX",),
    "Static Reshape": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
    "Copy": ("CONCATENATION", "RESHAPE", "SPLIT", "STRIDED_SLICE"),
    "Concatenate": ("CONCATENATION",),
    "Constant Pad": ("PAD", "PADV2"),
    "Convert": ("QUANTIZE", "DEQUANTIZE", "CAST"),
    "Clamp": ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"),
    "Sigmoid": ("LOGISTIC",),
    "HardSwish": ("HARD_SWISH",),
    "Leaky ReLU": ("LEAKY_RELU",),
    "Slice": ("SLICE", "STRIDED_SLICE"),
    "Square Root": ("SQRT",),
    "Reciprocal Square Root": ("RSQRT",),
}
# Worth of a pairing, for the alignment below. A built-in kernel names its operator's index: that outweighs the kinds.
_SAME_INDEX, _SAME_KIND, _ANOTHER_PART = 8, 4, 1


@dataclass(frozen=True)
class Layer:
    """One operator of the graph, or a kernel that belongs to none.

    Attributes:
      index: position in the graph; None for a kernel without an operator.
      name, version: of the operator ("CONV_2D"), or of the kernel and None.
      layer: name of the tensor it writes, as the network's author named the layer; "" for none.
      macs: multiply-adds of one run. Convolutions, matrix products; 0 for operators without (pooling, additions).
      bytes: of all its inputs, weights and outputs, each counted once.
      kernel: what the runtime calls the code that ran; None when it was not timed or has no kernel of its own
        (merged into a neighbour).
      microseconds: mean over the quickest quarter of the profiled runs, None likewise.
      share: of all operators' time, 0..1.
    """

    index: int | None
    name: str
    version: int | None
    layer: str
    macs: int
    bytes: int
    kernel: str | None = None
    microseconds: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class OperatorTimes:
    """The layers of a model, timed where that is possible.

    Attributes:
      layers: in running order.
      runs: profiled runs behind the times; 0 when nothing was timed.
      whole_microseconds: the whole graph in the same runs, with what lies between the operators.
      reason: why there are no times, or what to know of them; "" for neither.
    """

    layers: tuple[Layer, ...]
    runs: int = 0
    whole_microseconds: float | None = None
    reason: str = ""

    @property
    def sum_microseconds(self) -> float | None:
        """Of all layers; None when nothing was timed."""
        return sum(layer.microseconds or 0.0 for layer in self.layers) if self.runs else None


def summary(graph: Graph) -> list[dict[str, Any]]:
    """[{"name", "version", "count"}], the most frequent first, then by name."""
    counts: dict[tuple[str, int], int] = {}
    for operator in graph.operators:
        counts[operator.name, operator.version] = counts.get((operator.name, operator.version), 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "version": version, "count": count} for (name, version), count in ordered]


def layers(graph: Graph) -> tuple[Layer, ...]:
    """Every operator of the graph with what follows from its shapes, untimed."""
    return tuple(
        Layer(
            index,
            operator.name,
            operator.version,
            layer_name(graph.tensors[operator.outputs[0]].name) if operator.outputs else "",
            macs(graph, operator),
            sum(graph.tensors[tensor].bytes for tensor in {*operator.inputs, *operator.outputs} if tensor >= 0),
        )
        for index, operator in enumerate(graph.operators)
    )


def macs(graph: Graph, operator: Operator) -> int:
    """Multiply-adds of one run of an operator, from its shapes.

    Weights are laid out as in TFLite's schema: CONV_2D (out, height, width, in / groups), DEPTHWISE_CONV_2D
    (1, height, width, out), FULLY_CONNECTED (out, in), TRANSPOSE_CONV (out, height, width, in). 0 for an operator that
    multiplies nothing, for one whose weights are missing, and for kinds not listed here.
    """
    tensors = graph.tensors
    if not operator.outputs or len(operator.inputs) < 2 or min(operator.inputs[:2]) < 0:
        return 0
    output, weights = tensors[operator.outputs[0]].shape, tensors[operator.inputs[1]].shape
    if operator.name in ("CONV_2D", "CONV_3D") and len(weights) >= 4:
        return math.prod(output) * (math.prod(weights[1:]) if operator.name == "CONV_2D" else math.prod(weights[:-1]))
    if operator.name == "DEPTHWISE_CONV_2D" and len(weights) == 4:
        return math.prod(output) * weights[1] * weights[2]
    if operator.name == "FULLY_CONNECTED" and len(weights) == 2:
        return math.prod(output) * weights[1]
    if operator.name == "TRANSPOSE_CONV" and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        return math.prod(tensors[operator.inputs[2]].shape) * math.prod(weights[:3])
    if operator.name == "BATCH_MATMUL":
        left = tensors[operator.inputs[0]].shape
        transposed = bool(operator.options and operator.options[0])
        return math.prod(output) * (left[-2] if transposed else left[-1]) if len(left) >= 2 else 0
    return 0


def layer_name(tensor: str) -> str:
    """The layer in a tensor's name: "functional_1/stem/Relu;functional_1/stem/conv" -> "stem/Relu"."""
    first = tensor.split(";")[0]
    scope, slash, rest = first.partition("/")
    return rest if slash and scope.startswith(("functional", "model", "sequential")) else first


def timed(model: ModelFile, *, runtime: str, threads: int, kernels: str, seconds: float = 1.0) -> OperatorTimes:
    """Run the model under LiteRT's profiler for about `seconds` and say what each layer took.

    Args:
      runtime, threads, kernels: of the interpreter whose figures these explain ("xnnpack" or "builtin").

    The runtime counts whole microseconds and cuts off the rest, so an operator is shown up to 1 µs too fast.
    """
    untimed = layers(model.graph)
    if runtime != "litert":
        return OperatorTimes(untimed, reason=f"{runtime} has no profiler in Python: times need ai-edge-litert")
    request = json.dumps({"threads": threads, "kernels": kernels, "seconds": seconds})
    command = [sys.executable, str(Path(__file__).with_name("litert_child.py")), request]
    try:
        done = subprocess.run(command, input=model.content, capture_output=True, timeout=60 + 10 * seconds, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return OperatorTimes(untimed, reason=f"LiteRT's profiler did not run ({type(error).__name__})")
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode).name
        return OperatorTimes(untimed, reason=f"LiteRT's profiler ended with {ended}; the model itself is not to blame")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return OperatorTimes(untimed, reason="LiteRT's profiler gave no answer")
    if "error" in answer:
        return OperatorTimes(untimed, reason=f"LiteRT's profiler does not work here: {answer['error']}")
    return explain(untimed, answer["runs"])


def explain(untimed: Sequence[Layer], runs: Sequence[dict[str, Any]]) -> OperatorTimes:
    """Give the events of `litert_child` ([tag, kind, index, subgraph, microseconds] for each run) to their layers."""
    chosen = _quickest(runs)
    if not chosen:
        return OperatorTimes(tuple(untimed), reason="LiteRT's profiler saw no operators")
    steps = [_steps(run) for run in chosen]
    times = [fmean(event[4] for event in same) for same in zip(*steps, strict=True)]
    tags = [(str(tag), index if kind == _OPERATOR else None) for tag, kind, index, _, _ in steps[0]]
    total = sum(times) or 1.0
    found: dict[int, list[int]] = {}
    rows: list[Layer] = []
    for step, place in enumerate(align(tags, untimed)):
        if place is None:
            rows.append(Layer(None, tags[step][0], None, "", 0, 0, tags[step][0], times[step], times[step] / total))
        elif place in found:
            found[place].append(step)
        else:
            found[place] = [step]
            rows.append(untimed[place])
    rows = [_timed_row(row, found, tags, times, total) for row in rows]
    for layer in untimed:
        if layer.index not in found:
            rows.insert(_after(rows, layer), layer)
    return OperatorTimes(tuple(rows), len(chosen), fmean(_whole(run) for run in chosen))


def align(kernels: Sequence[tuple[str, int | None]], operators: Sequence[Layer]) -> list[int | None]:
    """The operator that each kernel computed, both in running order; None for a kernel that fits none.

    The pairing of highest worth that keeps both orders (Needleman and Wunsch 1970, without a cost for gaps). Several
    kernels in a row may belong to one operator, as the copies of a concatenation do.

    Args:
      kernels: (name, index in the graph or None when the runtime does not say).
      operators: the graph's.
    """
    # best[k][o]: highest worth of pairing the first k kernels with the first o operators.
    width = len(operators) + 1
    best = [[0] * width for _ in range(len(kernels) + 1)]
    for k, kernel in enumerate(kernels, 1):
        for o, operator in enumerate(operators, 1):
            worth = _worth(kernel, operator)
            candidates = [best[k - 1][o], best[k][o - 1]]
            if worth:
                candidates.append(best[k - 1][o - 1] + worth)
                if k > 1 and _worth(kernels[k - 2], operator):
                    candidates.append(best[k - 1][o] + _ANOTHER_PART)
            best[k][o] = max(candidates)
    pairs: list[int | None] = [None] * len(kernels)
    k, o = len(kernels), len(operators)
    while k and o:
        worth = _worth(kernels[k - 1], operators[o - 1])
        if worth and best[k][o] == best[k - 1][o - 1] + worth:
            pairs[k - 1] = o - 1
            k, o = k - 1, o - 1
        elif (
            worth
            and k > 1
            and _worth(kernels[k - 2], operators[o - 1])
            and best[k][o] == best[k - 1][o] + _ANOTHER_PART
        ):
            pairs[k - 1] = o - 1
            k -= 1
        elif best[k][o] == best[k - 1][o]:
            k -= 1
        else:
            o -= 1
    return pairs


def _worth(kernel: tuple[str, int | None], operator: Layer) -> int:
    name, index = kernel
    if index is not None:
        return _SAME_INDEX if index == operator.index and name == operator.name else 0
    kind = name.partition(" (")[0]
    operators = _KERNELS.get(kind, (kind.upper().replace(" ", "_"),))
    return _SAME_KIND if operator.name in operators else 0


def _quickest(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The quickest quarter of the runs: what interrupts a run is charged to whichever operator it hits, and on a busy
    machine it hits most. The operators' means still add up to the mean of the whole, as medians would not."""
    # Every run executes the same kernels; one that lost events to the profiler's full buffer is not comparable.
    most = max((len(_steps(run)) for run in runs), default=0)
    whole = sorted((run for run in runs if most and len(_steps(run)) == most), key=lambda run: run["wall_us"])
    return whole[: -(-len(whole) // 4)]


def _whole(run: dict[str, Any]) -> float:
    """Microseconds of the graph's execution: the event around it, without the passing of buffers before and after."""
    around = [elapsed for tag, kind, _, _, elapsed in run["events"] if kind == _AROUND and tag == "Invoke"]
    return float(around[0]) if around else float(run["wall_us"])


def _steps(run: dict[str, Any]) -> list[Sequence[Any]]:
    """Operators of the first graph and kernels of delegates. Those of other graphs run inside a WHILE or IF."""
    return [
        event for event in run["events"] if event[1] == _DELEGATE_KERNEL or (event[1] == _OPERATOR and event[3] == 0)
    ]


def _timed_row(
    row: Layer,
    found: dict[int, list[int]],
    tags: Sequence[tuple[str, int | None]],
    times: Sequence[float],
    total: float,
) -> Layer:
    if row.index is None:
        return row
    steps = found[row.index]
    spent = sum(times[step] for step in steps)
    kernel = " + ".join(dict.fromkeys(tags[step][0] for step in steps))
    return replace(row, kernel=kernel, microseconds=spent, share=spent / total)


def _after(rows: Sequence[Layer], layer: Layer) -> int:
    """Where a layer without a kernel stands: behind the last one that the graph has before it."""
    before = [place for place, row in enumerate(rows) if row.index is not None and row.index < (layer.index or 0)]
    return max(before, default=-1) + 1
