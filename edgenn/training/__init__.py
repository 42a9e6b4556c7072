"""Training: photos on disk become a run, a folder with the model and everything that is known of it.

`train` is the whole of it; `Recipe` holds the settings, `Run` reads a finished run back.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .recipe import Augmentation, Recipe

if TYPE_CHECKING:
    from .run import Run
    from .trainer import train

__all__ = ["Augmentation", "Recipe", "Run", "train"]

_HOMES = {"Run": "run", "train": "trainer"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"edgenn.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edgenn.training' has no attribute {name!r}")
