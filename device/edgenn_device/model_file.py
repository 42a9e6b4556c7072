"""The one file that travels: read, verified, and written.

A model file is a TFLite flatbuffer and, behind it, the zip that TFLite Metadata appends: `labels.txt` and the card,
`edgenn.json`. `load` refuses a file that is truncated, altered or no picture classifier before any native code sees
it, and works out what somebody else's model does not say. The zip is read in memory, within limits, and never
unpacked: the names in it are keys, not paths.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast
from unicodedata import category

from . import flatbuffer, metadata
from .card import Card, Colour, Dtype, InputSpec
from .errors import EdgennError
from .graph import Graph, Tensor

LABELS = "labels.txt"
CARD = "edgenn.json"

_MAX_MODEL_BYTES = 1 << 30
# The zip is text: labels and a card. ImageNet-21k's labels are 0.5 MB.
_MAX_ENTRIES = 64
_MAX_DIRECTORY_BYTES = 1 << 16
_MAX_ENTRY_BYTES = 4 << 20
_END_OF_DIRECTORY = struct.Struct("<4s4H2LH")
_LOCAL_FILE = b"PK\x03\x04"

# Control characters, halves of characters, and what ends lines: the categories of Unicode that no label has.
_COMMANDS = ("Cc", "Cs", "Zl", "Zp")
_PICTURE_TYPES = ("uint8", "int8", "float32")


@dataclass(frozen=True)
class ModelFile:
    """A verified model, and how it is to be fed.

    Attributes:
      path: where it was read from.
      content: the flatbuffer, without the zip: what an interpreter is given.
      graph: its structure.
      card: what edgenn wrote about it, or None for somebody else's model.
      labels: class names in the order of the output; () when nobody said.
      input: how a picture becomes the input tensor.
      assumed: sentences on what was guessed for a model without a card.
    """

    path: Path
    content: bytes = field(repr=False)
    graph: Graph = field(repr=False)
    card: Card | None
    labels: tuple[str, ...]
    input: InputSpec
    assumed: tuple[str, ...]

    @property
    def classes(self) -> int:
        """Number of scores in the output."""
        return _classes(self.graph)


def load(path: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None) -> ModelFile:
    """Read a model file and verify all of it.

    Args:
      path: a .tflite file, by edgenn or from elsewhere, also one compiled for the Edge TPU.
      labels: text file with one label a line (UTF-8), or with "index label" lines; overrides the model's own.

    Raises:
      EdgennError: there is no such file, it is not a TFLite model, it is damaged, its card is of another model, or it
        does not classify pictures.
    """
    path = Path(path)
    data = _read(path, "model", _MAX_MODEL_BYTES)
    if data[4:8] != flatbuffer.IDENTIFIER:
        raise EdgennError(f"{path} {_what_it_is(data, path)}")
    given = _labels_file(labels) if labels is not None else None
    try:
        content, files = _split(data)
        graph = flatbuffer.parse(content)
        classes = _classes(graph)
        model = _own(path, content, graph, files) if CARD in files else _foreign(path, content, graph, files, given)
        if given is not None:
            model = replace(model, labels=_labels(given, classes, str(labels)))
        return model
    except EdgennError as error:
        raise EdgennError(f"{path}: {error}") from None


def read_labels(path: str | os.PathLike[str], classes: int) -> tuple[str, ...]:
    """The labels of a text file, as `load` takes them: one a line (UTF-8), or "index label" lines.

    Args:
      path: the file.
      classes: how many scores the model gives.

    Raises:
      EdgennError: it cannot be read, is no text, or has another number of labels.
    """
    return _labels(_labels_file(path), classes, str(path))


def attach(flatbuffer_: bytes, card: Card) -> bytes:
    """The complete model file: the flatbuffer, then a zip with its labels and its card.

    The same flatbuffer and card give the same bytes. A zip that stands behind the flatbuffer already is replaced.

    Args:
      flatbuffer_: a TFLite flatbuffer of a picture classifier.
      card: its card; `sha256` is filled in here.

    Raises:
      EdgennError: the card does not agree with the flatbuffer, or a label has a line break.
    """
    content, _ = _split(flatbuffer_)
    _check_card(card, flatbuffer.parse(content))
    for label in card.labels:
        if label != label.strip() or not label or len(label.splitlines()) != 1:
            raise EdgennError(f"the label {label!r} cannot stand on a line of its own: rename the class")
    _check_texts(card)
    card = replace(card, sha256=hashlib.sha256(content).hexdigest())
    out = io.BytesIO()
    out.write(content)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name, text in ((LABELS, "\n".join(card.labels) + "\n"), (CARD, card.to_json())):
            entry = zipfile.ZipInfo(name)  # dated 1980, so that equal content is an equal file
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text.encode())
    return out.getvalue()


def _read(path: Path, what: str, limit: int) -> bytes:
    try:
        if path.is_dir():
            raise EdgennError(f"{path} is a folder, not a {what}: give the file in it")
        if not path.exists():
            raise EdgennError(f"there is no {what} {path}: check the path")
        if not path.is_file():
            raise EdgennError(f"{path} is not a regular file: give the {what} itself")
        if path.stat().st_size > limit:
            raise EdgennError(f"{path} is larger than {limit >> 20} MB: this is no {what} for a device")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise EdgennError(f"{path} cannot be read ({reason}): check the path and its permissions") from None


def _what_it_is(data: bytes, path: Path) -> str:
    if not data:
        return "is empty: copy it again"
    if data.startswith(b"\x89HDF\r\n\x1a\n") or path.suffix in (".keras", ".h5"):
        return f"is a Keras model, which needs converting first: edgenn convert {path}"
    if data.startswith(_LOCAL_FILE):
        return "is a zip archive, not a TFLite model: unpack it and give the .tflite file in it"
    if data.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the model itself: git lfs pull"
    return "is not a TFLite model (it has no TFL3 identifier): give a .tflite file"


def _split(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The flatbuffer, and the files of the zip behind it."""
    end = _end_of_directory(data)
    if end < 0:
        mark = data.rfind(_LOCAL_FILE)
        if mark >= 0 and data[mark + 30 :].startswith((LABELS.encode(), CARD.encode())):
            raise EdgennError("the model ends in the middle of its labels or card: it is truncated, copy it again")
        return data, {}
    _, _, _, _, entries, size, _, _ = _END_OF_DIRECTORY.unpack_from(data, end)
    if entries > _MAX_ENTRIES or size > _MAX_DIRECTORY_BYTES:
        raise EdgennError(f"the zip in the model has {entries} files: no model needs more than {_MAX_ENTRIES}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len(infos) != entries:
                raise zipfile.BadZipFile(f"{len(infos)} of its {entries} files are there")
            start = min((info.header_offset for info in infos), default=end - size)
            return data[: max(start, 0)], {info.filename: _entry(archive, info) for info in infos}
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,  # an encrypted entry; NotImplementedError: a compression of its own
        IndexError,
        OverflowError,
    ) as error:
        # zipfile quotes what it found, which may be half of the file.
        reason = " ".join(str(error).split())[:100]
        raise EdgennError(f"the zip in the model is damaged ({reason}): copy the model again") from None


