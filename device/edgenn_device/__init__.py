"""What runs on the device: a model file, a camera, an interpreter, and the figures of how fast it went.

Never imports edgenn, TensorFlow's training half or Keras. Importing it is cheap: what needs OpenCV or a TFLite
runtime is loaded on first use.

>>> from edgenn_device import Classifier
>>> Classifier("garments.tflite").classify("shirt.jpg").label       # doctest: +SKIP
'shirt'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .card import Card, InputSpec
    from .classifier import Classification, Classifier
    from .errors import EdgennError

__all__ = ["Card", "Classification", "Classifier", "EdgennError", "InputSpec"]

_HOMES = {
    "Card": "card",
    "Classification": "classifier",
    "Classifier": "classifier",
    "EdgennError": "errors",
    "InputSpec": "card",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"edgenn_device.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edgenn_device' has no attribute {name!r}")
