"""`coral`: whether the Edge TPU compiler is known to map every operator.

That compiler is not asked (`edgetpu` does), so the answer is careful: what is at risk counts as no.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence

from edgenn_device.graph import Graph, Operator, Tensor
from edgenn_device.operators import EDGETPU

from .base import INSTEAD, Finding, Target, instead

# Operators that the Edge TPU compiler maps (coral.ai, "TensorFlow models on the Edge TPU", table of supported
# operations, for runtime 14), with the highest version that converters wrote for plain int8 when compiler 16 came out
# (TensorFlow 2.5). Above that the compiler refuses the operator or the whole file: CONV_2D 6 (google-coral/edgetpu
# #631), RESIZE_BILINEAR 3 (#45, #396), RESIZE_NEAREST_NEIGHBOR 3 (#420). Left out, though in the table: SPLIT and PACK,
# which it often does not map.
OPERATORS = {
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
PARAMETER_BYTES = 8 << 20
_SOFTMAX_ELEMENTS = 16_000  # same table
# FULLY_CONNECTED 5 is one that keeps its input's dimensions (TensorFlow Lite, tools/versioning/op_version.cc).
_KEEPS_DIMENSIONS = 5
# Which gives each Dense layer one scale.
_ONE_SCALE = "convert it with --target coral"
# Operators that stand beside a float one: not they are at fault.
_BESIDE_FLOAT = ("QUANTIZE", "DEQUANTIZE")


def _findings(graph: Graph, content: bytes) -> Iterator[Finding]:
    if any(_is_compiled(operator) for operator in graph.operators):
        return  # what the compiler did counts, and it told
    yield from _tensor_findings(graph)
    yield from _operator_findings(graph, content)


def _remarks(graph: Graph, names: Sequence[str]) -> Iterator[str]:
    if any(_is_compiled(operator) for operator in graph.operators):
        left = [
            f"{operator.name} of {name}"
            for operator, name in zip(graph.operators, names, strict=True)
            if not _is_compiled(operator)
        ]
        if left:
            few = "; ".join(left[:3]) + (f"; and {len(left) - 3} more" if len(left) > 3 else "")
            yield f"Outside the Edge TPU's part, on the CPU, run {len(left)} of its operators: {few}."
        return
    size = sum(tensor.bytes for tensor in graph.tensors if tensor.constant)
    if size > PARAMETER_BYTES:
        yield (
            f"Its parameters take {size / (1 << 20):.1f} MB and the Edge TPU holds {PARAMETER_BYTES >> 20} MB: "
            "the rest is sent over USB or PCIe with every picture. A narrower network is faster."
        )


def _is_compiled(operator: Operator) -> bool:
    return operator.custom and operator.name == EDGETPU


def _tensor_findings(graph: Graph) -> Iterator[Finding]:
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


def _operator_findings(graph: Graph, content: bytes) -> Iterator[Finding]:
    for index, operator in enumerate(graph.operators):
        name = operator.name
        if name in _BESIDE_FLOAT and _has_float(graph, operator):
            continue
        if operator.custom or name not in OPERATORS:
            yield Finding(
                index,
                f"The Edge TPU compiler does not map {name}, or not reliably; it and all after it would run on the CPU",
                instead(name),
            )
        elif operator.version > OPERATORS[name]:
            mend = how_to_lower(name, operator.version)
            yield Finding(
                index,
                f"The Edge TPU compiler takes {name} up to version {OPERATORS[name]} and the model has "
                f"{operator.version}",
                mend,
                one_scale_mends=mend == _ONE_SCALE,
            )
        for what, mend in _limits(operator, graph.tensors, content):
            yield Finding(index, what, mend, one_scale_mends=mend == _ONE_SCALE)


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
        return _ONE_SCALE
    return INSTEAD.get(name, "build the network without it, or convert it with an older TensorFlow")


def _limits(operator: Operator, tensors: Sequence[Tensor], content: bytes) -> Iterator[tuple[str, str]]:
    """The "known limitations" of coral.ai's table, where the graph shows them: what is wrong, and what to do."""
    name, options = operator.name, operator.options
    inputs = [tensors[index] for index in operator.inputs if index != -1]
    if name == "FULLY_CONNECTED" and len(inputs[1].scales) > 1:
        yield "FULLY_CONNECTED has a scale for each output, which may not be mapped", _ONE_SCALE
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


TARGET = Target("the Edge TPU", _findings, _remarks, int8_only=True, one_scale_for_dense=True, compiled=True)
