"""The registry behind `edgenn.networks`: a name, what it may be given, and the function that builds it.

A name is that of a family here, or the path of a user's own network (`own.py`). Nothing is imported or built before it
is asked for, and building is all that needs TensorFlow.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgenn_device.errors import EdgennError

# In the order of their size. The module of a network is edgenn.networks.NAME and its entry is called NETWORK.
_NAMES = (
    "simple_cnn",
    "resnet8",
    "ds_cnn",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_lite0",
)
OWN = (".py", ".keras")


@dataclass(frozen=True)
class Figures:
    """What a network costs, for 10 classes and colour pictures; counted once and checked by a test.

    Attributes:
      options: those that differ from the network's defaults.
      size: side of the picture in pixels.
      parameters: all of them, also those that are not trained (means and variances).
      macs: multiplications with an addition, for one picture.
      int8_bytes: the converted model, without card and labels.
    """

    options: Mapping[str, Any]
    size: int
    parameters: int
    macs: int
    int8_bytes: int


@dataclass(frozen=True)
class Network:
    """A network family.

    Attributes:
      name: as `--network` takes it.
      build: (input_shape (height, width, channels), classes, **options) -> keras.Model.
      options: every option with its default.
      smallest: least side of the input in pixels, given the options.
      source: where it is defined.
      size: side of the input in pixels that is used when nobody says.
      sizes: sides that make sense, rising.
      cuts: names of the layers behind which the network may be cut for transfer, first to last, given the options;
        () if nobody has chosen any (`cut_points` finds every possible one in a model).
      cut: the one of them that is used when nobody says, given the options; "" for none.
      figures: what it costs, the defaults first; () if it was not counted.
      imagenet: (input_shape, **options) -> a keras.Model without top that holds the weights keras.applications
        publishes; None if it publishes none.
    """

    name: str
    build: Callable[..., Any]
    options: Mapping[str, Any]
    smallest: Callable[..., int]
    source: str
    size: int
    sizes: tuple[int, ...]
    cuts: Callable[..., tuple[str, ...]]
    cut: Callable[..., str]
    figures: tuple[Figures, ...] = ()
    imagenet: Callable[..., Any] | None = None


def names() -> tuple[str, ...]:
    """Names that `network` knows."""
    return _NAMES


def network(name: str) -> Network:
    """The network called `name`, or the user's own at the path `name` (.py or .keras).

    A Python file is executed: give only one whose author you trust.

    Raises:
      EdgennError: there is none, and the line names those there are; or the file cannot be used.
    """
    if name.lower().endswith(OWN):
        own: Network = import_module("edgenn.networks.own").network(name)
        return own
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1)
        hint = f"did you mean {close[0]}" if close else f"choose one of {', '.join(_NAMES)}"
        raise EdgennError(f"unknown network {name!r}: {hint}, or give the path of a .py or .keras file")
    found: Network = import_module(f"edgenn.networks.{name}").NETWORK
    return found


def build(name: str, input_shape: tuple[int, int, int], classes: int, **options: Any) -> Any:
    """Build a network.

    Args:
      name: one of `names()`, or a path.
      input_shape: (height, width, channels).
      classes: size of the softmax.
      options: those of the network; what is not given keeps its default.

    Returns:
      An uncompiled keras.Model: float32 (batch, height, width, channels) of 0..255 -> float32 (batch, classes).

    Raises:
      EdgennError: unknown name or option, an input below the network's least, or no classes to tell apart.
    """
    found = network(name)
    unknown = sorted(set(options) - set(found.options))
    if unknown:
        takes = f"it takes {', '.join(found.options)}" if found.options else "it takes none"
        raise EdgennError(f"{name} has no option {unknown[0]!r}: {takes}")
    if name in _NAMES:  # one's own says itself what it does not take
        for option, value in options.items():
            _check_kind(f"{name}: {option}", value, found.options[option])
    chosen = {**found.options, **options}
    least = found.smallest(**chosen)
    # Options that ask for more than any size that makes sense are impossible, and the network says so when it is built.
    if min(input_shape[:2]) < least <= max(found.sizes):
        height, width = input_shape[:2]
        raise EdgennError(f"{name} with these options needs pictures of {least} pixels or more, got {height}x{width}")
    if classes < 1:
        raise EdgennError(f"{name}: {classes} classes cannot be told apart: give two or more")
    return found.build(input_shape, classes, **chosen)


def _check_kind(what: str, value: Any, default: Any) -> None:
    """Refuse what is not of the kind of the default: a number, and a whole one where that is whole."""
    kinds, wanted = (int, "a whole number") if isinstance(default, int) else ((int, float), "a number")
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise EdgennError(f"{what} {value!r} is not possible: give {wanted}")


def cut_points(model: Any) -> tuple[str, ...]:
    """Names of all layers behind which a functional model can be cut in two, first to last.

    Such a layer's output is all that the layers after it see: the output of no earlier layer goes around it. The first
    is the one after the input, the last the one before the layer that gives the scores.
    """
    layers = list(model.layers)
    place = {id(layer): index for index, layer in enumerate(layers)}
    # The last place at which a layer's output is read, for all layers up to and including each place.
    reach = [0] * len(layers)
    for index, layer in enumerate(layers):
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                source = place.get(id(tensor._keras_history.operation))
                if source is not None:
                    reach[source] = max(reach[source], index)
    points, furthest = [], 0
    for index, layer in enumerate(layers[:-1]):
        if index and furthest <= index:
            points.append(layer.name)
        furthest = max(furthest, reach[index])
    return tuple(points)
