"""The demo: the whole road on garments drawn by seed, with a report at its end. It needs no download and no camera.

Everything it does is done by the functions behind the other verbs; here they are only called one after the other.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["FULL", "Demo", "Extent", "demo"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("edgenn.demo.road"), name)
    raise AttributeError(f"module 'edgenn.demo' has no attribute {name!r}")
