"""Verifies what a tensor carries besides its plain values: quantization, strings, sparsity.

Part of `flatbuffer.parse`, which see. Refuses parameters that do not fit the tensor's shape and type; says nothing of
whether they are good ones.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .tables import Malformed, Table, index_of

# Activations only (a weight's scale may be 0: a dead channel). XNNPACK ends the process over a scale that is 0 or
# subnormal, the built-in kernels over some that are huge; real ones lie between 1e-9 (int32) and 1e3.
SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-64, 2.0**64


def read_quantization(
    table: Table | None, shape: Sequence[int], dtype: str, constant: bool, tensors: int, name: str
) -> tuple[tuple[float, ...], tuple[int, ...], int]:
    if table is None:
        return (), (), 0
    table.span(0, 4)  # the ranges seen in training: not used by any runtime, and not always finite
    table.span(1, 4)
    scales, zero_points, dimension = table.floats(2), table.integers(3, "q"), table.integer(6, "i")
    details, kind = table.table(5), table.integer(4, "B")
    if details is not None and kind == 1:  # CustomQuantization
        details.span(0, 1)
    elif details is not None and kind in (2, 3):  # BlockwiseQuantization, MultiAxisQuantization
        index_of(details.integer(0, "i"), tensors, "tensor")
        index_of(max(details.integer(1, "i"), 0), tensors, "tensor")
        details.span(3, 4)
    if scales and len(zero_points) not in (1, len(scales)):
        raise Malformed(f"tensor {name!r} has {len(scales)} scales and {len(zero_points)} zero points")
    if len(scales) > 1 and not (0 <= dimension < len(shape) and shape[dimension] == len(scales)):
        raise Malformed(f"tensor {name!r} of shape {tuple(shape)} has {len(scales)} scales along dimension {dimension}")
    if zero_points and not scales and dtype in ("int8", "uint8"):
        raise Malformed(f"tensor {name!r} has zero points and no scale")
    if scales and not constant and not SMALLEST_SCALE <= scales[0] <= _LARGEST_SCALE:
        raise Malformed(f"tensor {name!r} has the scale {scales[0]:g}")
    if min(scales, default=0.0) < 0:
        raise Malformed(f"tensor {name!r} has a negative scale")
    lowest, highest = {"uint8": (0, 255), "int8": (-128, 127)}.get(dtype, (-(1 << 31), (1 << 31) - 1))
    if scales and not (lowest <= min(zero_points) and max(zero_points) <= highest):
        raise Malformed(f"tensor {name!r} has a zero point outside {dtype}")
    return scales, zero_points, dimension


def check_strings(data: bytes, count: int, name: str) -> None:
    """A string tensor: int32 count, int32 offsets (count + 1), characters (tensorflow/lite/string_util.h)."""
    if len(data) < 4 * (count + 2) or struct.unpack_from("<i", data)[0] != count:
        raise Malformed(f"the strings of {name!r} are incomplete")
    offsets = struct.unpack_from(f"<{count + 1}i", data, 4)
    if offsets[0] != 4 * (count + 2) or offsets[-1] > len(data) or list(offsets) != sorted(offsets):
        raise Malformed(f"the strings of {name!r} lie outside it")


def check_sparsity(table: Table, shape: Sequence[int], values: int, name: str) -> None:
    """Verify a sparse constant (table SparsityParameters) with `values` elements.

    Dimensions are those of the shape followed by those of the blocks. Segments of a compressed dimension split its
    indices among the elements of the dimension before it.
    """
    order, blocks, dimensions = table.integers(0, "i"), table.integers(1, "i"), list(table.tables(2))
    if (
        len(blocks) > len(shape)
        or sorted(order) != list(range(len(shape) + len(blocks)))
        or len(dimensions) != len(order)
    ):
        raise Malformed(f"the sparse tensor {name!r} has its dimensions mixed up")
    if any(not 0 <= block < len(shape) for block in blocks):
        raise Malformed(f"the sparse tensor {name!r} has blocks in dimensions it does not have")
    stored = 1
    for dimension in dimensions:
        if dimension.integer(0, "b") == 0:  # dense
            stored *= index_of(dimension.integer(1, "i"), 1 << 31, "size")
            continue
        segments, indices = _sparse_vector(dimension, 2), _sparse_vector(dimension, 4)
        if (
            len(segments) != stored + 1
            or segments[0] != 0
            or segments[-1] != len(indices)
            or list(segments) != sorted(segments)
            or not all(0 <= index < max(shape) for index in indices)
        ):
            raise Malformed(f"the sparse tensor {name!r} has indices outside it")
        stored = len(indices)
    if stored != values:
        raise Malformed(f"the sparse tensor {name!r} has {values} values for {stored} places")


def _sparse_vector(dimension: Table, slot: int) -> tuple[int, ...]:
    """SparseIndexVector, a union whose type is in `slot`: Int32Vector, Uint16Vector or Uint8Vector."""
    code = {1: "i", 2: "H", 3: "B"}.get(dimension.integer(slot, "B"))
    vector = dimension.table(slot + 1)
    if code is None or vector is None:
        raise Malformed("a sparse tensor has no indices")
    return vector.integers(0, code)
