"""An Estimate as text for a terminal and as JSON. Says first that nothing was measured; estimates nothing itself."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

from .estimate import Estimate
from .report import SCHEMA, three_digits

_DEAREST = 10
_NAME = 44


def to_dict(estimate: Estimate, model: str) -> dict[str, Any]:
    """What `edgenn profile MODEL --device NAME --json` prints."""
    interval = estimate.interval
    return {
        "schema": SCHEMA,
        "estimated": True,
        "model": model,
        "device": {**asdict(estimate.device), "name": estimate.device.name},
        "threads": estimate.threads,
        "estimate_ms": estimate.seconds * 1e3,
        "interval_ms": [bound * 1e3 for bound in interval] if interval else None,
        "error": estimate.error,
        "remarks": list(estimate.remarks),
        "beside_ms": estimate.beside * 1e3,
        "layers": [
            {**asdict(layer), "microseconds": layer.seconds * 1e6, "share": layer.seconds / estimate.seconds}
            for layer in estimate.layers
        ],
    }


def to_text(estimate: Estimate, model: str, width: int = 100) -> str:
    """The figure, how far it may be off, the dearest layers and where the device's figures are from."""
    threads = f"{estimate.threads} thread{'s' if estimate.threads > 1 else ''}"
    lines = [f"{model} on {estimate.device.title}, {threads}: about {three_digits(estimate.seconds * 1e3)} ms"]
    if estimate.interval:
        low, high = (three_digits(bound * 1e3) for bound in estimate.interval)
        lines.append(
            f"  {low} to {high} ms if it is off by as much as the worst figure held out ({estimate.error:.0%})"
        )
    for remark in estimate.remarks:
        lines += textwrap.wrap(remark, width, initial_indent="  ", subsequent_indent="  ")
    lines += ["", f"{'the dearest layers':{_NAME}}  {'µs':>8}  {'share':>6}  bound by"]
    for layer in sorted(estimate.layers, key=lambda layer: -layer.seconds)[:_DEAREST]:
        name = layer.layer or layer.name
        name = name if len(name) <= _NAME - 2 else "…" + name[len(name) - _NAME + 3 :]
        lines.append(
            f"  {name:{_NAME - 2}}  {layer.seconds * 1e6:8.0f}  {layer.seconds / estimate.seconds:6.1%}  {layer.bound}"
        )
    lines += ["", "where the device's figures are from"]
    for section, source in estimate.device.sources.items():
        lines += textwrap.wrap(f"{section}: {source}", width, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)
