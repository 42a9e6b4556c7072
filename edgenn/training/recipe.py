"""A recipe: every setting of a training run, as a value that checks itself and can be kept as TOML.

What is not said keeps its default. Some defaults depend on the network and on whether it starts from trained weights:
those are None here and get their value in one place, `Recipe.resolved`. The defaults were chosen on validation photos;
BENCHMARKS.md has the measurements.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from edgenn_device.card import InputSpec, Resize
from edgenn_device.errors import EdgennError

# What `resolved` puts in the place of None, beside the input side, which is the network's. "scratch" starts from random
# weights and has everything to learn; "transfer" starts from trained ones and must not lose them.
DEFAULTS: dict[str, dict[str, Any]] = {
    "scratch": {
        "epochs": 40,
        "patience": 15,
        "batch": 32,
        "learning_rate": 2e-3,
        "warmup": 2.0,
        "weight_decay": 0.02,
        "label_smoothing": 0.1,
        "mixup": 0.0,
        "ema": 0.0,
    },
    "transfer": {
        "epochs": 8,
        "patience": 8,
        "batch": 32,
        "learning_rate": 1e-3,
        "warmup": 0.5,
        "weight_decay": 0.02,
        "label_smoothing": 0.1,
        "mixup": 0.2,
        "ema": 0.99,
    },
}

# From scratch a network needs so many steps, however few the photos are (docs/training.md has what they are worth).
LEAST_STEPS = 1200

Mode = Literal["scratch", "transfer"]


@dataclass(frozen=True)
class Augmentation:
    """How far a training photo may be changed; 0 switches a change off.

    Attributes:
      flip: mirror left and right, half of the time.
      rotation: degrees to either side.
      shift: share of the side, in each direction.
      zoom: share; 0.2 scales by 0.8 to 1.25.
      crop: share of the area that may be cut away; 0.3 shows a random window of 0.7 to 1 of the photo, with sides
        3:4 to 4:3, as the whole picture (Szegedy et al. 2015, arXiv:1409.4842, section 6).
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
    crop: float = 0.0

    def __post_init__(self) -> None:
        limits = {"rotation": 180.0, "shift": 0.5, "zoom": 0.9, "crop": 0.95}
        for name in ("rotation", "shift", "zoom", "brightness", "contrast", "saturation", "erase", "crop"):
            _within(f"augmentation.{name}", getattr(self, name), 0.0, limits.get(name, 1.0))


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run. A setting of None is chosen by `resolved`.

    Attributes:
      network, network_options: name in `edgenn.networks` (or a path to a network of one's own) and what its builder
        takes.
      weights: what the network starts from: "none", "imagenet", or a path of trained weights.
      fine_tune_from: with weights, from where on the network is trained: "" the network's own choice, "head" its last
        layer only, "all" everything, or the name of a layer or block.
      views: with weights or a teacher, how many augmented views of each photo are computed once and kept.
      size: side of the square input in pixels.
      resize: how a photo becomes a square (see `edgenn_device.InputSpec`).
      colour: "rgb", or "grey" for one channel.
      classes: folders to use, in this order; empty takes all.
      epochs: most epochs; `patience` may end the run earlier.
      patience: epochs without a better validation accuracy after which to stop.
      batch: photos a step, over all processors and machines.
      learning_rate: its peak; warmed up over `warmup` epochs, then a cosine down to zero (Loshchilov and Hutter 2017,
        arXiv:1608.03983).
      weight_decay: of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), not on biases and normalisation.
      label_smoothing: share of the label spread over all classes (Szegedy et al. 2016, arXiv:1512.00567, section 7).
      mixup: alpha of the Beta distribution by which pairs of photos are mixed (Zhang et al. 2018, arXiv:1710.09412);
        0 mixes none.
      ema: decay a step of the moving average of the weights, which is what is measured and kept (Polyak and Juditsky
        1992; warmed up, so that it is the plain mean at first); 0 keeps the weights themselves.
      balance: what is done for rare classes: "none", "weights" (their photos count more) or "sampling" (their photos
        come more often, so that all classes come equally often).
      distill: a run or .keras model whose answers are learnt too (Hinton et al. 2015, arXiv:1503.02531), or "".
      distill_weight: share of the teacher in the loss; the labels have the rest.
      distill_temperature: by which the logits of both are divided before they are compared.
      precision: "float32"; "mixed" computes in float16 and keeps weights in float32; "auto" is mixed on GPUs with
        tensor cores.
      seed: of the starting weights, the order of photos and the augmentation.
      augmentation: how photos are varied.
    """

    network: str = "simple_cnn"
    network_options: dict[str, Any] = field(default_factory=dict)
    weights: str = "none"
    fine_tune_from: str = ""
    views: int = 8
    size: int | None = None
    resize: Resize = "stretch"
    colour: str = "rgb"
    classes: tuple[str, ...] = ()
    epochs: int | None = None
    patience: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    warmup: float | None = None
    weight_decay: float | None = None
    label_smoothing: float | None = None
    mixup: float | None = None
    ema: float | None = None
    balance: str = "none"
    distill: str = ""
    distill_weight: float = 0.7
    distill_temperature: float = 2.0
    precision: str = "auto"
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        _one_of("colour", self.colour, ("rgb", "grey"))
        _one_of("balance", self.balance, ("none", "weights", "sampling"))
        _one_of("precision", self.precision, ("auto", "float32", "mixed"))
        for name in ("network", "weights", "fine_tune_from", "distill"):
            if not isinstance(getattr(self, name), str):
                raise EdgennError(f"{name} {getattr(self, name)!r} is not possible: give a text")
        if not isinstance(self.network_options, dict):
            raise EdgennError(f"network_options {self.network_options!r} is not possible: give a table of options")
        # A text is a sequence too, of letters.
        if not isinstance(self.classes, (tuple, list)) or not all(isinstance(name, str) for name in self.classes):
            raise EdgennError(f"classes {self.classes!r} is not possible: give a list of names")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _RESOLVED:
                continue
            _within(name, value, low, high)
            if name in _WHOLE:
                if value != int(value):
                    raise EdgennError(f"{name} {value!r} is not possible: give a whole number")
                object.__setattr__(self, name, int(value))  # of 32.0, which TOML and JSON keep as it was written
        self._input(self.size or 32)  # checks resize

    @property
    def mode(self) -> Mode:
        """What training starts from: "transfer" is trained weights, "scratch" random ones."""
        return "scratch" if self.weights == "none" else "transfer"

    @property
    def input(self) -> InputSpec:
        """What a photo is made into for this network: uint8 (size, size, 3 or 1); of a resolved recipe."""
        if self.size is None:
            raise EdgennError("the recipe leaves the size to the network: give it a size")
        return self._input(self.size)

    def _input(self, size: int) -> InputSpec:
        grey = self.colour == "grey"
        return InputSpec(size, size, 1 if grey else 3, "grey" if grey else "rgb", self.resize, "uint8")

    def resolved(self, photos: int | None = None) -> Recipe:
        """The recipe with every None replaced by the default of its network and mode: the one place where that is done.

        Args:
          photos: how many there are to train on. From scratch few of them come in more epochs, with patience and
            warm-up in proportion, so that training has `LEAST_STEPS`.

        Raises:
          EdgennError: unknown network, or settings that contradict each other.
        """
        from edgenn import networks

        if self.fine_tune_from and self.mode == "scratch":
            raise EdgennError(f"--fine-tune-from {self.fine_tune_from} needs trained weights: give --weights too")

        chosen = {"size": networks.network(self.network).size, **DEFAULTS[self.mode]}
        if photos and self.mode == "scratch" and self.epochs is None:
            steps = math.ceil(photos / (self.batch or chosen["batch"]))
            longer = max(1.0, LEAST_STEPS / steps / chosen["epochs"])
            chosen |= {name: math.ceil(longer * chosen[name]) for name in ("epochs", "patience")}
            chosen["warmup"] = round(longer * chosen["warmup"], 1)
        return replace(self, **{name: value for name, value in chosen.items() if getattr(self, name) is None})

    def replace(self, **changes: Any) -> Recipe:
        """A recipe with some settings changed; None leaves a setting as it is."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def differences(self, other: Recipe) -> tuple[str, ...]:
        """Names of the settings in which two recipes differ."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as run.json keeps them; what is None is left out."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {**values, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "recipe") -> Recipe:
        """A recipe from plain values.

        Raises:
          EdgennError: an unknown setting or one of the wrong kind, with `where` it stands.
        """
        values = dict(values)
        augmentation = values.pop("augmentation", {})
        _known(values, cls, where)
        if not isinstance(augmentation, dict):
            raise EdgennError(f"{where}: augmentation {augmentation!r} is not possible: give a table of settings")
        _known(augmentation, Augmentation, f"{where}, [augmentation]")
        if isinstance(values.get("classes"), list):
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


_RESOLVED = frozenset({"size", *DEFAULTS["scratch"]})
_RANGES: dict[str, tuple[float, float]] = {
    "views": (1, 1000),
    "size": (8, 1024),
    "epochs": (1, 100_000),
    "patience": (1, 100_000),
    "batch": (1, 65_536),
    "learning_rate": (1e-9, 10.0),
    "warmup": (0.0, 1000.0),
    "weight_decay": (0.0, 10.0),
    "label_smoothing": (0.0, 0.9),
    "mixup": (0.0, 10.0),
    "ema": (0.0, 0.99999),
    "distill_weight": (0.0, 1.0),
    "distill_temperature": (0.1, 100.0),
    "seed": (0, 2**31 - 1),
}
_WHOLE = frozenset({"views", "size", "epochs", "patience", "batch", "seed"})


def _within(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise EdgennError(f"{name} {value!r} is not possible: {low:g} to {high:g}")


def _one_of(name: str, value: Any, words: tuple[str, ...]) -> None:
    if value not in words:
        raise EdgennError(f"{name} {value!r} is not one of {', '.join(words)}")


def _known(values: dict[str, Any], kind: type, where: str) -> None:
    names = [f.name for f in fields(kind)]
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(names)}"
            raise EdgennError(f"{where}: unknown setting {name!r}: {hint}")
