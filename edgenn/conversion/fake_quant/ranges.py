"""The ranges that activations are rounded to, measured on pictures; and how well the pictures reach them.

Changes the ranges of a network of `rewrite.quantization_aware` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require

Method = Literal["minmax", "percentile", "mse"]
# Share of values that "percentile" keeps.
PERCENTILE = 99.99
# Values of an activation that are kept of each picture, for percentiles and errors; its ends are exact.
_SAMPLE = 1024
# Shares of the whole range that "mse" tries.
_SHARES = np.linspace(0.3, 1.0, 36)
# Pictures at a time: all activations of a network are held for them.
_BATCH = 16
# Ranges have settled when this many pictures running have widened none of them by more than this share.
_QUIET_PICTURES = 96
_WIDENING = 0.01


@dataclass(frozen=True)
class Site:
    """One place where activations are rounded.

    Attributes:
      name: of the layer whose output it is.
      rounding: the FakeQuant there, and `index` which of its sites it is.
      tensor: what is rounded, as a tensor of the network.
    """

    name: str
    rounding: Any
    index: int
    tensor: Any


@dataclass(frozen=True)
class Observed:
    """What pictures gave at one site: lowest and highest value of each picture (n,), and a sample of values."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    sample: NDArray[np.float32]


def sites(aware: Any) -> list[Site]:
    """Where the network rounds activations to a range that has to be measured, in the order of computation."""
    from .layers import FakeQuant

    found = []
    for layer in aware.layers:
        if isinstance(layer, FakeQuant) and not layer.fixed:
            for node in layer._inbound_nodes:
                index = node.arguments.kwargs.get("site", 0)
                if index >= 0:
                    tensor = node.input_tensors[0]
                    found.append(Site(tensor._keras_history.operation.name, layer, index, tensor))
    return found


@contextmanager
def in_float(aware: Any) -> Iterator[None]:
    """Within it the network computes without rounding; functions traced before do not notice."""
    from .layers import set_rounding

    set_rounding(aware, False)
    try:
        yield
    finally:
        set_rounding(aware, True)


def compute(
    aware: Any, tensors: list[Any], pictures: NDArray[np.uint8], *, progress: Callable[[int, int], None] | None = None
) -> Iterator[list[NDArray[np.float32]]]:
    """Values of several tensors of the network, a batch of pictures at a time, as numpy arrays."""
    keras, tf = require("keras"), require("tensorflow")
    part = keras.Model(aware.inputs, tensors)
    run = tf.function(lambda x: tf.nest.flatten(part(x, training=False)), reduce_retracing=True, autograph=False)
    for start in range(0, len(pictures), _BATCH):
        batch = tf.constant(pictures[start : start + _BATCH].astype(np.float32))
        yield [value.numpy() for value in run(batch)]
        if progress:
            progress(min(start + _BATCH, len(pictures)), len(pictures))


def observe(
    aware: Any,
    pictures: NDArray[np.uint8],
    *,
    until_settled: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[Site, Observed]]:
    """What the float network gives at each site.

    Args:
      pictures: uint8 (n, height, width, channels).
      until_settled: end as soon as further pictures no longer widen the ranges.
    """
    places = sites(aware)
    random = np.random.default_rng(0)
    gathered: list[list[tuple[Any, Any, Any]]] = [[] for _ in places]
    ends, quiet = np.zeros((len(places), 2)), 0
    with in_float(aware):
        for values in compute(aware, [place.tensor for place in places], pictures, progress=progress):
            before = ends.copy()
            for row, end, value in zip(gathered, ends, values, strict=True):
                flat = value.reshape(len(value), -1)
                chosen = random.integers(0, flat.shape[1], min(_SAMPLE, flat.shape[1]))
                row.append((flat.min(1), flat.max(1), flat[:, chosen].ravel()))
                end[:] = min(end[0], row[-1][0].min()), max(end[1], row[-1][1].max())
            widened = np.abs(ends - before).sum(1) > _WIDENING * (ends[:, 1] - ends[:, 0])
            quiet = 0 if widened.any() else quiet + len(values[0])
            if until_settled and quiet >= _QUIET_PICTURES:
                break
    return [
        (place, Observed(*(np.concatenate(column) for column in zip(*row, strict=True))))
        for place, row in zip(places, gathered, strict=True)
    ]


def calibrate(
    aware: Any,
    pictures: NDArray[np.uint8],
    method: Method = "minmax",
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[Site, Observed]]:
    """Measure the ranges of all activations and set them.

    Args:
      aware: a network of `quantization_aware`; changed in place.
      pictures: uint8 (n, height, width, channels), in an order in which any first part is a fair sample: as soon as
        they no longer widen any range, the rest is left.
      method: "minmax" takes the lowest and highest value of all pictures; "percentile" leaves out the
        0.01% of values that lie furthest out; "mse" takes the share of the range with the least mean squared error of
        rounding and clipping (as in Nagel et al. 2021, arXiv:2106.08295, section 3.1).

    Returns:
      What was observed at each site.
    """
    observed = observe(aware, pictures, until_settled=True, progress=progress)
    for place, values in observed:
        place.rounding.set_bounds(place.index, *bounds(values, method))
    return observed


def bounds(values: Observed, method: Method) -> tuple[float, float]:
    """Lowest and highest value to keep; zero lies between."""
    low, high = min(0.0, float(values.low.min())), max(0.0, float(values.high.max()))
    if method == "percentile":
        out = (100 - PERCENTILE) / 2
        below, above = np.percentile(values.sample, (out, 100 - out))
        return max(low, min(0.0, float(below))), min(high, max(0.0, float(above)))
    if method == "mse":
        errors = [_error(values.sample, low * share, high * share) for share in _SHARES]
        best = float(_SHARES[int(np.argmin(errors))])
        return low * best, high * best
    return low, high


def reach(calibration: list[tuple[Site, Observed]], others: list[tuple[Site, Observed]]) -> dict[str, float]:
    """How much of the range that other pictures have the calibration pictures reach, by site, 0…1."""
    shares = {}
    for (place, seen), (_, other) in zip(calibration, others, strict=True):
        low, high = min(0.0, float(other.low.min())), max(0.0, float(other.high.max()))
        inside = min(high, max(0.0, float(seen.high.max()))) - max(low, min(0.0, float(seen.low.min())))
        shares[place.name] = inside / (high - low) if high > low else 1.0
    return shares


def _error(values: NDArray[np.float32], low: float, high: float) -> float:
    """Mean squared error of rounding to 256 steps between two bounds."""
    step = (high - low) / 255
    if step <= 0:
        return float(np.mean(values**2))
    kept = np.clip(np.round(values / step), np.round(low / step), np.round(high / step)) * step
    return float(np.mean((values - kept) ** 2))
