"""Writes standard TFLite Metadata into a flatbuffer, so that MediaPipe Tasks and ML Kit load the model as it is.

The flatbuffer that the converter made is not repacked: a new root table is put in front of it, which refers to the
old tables and to one buffer more. So every constant keeps its bytes and its 16-byte alignment (which repacking through
FlatBuffers' Python builder loses), and nothing that TFLite computes can change. It refuses files whose large buffers
are addressed from the start of the file, because they would move.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import flatbuffers

from edgenn_device import flatbuffer
from edgenn_device.card import Card
from edgenn_device.errors import EdgennError
from edgenn_device.graph import Graph, Tensor
from edgenn_device.metadata import (
    ENTRY,
    GRAYSCALE,
    IDENTIFIER,
    IMAGE_PROPERTIES,
    NORMALIZATION_OPTIONS,
    RGB,
    TENSOR_AXIS_LABELS,
)
from edgenn_device.model_file import LABELS
from edgenn_device.tables import Buffer, Table

# The first parser of TFLite Metadata knows everything that is written here.
_MIN_PARSER_VERSION = "1.0.0"
_FEATURE_PROPERTIES = 1
# Fields of the table Model.
_CODES, _SUBGRAPHS, _DESCRIPTION, _BUFFERS, _METADATA_BUFFER, _METADATA, _SIGNATURES = range(1, 8)


def add(content: bytes, card: Card) -> bytes:
    """The flatbuffer with TFLite Metadata made from `card`; metadata entries of other names stay.

    Args:
      content: a TFLite flatbuffer with one picture as input and one score a class as output.
      card: name, labels and input are used. The labels themselves are not written: `model_file.attach` puts them into
        the zip, as the file that the metadata names.

    Raises:
      EdgennError: the flatbuffer is damaged, has TFLite Metadata already, or cannot be moved.
    """
    graph = flatbuffer.parse(content)
    if ENTRY in graph.metadata:
        raise EdgennError("the model has TFLite Metadata already: give the file as it was converted")
    root = Buffer(content).root(flatbuffer.IDENTIFIER)
    # A model above 2 GB has offsets from the start of the file in its buffers and operators.
    moved = any(table.integer(1, "Q") > 1 for table in root.tables(_BUFFERS)) or any(
        operator.integer(9, "Q") > 1 for subgraph in root.tables(_SUBGRAPHS) for operator in subgraph.tables(3)
    )
    if moved:
        raise EdgennError("the model keeps buffers outside its tables, as those above 2 GB do: make a smaller one")
    return _prepend(content, root, _describe(graph, card))


class _Head:
    """The bytes to go before the old flatbuffer, and the offsets in them that are still to be set."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.links: list[tuple[int, int, bool]] = []  # position, target, whether the target is in the old flatbuffer

    def pad(self, size: int, remainder: int = 0) -> None:
        """Up to a position that leaves `remainder` when divided by `size`."""
        self.bytes += bytes((remainder - len(self.bytes)) % size)

    def link(self, target: int, old: bool = False) -> int:
        """Four bytes for an offset; returns their position, so that the target can be set later."""
        self.links.append((len(self.bytes), target, old))
        self.bytes += bytes(4)
        return len(self.links) - 1

    def point(self, link: int, target: int) -> None:
        position, _, old = self.links[link]
        self.links[link] = (position, target, old)

    def table(self, fields: Sequence[bool]) -> int:
        """A vtable for 4-byte fields, each there or not, and the start of its table; returns the table's position."""
        size = 4 + 4 * sum(fields)
        self.pad(4)
        # The table follows its vtable; pad so that it is aligned.
        self.pad(4, -(4 + 2 * len(fields)) % 4)
        vtable, offset = len(self.bytes), 4
        self.bytes += struct.pack("<HH", 4 + 2 * len(fields), size)
        for there in fields:
            self.bytes += struct.pack("<H", offset if there else 0)
            offset += 4 * there
        at = len(self.bytes)
        self.bytes += struct.pack("<i", at - vtable)
        return at

    def finish(self, old: bytes) -> bytes:
        self.pad(16)
        for position, target, in_old in self.links:
            offset = target + (len(self.bytes) if in_old else 0) - position
            struct.pack_into("<I", self.bytes, position, offset)
        return bytes(self.bytes) + old


def _prepend(content: bytes, root: Table, metadata: bytes) -> bytes:
    spans = {slot: root.span(slot, 1 if slot == _DESCRIPTION else 4) for slot in range(1, 8)}
    head = _Head()
    to_root = head.link(0)
    head.bytes += flatbuffer.IDENTIFIER

    there = [True, *(spans[slot] is not None or slot in (_BUFFERS, _METADATA) for slot in range(1, 8))]
    head.point(to_root, head.table(there))
    head.bytes += struct.pack("<I", root.integer(0, "I"))
    own: dict[int, int] = {}
    for slot, span in spans.items():
        if slot in (_BUFFERS, _METADATA):
            own[slot] = head.link(0)
        elif span is not None:
            head.link(span[0] - 4, old=True)  # a vector begins with its length

    new: dict[int, int] = {}
    for slot, link in own.items():
        start, count = spans[slot] or (0, 0)
        head.point(link, len(head.bytes))
        head.bytes += struct.pack("<I", count + 1)
        for at in range(start, start + 4 * count, 4):
            head.link(at + int.from_bytes(content[at : at + 4], "little"), old=True)
        new[slot] = head.link(0)

    head.point(new[_METADATA], head.table([True, True]))
    name = head.link(0)
    head.bytes += struct.pack("<I", (spans[_BUFFERS] or (0, 0))[1])
    head.point(name, len(head.bytes))
    head.bytes += struct.pack("<I", len(ENTRY)) + ENTRY.encode() + b"\0"

    head.point(new[_BUFFERS], head.table([True]))
    data = head.link(0)
    head.pad(16, 12)  # the bytes after the length are aligned to 16, as the schema asks of buffers
    head.point(data, len(head.bytes))
    head.bytes += struct.pack("<I", len(metadata)) + metadata
    return head.finish(content)


