"""Reads TFLite Metadata: what a model says of its input picture and where its labels are.

TFLite Metadata is a flatbuffer of its own (identifier "M001", metadata_schema.fbs of tflite-support and MediaPipe)
inside the model's; the files that it names are in a zip behind the model. Only what a picture classifier needs is
read, through the bounds-checked `tables`. What it leaves unsaid stays None here: guessing is `model_file`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import EdgennError
from .tables import Buffer, Malformed, Table

ENTRY = "TFLITE_METADATA"  # name of the model's metadata entry that holds it
IDENTIFIER = b"M001"

# Members of the schema's unions and enums.
IMAGE_PROPERTIES = 2
NORMALIZATION_OPTIONS = 1
RGB, GRAYSCALE = 1, 2
TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS = 2, 3


@dataclass(frozen=True)
class Metadata:
    """What TFLite Metadata says of a picture classifier.

    Attributes:
      name, description: of the model; "" when not said.
      colour: of the first input, or None.
      mean, std: per channel, or one for all: the input is (byte - mean) / std. () when not said.
      label_file: name, in the zip, of the file with the first output's labels, or None.
    """

    name: str = ""
    description: str = ""
    colour: Literal["rgb", "grey"] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    label_file: str | None = None


def parse(data: bytes) -> Metadata:
    """Read a TFLite Metadata flatbuffer.

    Raises:
      EdgennError: it is damaged.
    """
    try:
        root = Buffer(data).root(IDENTIFIER)
        subgraph = next(root.tables(3), None)
        first_input = next(subgraph.tables(2), None) if subgraph else None
        first_output = next(subgraph.tables(3), None) if subgraph else None
        mean, std = _normalisation(first_input) if first_input else ((), ())
        return Metadata(
            name=root.text(0),
            description=root.text(1),
            colour=_colour(first_input) if first_input else None,
            mean=mean,
            std=std,
            label_file=_label_file(first_output) if first_output else None,
        )
    except Malformed as error:
        raise EdgennError(
            f"the model's TFLite Metadata is damaged ({error}): copy the model again or convert it again"
        ) from None


def _colour(tensor: Table) -> Literal["rgb", "grey"] | None:
    content = tensor.table(3)
    if content is None or content.integer(0, "B") != IMAGE_PROPERTIES:
        return None
    properties = content.table(1)
    space = properties.integer(0, "b") if properties else 0
    return "rgb" if space == RGB else "grey" if space == GRAYSCALE else None


def _normalisation(tensor: Table) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in tensor.tables(4):
        options = unit.table(1)
        if unit.integer(0, "B") == NORMALIZATION_OPTIONS and options is not None:
            return options.floats(0), options.floats(1)
    return (), ()


def _label_file(tensor: Table) -> str | None:
    """The label file without a locale, or the first: others are translations of it."""
    names = [
        (file.text(3) != "", file.text(0))
        for file in tensor.tables(6)
        if file.integer(2, "b") in (TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS)
    ]
    return min(names, key=lambda name: name[0])[1] if names else None