def _end_of_directory(data: bytes) -> int:
    """Position of the record that ends a zip, which must end the file, or -1."""
    size = _END_OF_DIRECTORY.size
    at = len(data)
    while (at := data.rfind(b"PK\x05\x06", max(0, len(data) - size - 0xFFFF), at)) >= 0:
        if at + size <= len(data) and at + size + int.from_bytes(data[at + size - 2 : at + size], "little") == len(
            data
        ):
            return at
    return -1


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as stream:
        content = stream.read(_MAX_ENTRY_BYTES + 1)
    if len(content) > _MAX_ENTRY_BYTES:
        raise EdgennError(f"{info.filename[:40]!r} in the model is larger than {_MAX_ENTRY_BYTES >> 20} MB")
    return content


def _own(path: Path, content: bytes, graph: Graph, files: dict[str, bytes]) -> ModelFile:
    card = Card.from_json(files[CARD])
    if card.sha256 != hashlib.sha256(content).hexdigest():
        raise EdgennError(
            "the model is not the one its card was written for (checksum): copy it again or convert again"
        )
    _check_card(card, graph)
    _check_texts(card)
    return ModelFile(path, content, graph, card, card.labels, card.input, ())


def _check_card(card: Card, graph: Graph) -> None:
    tensor = graph.tensors[_only(graph.inputs, "input")]
    if tensor.shape != (1, *card.input.shape) or tensor.dtype != card.input.dtype:
        raise EdgennError(
            f"the card says that the input is {card.input.dtype} {(1, *card.input.shape)} and the model that it is "
            f"{tensor.dtype} {tensor.shape}: convert the model again"
        )
    if len(card.labels) != _classes(graph):
        raise EdgennError(
            f"the card has {len(card.labels)} labels and the model {_classes(graph)} scores: convert the model again"
        )


def _check_texts(card: Card) -> None:
    for text in (card.name, *card.labels):
        if text != _on_one_line(text):
            raise EdgennError(f"{text[:40]!r} in the card has control characters: rename it and convert again")


def _foreign(path: Path, content: bytes, graph: Graph, files: dict[str, bytes], given: bytes | None) -> ModelFile:
    said = metadata.Metadata()
    if metadata.ENTRY in graph.metadata:
        said = metadata.parse(graph.metadata[metadata.ENTRY])
    spec, assumed = _picture(graph, said)
    labels: tuple[str, ...] = ()
    if given is None and said.label_file is not None:
        if said.label_file not in files:
            raise EdgennError(
                f"the model names its labels {said.label_file[:40]!r} and does not carry them: "
                "it may be truncated, copy it again, or give --labels FILE"
            )
        labels = _labels(files[said.label_file], _classes(graph), said.label_file)
    return ModelFile(path, content, graph, None, labels, spec, assumed)


