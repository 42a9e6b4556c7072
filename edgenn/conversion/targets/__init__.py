"""What a model is converted for, by name: whether it can run a model, and if not, why and what to do about it.

One file for each target, with `TARGET` in it, and its name in `TARGETS`. Reads the graph only: no runtime is started
and no compiler called, so it also answers on a Pi.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from edgenn_device.errors import EdgennError

from ..layer_names import name_layers
from .base import Finding, Target, Verdict, dense_scales, instead, sentences

if TYPE_CHECKING:
    from edgenn_device.graph import Graph
    from edgenn_device.model_file import ModelFile

__all__ = [
    "TARGETS",
    "Finding",
    "Target",
    "Verdict",
    "check",
    "dense_scales",
    "findings",
    "instead",
    "sentences",
    "target",
]

# The module of a target is edgenn.conversion.targets.NAME and its entry is called TARGET.
TARGETS = ("pi", "coral")


def target(name: str) -> Target:
    """The target called `name`.

    Raises:
      EdgennError: there is none, and the line names those there are.
    """
    if name not in TARGETS:
        raise EdgennError(f"no target {name!r}: choose one of {', '.join(TARGETS)}")
    found: Target = import_module(f"edgenn.conversion.targets.{name}").TARGET
    return found


def check(model: ModelFile, name: str, layers: Sequence[str] = ()) -> Verdict:
    """Judge a model for the target called `name`.

    Args:
      layers: names of the Keras layers of its network (`layer_names.keras_layers`), where it is known.

    Raises:
      EdgennError: there is no such target.
    """
    asked, names = target(name), name_layers(model.graph, layers)
    found = tuple(asked.findings(model.graph, model.content))
    if found:
        return Verdict(False, sentences(found, names))
    return Verdict(True, tuple(asked.remarks(model.graph, names)))


def findings(graph: Graph, content: bytes, name: str) -> tuple[Finding, ...]:
    """All that keeps a target from running a graph, operator by operator; `content` is the flatbuffer.

    Raises:
      EdgennError: there is no such target.
    """
    return tuple(target(name).findings(graph, content))
