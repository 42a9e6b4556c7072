"""Mixed precision: int8 but for some layers in float, the last resort where a target can compute in float.

Says in which order layers are to be kept in float, finds the fewest that do, reads back from the file which are, and
measures what they cost. Converts nothing itself (`quantize`), and judges no accuracy (`gate`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn_device import golden
from edgenn_device.graph import Graph
from edgenn_device.interpreter import Interpreter
from edgenn_device.model_file import ModelFile

from .debug import noise
from .debug.matching import suffix_of
from .fake_quant.network import steps_of
from .layer_names import name_layers

# Photos on which the noise of each layer is measured: as `debug` does.
PICTURES = 32
# Layers that TFLite computes by an operator of their own, which can be left out of quantization.
_KINDS = {
    "Add",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "GlobalAveragePooling2D",
    "SeparableConv2D",
}
_CHANGES_TYPE = ("QUANTIZE", "DEQUANTIZE")
# Turns of both files whose median is the time of each; the first is not counted.
_TURNS = 21


def dearest_first(aware: Any, model: Any, pictures: NDArray[np.uint8]) -> tuple[str, ...]:
    """The layers of a network in the order in which to keep them in float.

    First the one whose rounding alone adds most noise to the scores (`debug.ranking`). A tensor stays in float only
    between layers that are both in float: where it is the tensor that loses, the layers that read it come next.

    Args:
      aware: a calibrated network of `quantization_aware`.
      model: the float keras.Model that it was made from.
      pictures: uint8 (n, height, width, channels).

    Returns:
      The dearer half, rounded up: with more than that in float it is no int8 model any more.
    """
    found = noise.by_layer(aware, model, pictures[:PICTURES])
    kinds = {step.name: step.kind for step in steps_of(model).steps}
    order: dict[str, None] = {}
    for name in sorted(found, key=lambda name: found[name].ratio):
        if found[name].power:
            behind = noise.readers(model, name) if found[name].activation > found[name].weights else ()
            order |= dict.fromkeys((name, *behind))
    usable = [name for name in order if kinds.get(name) in _KINDS]
    return tuple(usable[: (len(usable) + 1) // 2])


def fewest(most: int, prepare: Callable[[Sequence[int]], None], passes: Callable[[int], bool]) -> int | None:
    """The least number from 1 to `most` that passes, by doubling and then halving between; None if none does.

    Args:
      prepare: is told the numbers that may be asked about next, before they are.
      passes: more layers are taken to pass wherever fewer do.
    """
    doubling = [1 << power for power in range(most.bit_length()) if 1 << power < most] + [most] * (most > 0)
    prepare(doubling)
    high = next((count for count in doubling if passes(count)), None)
    if high is None:
        return None
    low = max((count for count in doubling if count < high), default=0)
    between = range(low + 1, high)
    if between:
        prepare(between)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def not_as_asked(graph: Graph, asked: Collection[str], layers: Sequence[str]) -> list[str]:
    """What of a file's precision is other than asked for, one clause each.

    Args:
      asked: the layers that are to be in float, and no others.
      layers: names of all layers of the network.
    """
    names = [graph.tensors[operator.outputs[0]].name for operator in graph.operators]
    suffix = suffix_of(layers, names)
    of = {layer: [index for index, name in enumerate(names) if f"/{layer}{suffix}/" in name] for layer in asked}
    floats = {
        index
        for index, operator in enumerate(graph.operators)
        if operator.name not in _CHANGES_TYPE and "float" in graph.tensors[operator.outputs[0]].dtype
    }
    said = name_layers(graph, layers)
    others = sorted(floats - {index for found in of.values() for index in found})
    return [
        *(f"layer {layer!r} was to be in float and is not" for layer, found in of.items() if not floats & set(found)),
        *(f"{graph.operators[index].name} of {said[index]} is in float and was not to be" for index in others),
    ]


@dataclass(frozen=True)
class Cost:
    """What layers in float cost beside the same file with none.

    Attributes:
      bytes: that the file is larger.
      seconds: of one picture through the file; `whole_seconds` through the one that is int8 throughout.
      runtime: where that was measured, with one thread.
    """

    bytes: int
    seconds: float
    whole_seconds: float
    runtime: str

    def to_dict(self) -> dict[str, Any]:
        """For the card."""
        return {
            "bytes": self.bytes,
            "seconds": round(self.seconds, 6),
            "int8_seconds": round(self.whole_seconds, 6),
            "runtime": self.runtime,
        }

    def __str__(self) -> str:
        return (
            f"{self.bytes / 1000:,.1f} kB more, and {1000 * self.seconds:.3g} ms a picture in place of "
            f"{1000 * self.whole_seconds:.3g} ms here ({self.runtime})"
        )


def cost(file: ModelFile, whole: ModelFile) -> Cost:
    """What a file costs beside `whole`, the same with no layer in float: timed in turns on this machine."""
    models = (file, whole)
    interpreters = [Interpreter(model, threads=1) for model in models]
    picture = golden.inputs(file.input)[0]
    times: list[list[float]] = [[], []]
    for _ in range(_TURNS):
        for interpreter, taken in zip(interpreters, times, strict=True):
            began = time.perf_counter()
            interpreter.invoke_raw(picture)
            taken.append(time.perf_counter() - began)
    seconds, whole_seconds = (statistics.median(taken[1:]) for taken in times)
    larger = len(file.content) - len(whole.content)
    return Cost(larger, seconds, whole_seconds, interpreters[0].description)
