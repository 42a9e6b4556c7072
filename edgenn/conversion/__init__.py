"""Conversion: a trained run becomes one .tflite that was checked before it leaves the workstation."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Conversion", "convert"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("edgenn.conversion.converter"), name)
    raise AttributeError(f"module 'edgenn.conversion' has no attribute {name!r}")
