"""Conversion: a trained run becomes one .tflite that was checked before it leaves the workstation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .converter import Conversion, convert
    from .fake_quant.ranges import calibrate
    from .fake_quant.rewrite import quantization_aware

__all__ = ["Conversion", "calibrate", "convert", "quantization_aware"]

_HOMES = {
    "Conversion": "converter",
    "calibrate": "fake_quant.ranges",
    "convert": "converter",
    "quantization_aware": "fake_quant.rewrite",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"edgenn.conversion.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edgenn.conversion' has no attribute {name!r}")
