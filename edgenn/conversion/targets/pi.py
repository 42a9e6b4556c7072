"""`pi`: whether tflite-runtime 2.14, the oldest runtime edgenn supports, has every operator at the model's version.

The table of what it has was measured: tools/tflite_runtime_operators.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgenn_device.graph import Graph, Operator, Tensor
from edgenn_device.operators import EDGETPU
from edgenn_device.soundness import LARGEST_GAIN, gain

from .base import CONVERT_INT8, Finding, Target, instead

RUNTIME = "tflite-runtime 2.14"
NEWER = "run it with ai-edge-litert (64-bit systems)"
_RUNTIME_TABLE = Path(__file__).with_name("tflite_runtime_2_14.json")


@functools.cache
def runtime_operators() -> dict[str, int]:
    """The highest version of each operator that tflite-runtime 2.14 has; what it lacks is not in it."""
    table: dict[str, int] = json.loads(_RUNTIME_TABLE.read_text())
    return table


def _is_int8(operator: Operator, tensors: Sequence[Tensor]) -> bool:
    """Whether the version is that of its int8 form: no conversion mends that, but for a Dense layer's scales."""
    if operator.name == "FULLY_CONNECTED":
        return False
    return tensors[operator.outputs[0]].dtype == "int8" and tensors[operator.inputs[0]].dtype == "int8"


def _findings(graph: Graph, content: bytes) -> Iterator[Finding]:
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
                f"{'' if _is_int8(operator, graph.tensors) else f'{CONVERT_INT8}, or '}{NEWER}",
                one_scale_mends=name == "FULLY_CONNECTED",
            )
        elif (found := gain(operator, graph.tensors)) >= LARGEST_GAIN:
            what = f"{name} multiplies its sums by {found:.3g}, and LiteRT's XNNPACK by less than {LARGEST_GAIN:g}"
            yield Finding(index, what, "convert it again with --quantization equalized")
        elif _is_hybrid_per_channel(operator, graph.tensors):
            # It raises no error: a model measured so had 10% accuracy on ten classes.
            yield Finding(
                index,
                f"{RUNTIME} computes FULLY_CONNECTED wrongly with float inputs and a scale for each output",
                CONVERT_INT8,
                one_scale_mends=True,
            )


def _is_hybrid_per_channel(operator: Operator, tensors: Sequence[Tensor]) -> bool:
    if operator.name != "FULLY_CONNECTED":
        return False
    data, weights = (tensors[index] for index in operator.inputs[:2])
    return data.dtype == "float32" and weights.dtype == "int8" and len(weights.scales) > 1


TARGET = Target("a Raspberry Pi", _findings)
