"""Writes small TFLite models of one operator after another, for `roofline` to see how fast the kernels can be.

It knows two operators and as much of the FlatBuffers format as they need (https://flatbuffers.dev/internals, tables
written front to back); a device has neither the flatbuffers package nor the schema's classes. It writes no other model:
converting networks is the workstation's business.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from .. import flatbuffer
from ..operators import OPERATORS

Kind = Literal["CONV_2D", "DEPTHWISE_CONV_2D"]
Dtype = Literal["int8", "float32"]

_FLOAT32, _INT32, _INT8 = 0, 2, 9  # TensorType
_CONV_OPTIONS, _DEPTHWISE_OPTIONS = 1, 2  # BuiltinOptions
WINDOW = 3  # of the depthwise convolution, the size nearly all networks use
# Versions with int8 and one scale a tensor that every runtime of the last years has.
_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3}
_SCALE = 1 / 64

# A scalar with its struct format, or what writes a child and returns where it stands.
_Field = tuple[str, int | float] | Callable[[], int]


def convolutions(kind: Kind, dtype: Dtype, side: int, channels: int, count: int) -> bytes:
    """A flatbuffer of `count` equal convolutions in a row, (1, side, side, channels) in and out, one set of weights.

    CONV_2D is 1x1 over all channels, DEPTHWISE_CONV_2D is 3x3; padding keeps the size. Weights are noise that does not
    saturate.
    """
    random = np.random.default_rng(0)
    shape = (channels, 1, 1, channels) if kind == "CONV_2D" else (1, WINDOW, WINDOW, channels)
    if dtype == "int8":
        weights = random.integers(-40, 41, shape).astype(np.int8).tobytes()
        bias = np.zeros(channels, np.int32).tobytes()
    else:
        weights = random.normal(0, shape[-1] ** -0.5, shape).astype(np.float32).tobytes()
        bias = np.zeros(channels, np.float32).tobytes()
    return _Writer().model(kind, dtype, (1, side, side, channels), shape, weights, bias, count)


class _Writer:
    def __init__(self) -> None:
        self._data = bytearray(8)

    def model(
        self,
        kind: Kind,
        dtype: Dtype,
        activation: Sequence[int],
        weights_shape: Sequence[int],
        weights: bytes,
        bias: bytes,
        count: int,
    ) -> bytes:
        element = _INT8 if dtype == "int8" else _FLOAT32
        bias_element = _INT32 if dtype == "int8" else _FLOAT32
        # Tensors 0 and 1 are weights and bias, the activations follow. Buffer 0 is empty by convention.
        tensors = [
            self._tensor(weights_shape, element, 1, _SCALE),
            self._tensor(weights_shape[-1:], bias_element, 2, _SCALE * _SCALE),
            *(self._tensor(activation, element, 0, _SCALE) for _ in range(count + 1)),
        ]
        operators = [self._operator(kind, (index + 2, 0, 1), index + 3) for index in range(count)]
        code = OPERATORS.index(kind)
        subgraph = self._later(
            {
                0: lambda: self._tables(tensors),
                1: lambda: self._vector("i", [2]),
                2: lambda: self._vector("i", [count + 2]),
                3: lambda: self._tables(operators),
            }
        )
        root = self._table(
            {
                0: ("I", 3),
                1: lambda: self._tables(
                    [self._later({0: ("b", code), 2: ("i", _VERSIONS[kind]), 3: ("i", code)})],
                ),
                2: lambda: self._tables([subgraph]),
                4: lambda: self._tables(
                    [self._later({}), self._later({0: self._blob(weights)}), self._later({0: self._blob(bias)})]
                ),
            }
        )
        struct.pack_into("<I4s", self._data, 0, root, flatbuffer.IDENTIFIER)
        return bytes(self._data)

    def _tensor(self, shape: Sequence[int], element: int, buffer: int, scale: float) -> Callable[[], int]:
        quantization = self._later({2: lambda: self._vector("f", [scale]), 3: lambda: self._vector("q", [0])})
        fields: dict[int, _Field] = {
            0: lambda: self._vector("i", shape),
            1: ("b", element),
            2: ("I", buffer),
            3: lambda: self._vector("B", b"t\0", terminated=True),
        }
        if element != _FLOAT32:
            fields[4] = quantization
        return self._later(fields)

    def _operator(self, kind: Kind, inputs: Sequence[int], output: int) -> Callable[[], int]:
        # Padding 0 is SAME, and no activation is fused.
        options: dict[int, _Field] = {0: ("b", 0), 1: ("i", 1), 2: ("i", 1)}
        if kind == "DEPTHWISE_CONV_2D":
            options[3] = ("i", 1)
        return self._later(
            {
                0: ("I", 0),
                1: lambda: self._vector("i", inputs),
                2: lambda: self._vector("i", [output]),
                3: ("B", _CONV_OPTIONS if kind == "CONV_2D" else _DEPTHWISE_OPTIONS),
                4: self._later(options),
            }
        )

    def _later(self, fields: dict[int, _Field]) -> Callable[[], int]:
        return lambda: self._table(fields)

    def _blob(self, values: bytes) -> Callable[[], int]:
        return lambda: self._vector("B", values, align=16)

    def _table(self, fields: dict[int, _Field]) -> int:
        """A vtable, the table behind it, then its children."""
        slots = max(fields, default=-1) + 1
        self._pad(4, before=4 + 2 * slots)
        vtable = len(self._data)
        table = vtable + 4 + 2 * slots
        places: dict[int, int] = {}
        at = 4
        # Fields of four bytes first, so that no gap is needed.
        for slot, field in sorted(fields.items(), key=lambda item: -_width(item[1])):
            places[slot] = at
            at += _width(field)
        self._data += struct.pack("<HH", 4 + 2 * slots, at)
        self._data += struct.pack(f"<{slots}H", *(places.get(slot, 0) for slot in range(slots)))
        self._data += struct.pack("<i", table - vtable) + bytes(at - 4)
        for slot, field in fields.items():
            if isinstance(field, tuple):
                struct.pack_into(f"<{field[0]}", self._data, table + places[slot], field[1])
            else:
                self._point(table + places[slot], field())
        return table

    def _tables(self, children: Sequence[Callable[[], int]]) -> int:
        start = self._vector("I", [0] * len(children))
        for index, child in enumerate(children):
            self._point(start + 4 + 4 * index, child())
        return start

    def _vector(self, code: str, values: Sequence[float] | bytes, align: int = 4, terminated: bool = False) -> int:
        self._pad(max(align, struct.calcsize(f"<{code}")), before=4)
        start = len(self._data)
        count = len(values) - 1 if terminated else len(values)
        self._data += struct.pack("<I", count)
        self._data += values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{code}", *values)
        return start

    def _pad(self, align: int, before: int) -> None:
        """Fill up until what follows `before` bytes from here is aligned."""
        self._data += bytes(-(len(self._data) + before) % align)

    def _point(self, at: int, target: int) -> None:
        struct.pack_into("<I", self._data, at, target - at)


def _width(field: _Field) -> int:
    return struct.calcsize(f"<{field[0]}") if isinstance(field, tuple) else 4
