"""A run: the folder that training leaves behind, read back by everything that comes after it.

RUN holds model.keras, labels.txt, run.json (every setting and what came of it), history.csv, curves.png and
confusion.png. Only this module knows their names.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError

from .fit import Epoch
from .recipe import Recipe

MODEL, LABELS, SETTINGS, HISTORY = "model.keras", "labels.txt", "run.json", "history.csv"
CURVES, CONFUSION = "curves.png", "confusion.png"
SCHEMA = 1
# What runs of earlier versions do not say.
_LATER = ("trained_on",)


@dataclass(frozen=True)
class Run:
    """What training came to.

    Attributes:
      path: the folder.
      photos: the folder of photos it was trained on, absolute.
      labels: class names in the order of the outputs.
      recipe: every setting.
      fingerprint: of the photos, and `trained_on` a sample of them (see `edgenn.data.Dataset`).
      parameters: number of weights.
      epochs: epochs done; `best_epoch` is the one whose weights were kept.
      seconds: wall time from photos to model.
      accuracy: of the kept weights on the validation photos, 0..1; `pictures` is how many those are.
      interrupted: stopped by hand before its end.
      versions: of what it was trained with.
    """

    path: Path
    photos: Path
    labels: tuple[str, ...]
    recipe: Recipe
    fingerprint: str
    parameters: int
    epochs: int
    best_epoch: int
    seconds: float
    accuracy: float
    pictures: int
    interrupted: bool
    versions: dict[str, str]
    trained_on: str = ""

    @property
    def network(self) -> str:
        return self.recipe.network

    @property
    def model(self) -> Path:
        """Path of the Keras model."""
        return self.path / MODEL

    def to_json(self) -> str:
        """The text of run.json."""
        values = {
            "schema": SCHEMA,
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("path", "photos", "recipe")},
            "photos": str(self.photos),
            "labels": list(self.labels),
            "recipe": self.recipe.to_dict(),
            "input": asdict(self.recipe.input),
        }
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Read a run's folder (or take the path of its model.keras).

        Raises:
          EdgennError: not a run, or one that is damaged.
        """
        folder = Path(path)
        if folder.name == MODEL:
            folder = folder.parent
        settings = folder / SETTINGS
        if not folder.exists():
            raise EdgennError(f"there is no run at {path}: `edgenn train PHOTOS --out {path}` makes one")
        if not settings.is_file() or not (folder / MODEL).is_file():
            raise EdgennError(
                f"{path} is not a run (no {SETTINGS} with {MODEL} in it): give a folder that `train` wrote"
            )
        try:
            values = json.loads(settings.read_text("utf-8"))
            if values["schema"] != SCHEMA:
                raise EdgennError(
                    f"{settings} has schema {values['schema']} and this edgenn reads {SCHEMA}: train again"
                )
            known = {f.name for f in fields(cls)} - {"path", "photos", "labels", "recipe"}
            return cls(
                path=folder,
                photos=Path(values["photos"]),
                labels=tuple(values["labels"]),
                recipe=Recipe.from_dict(values["recipe"], str(settings)),
                **{name: values[name] for name in known if name in values or name not in _LATER},
            )
        except (ValueError, KeyError, TypeError) as error:
            raise EdgennError(f"{settings} is damaged ({error}): train again") from None


def history_csv(epochs: Sequence[Epoch]) -> str:
    """The text of history.csv: a heading, then a line for each epoch."""
    text = io.StringIO()
    names = [f.name for f in fields(Epoch)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _short(value) for name, value in asdict(epoch).items()} for epoch in epochs)
    return text.getvalue()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
