"""Checks that the operators of a graph can be run at all: order, inputs, positions, sizes.

Part of `flatbuffer.parse`, which see. Each check stands for something that ended the process, or filled the memory,
when a runtime was given a well-formed file with one word changed (ai-edge-litert 2.3 with XNNPACK and with its
built-in kernels, tflite-runtime 2.14); what the runtimes themselves refuse is left to them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .graph import Operator, Tensor
from .operators import OPTIONAL_INPUTS, POSITIONS, REQUIRED_INPUTS, REQUIRED_OPTIONS
from .parameters import SMALLEST_SCALE
from .tables import Malformed

# The built-in kernels of ADD and SUB shift by 20 bits and abort when the output's scale cannot be reached so
# (tensorflow/lite/kernels/add.cc, left_shift).
_LARGEST_SCALE_RATIO = 2.0**19
# XNNPACK multiplies the sums of a convolution by less (xnn_create_convolution2d_nhwc_qs8 and its kin, "requantization
# scale"), and over more ai-edge-litert 2.3 raises an error or ends the process. Trained networks are some four powers
# of ten below it.
LARGEST_GAIN = 256.0
# Their kernels want one type for what they read and give (TF_LITE_ENSURE_TYPES_EQ); XNNPACK finds out when it is built,
# and the process ends.
_ONE_TYPE = (
    *("ADD", "AVERAGE_POOL_2D", "CONCATENATION", "HARD_SWISH", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM"),
    *("MUL", "PAD", "RELU", "RELU6", "RESHAPE", "SUB", "TANH"),
)
_SUMS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def check(
    data: bytes,
    tensors: Sequence[Tensor],
    operators: Sequence[Operator],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> None:
    """Verify one subgraph whose indices are in range.

    Args:
      data: the flatbuffer, for the values of constants.
      tensors, operators, inputs, outputs: of the subgraph.

    Raises:
      Malformed: a runtime could not run it.
    """
    _check_order(tensors, operators, inputs, outputs)
    for operator in operators:
        if operator.custom:
            continue
        _check_inputs(operator, tensors)
        for position, kind, of in POSITIONS.get(operator.name, ()):
            if position < len(operator.inputs):
                _check_position(data, operator, tensors, position, kind, of)


def gain(operator: Operator, tensors: Sequence[Tensor]) -> float:
    """By what a quantized convolution or Dense layer multiplies its sums at the most; 0 for another operator."""
    if operator.custom or operator.name not in _SUMS:
        return 0.0
    given, weights, made = (tensors[index] for index in (*operator.inputs[:2], operator.outputs[0]))
    if not (given.scales and weights.scales and made.scales):
        return 0.0
    return given.scales[0] * max(weights.scales) / made.scales[0]


def _check_order(
    tensors: Sequence[Tensor], operators: Sequence[Operator], inputs: Sequence[int], outputs: Sequence[int]
) -> None:
    """Every operator must read what is there by then: operators run in the file's order."""
    ready = [tensor.constant or tensor.variable or tensor.bytes == 0 for tensor in tensors]
    written = [tensor.constant for tensor in tensors]
    for index in inputs:
        if 0 in tensors[index].shape:
            raise Malformed(f"the input {tensors[index].name!r} of shape {tensors[index].shape} is empty")
        ready[index] = written[index] = True
    for operator in operators:
        for position, index in enumerate(operator.inputs):
            # Old converters left the shape given to RESHAPE, which is in its options as well, without values.
            if index != -1 and not ready[index] and not (operator.name == "RESHAPE" and position == 1):
                raise Malformed(f"operator {operator.name} reads {tensors[index].name!r} before it is computed")
        for index in operator.outputs:
            if written[index]:
                raise Malformed(f"tensor {tensors[index].name!r} is computed twice")
            ready[index] = written[index] = True
    for index in outputs:
        if not ready[index]:
            raise Malformed(f"the output {tensors[index].name!r} is never computed")


def _check_inputs(operator: Operator, tensors: Sequence[Tensor]) -> None:
    name, inputs = operator.name, operator.inputs
    required = REQUIRED_INPUTS.get(name, 1 if inputs else 0)
    if len(inputs) < required or -1 in inputs[:required] or (-1 in inputs and name not in OPTIONAL_INPUTS):
        raise Malformed(f"operator {name} lacks inputs")
    if not operator.options and name in REQUIRED_OPTIONS:
        raise Malformed(f"operator {name} lacks its options")
    biased = len(inputs) > 2 and inputs[2] != -1
    if name == "DEPTHWISE_CONV_2D" and not biased and tensors[inputs[1]].dtype in ("int8", "uint8"):
        # The quantized kernels read a bias without asking.
        raise Malformed(f"operator {name} lacks a bias")
    if name == "CONV_2D":
        _check_groups(tensors[inputs[0]].shape, tensors[inputs[1]].shape)
    if name in _ONE_TYPE and operator.outputs and tensors[inputs[0]].dtype != tensors[operator.outputs[0]].dtype:
        given, made = tensors[inputs[0]].dtype, tensors[operator.outputs[0]].dtype
        raise Malformed(f"operator {name} reads {given} and gives {made}")
    if name in ("ADD", "SUB") and operator.outputs:
        scales = [tensors[index].scales[:1] for index in (*inputs[:2], operator.outputs[0])]
        # A constant's scale may be 0 elsewhere (a dead channel); here the kernels divide by it.
        if all(scales) and (min(scales)[0] < SMALLEST_SCALE or max(scales)[0] > _LARGEST_SCALE_RATIO * scales[2][0]):
            raise Malformed(f"operator {name} has the scales {', '.join(f'{scale[0]:g}' for scale in scales)}")


def _check_groups(picture: Sequence[int], filters: Sequence[int]) -> None:
    """A picture deeper than the filters means groups, which both depths must divide into: kernels divide by them."""
    if len(picture) == len(filters) == 4 and picture[3]:
        groups, rest = divmod(picture[3], filters[3] or picture[3] + 1)
        if rest or not groups or filters[0] % groups:
            raise Malformed(f"operator CONV_2D has filters {tuple(filters)} for {picture[3]} channels")


def _check_position(
    data: bytes, operator: Operator, tensors: Sequence[Tensor], position: int, kind: str, of: int
) -> None:
    tensor, subject = tensors[operator.inputs[position]], tensors[operator.inputs[of]]
    if tensor.dtype not in ("int32", "int64"):
        raise Malformed(f"operator {operator.name} has positions of type {tensor.dtype}")
    if not tensor.constant or kind == "integers":
        return
    width, code = (4, "i") if tensor.dtype == "int32" else (8, "q")
    values = struct.unpack_from(f"<{tensor.bytes // width}{code}", data, tensor.offset)
    rank = len(subject.shape)
    if kind == "axes":
        fits = all(-rank <= value < max(rank, 1) for value in values)
    elif kind == "permutation":
        fits = sorted(value % rank if rank else value for value in values) == list(range(rank))
    else:
        shapes = [subject.shape, *(tensors[index].shape for index in operator.outputs)]
        dynamic = any(tensors[index].signature for index in operator.outputs)
        highest = max((size for shape in shapes for size in shape), default=1)
        fits = all(value >= -1 and (dynamic or value <= highest) for value in values)
    if not fits:
        raise Malformed(f"operator {operator.name} has the {kind} {values[:9]} for the shape {subject.shape}")