def _picture(graph: Graph, said: metadata.Metadata) -> tuple[InputSpec, tuple[str, ...]]:
    """What the graph and the metadata say of the input, and sentences on the rest."""
    tensor = graph.tensors[_only(graph.inputs, "input")]
    shape, found = tensor.shape, f"{tensor.dtype} {tensor.shape}"
    if len(shape) == 4 and shape[0] == 1 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        raise EdgennError(f"its input {found} is not a picture with channels last: convert it for NHWC")
    if len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3) or tensor.dtype not in _PICTURE_TYPES:
        raise EdgennError(f"its input is not a picture: it takes {found}, and a picture is (1, height, width, 1 or 3)")
    if -1 in tensor.signature[1:]:
        raise EdgennError(f"its input is not a picture of a fixed size ({tensor.signature}): convert it for one size")
    _, height, width, channels = shape
    if (said.colour == "grey") != (channels == 1) and said.colour is not None:
        raise EdgennError(
            f"its metadata calls the input {said.colour} and it has {channels} channels: convert it again"
        )

    assumed = []
    colour: Colour = "grey" if channels == 1 else "rgb"
    if channels == 3 and said.colour is None:
        assumed.append("The input's channels are in the order red, green, blue.")
    mean, std = 0.0, 1.0
    if tensor.dtype == "float32" and said.mean and said.std:
        mean, std = _common(said.mean, "mean"), _common(said.std, "std")
    elif tensor.dtype == "float32":
        mean = std = 127.5
        assumed.append("The input is (byte - 127.5) / 127.5.")
    elif tensor.dtype == "int8":
        assumed.append("The input is byte - 128.")
    else:
        assumed.append("The input takes the bytes of a picture as they are.")
    if tensor.dtype != "float32" and said.mean and said.std and not _is_bytes(tensor, said.mean, said.std):
        assumed.append(
            "Its metadata normalises pixels to other values than bytes have in this input: results may be worse than "
            "where it was made; convert it with an input of bytes."
        )
    assumed.append(f"Pictures are stretched to {height}x{width}.")
    dtype = cast(Dtype, tensor.dtype)
    return InputSpec(height, width, channels, colour, "stretch", dtype, mean, std), tuple(assumed)


def _is_bytes(tensor: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    """Whether (byte - mean) / std, quantized as the input is, is the byte itself, to a step.

    0 and 1 are what files say whose input takes bytes: no normalisation.
    """
    if not tensor.scales or (set(mean), set(std)) == ({0.0}, {1.0}):
        return True
    first = tensor.zero_points[0] + (128 if tensor.dtype == "int8" else 0)
    ends = ((byte, (byte - m) / s / tensor.scales[0] + first) for byte in (0, 255) for m in mean for s in std if s)
    return all(abs(byte - step) <= 1.5 for byte, step in ends)


def _common(values: tuple[float, ...], name: str) -> float:
    if len(set(values)) != 1:
        raise EdgennError(
            f"its metadata normalises each channel differently ({name} {', '.join(f'{v:g}' for v in values)}), "
            "which edgenn does not do: convert it with the normalisation inside or with one for all channels"
        )
    return values[0]


def _classes(graph: Graph) -> int:
    tensor = graph.tensors[_only(graph.outputs, "output")]
    size = math.prod(tensor.shape)
    if tensor.dtype not in _PICTURE_TYPES or not tensor.shape or size != tensor.shape[-1] or size == 0:
        raise EdgennError(
            f"its output {tensor.dtype} {tensor.shape} is not one score a class: only classifiers can be run"
        )
    if -1 in tensor.signature[1:]:
        raise EdgennError(f"its output {tensor.signature} has no fixed number of classes: only classifiers can be run")
    return size


def _only(indices: tuple[int, ...], what: str) -> int:
    if len(indices) != 1:
        raise EdgennError(f"it has {len(indices)} {what}s: only classifiers, one picture in and scores out, can be run")
    return indices[0]


def _labels_file(path: str | os.PathLike[str]) -> bytes:
    return _read(Path(path), "labels file", _MAX_ENTRY_BYTES)


def _labels(text: bytes, classes: int, source: str) -> tuple[str, ...]:
    """Labels of a text file, one for each of `classes` scores."""
    try:
        lines = [line.strip() for line in text.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError:
        raise EdgennError(f"the labels in {source} are not UTF-8 text: save the file as UTF-8") from None
    while lines and not lines[-1]:
        lines.pop()
    # Coral's files number their lines: "0  background".
    numbered = [re.fullmatch(r"(\d{1,7})[:\s]+(.+)", line) for line in lines]
    if all(numbered) and [int(match[1]) for match in numbered if match] == list(range(len(lines))):
        lines = [match[2] for match in numbered if match]
    if len(lines) != classes:
        hint = "give the file that belongs to the model"
        if len(lines) + 1 == classes:
            hint = "if its first class is the background, put a line 'background' before the others"
        elif len(lines) == classes + 1:
            hint = "if the first line is the background, which this model does not have, remove it"
        raise EdgennError(f"{source} has {len(lines)} labels and the model {classes} scores: {hint}")
    return tuple(_on_one_line(line) or f"class {index}" for index, line in enumerate(lines))


def _on_one_line(text: str) -> str:
    """The text without what would command the terminal that it is printed on."""
    return "".join("\N{REPLACEMENT CHARACTER}" if category(c) in _COMMANDS else c for c in text.replace("\t", " "))
