"""The registry behind `edgenn.networks`: a name, what it may be given, and the function that builds it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgenn_device.errors import EdgennError

# Name of a network → the module that registers it; imported on first use, because building needs TensorFlow.
_MODULES = {"simple_cnn": "edgenn.networks.simple_cnn"}


@dataclass(frozen=True)
class Network:
    """A network family.

    Attributes:
      name: as `--network` takes it.
      build: (input_shape (height, width, channels), classes, **options) -> keras.Model.
      options: every option with its default.
      smallest: least side of the input in pixels, given the options.
    """

    name: str
    build: Callable[..., Any]
    options: Mapping[str, Any]
    smallest: Callable[..., int]


def names() -> tuple[str, ...]:
    """Names that `network` knows."""
    return tuple(_MODULES)


def network(name: str) -> Network:
    """The network called `name`.

    Raises:
      EdgennError: there is none; the line names those there are.
    """
    if name not in _MODULES:
        close = difflib.get_close_matches(name, _MODULES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(_MODULES)}"
        raise EdgennError(f"unknown network {name!r}: {hint}")
    found: Network = import_module(_MODULES[name]).NETWORK
    return found


def build(name: str, input_shape: tuple[int, int, int], classes: int, **options: Any) -> Any:
    """Build a network.

    Args:
      name: one of `names()`.
      input_shape: (height, width, channels).
      classes: size of the softmax.
      options: those of the network; what is not given keeps its default.

    Returns:
      An uncompiled keras.Model: float32 (batch, height, width, channels) of 0..255 -> float32 (batch, classes).

    Raises:
      EdgennError: unknown name or option, or an input below the network's least.
    """
    found = network(name)
    unknown = sorted(set(options) - set(found.options))
    if unknown:
        raise EdgennError(f"{name} has no option {unknown[0]!r}: it takes {', '.join(found.options)}")
    chosen = {**found.options, **options}
    least = found.smallest(**chosen)
    if min(input_shape[:2]) < least:
        raise EdgennError(f"{name} with these options needs pictures of {least} pixels or more, got {input_shape[:2]}")
    return found.build(input_shape, classes, **chosen)
