"""Whether a target can run a model, and if not, why and what to do about it.

Reads the graph only: no runtime is started and no compiler called, so it also answers on a Pi. For `pi` the question
is whether tflite-runtime 2.14, the oldest runtime edgenn supports, has every operator at the model's version (the
table was measured: tools/tflite_runtime_operators.py). For `coral` it is whether the Edge TPU compiler is known to map
every operator; that compiler is not asked, so the answer is careful: what is at risk counts as no.
"""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenn_device.errors import EdgennError
from edgenn_device.graph import Graph, Operator, Tensor
from edgenn_device.model_file import ModelFile
from edgenn_device.operators import EDGETPU

TARGETS = ("pi", "coral")
RUNTIME = "tflite-runtime 2.14"
_RUNTIME_TABLE = Path(__file__).with_name("tflite_runtime_2_14.json")

# Operators that the Edge TPU compiler maps (coral.ai, "TensorFlow models on the Edge TPU", table of supported
# operations, for runtime 14), with the highest version that converters wrote for plain int8 when compiler 16 came out
# (TensorFlow 2.5). Above that the compiler refuses the operator or the whole file: CONV_2D 6 (google-coral/edgetpu
# #631), RESIZE_BILINEAR 3 (#45, #396), RESIZE_NEAREST_NEIGHBOR 3 (#420). Left out, though in the table: SPLIT and PACK,
# which it often does not map.
EDGETPU_OPERATORS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "EXPAND_DIMS": 1,
    "FULLY_CONNECTED": 4,
    "L2_NORMALIZATION": 2,
    "LOGISTIC": 2,
    "MAXIMUM": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MINIMUM": 2,
    "MUL": 2,
    "PAD": 2,
    "PRELU": 1,
    "QUANTIZE": 2,
    "REDUCE_MAX": 2,
    "REDUCE_MIN": 2,
    "RELU": 2,
    "RELU6": 2,
    "RELU_N1_TO_1": 1,
    "RESHAPE": 1,
    "RESIZE_BILINEAR": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "RSQRT": 2,
    "SLICE": 2,
    "SOFTMAX": 2,
    "SPACE_TO_DEPTH": 2,
    "SQUARED_DIFFERENCE": 2,
    "SQUEEZE": 1,
    "STRIDED_SLICE": 2,
    "SUB": 2,
    "SUM": 2,
    "TANH": 2,
    "TRANSPOSE": 2,
    "TRANSPOSE_CONV": 1,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 3,
}
# On-chip memory for parameters (coral.ai, "Edge TPU compiler", parameter data caching); a little of it goes to the
# model's executable.
EDGETPU_PARAMETER_BYTES = 8 << 20
_SOFTMAX_ELEMENTS = 16_000  # same table


@dataclass(frozen=True)
class Verdict:
    """Whether a target can run a model.

    Attributes:
      ok: it can, wholly.
      reasons: sentences on why not and what to do; with `ok`, on what is worth knowing.
    """

    ok: bool
    reasons: tuple[str, ...] = ()


def check(model: ModelFile, target: str) -> Verdict:
    """Judge a model for "pi" or "coral".

    Raises:
      EdgennError: there is no such target.
    """
    if target == "pi":
        return _pi(model.graph)
    if target == "coral":
        return _coral(model.graph, model.content)
    raise EdgennError(f"no target {target!r}: choose one of {', '.join(TARGETS)}")


@functools.cache
def runtime_operators() -> dict[str, int]:
    """The highest version of each operator that tflite-runtime 2.14 has; what it lacks is not in it."""
    table: dict[str, int] = json.loads(_RUNTIME_TABLE.read_text())
    return table


def _pi(graph: Graph) -> Verdict:
    reasons = []
    available = runtime_operators()
    for operator in _distinct(graph.operators):
        name, version = operator.name, operator.version
        if operator.custom and name == EDGETPU:
            reasons.append("It is compiled for the Edge TPU: without one, use the model it was compiled from.")
        elif operator.custom:
            reasons.append(f"{name} is a custom operator that {RUNTIME} lacks: build the network without it.")
        elif name not in available:
            reasons.append(f"{RUNTIME} has no {name}: build the network without it, or run it with ai-edge-litert.")
        elif version > available[name]:
            reasons.append(
                f"{RUNTIME} has {name} up to version {available[name]} and the model needs {version}: "
                "convert it again with --quantization int8, or run it with ai-edge-litert (64-bit systems)."
            )
    for operator in graph.operators:
        if operator.version <= available.get(operator.name, 0) and _is_hybrid_per_channel(operator, graph.tensors):
            # It raises no error: a model measured so had 10% accuracy on ten classes.
            reasons.append(
                f"{RUNTIME} computes FULLY_CONNECTED wrongly with float inputs and a scale for each output: "
                "convert it again with --quantization int8."
            )
            break
    return Verdict(not reasons, tuple(reasons))


def _is_hybrid_per_channel(operator: Operator, tensors: Sequence[Tensor]) -> bool:
    if operator.name != "FULLY_CONNECTED":
        return False
    data, weights = (tensors[index] for index in operator.inputs[:2])
    return data.dtype == "float32" and weights.dtype == "int8" and len(weights.scales) > 1


