"""The card: what a model says about itself, as `edgenn.json` inside the model file.

Only the words and their checks; where the card is kept is `model_file`'s business. Reading refuses what it does not
understand (a newer schema, a field of the wrong kind) rather than guess.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from .errors import EdgennError

SCHEMA = 1
Colour = Literal["rgb", "bgr", "grey"]
Resize = Literal["stretch", "crop", "pad"]
Dtype = Literal["uint8", "int8", "float32"]


@dataclass(frozen=True)
class InputSpec:
    """How a picture becomes the input tensor of shape (1, height, width, channels).

    Attributes:
      height, width: pixels of the input tensor.
      channels: 3, or 1 for grey.
      colour: order of the channels in the tensor.
      resize: "stretch" (both sides, aspect ratio given up), "crop" (largest centred window of the tensor's aspect
        ratio) or "pad" (the whole picture, centred on grey 114).
      dtype: element type of the tensor. uint8 takes bytes as they are; int8 takes byte - 128; float32 takes
        (byte - mean) / std.
      mean, std: only used for float32.
    """

    height: int
    width: int
    channels: int = 3
    colour: Colour = "rgb"
    resize: Resize = "stretch"
    dtype: Dtype = "uint8"
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.height > 8192 or self.width > 8192:
            raise EdgennError(f"an input of {self.height}x{self.width} pixels is not possible: sides are 1 to 8192")
        if self.channels not in (1, 3) or (self.channels == 1) != (self.colour == "grey"):
            raise EdgennError(f"{self.channels} channels of colour {self.colour!r}: 3 with rgb or bgr, 1 with grey")
        for name, value, allowed in (
            ("colour", self.colour, Colour),
            ("resize", self.resize, Resize),
            ("dtype", self.dtype, Dtype),
        ):
            if value not in get_args(allowed):
                raise EdgennError(f"{name} {value!r} is not one of {', '.join(get_args(allowed))}")
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise EdgennError(f"normalisation (x - {self.mean}) / {self.std} is not usable: std must be above 0")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels


@dataclass(frozen=True)
class Card:
    """Everything a device or a person needs to know of a model; see ARCHITECTURE in the project's docs.

    Attributes:
      name: short name, also the file's stem.
      labels: class names, in the order of the output tensor.
      input: how a picture becomes the input tensor.
      task: "image-classification" is the only one yet.
      quantization: scheme, calibration_pictures, input_dtype, output_dtype.
      training: network, its options, dataset fingerprint, seed, versions.
      metrics: float {accuracy}, int8 {accuracy, runtime}, agreement, pictures, split.
      target: what the file was checked for ("pi", "coral"), or None.
      minimum_confidence: score in 0..1 below which a label should be read as "unknown", or None.
      golden: outputs of this file for inputs made from a seed, per kernel library (see `golden`).
      sha256: hex digest of the flatbuffer, filled in when the card is attached to it.
    """

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    task: str = "image-classification"
    quantization: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    target: str | None = None
    minimum_confidence: float | None = None
    golden: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    schema: int = SCHEMA

    def to_json(self) -> str:
        """JSON text with sorted keys, so that equal cards are equal files."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, text: str | bytes) -> Card:
        """Read a card.

        Raises:
          EdgennError: not JSON, a newer schema, a missing field or one of the wrong kind.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raise EdgennError("the model's card (edgenn.json) is not JSON: convert the model again") from None
        if not isinstance(raw, dict):
            raise EdgennError("the model's card (edgenn.json) is not a JSON object: convert the model again")
        schema = raw.get("schema")
        if not isinstance(schema, int) or schema < 1:
            raise EdgennError("the model's card has no schema version: convert the model again")
        if schema > SCHEMA:
            raise EdgennError(
                f"the model's card has schema {schema} and this edgenn reads up to {SCHEMA}: pip install -U edgenn"
            )
        try:
            known = {f.name for f in fields(cls)}
            values = {key: value for key, value in raw.items() if key in known}
            spec = {key: value for key, value in values["input"].items() if key in InputSpec.__dataclass_fields__}
            _check_kinds(values, spec)
            return cls(**{**values, "labels": tuple(values["labels"]), "input": InputSpec(**spec)})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise EdgennError(f"the model's card (edgenn.json) is incomplete ({error}): convert it again") from None


def _check_kinds(values: dict[str, Any], spec: dict[str, Any]) -> None:
    kinds: dict[str, type | tuple[type, ...]] = {
        "name": str,
        "labels": list,
        "task": str,
        "quantization": dict,
        "training": dict,
        "metrics": dict,
        "golden": dict,
        "sha256": str,
        "target": (str, type(None)),
        "minimum_confidence": (int, float, type(None)),
    }
    for name, kind in kinds.items():
        if name in values and not isinstance(values[name], kind):
            raise TypeError(f"{name} is a {type(values[name]).__name__}")
    if not all(isinstance(label, str) for label in values["labels"]):
        raise TypeError("a label is not text")
    for name in ("height", "width", "channels"):
        if name in spec and not isinstance(spec[name], int):
            raise TypeError(f"input {name} is a {type(spec[name]).__name__}")
    for name in ("mean", "std"):
        if name in spec and not isinstance(spec[name], (int, float)):
            raise TypeError(f"input {name} is a {type(spec[name]).__name__}")
