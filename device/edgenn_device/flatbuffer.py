"""Reads the graph of a TFLite flatbuffer and verifies it on the way.

The TFLite runtimes follow offsets and indices without looking, so a truncated or corrupted file can end the process.
Nothing is handed to one before `parse` has gone through all of it: the tables (see `tables`), every index into
tensors, buffers, operator codes and subgraphs, the size of every constant, quantization, sparsity and the order of
the operators. It reads the structure only: it computes nothing, and refuses what it cannot vouch for (a newer schema,
weights kept in another file).

The schema is TFLite's version 3, identifier "TFL3" (tensorflow/lite/schema/schema.fbs); the numbers of the fields
below are theirs.
"""

from __future__ import annotations

import graphlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import soundness
from .errors import EdgennError
from .graph import Graph, Operator, Tensor
from .operators import CUSTOM, OPERATORS, OPTIONS, OPTIONS_2, OPTIONS_OF, TYPES
from .parameters import check_sparsity, check_strings, read_quantization
from .tables import Buffer, Malformed, Table, index_of

IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3

# What no picture classifier comes near and what would take a device's memory or minutes of its time.
_MAX_PARTS = 1 << 16  # tensors, operators, buffers, each in the whole file
_MAX_RANK = 8
_MAX_TENSOR_BYTES = 1 << 29
_MAX_SIZE = 8192  # of a kernel, stride or dilation: pixels of the largest picture that `card.InputSpec` allows


def parse(data: bytes) -> Graph:
    """Verify a TFLite flatbuffer and return its graph.

    Args:
      data: the flatbuffer; bytes after its end (a zip) do no harm.

    Raises:
      EdgennError: it is not a TFLite flatbuffer, or it is truncated, corrupted or of a kind this version cannot read.
    """
    try:
        return _Model(data).graph()
    except Malformed as error:
        raise EdgennError(
            f"the model is damaged or not a TFLite model ({error}): copy it again or convert it again"
        ) from None


class _Values(NamedTuple):
    """Where a buffer's bytes are. No bytes: the buffer is empty and its tensors are not constant."""

    start: int
    size: int


class _Code(NamedTuple):
    name: str
    version: int
    custom: bool


