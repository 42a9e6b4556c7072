"""Reads FlatBuffers tables out of bytes that nobody vouches for.

Every offset, vtable, vector and string is checked against the buffer before it is followed, as the C++ `Verifier` of
the FlatBuffers library does (https://flatbuffers.dev/internals: the wire format), because the TFLite runtimes follow
them unchecked. It knows no schema: `flatbuffer` and `metadata` do. It refuses files that make it read much more than
they hold (many offsets to one place), so the time it takes is bounded by the size of the file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

# Scalars and vector elements: struct format by the letters that `operators` uses for layouts.
_SCALARS = {
    code: struct.Struct(form)
    for code, form in {"b": "<b", "B": "<B", "H": "<H", "i": "<i", "I": "<I", "q": "<q", "Q": "<Q", "f": "<f"}.items()
}
_I32 = _SCALARS["i"].unpack_from
_U32 = _SCALARS["I"].unpack_from
_U16 = struct.Struct("<H").unpack_from
_U16_PAIR = struct.Struct("<HH").unpack_from

# An honest file is read about once. Writers share some strings and vectors, none shares this many.
_REREADING = 4
_ALLOWANCE = 1 << 16


class Malformed(ValueError):
    """The bytes do not follow the format. The caller turns it into an EdgennError that names the file."""


def index_of(value: int, count: int, what: str) -> int:
    """`value`, when it is an index into `count` things."""
    if not 0 <= value < count:
        raise Malformed(f"{what} {value} of {count} is asked for")
    return value


class Buffer:
    """The bytes, and how much of them may still be read."""

    __slots__ = ("_left", "data", "size")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self._left = _REREADING * self.size + _ALLOWANCE

    def root(self, identifier: bytes) -> Table:
        """The root table of a buffer whose file identifier is `identifier` (4 bytes)."""
        if self.size < 8:
            raise Malformed(f"it has {self.size} bytes")
        if self.data[4:8] != identifier:
            raise Malformed(f"it has no {identifier.decode()} identifier")
        return Table(self, _U32(self.data, 0)[0])

    def spend(self, size: int) -> None:
        """Account for `size` bytes read."""
        self._left -= size
        if self._left < 0:
            raise Malformed("its parts refer to the same bytes over and over")


class Table:
    """One table: fields by slot (the field's number in the schema), each checked when it is read."""

    __slots__ = ("_at", "_buffer", "_size", "_vtable", "_vtable_size")

    def __init__(self, buffer: Buffer, at: int) -> None:
        buffer.spend(8)
        if at & 3 or at + 4 > buffer.size:
            raise Malformed(f"a table at {at} lies outside the file")
        vtable = at - _I32(buffer.data, at)[0]
        if vtable & 1 or vtable < 0 or vtable + 4 > buffer.size:
            raise Malformed(f"the table at {at} has its vtable outside the file")
        vtable_size, size = _U16_PAIR(buffer.data, vtable)
        if vtable_size < 4 or vtable_size & 1 or vtable + vtable_size > buffer.size:
            raise Malformed(f"the table at {at} has a broken vtable")
        if size < 4 or at + size > buffer.size:
            raise Malformed(f"the table at {at} reaches beyond the end of the file")
        self._buffer = buffer
        self._at = at
        self._size = size
        self._vtable = vtable
        self._vtable_size = vtable_size

    def _field(self, slot: int, width: int) -> int:
        """Position of a field of `width` bytes, or 0 when the table does not have it."""
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_size:
            return 0
        offset: int = _U16(self._buffer.data, self._vtable + entry)[0]
        if offset == 0:
            return 0
        at = self._at + offset
        if offset < 4 or offset + width > self._size or at % width:
            raise Malformed(f"the table at {self._at} has field {slot} out of place")
        return at

    def spend(self, size: int) -> None:
        """Account for `size` bytes read beside the tables."""
        self._buffer.spend(size)

    def has(self, slot: int) -> bool:
        return self._field(slot, 1) != 0

    def integer(self, slot: int, code: str, default: int = 0) -> int:
        """An integer field; `code` is b, B, i, I, q or Q."""
        scalar = _SCALARS[code]
        at = self._field(slot, scalar.size)
        return int(scalar.unpack_from(self._buffer.data, at)[0]) if at else default

    def number(self, slot: int) -> float:
        """A float32 field."""
        at = self._field(slot, 4)
        return float(_SCALARS["f"].unpack_from(self._buffer.data, at)[0]) if at else 0.0

    def _target(self, slot: int) -> int:
        at = self._field(slot, 4)
        return at + int(_U32(self._buffer.data, at)[0]) if at else 0

    def table(self, slot: int) -> Table | None:
        at = self._target(slot)
        return Table(self._buffer, at) if at else None

    def span(self, slot: int, width: int) -> tuple[int, int] | None:
        """Position of the first element and number of elements of a vector of `width`-byte elements."""
        at = self._target(slot)
        if not at:
            return None
        data, end = self._buffer.data, self._buffer.size
        if at & 3 or at + 4 > end:
            raise Malformed(f"the vector of field {slot} of the table at {self._at} lies outside the file")
        count: int = _U32(data, at)[0]
        if at + 4 + count * width > end or (count and (at + 4) % width):
            raise Malformed(f"the vector at {at} reaches beyond the end of the file or is not aligned")
        return at + 4, count

    def integers(self, slot: int, code: str) -> tuple[int, ...]:
        """A vector of integers; `code` is b, B, i, I, q or Q. A missing vector is an empty one."""
        size = _SCALARS[code].size
        start, count = self.span(slot, size) or (0, 0)
        self._buffer.spend(4 + count * size)
        return struct.unpack_from(f"<{count}{code}", self._buffer.data, start) if count else ()

    def floats(self, slot: int) -> tuple[float, ...]:
        """A vector of float32, all finite."""
        start, count = self.span(slot, 4) or (0, 0)
        self._buffer.spend(4 + count * 4)
        if not count:
            return ()
        values: tuple[float, ...] = struct.unpack_from(f"<{count}f", self._buffer.data, start)
        if not all(map(math.isfinite, values)):
            raise Malformed(f"the numbers at {start} are not finite")
        return values

    def data(self, slot: int) -> bytes:
        """A vector of bytes, copied."""
        start, count = self.span(slot, 1) or (0, 0)
        self._buffer.spend(4 + count)
        return self._buffer.data[start : start + count]

    def text(self, slot: int) -> str:
        """A string, with U+FFFD for what is not UTF-8 and without control characters: it will be printed."""
        span = self.span(slot, 1)
        if span is None:
            return ""
        start, count = span
        self._buffer.spend(4 + count)
        # Native readers rely on the zero byte after the text.
        if start + count >= self._buffer.size or self._buffer.data[start + count]:
            raise Malformed(f"the text at {start} does not end")
        text = self._buffer.data[start : start + count].decode("utf-8", "replace")
        return (
            text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        )

    def tables(self, slot: int) -> Iterator[Table]:
        """A vector of tables; a missing vector is an empty one."""
        start, count = self.span(slot, 4) or (0, 0)
        for at in range(start, start + 4 * count, 4):
            yield Table(self._buffer, at + int(_U32(self._buffer.data, at)[0]))
