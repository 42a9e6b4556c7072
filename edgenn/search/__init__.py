"""Search: the network, its size and its settings that are the most accurate within limits of latency and size.

`search` is the whole of it. A trial goes the same road as anybody's run (train, convert, measure); what is chosen is
chosen by int8 accuracy on validation photos.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .limits import Limits

__all__ = ["Limits", "Search", "search"]

_HOMES = {"Search": "kept", "search": "searcher"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"edgenn.search.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edgenn.search' has no attribute {name!r}")