class _Model:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.root = Buffer(data).root(IDENTIFIER)
        self.parts = {"tensors": 0, "operators": 0, "buffers": 0}
        self.calls: dict[int, set[int]] = {}

    def graph(self) -> Graph:
        root = self.root
        version = root.integer(0, "I")
        if version != _SCHEMA_VERSION:
            raise Malformed(f"its schema has version {version}, not {_SCHEMA_VERSION}")
        if root.has(8) or root.has(9):
            raise Malformed("it keeps its weights in another file, and only a model that is one file can be read")
        self.buffers = [self._buffer(table) for table in root.tables(4)]
        self.codes = [_code(table) for table in root.tables(1)]
        self.subgraph_tables = list(root.tables(2))
        if not self.subgraph_tables:
            raise Malformed("it has no graph")
        subgraphs = [self._subgraph(index, table) for index, table in enumerate(self.subgraph_tables)]
        try:
            graphlib.TopologicalSorter(self.calls).prepare()
        except graphlib.CycleError:
            raise Malformed("one of its graphs calls itself") from None
        self._check_signatures([len(tensors) for tensors, _, _, _ in subgraphs])
        tensors, operators, inputs, outputs = subgraphs[0]
        return Graph(
            inputs,
            outputs,
            tensors,
            operators,
            root.text(3),
            self._metadata(),
            len(self.data),
            len(subgraphs),
        )

    def _count(self, what: str) -> None:
        self.parts[what] += 1
        if self.parts[what] > _MAX_PARTS:
            raise Malformed(f"it has more than {_MAX_PARTS} {what}")

    def _buffer(self, table: Table) -> _Values:
        self._count("buffers")
        span = table.span(0, 1)
        if span is not None:
            return _Values(*span)
        start, size = table.integer(1, "Q"), table.integer(2, "Q")
        if start <= 1:  # 0 and 1 say that there is no data outside the tables
            return _Values(0, 0)
        if start + size > len(self.data):
            raise Malformed("the values of a buffer lie outside the file")
        return _Values(start, size)

    def _metadata(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for table in self.root.tables(6):
            values = self.buffers[index_of(table.integer(1, "I"), len(self.buffers), "buffer")]
            self.root.spend(values.size)
            found.setdefault(table.text(0), self.data[values.start : values.start + values.size])
        for index in self.root.integers(5, "i"):
            index_of(index, len(self.buffers), "buffer")
        return found

    def _check_signatures(self, tensors: Sequence[int]) -> None:
        for signature in self.root.tables(7):
            subgraph = index_of(signature.integer(4, "I"), len(tensors), "subgraph")
            signature.text(2)
            for slot in (0, 1):
                for entry in signature.tables(slot):
                    entry.text(0)
                    index_of(entry.integer(1, "I"), tensors[subgraph], "tensor")

    def _subgraph(
        self, index: int, table: Table
    ) -> tuple[tuple[Tensor, ...], tuple[Operator, ...], tuple[int, ...], tuple[int, ...]]:
        tensor_tables = list(table.tables(0))
        tensors = tuple(self._tensor(entry, len(tensor_tables)) for entry in tensor_tables)
        inputs, outputs = table.integers(1, "i"), table.integers(2, "i")
        for tensor in (*inputs, *outputs):
            index_of(tensor, len(tensors), "tensor")
        self.calls[index] = set()
        operators = tuple(self._operator(entry, tensors, self.calls[index]) for entry in table.tables(3))
        table.text(4)
        soundness.check(self.data, tensors, operators, inputs, outputs)
        return tensors, operators, inputs, outputs

    def _tensor(self, table: Table, count: int) -> Tensor:
        self._count("tensors")
        name = table.text(3)
        shape = table.integers(0, "i")
        signature = table.integers(7, "i")
        if len(shape) > _MAX_RANK or min(shape, default=0) < 0:
            raise Malformed(f"tensor {name!r} has the shape {shape[: _MAX_RANK + 1]}")
        if signature and (len(signature) != len(shape) or min(signature) < -1):
            raise Malformed(f"tensor {name!r} has the shape {shape} and the shape signature {signature[:9]}")
        code = table.integer(1, "b")
        dtype, bits = TYPES[index_of(code, len(TYPES), "type")]
        size = (math.prod(shape) * bits + 7) // 8
        if size > _MAX_TENSOR_BYTES:
            raise Malformed(f"tensor {name!r} of shape {shape} would take {size} bytes")

        number = index_of(table.integer(2, "I"), max(len(self.buffers), 1), "buffer")
        values = self.buffers[number] if number else _Values(0, 0)  # buffer 0 means none
        variable = table.integer(5, "B") != 0
        sparsity = table.table(6)
        if values.size:
            if variable:
                raise Malformed(f"tensor {name!r} is a variable with constant values")
            if dtype == "string":
                check_strings(self.data[values.start : values.start + values.size], math.prod(shape), name)
            elif sparsity is not None:
                check_sparsity(sparsity, shape, values.size * 8 // max(bits, 1), name)
            elif bits == 0 or values.size != size:
                raise Malformed(f"constant {name!r} of shape {shape} and type {dtype} has {values.size} bytes")
        elif sparsity is not None:
            raise Malformed(f"tensor {name!r} is sparse and has no values")
        for variant in table.tables(9):
            variant.integers(0, "i")
            index_of(variant.integer(1, "b"), len(TYPES), "type")
        scales, zero_points, dimension = read_quantization(table.table(4), shape, dtype, values.size > 0, count, name)
        return Tensor(
            name,
            shape,
            dtype,
            scales,
            zero_points,
            constant=values.size > 0,
            bytes=size,
            quantized_dimension=dimension,
            signature=signature if -1 in signature else (),
            variable=variable,
            offset=values.start if values.size else 0,
        )

    def _operator(self, table: Table, tensors: Sequence[Tensor], calls: set[int]) -> Operator:
        self._count("operators")
        code = self.codes[index_of(table.integer(0, "I"), len(self.codes), "operator code")]
        inputs, outputs = table.integers(1, "i"), table.integers(2, "i")
        for tensor in (*inputs, *table.integers(8, "i")):
            if tensor != -1:  # an optional input left out
                index_of(tensor, len(tensors), "tensor")
        for tensor in outputs:
            if tensors[index_of(tensor, len(tensors), "tensor")].constant:
                raise Malformed(f"operator {code.name} writes into the constant {tensors[tensor].name!r}")
        table.span(5, 1)  # options of a custom operator: its own business
        table.span(7, 1)
        large, large_size = table.integer(9, "Q"), table.integer(10, "Q")
        if large > 1 and large + large_size > len(self.data):
            raise Malformed(f"the options of operator {code.name} lie outside the file")
        options: tuple[int | float | None, ...] = ()
        for slot, layouts in ((3, OPTIONS), (11, OPTIONS_2)):
            name, layout = layouts[index_of(table.integer(slot, "B"), len(layouts), "kind of options")]
            entry = table.table(slot + 1)
            if name != "None" and OPTIONS_OF.get(code.name, name) != name:
                raise Malformed(f"operator {code.name} has the options of another, {name}")
            if entry is not None and name != "None":
                options = tuple(_options(entry, layout))
                calls.update(self._callees(entry, layout))
        return Operator(code.name, code.version, code.custom, inputs, outputs, options)

    def _callees(self, options: Table, layout: str) -> Iterator[int]:
        for slot, kind in enumerate(layout):
            if kind in "gG":
                for callee in (options.integer(slot, "i"),) if kind == "g" else options.integers(slot, "i"):
                    # An IF or WHILE that names no subgraph names the first; that call is then a cycle.
                    yield index_of(callee, len(self.subgraph_tables), "subgraph")


def _code(table: Table) -> _Code:
    """Operator codes above 127 are in the newer field, those below in either: the larger one holds."""
    number = max(table.integer(0, "b"), table.integer(3, "i"))
    version = table.integer(2, "i", default=1)
    custom_code = table.text(1)
    if not 0 <= number < len(OPERATORS):
        raise Malformed(f"operator code {number} is newer than this edgenn knows or is none")
    if number != CUSTOM:
        return _Code(OPERATORS[number], version, False)
    if not custom_code:
        raise Malformed("a custom operator has no name")
    return _Code(custom_code, version, True)


def _options(table: Table, layout: str) -> Iterator[int | float | None]:
    for slot, kind in enumerate(layout):
        if kind in "biq":
            yield table.integer(slot, kind)
        elif kind in "pd":
            size = table.integer(slot, "i", default=0 if kind == "p" else 1)
            if not 0 < size <= _MAX_SIZE:
                raise Malformed(f"an operator has the size or step {size}")
            yield size
        elif kind == "g":
            yield table.integer(slot, "i")
        elif kind == "f":
            yield table.number(slot)
        else:
            if kind == "s":
                table.text(slot)
            elif kind != "x":
                table.span(slot, {"B": 1, "I": 4, "F": 4, "G": 4, "Q": 8}[kind])
            yield None
