"""A recipe: every setting of a training run, as a value that checks itself and can be kept as TOML.

What is not said keeps its default. The defaults were chosen on validation photos; BENCHMARKS.md has the measurements.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgenn_device.card import InputSpec, Resize
from edgenn_device.errors import EdgennError


@dataclass(frozen=True)
class Augmentation:
    """How far a training photo may be changed; 0 switches a change off.

    Attributes:
      flip: mirror left and right, half of the time.
      rotation: degrees to either side.
      shift: share of the side, in each direction.
      zoom: share; 0.2 scales by 0.8 to 1.25.
      brightness: share of the full range added to all pixels.
      contrast, saturation: share; 0.2 scales the distance from grey by 0.8 to 1.2.
      erase: side of a random square painted grey, as share of the picture's side (Zhong et al. 2017,
        arXiv:1708.04896), half of the time.
    """

    flip: bool = True
    rotation: float = 12.0
    shift: float = 0.1
    zoom: float = 0.2
    brightness: float = 0.15
    contrast: float = 0.25
    saturation: float = 0.25
    erase: float = 0.3

    def __post_init__(self) -> None:
        limits = {"rotation": 180.0, "shift": 0.5, "zoom": 0.9, "brightness": 1.0}
        for name in ("rotation", "shift", "zoom", "brightness", "contrast", "saturation", "erase"):
            _within(f"augmentation.{name}", getattr(self, name), 0.0, limits.get(name, 1.0))


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Attributes:
      network, network_options: name in `edgenn.networks` and what its builder takes.
      size: side of the square input in pixels.
      resize: how a photo becomes a square (see `edgenn_device.InputSpec`).
      colour: "rgb", or "grey" for one channel.
      classes: folders to use, in this order; empty takes all.
      epochs: most epochs; `patience` may end the run earlier.
      patience: epochs without a better validation accuracy after which to stop.
      batch: photos a step.
      learning_rate: its peak; warmed up over `warmup` epochs, then a cosine down to zero (Loshchilov and Hutter 2017,
        arXiv:1608.03983).
      weight_decay: of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), not on biases and normalisation.
      label_smoothing: share of the label spread over all classes (Szegedy et al. 2016, arXiv:1512.00567, section 7).
      seed: of the starting weights, the order of photos and the augmentation.
      augmentation: how photos are varied.
    """

    network: str = "simple_cnn"
    network_options: dict[str, Any] = field(default_factory=dict)
    size: int = 96
    resize: Resize = "stretch"
    colour: str = "rgb"
    classes: tuple[str, ...] = ()
    epochs: int = 40
    patience: int = 15
    batch: int = 32
    learning_rate: float = 2e-3
    warmup: float = 2.0
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.colour not in ("rgb", "grey"):
            raise EdgennError(f"colour {self.colour!r} is not one of rgb, grey")
        _within("size", self.size, 8, 1024)
        _within("epochs", self.epochs, 1, 100_000)
        _within("patience", self.patience, 1, 100_000)
        _within("batch", self.batch, 1, 65_536)
        _within("learning_rate", self.learning_rate, 1e-9, 10.0)
        _within("warmup", self.warmup, 0.0, 1000.0)
        _within("weight_decay", self.weight_decay, 0.0, 10.0)
        _within("label_smoothing", self.label_smoothing, 0.0, 0.9)
        _within("seed", self.seed, 0, 2**31 - 1)
        self.input  # noqa: B018 - checks resize

    @property
    def input(self) -> InputSpec:
        """What a photo is made into for this network: uint8 (size, size, 3 or 1)."""
        grey = self.colour == "grey"
        return InputSpec(self.size, self.size, 1 if grey else 3, "grey" if grey else "rgb", self.resize, "uint8")

    def replace(self, **changes: Any) -> Recipe:
        """A recipe with some settings changed; None leaves a setting as it is."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as run.json keeps them."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "recipe") -> Recipe:
        """A recipe from plain values.

        Raises:
          EdgennError: an unknown setting or one of the wrong kind, with `where` it stands.
        """
        values = dict(values)
        augmentation = values.pop("augmentation", {})
        _known(values, cls, where)
        _known(augmentation, Augmentation, f"{where}, [augmentation]")
        if "classes" in values:
            values["classes"] = tuple(values["classes"])
        try:
            return cls(**values, augmentation=Augmentation(**augmentation))
        except TypeError as error:
            raise EdgennError(f"{where}: {error}") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a TOML recipe.

        Raises:
          EdgennError: no such file, not TOML, or a setting that is not one.
        """
        try:
            text = Path(path).read_text("utf-8")
        except OSError as error:
            raise EdgennError(f"the recipe {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise EdgennError(f"the recipe {path} is not a text file: give a TOML file") from None
        try:
            return cls.from_dict(tomllib.loads(text), str(path))
        except tomllib.TOMLDecodeError as error:
            raise EdgennError(f"the recipe {path} is not TOML: {error}") from None


def _within(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise EdgennError(f"{name} {value!r} is not possible: {low:g} to {high:g}")


def _known(values: dict[str, Any], kind: type, where: str) -> None:
    names = [f.name for f in fields(kind)]
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(names)}"
            raise EdgennError(f"{where}: unknown setting {name!r}: {hint}")
