"""Where the time goes: latency histograms, stages, operators, memory, and the environment they were measured in.

Measures and reports; it changes nothing of what it measures, sets no governor and pins no core. `profile` is the one
function most callers need; the modules beside it can be used alone (a histogram in a service, an environment in a
report).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["SECONDS", "Histogram", "Profile", "profile"]

# How long a profile measures: p99 then rests on some twenty slower runs for a model of 2 ms, and a person still waits.
SECONDS = 10.0

_HOMES = {"Histogram": "histogram", "Profile": "measure", "profile": "measure"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"edgenn_device.profiler.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'edgenn_device.profiler' has no attribute {name!r}")
