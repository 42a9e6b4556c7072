"""edgenn: from labelled photos to an int8 model that classifies a live camera.

The workstation's half of the road, and its public API. Importing it is cheap: TensorFlow is loaded when the first
function that needs it is called, so the same distribution serves a Pi that has no TensorFlow.

>>> import edgenn
>>> run = edgenn.train("photos", out="runs/garments")          # doctest: +SKIP
>>> model = edgenn.convert(run.path)                           # doctest: +SKIP
>>> edgenn.evaluate(model.path, "photos").accuracy             # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversion.converter import convert
    from .evaluation.evaluate import evaluate
    from .tagging.engine import tag
    from .training.trainer import train

__version__ = "0.1.0"
__all__ = ["convert", "evaluate", "tag", "train"]

_HOMES = {
    "train": "edgenn.training",
    "convert": "edgenn.conversion",
    "evaluate": "edgenn.evaluation",
    "tag": "edgenn.tagging",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'edgenn' has no attribute {name!r}")