def _coral(graph: Graph, content: bytes) -> Verdict:
    if any(operator.custom and operator.name == EDGETPU for operator in graph.operators):
        left = sum(not operator.custom for operator in graph.operators)
        return Verdict(True, (f"{left} operators after the Edge TPU's part run on the CPU.",) if left else ())
    reasons = [*_tensors_for_coral(graph), *_operators_for_coral(graph, content)]
    if not reasons:
        size = sum(tensor.bytes for tensor in graph.tensors if tensor.constant)
        if size > EDGETPU_PARAMETER_BYTES:
            return Verdict(
                True,
                (
                    f"Its parameters take {size / (1 << 20):.1f} MB and the Edge TPU holds "
                    f"{EDGETPU_PARAMETER_BYTES >> 20} MB: the rest is sent over USB or PCIe with every picture. "
                    "A narrower network is faster.",
                ),
            )
    return Verdict(not reasons, tuple(reasons))


def _tensors_for_coral(graph: Graph) -> Iterator[str]:
    used = {index for operator in graph.operators for index in (*operator.inputs, *operator.outputs) if index != -1}
    tensors = [graph.tensors[index] for index in sorted(used)]
    floats = [tensor.name for tensor in tensors if "float" in tensor.dtype]
    if floats:
        yield (
            f"{len(floats)} of its tensors are float, the first is {floats[0]!r}: the Edge TPU computes with 8-bit "
            "integers only; convert it with --quantization int8."
        )
    activations = [tensor for tensor in tensors if not tensor.constant and "float" not in tensor.dtype]
    other = [tensor for tensor in activations if tensor.dtype not in ("int8", "uint8")]
    if other:
        yield f"{other[0].name!r} is {other[0].dtype}, and the Edge TPU computes with int8 and uint8: build it without."
    dynamic = [tensor for tensor in activations if tensor.signature]
    if dynamic:
        yield (
            f"{dynamic[0].name!r} has no fixed shape {dynamic[0].signature}: convert it with a batch of 1 and a fixed "
            "input size."
        )
    large = [tensor for tensor in activations if math.prod(tensor.shape[:-3]) > 1]
    if large:
        yield (
            f"{large[0].name!r} has the shape {large[0].shape}, and on the Edge TPU only the last three dimensions may "
            "be above 1: convert it with a batch of 1, and build it without more dimensions."
        )


def _operators_for_coral(graph: Graph, content: bytes) -> Iterator[str]:
    for operator in _distinct(graph.operators):
        name = operator.name
        if operator.custom or name not in EDGETPU_OPERATORS:
            yield (
                f"The Edge TPU compiler does not map {name}, or not reliably; it and all after it would run on the "
                "CPU: build the network without it."
            )
        elif operator.version > EDGETPU_OPERATORS[name]:
            yield (
                f"The Edge TPU compiler takes {name} up to version {EDGETPU_OPERATORS[name]} and the model has "
                f"{operator.version}: {_how_to_lower(name)}."
            )
    # One sentence for each limit, however many operators run into it.
    yield from dict.fromkeys(
        limit for operator in graph.operators for limit in _limits(operator, graph.tensors, content)
    )


def _how_to_lower(name: str) -> str:
    if name.startswith("RESIZE_"):
        return "resize with half_pixel_centers=False"
    if name == "CONV_2D":
        return "build it without grouped convolutions"
    if name == "FULLY_CONNECTED":
        return "convert it with --target coral"
    return "build the network without it, or convert it with an older TensorFlow"


def _limits(operator: Operator, tensors: Sequence[Tensor], content: bytes) -> Iterator[str]:
    """The "known limitations" of coral.ai's table, where the graph shows them."""
    name, options = operator.name, operator.options
    inputs = [tensors[index] for index in operator.inputs if index != -1]
    if name == "FULLY_CONNECTED" and len(inputs[1].scales) > 1:
        yield "FULLY_CONNECTED has a scale for each output, which may not be mapped: convert it with --target coral."
    if name == "FULLY_CONNECTED" and options and options[1]:
        yield "FULLY_CONNECTED has its weights shuffled, which the Edge TPU does not take: convert it without."
    if name in ("AVERAGE_POOL_2D", "MAX_POOL_2D") and options[5]:
        yield f"{name} has an activation fused into it: put the activation before the pooling."
    if name == "CONCATENATION" and options and options[1]:
        yield "CONCATENATION has an activation fused into it: put the activation before it."
    dilations = {"CONV_2D": options[4:6], "DEPTHWISE_CONV_2D": options[5:7]}.get(name, ())
    if len(set(dilations)) > 1:
        yield f"{name} is dilated differently in height and width: use one dilation for both."
    if name == "MEAN" and not (len(inputs[0].shape) == 4 and set(_integers(inputs[1], content)) <= {1, 2, -2, -3}):
        yield "MEAN goes over more than height and width: use global average pooling."
    if name == "SOFTMAX" and math.prod(inputs[0].shape) > _SOFTMAX_ELEMENTS:
        yield f"SOFTMAX takes up to {_SOFTMAX_ELEMENTS} scores and the model has {math.prod(inputs[0].shape)}."


def _integers(tensor: Tensor, content: bytes) -> tuple[int, ...]:
    """The values of a constant; none if they are computed, which no limit allows for."""
    if not tensor.constant:
        return (0,)
    width, code = (4, "i") if tensor.dtype == "int32" else (8, "q")
    return struct.unpack_from(f"<{tensor.bytes // width}{code}", content, tensor.offset)


def _distinct(operators: Sequence[Operator]) -> list[Operator]:
    """One of each name and version, in the graph's order."""
    seen: dict[tuple[str, int], Operator] = {}
    for operator in operators:
        seen.setdefault((operator.name, operator.version), operator)
    return list(seen.values())