def _describe(graph: Graph, card: Card) -> bytes:
    """The ModelMetadata flatbuffer. Fields by their number in metadata_schema.fbs."""
    b = flatbuffers.Builder(1024)
    classes = len(card.labels)
    name = b.CreateString(card.name)
    description = b.CreateString(f"Classifies a picture into {classes} classes.")
    version = b.CreateString(f"card schema {card.schema}")
    parser = b.CreateString(_MIN_PARSER_VERSION)
    inputs = _vector(b, [_input(b, graph.tensors[graph.inputs[0]], card)])
    outputs = _vector(b, [_output(b, graph.tensors[graph.outputs[0]])])
    subgraph = _table(b, 10, {2: inputs, 3: outputs})
    subgraphs = _vector(b, [subgraph])
    b.Finish(_table(b, 8, {0: name, 1: description, 2: version, 3: subgraphs, 7: parser}), IDENTIFIER)
    return bytes(b.Output())


def _input(b: flatbuffers.Builder, tensor: Tensor, card: Card) -> int:
    spec = card.input
    low, high = {"uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}.get(
        spec.dtype, ((0.0 - spec.mean) / spec.std, (255.0 - spec.mean) / spec.std)
    )
    mean, std = spec.mean, spec.std
    if spec.dtype != "float32" and tensor.scales and tensor.scales[0] > 0:
        # Normalising and then quantizing must give the byte itself (int8: byte - 128):
        # (byte - mean) / std = scale * (byte - zero_point)
        mean = tensor.zero_points[0] + (128.0 if spec.dtype == "int8" else 0.0)
        std = 1.0 / tensor.scales[0]
    name, description = b.CreateString("image"), b.CreateString("The picture to classify.")
    b.StartObject(2)
    b.PrependUint32Slot(0, spec.width, 0)
    b.PrependUint32Slot(1, spec.height, 0)
    size = b.EndObject()
    b.StartObject(2)
    # The schema has no word for BGR: left unknown.
    b.PrependInt8Slot(0, {"rgb": RGB, "grey": GRAYSCALE}.get(spec.colour, 0), 0)
    b.PrependUOffsetTRelativeSlot(1, size, 0)
    properties = b.EndObject()
    content = _union(b, IMAGE_PROPERTIES, properties)
    options = _table(b, 2, {0: _floats(b, [mean]), 1: _floats(b, [std])})  # one value for all channels
    units = _vector(b, [_union(b, NORMALIZATION_OPTIONS, options)])
    stats = _table(b, 2, {0: _floats(b, [high]), 1: _floats(b, [low])})
    return _table(b, 7, {0: name, 1: description, 3: content, 4: units, 5: stats})


def _output(b: flatbuffers.Builder, tensor: Tensor) -> int:
    low, high = {"uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}.get(tensor.dtype, (0.0, 1.0))
    name, description = b.CreateString("probability"), b.CreateString("One score for each label.")
    content = _union(b, _FEATURE_PROPERTIES, _table(b, 0, {}))
    stats = _table(b, 2, {0: _floats(b, [high]), 1: _floats(b, [low])})
    file_name, file_description = b.CreateString(LABELS), b.CreateString("The labels, in the order of the scores.")
    b.StartObject(5)
    b.PrependUOffsetTRelativeSlot(0, file_name, 0)
    b.PrependUOffsetTRelativeSlot(1, file_description, 0)
    # Labels along the output's axis, one each. (TENSOR_VALUE_LABELS would name the values of a single number.)
    b.PrependInt8Slot(2, TENSOR_AXIS_LABELS, 0)
    files = _vector(b, [b.EndObject()])
    return _table(b, 7, {0: name, 1: description, 3: content, 5: stats, 6: files})


def _table(b: flatbuffers.Builder, slots: int, fields: dict[int, int]) -> int:
    b.StartObject(slots)
    for slot, offset in fields.items():
        b.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return int(b.EndObject())


def _union(b: flatbuffers.Builder, kind: int, member: int) -> int:
    """A table whose fields 0 and 1 are a union's type and value."""
    b.StartObject(2)
    b.PrependUint8Slot(0, kind, 0)
    b.PrependUOffsetTRelativeSlot(1, member, 0)
    return int(b.EndObject())


def _vector(b: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _floats(b: flatbuffers.Builder, values: Sequence[float]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependFloat32(value)
    return int(b.EndVector())
