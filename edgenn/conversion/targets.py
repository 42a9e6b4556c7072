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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenn_device.errors import EdgennError
from edgenn_device.graph import Graph, Operator, Tensor
from edgenn_device.model_file import ModelFile
from edgenn_device.operators import EDGETPU

from .layer_names import name_layers

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
# FULLY_CONNECTED 5 is one that keeps its input's dimensions (TensorFlow Lite, tools/versioning/op_version.cc).
_KEEPS_DIMENSIONS = 5

_CONVERT_INT8 = "convert it again with --quantization int8"
_CONVERT_INT8_OR_LITERT = f"{_CONVERT_INT8}, or run it with ai-edge-litert (64-bit systems)"
_CONVERT_CORAL = "convert it with --target coral"
# Mends of a Dense layer that one scale for all its outputs brings about.
_ONE_SCALE = (_CONVERT_INT8, _CONVERT_INT8_OR_LITERT, _CONVERT_CORAL)


# What to build instead, by operator; the same on every target that lacks it.
_INSTEAD = {
    "BATCH_MATMUL": "use convolutions in place of attention",
    "ELU": "use ReLU",
    "GELU": "use ReLU or ReLU6",
    "HARD_SWISH": "use ReLU6, as MobileNetV2 does",
    "LEAKY_RELU": "use ReLU or PReLU",
    "NEG": "use BatchNormalization in place of LayerNormalization",
    "PACK": "use Concatenate",
    "SPLIT": "use one Conv2D for each part",
    "TILE": "leave UpSampling2D out; a classifier needs nothing enlarged",
    "TRANSPOSE_CONV": "use Conv2D; a classifier needs nothing enlarged",
    "WHILE": "use an unrolled recurrent layer (unroll=True)",
}
# Operators that stand beside a float one: not they are at fault.
_BESIDE_FLOAT = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class Verdict:
    """Whether a target can run a model.

    Attributes:
      ok: it can, wholly.
      reasons: sentences on why not, in which layer, and what to do; with `ok`, on what is worth knowing.
    """

    ok: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What keeps a target from running a model.

    Attributes:
      operator: index of the operator in the graph; None if it is no single one.
      what: what is wrong, without the full stop.
      mend: what to do.
    """

    operator: int | None
    what: str
    mend: str


def check(model: ModelFile, target: str, layers: Sequence[str] = ()) -> Verdict:
    """Judge a model for "pi" or "coral".

    Args:
      layers: names of the Keras layers of its network (`layer_names.keras_layers`), where it is known.

    Raises:
      EdgennError: there is no such target.
    """
    compiled = [operator for operator in model.graph.operators if operator.custom and operator.name == EDGETPU]
    if target == "coral" and compiled:
        return Verdict(True, tuple(_left_by_the_compiler(model.graph, layers)))
    found = findings(model.graph, model.content, target)
    if found or target != "coral":
        return Verdict(not found, sentences(found, name_layers(model.graph, layers)))
    size = sum(tensor.bytes for tensor in model.graph.tensors if tensor.constant)
    if size > EDGETPU_PARAMETER_BYTES:
        return Verdict(
            True,
            (
                f"Its parameters take {size / (1 << 20):.1f} MB and the Edge TPU holds "
                f"{EDGETPU_PARAMETER_BYTES >> 20} MB: the rest is sent over USB or PCIe with every picture. "
                "A narrower network is faster.",
            ),
        )
    return Verdict(True)


def findings(graph: Graph, content: bytes, target: str) -> tuple[Finding, ...]:
    """All that keeps a target from running a graph, operator by operator; `content` is the flatbuffer.

    Raises:
      EdgennError: there is no such target.
    """
    if target not in TARGETS:
        raise EdgennError(f"no target {target!r}: choose one of {', '.join(TARGETS)}")
    return tuple(TARGETS[target](graph, content))


def sentences(found: Sequence[Finding], names: Sequence[str]) -> tuple[str, ...]:
    """One sentence for each thing that is wrong, with all the layers in which it is, `names` for each operator."""
    where: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        place = where.setdefault((finding.what, finding.mend), [])
        if finding.operator is not None and names[finding.operator] not in place:
            place.append(names[finding.operator])
    return tuple(f"{what}{_listed(places)}: {mend}." for (what, mend), places in where.items())


def dense_scales(found: Sequence[Finding]) -> str | None:
    """What a setting of the converter may mend: one scale for a Dense layer in place of one for each output. None if
    nothing is of that kind."""
    return next((it.what for it in found if "FULLY_CONNECTED" in it.what and it.mend in _ONE_SCALE), None)


@functools.cache
def runtime_operators() -> dict[str, int]:
    """The highest version of each operator that tflite-runtime 2.14 has; what it lacks is not in it."""
    table: dict[str, int] = json.loads(_RUNTIME_TABLE.read_text())
    return table


def _listed(places: Sequence[str], most: int = 3) -> str:
    if not places:
        return ""
    more = f" and {len(places) - most} more" if len(places) > most else ""
    return f" ({', '.join(places[:most])}{more})"


def instead(name: str) -> str:
    """What to build in place of an operator that a target does not have."""
    return _INSTEAD.get(name, "build the network without it")


def _pi(graph: Graph, content: bytes) -> Iterator[Finding]:
    available = runtime_operators()
    for index, operator in enumerate(graph.operators):
        name, version = operator.name, operator.version
        if operator.custom and name == EDGETPU:
            yield Finding(None, "It is compiled for the Edge TPU", "without one, use the model it was compiled from")
        elif operator.custom:
            yield Finding(index, f"{name} is a custom operator that {RUNTIME} lacks", "build the network without it")
        elif name not in available:
            yield Finding(index, f"{RUNTIME} has no {name}", f"{instead(name)}, or run it with ai-edge-litert")
        elif version > available[name]:
            yield Finding(
                index,
                f"{RUNTIME} has {name} up to version {available[name]} and the model needs {version}",
                _CONVERT_INT8_OR_LITERT,
            )
        elif _is_hybrid_per_channel(operator, graph.tensors):
            # It raises no error: a model measured so had 10% accuracy on ten classes.
            yield Finding(
                index,
                f"{RUNTIME} computes FULLY_CONNECTED wrongly with float inputs and a scale for each output",
                _CONVERT_INT8,
            )


def _is_hybrid_per_channel(operator: Operator, tensors: Sequence[Tensor]) -> bool:
    if operator.name != "FULLY_CONNECTED":
        return False
    data, weights = (tensors[index] for index in operator.inputs[:2])
    return data.dtype == "float32" and weights.dtype == "int8" and len(weights.scales) > 1


def _left_by_the_compiler(graph: Graph, layers: Sequence[str]) -> Iterator[str]:
    names = name_layers(graph, layers)
    left = [
        f"{operator.name} of {name}"
        for operator, name in zip(graph.operators, names, strict=True)
        if not (operator.custom and operator.name == EDGETPU)
    ]
    if left:
        few = "; ".join(left[:3]) + (f"; and {len(left) - 3} more" if len(left) > 3 else "")
        yield f"Outside the Edge TPU's part, on the CPU, run {len(left)} of its operators: {few}."


def _coral(graph: Graph, content: bytes) -> Iterator[Finding]:
    yield from _tensors_for_coral(graph)
    yield from _operators_for_coral(graph, content)


# What finds fault with a graph (and the flatbuffer that it was read from), by the target's name.
TARGETS: dict[str, Callable[[Graph, bytes], Iterator[Finding]]] = {"pi": _pi, "coral": _coral}


def _tensors_for_coral(graph: Graph) -> Iterator[Finding]:
    floats = [index for index, operator in enumerate(graph.operators) if _has_float(graph, operator)]
    # QUANTIZE and DEQUANTIZE around a float operator are there for its sake: that one is to be named.
    to_blame = [index for index in floats if graph.operators[index].name not in _BESIDE_FLOAT] or floats
    for index in to_blame:
        yield Finding(
            index,
            f"{len(floats)} of its operators have float tensors and the Edge TPU computes with 8-bit integers only",
            "convert it with --quantization int8"
            if len(floats) == len(graph.operators)
            else f"convert it with --quantization int8; if it was, {instead(graph.operators[index].name)}",
        )
    for index, operator in enumerate(graph.operators):
        for tensor in (graph.tensors[at] for at in (*operator.inputs, *operator.outputs) if at != -1):
            if tensor.constant or "float" in tensor.dtype:
                continue
            if tensor.dtype not in ("int8", "uint8"):
                yield Finding(
                    index,
                    f"A tensor is {tensor.dtype}, and the Edge TPU computes with int8 and uint8",
                    "build it without",
                )
            if tensor.signature:
                yield Finding(
                    index,
                    f"A tensor has no fixed shape {tensor.signature}",
                    "convert it with a batch of 1 and a fixed input size",
                )
            if math.prod(tensor.shape[:-3]) > 1:
                yield Finding(
                    index,
                    f"A tensor has the shape {tensor.shape}, and on the Edge TPU only the last three dimensions may be "
                    "above 1",
                    "convert it with a batch of 1, and build it without more dimensions",
                )


def _has_float(graph: Graph, operator: Operator) -> bool:
    return any("float" in graph.tensors[at].dtype for at in (*operator.inputs, *operator.outputs) if at != -1)


def _operators_for_coral(graph: Graph, content: bytes) -> Iterator[Finding]:
    for index, operator in enumerate(graph.operators):
        name = operator.name
        if name in _BESIDE_FLOAT and _has_float(graph, operator):
            continue
        if operator.custom or name not in EDGETPU_OPERATORS:
            yield Finding(
                index,
                f"The Edge TPU compiler does not map {name}, or not reliably; it and all after it would run on the CPU",
                instead(name),
            )
        elif operator.version > EDGETPU_OPERATORS[name]:
            yield Finding(
                index,
                f"The Edge TPU compiler takes {name} up to version {EDGETPU_OPERATORS[name]} and the model has "
                f"{operator.version}",
                how_to_lower(name, operator.version),
            )
        yield from (Finding(index, *limit) for limit in _limits(operator, graph.tensors, content))


def how_to_lower(name: str, version: int = 0) -> str:
    """What to do about an operator that the Edge TPU compiler does not take, or not at this version."""
    if name.startswith("RESIZE_"):
        return "resize with half_pixel_centers=False, which no Keras layer does: a classifier needs nothing enlarged"
    if name == "CONV_2D":
        return "build it without grouped convolutions"
    if name == "FULLY_CONNECTED" and version == _KEEPS_DIMENSIONS:
        # The version stands once for all layers of the file.
        return "use a Conv2D of 1x1 where a Dense layer has more than (batch, features) as input"
    if name == "FULLY_CONNECTED":
        return _CONVERT_CORAL
    return _INSTEAD.get(name, "build the network without it, or convert it with an older TensorFlow")


def _limits(operator: Operator, tensors: Sequence[Tensor], content: bytes) -> Iterator[tuple[str, str]]:
    """The "known limitations" of coral.ai's table, where the graph shows them: what is wrong, and what to do."""
    name, options = operator.name, operator.options
    inputs = [tensors[index] for index in operator.inputs if index != -1]
    if name == "FULLY_CONNECTED" and len(inputs[1].scales) > 1:
        yield "FULLY_CONNECTED has a scale for each output, which may not be mapped", _CONVERT_CORAL
    if name == "FULLY_CONNECTED" and options and options[1]:
        yield "FULLY_CONNECTED has its weights shuffled, which the Edge TPU does not take", "convert it without"
    if name in ("AVERAGE_POOL_2D", "MAX_POOL_2D") and options[5]:
        yield f"{name} has an activation fused into it", "put the activation before the pooling"
    if name == "CONCATENATION" and options and options[1]:
        yield "CONCATENATION has an activation fused into it", "put the activation before it"
    dilations = {"CONV_2D": options[4:6], "DEPTHWISE_CONV_2D": options[5:7]}.get(name, ())
    if len(set(dilations)) > 1:
        yield f"{name} is dilated differently in height and width", "use one dilation for both"
    if name == "MEAN" and not (len(inputs[0].shape) == 4 and set(_integers(inputs[1], content)) <= {1, 2, -2, -3}):
        yield "MEAN goes over more than height and width", "use global average pooling"
    if name == "SOFTMAX" and math.prod(inputs[0].shape) > _SOFTMAX_ELEMENTS:
        yield (
            f"SOFTMAX takes up to {_SOFTMAX_ELEMENTS} scores and the model has {math.prod(inputs[0].shape)}",
            "use fewer classes",
        )


def _integers(tensor: Tensor, content: bytes) -> tuple[int, ...]:
    """The values of a constant; none if they are computed, which no limit allows for."""
    if not tensor.constant:
        return (0,)
    width, code = (4, "i") if tensor.dtype == "int32" else (8, "q")
    return struct.unpack_from(f"<{tensor.bytes // width}{code}", content, tensor.offset)
