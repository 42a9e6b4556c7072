"""Why int8 loses: what rounding costs, layer by layer and picture by picture, and what a model's bytes are."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Diagnosis", "diagnose", "ranking"]

_HOMES = {"Diagnosis": "diagnosis", "diagnose": "diagnosis", "ranking": "noise"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"edgenn.conversion.debug.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edgenn.conversion.debug' has no attribute {name!r}")
