"""The file beside the float network, tensor by tensor: what all roundings before a layer have done to it, and how its
values lie in the range that they are rounded to.

The file runs in LiteRT with TFLite's built-in kernels and keeps every tensor; nothing of it is simulated here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn_device import preprocess
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile

from ..fake_quant.network import Network
from .matching import Matches
from .noise import Progress, Walk, batch_of, decibels, unrounded

# What is called rare: values beyond this percentile of the absolute values, one in a thousand.
PERCENTILE = 99.9
# Places of a tensor that are kept of each picture, all channels of each, for percentiles; the ends are exact.
_PLACES = 256
# A channel below this share of the largest is taken for one that is never active.
_SILENT = 1e-6


@dataclass(frozen=True)
class Spread:
    """How values lie.

    Attributes:
      low, high: the ends.
      outlier: the largest absolute value over the 99.9th percentile of all; 2 costs one bit of the eight.
      channels: the largest channel over the smallest, each by its own 99.9th percentile (by its largest weight, for a
        kernel); channels that are never active are left out.
      typical: the largest channel over the geometric mean of all: 2 costs the usual channel one bit of the eight.
      inputs: of a kernel, the largest input channel's weights over the geometric mean of all.
      clipped: share of values beyond the range that they are rounded to.
      bounds: that range; None for what is not rounded.
    """

    low: float
    high: float
    outlier: float
    channels: float
    typical: float
    inputs: float = 1.0
    clipped: float = 0.0
    bounds: tuple[float, float] | None = None


@dataclass
class Compared:
    """Of one layer: powers of what it gives in float and of what the file's differs from it, and float values of it.

    Attributes:
      signal, error: sums of squares over pictures and values.
      clipped: how many of `count` values lie beyond the file's range.
      low, high: the ends in float.
      rows: some of the values, float32 (places, channels).
    """

    signal: float = 0.0
    error: float = 0.0
    clipped: int = 0
    count: int = 0
    low: float = 0.0
    high: float = 0.0
    rows: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """dB of float against file, all roundings before it included."""
        return decibels(self.signal, self.error)

    def spread(self, bounds: tuple[float, float] | None) -> Spread:
        """How the float values lie in the range that the file rounds them to."""
        sample = np.abs(np.concatenate(self.rows))
        largest = max(abs(self.low), abs(self.high))
        return Spread(
            self.low,
            self.high,
            _ratio(largest, float(np.percentile(sample, PERCENTILE))),
            *_uneven(np.percentile(sample, PERCENTILE, axis=0)),
            clipped=self.clipped / max(1, self.count),
            bounds=bounds,
        )


def spread_of_kernel(kernel: NDArray[np.float32], depthwise: bool) -> Spread:
    """How a Keras kernel's weights lie; channels are those that it gives."""
    sizes = np.abs(kernel)
    outputs = sizes.reshape(-1, kernel.shape[2] * kernel.shape[3] if depthwise else kernel.shape[-1]).max(0)
    inputs = sizes.reshape(-1, *kernel.shape[-2:]).max((0, 2))
    return Spread(
        float(kernel.min()),
        float(kernel.max()),
        _ratio(float(sizes.max()), float(np.percentile(sizes, PERCENTILE))),
        *_uneven(outputs),
        # A depthwise convolution has a scale for each of its input channels.
        inputs=1.0 if depthwise else _uneven(inputs)[1],
    )


def compare(
    network: Network,
    matches: Matches,
    file: ModelFile,
    pictures: NDArray[np.uint8],
    *,
    bounds: Mapping[int, tuple[float, float] | None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Compared]:
    """Run network and file on the same pictures.

    Args:
      network: computes in float.
      matches: which operators of the file give what the network gives, and for which layer they are counted.
      pictures: uint8 (n, height, width, channels).
      bounds: index of an operator -> range that its output is rounded to.

    Returns:
      By layer; one whose tensor is of another size than the network's is left out.
    """
    asked, walk, random = _File(file), Walk(network), np.random.default_rng(0)
    found: dict[str, Compared] = {}
    bounds = bounds or {}
    at_a_time = batch_of(network)
    for start in range(0, len(pictures), at_a_time):
        batch = pictures[start : start + at_a_time]
        with unrounded(network):
            kept = walk.values(batch)
        for row, picture in enumerate(batch):
            asked.run(picture)
            for index, step in matches.operators.items():
                real = kept[step.output][row].numpy()
                value = asked.value(file.graph.operators[index].outputs[0])
                if real.size == value.size:
                    compared = found.setdefault(matches.layers[index], Compared())
                    _add(compared, real, value.reshape(real.shape), random)
                    _clip(compared, real, bounds.get(index))
            if progress:
                progress(start + row + 1, len(pictures))
    return found


def _add(to: Compared, real: NDArray[np.float32], value: NDArray[np.float32], random: np.random.Generator) -> None:
    to.signal += float(np.sum(np.square(real, dtype=np.float64)))
    to.error += float(np.sum(np.square(real - value, dtype=np.float64)))
    to.count += real.size
    to.low, to.high = min(to.low, float(real.min())), max(to.high, float(real.max()))
    flat = real.reshape(-1, real.shape[-1])
    # A layer that is used twice may give tensors of different widths; the first one's stand for it.
    if not to.rows or to.rows[0].shape[1] == flat.shape[1]:
        to.rows.append(flat if len(flat) <= _PLACES else flat[random.integers(0, len(flat), _PLACES)])


def _clip(to: Compared, real: NDArray[np.float32], bounds: tuple[float, float] | None) -> None:
    if bounds:
        half_a_step = (bounds[1] - bounds[0]) / 510
        to.clipped += int(np.sum(np.abs(real - np.clip(real, *bounds)) > half_a_step))


def _ratio(largest: float, usual: float) -> float:
    return largest / usual if usual > 0 else 1.0


def _uneven(channels: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Largest channel over the smallest, and over the geometric mean."""
    active = channels[channels > _SILENT * channels.max(initial=0.0)].astype(np.float64)
    if not active.size:
        return 1.0, 1.0
    return float(active.max() / active.min()), float(active.max() / np.exp(np.log(active).mean()))


class _File:
    """A .tflite that keeps all its tensors."""

    def __init__(self, file: ModelFile) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        runtime = import_module("ai_edge_litert.interpreter")
        try:
            self._native = runtime.Interpreter(
                model_content=file.content,
                num_threads=min(4, len(os.sched_getaffinity(0))),
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._native.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise EdgennError(f"LiteRT refuses {file.path}: {' '.join(str(error).split())[:300]}") from None
        self._graph, self._input = file.graph, file.graph.inputs[0]
        # The bytes have the tensor's size and order of channels; they are only brought to its type.
        self._spec = replace(file.input, colour="grey" if file.input.channels == 1 else "bgr", resize="stretch")

    def run(self, picture: NDArray[np.uint8]) -> None:
        self._native.set_tensor(self._input, preprocess.to_tensor(picture, self._spec))
        self._native.invoke()

    def value(self, tensor: int) -> NDArray[np.float32]:
        """What a tensor holds, as real numbers."""
        found, raw = self._graph.tensors[tensor], self._native.get_tensor(tensor)
        if not found.scales:
            return np.asarray(raw, np.float32)
        real: NDArray[np.float32] = (raw.astype(np.float32) - found.zero_points[0]) * np.float32(found.scales[0])
        return real
