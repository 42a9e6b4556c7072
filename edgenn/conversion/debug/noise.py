"""How much noise rounding adds, as a signal-to-quantization-noise ratio in dB: 10·log₁₀(Σx² / Σ(x − x̂)²).

Of one layer alone, measured where it counts: everything is computed in float, only this layer's kernel or only the
tensor it gives is rounded, and what that does to the scores before the softmax is the noise. A layer whose small
channels drown in its rounding looks well by its own output and is found here. And of all layers together, as the file
computes them (`comparison`). Changes no network: what is set for a measurement is set back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require

from ..fake_quant.network import Network, Step, steps_of

Progress = Callable[[int, int], None]
Rounding = Literal["none", "clip", "round"]
# All tensors of the float network are held for a batch of pictures: so many bytes of them at most.
_KEPT_BYTES = 400e6
_SOFTMAX = {"Softmax", "Activation"}


@dataclass
class Noise:
    """Powers (sums of squares over pictures and scores): the scores', and what rounding a layer adds to them.

    Attributes:
      signal: of the scores in float.
      weights: of what rounding the layer's kernel (and bias) does to them.
      activation: of what rounding the tensor that it gives does.
      clipping: of what cutting that tensor off at the ends of its range does, without rounding it.
    """

    signal: float = 0.0
    weights: float = 0.0
    activation: float = 0.0
    clipping: float = 0.0

    @property
    def power(self) -> float:
        """Both; roundings are independent of each other, so their powers add up."""
        return self.weights + self.activation

    @property
    def ratio(self) -> float:
        """dB; infinite if nothing is lost."""
        return decibels(self.signal, self.power)


def decibels(signal: float, noise: float) -> float:
    """10·log₁₀(signal / noise); infinite without noise, minus infinite for noise without signal."""
    if noise <= 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def ranking(
    aware: Any, model: Any, pictures: NDArray[np.uint8], *, progress: Progress | None = None
) -> list[tuple[str, float]]:
    """The layers of a network by what their rounding costs its scores, the dearest first.

    Args:
      aware: a calibrated network of `quantization_aware`.
      model: the float keras.Model that it was made from.
      pictures: uint8 (n, height, width, channels); some tens suffice.
      progress: called with (measurements done, in all).

    Returns:
      (name of a layer of `model`, dB at the scores with only that layer rounded). A file in which the layer is kept in
      float is spared the rounding of its kernel; that of the tensor it gives only if the layers that read it are kept
      in float too (`readers`).
    """
    found = by_layer(aware, model, pictures, progress=progress)
    return sorted(((name, noise.ratio) for name, noise in found.items()), key=lambda row: row[1])


def by_layer(
    aware: Any, model: Any, pictures: NDArray[np.uint8], *, progress: Progress | None = None
) -> dict[str, Noise]:
    """What the rounding of each layer of a float network alone does to its scores; arguments as for `ranking`."""
    network = steps_of(aware)
    rounded = {
        layer.name: [layer.rounded_kernel().numpy(), layer.get_weights()[1]]
        for layer in aware.layers
        if hasattr(layer, "rounded_kernel")
    }
    names = [step.name for step in steps_of(model).steps]
    total: dict[str, Noise] = {}
    for name, noise in own(network, rounded, pictures, progress=progress).items():
        sum_ = total.setdefault(name_in_run(name, names), Noise(noise.signal))
        sum_.weights += noise.weights
        sum_.activation += noise.activation
    return total


def name_in_run(layer: str, names: Collection[str]) -> str:
    """The run's own name of a layer of the simulated network, which has more: a SeparableConv2D is two there."""
    for ending in ("", "_depthwise", "_softmax"):
        if layer.endswith(ending) and layer.removesuffix(ending) in names:
            return layer.removesuffix(ending)
    base, _, number = layer.rpartition("_")
    return base if number.isdigit() and base in names else layer


def readers(model: Any, layer: str) -> tuple[str, ...]:
    """Names of the layers with kernels, sums and concatenations that read what a layer of a float network gives."""
    network = steps_of(model)
    found: list[str] = []
    waiting = [step.output for step in network.steps if step.name == layer]
    while waiting:
        for step in network.readers(waiting.pop()):
            if step.kind in ("Add", "Concatenate") or (hasattr(step.layer, "kernel") or step.kind == "SeparableConv2D"):
                found.append(step.name)
            else:
                waiting.append(step.output)
    return tuple(dict.fromkeys(found))


def own(
    network: Network,
    rounded: dict[str, list[NDArray[np.float32]]],
    pictures: NDArray[np.uint8],
    *,
    in_float: Collection[str] = (),
    progress: Progress | None = None,
) -> dict[str, Noise]:
    """What each layer's rounding alone does to the scores.

    Args:
      network: steps of a network of `quantization_aware`, with ranges.
      rounded: layer -> kernel and bias as the device has them.
      pictures: uint8 (n, height, width, channels).
      in_float: names of FakeQuant layers that do not round.

    Returns:
      By layer, in the order of computation: every layer that has a kernel or whose tensor is rounded, up to the scores.
    """
    walk = Walk(network)
    sites = rounding_sites(network, in_float)
    layers = [name for name in layer_names(network) if name in rounded or name in sites]
    found = {name: Noise() for name in layers}
    at_a_time = batch_of(network)
    total = math.ceil(len(pictures) / at_a_time) * len(layers)
    done = 0
    for start in range(0, len(pictures), at_a_time):
        with unrounded(network):
            kept = walk.values(pictures[start : start + at_a_time])
            scores = walk.scores_of(kept)
            for name in layers:
                noise = found[name]
                noise.signal += float(np.sum(scores**2))
                if name in rounded:
                    with weights_set(walk.layers[name], rounded[name]):
                        noise.weights += float(np.sum((walk.changed(kept, name, ()) - scores) ** 2))
                if name in sites:
                    noise.activation += float(np.sum((walk.changed(kept, "", sites[name]) - scores) ** 2))
                    if walk.clips(kept, sites[name]):
                        cut = walk.changed(kept, "", sites[name], rounding="clip")
                        noise.clipping += float(np.sum((cut - scores) ** 2))
                done += 1
                if progress:
                    progress(done, total)
    return found


def batch_of(network: Network) -> int:
    """How many pictures to compute at a time."""
    elements = sum(math.prod(size or 1 for size in network.shapes[step.output]) for step in network.steps)
    return max(1, int(_KEPT_BYTES / (4 * elements)))


def layer_names(network: Network) -> list[str]:
    """Names of the layers that compute something, each once, in order; up to the scores."""
    end = scores_tensor(network)[0]
    names: list[str] = []
    for step in network.steps:
        if step.kind not in ("FakeQuant", "Rescaling") and step.name not in names:
            names.append(step.name)
        if step.output == end:
            break
    return names


def rounding_sites(network: Network, in_float: Collection[str] = ()) -> dict[str, list[int]]:
    """Layer -> tensors that are what it gives, rounded."""
    makers = {step.output: step for step in network.steps}
    sites: dict[str, list[int]] = {}
    for step in network.steps:
        maker = makers.get(step.inputs[0])
        before = makers.get(maker.inputs[0]) if maker else None
        if maker and before and before.kind == "Add" and maker.kind in ("ReLU", "Activation"):
            maker = before  # TFLite has the ReLU inside the sum
        if step.kind == "FakeQuant" and step.name not in in_float and maker and maker.kind != "Rescaling":
            sites.setdefault(maker.name, []).append(step.output)
    return sites


def scores_tensor(network: Network) -> tuple[int, bool]:
    """The tensor that the final softmax reads, and True; without a softmax the output, and False."""
    makers = {step.output: step for step in network.steps}
    tensor = network.output
    while tensor in makers and makers[tensor].kind == "FakeQuant":
        tensor = makers[tensor].inputs[0]
    last = makers.get(tensor)
    if last and last.kind in _SOFTMAX and "softmax" in (last.kind.lower(), _activation(last)):
        return last.inputs[0], True
    return network.output, False


def _activation(step: Step) -> str:
    return getattr(getattr(step.layer, "activation", None), "__name__", "")


class Walk:
    """Computes a network step by step, so that only what a change reaches is computed again."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.layers = {step.name: step.layer for step in network.steps}
        self._scores, self._softmax = scores_tensor(network)

    def values(self, pictures: NDArray[np.uint8]) -> dict[int, Any]:
        """All tensors for a batch of pictures."""
        tf = require("tensorflow")
        values = {self._network.input: tf.constant(pictures.astype(np.float32))}
        for step in self._network.steps:
            values[step.output] = self._run(step, values)
        return values

    def changed(
        self, kept: dict[int, Any], layer: str, rounded: Collection[int], rounding: Rounding = "round"
    ) -> NDArray[np.float32]:
        """The scores when `layer` computes something else than for `kept` and the tensors in `rounded` are rounded."""
        values: dict[int, Any] = {}
        for step in self._network.steps:
            here = step.output in rounded
            if step.name == layer or here or any(tensor in values for tensor in step.inputs):
                read = {tensor: values.get(tensor, kept.get(tensor)) for tensor in step.inputs}
                values[step.output] = self._run(step, read, rounding if here else "none")
            if step.output == self._scores:
                break
        return self.scores_of({**kept, **values})

    def clips(self, kept: dict[int, Any], rounded: Collection[int]) -> bool:
        """Whether one of these tensors goes beyond the range that it is rounded to, by more than half a step."""
        for step in self._network.steps:
            if step.output in rounded:
                (low, high), values = step.layer.bounds(), kept[step.inputs[0]].numpy()
                half_a_step = (high - low) / 510
                if values.min() < low - half_a_step or values.max() > high + half_a_step:
                    return True
        return False

    def scores_of(self, values: dict[int, Any]) -> NDArray[np.float32]:
        """Scores (n, classes). A softmax does not see what all scores have in common, so that is taken out."""
        scores: NDArray[np.float32] = values[self._scores].numpy()
        scores = scores.reshape(len(scores), -1)
        return scores - scores.mean(axis=1, keepdims=True) if self._softmax else scores

    def _run(self, step: Step, values: dict[int, Any], rounding: Rounding = "none") -> Any:
        read = [values[tensor] for tensor in step.inputs]
        if step.kind != "FakeQuant":
            # A layer takes several tensors as a list, an operation (`a + b`) one by one.
            as_list = isinstance(step.layer, require("keras").layers.Layer) and len(read) > 1
            return step.layer(read) if as_list else step.layer(*read)
        if rounding == "none":
            return read[0]
        if rounding == "clip":
            return require("tensorflow").clip_by_value(read[0], *step.layer.bounds())
        step.layer.rounding = True
        try:
            return step.layer(read[0])
        finally:
            step.layer.rounding = False


@contextmanager
def unrounded(network: Network) -> Iterator[None]:
    """Within it no layer rounds; afterwards each does what it did."""
    layers = {id(step.layer): step.layer for step in network.steps if hasattr(step.layer, "rounding")}
    before = {key: layer.rounding for key, layer in layers.items()}
    for layer in layers.values():
        layer.rounding = False
    try:
        yield
    finally:
        for key, layer in layers.items():
            layer.rounding = before[key]


@contextmanager
def weights_set(layer: Any, weights: list[NDArray[np.float32]]) -> Iterator[None]:
    """Within it a layer has other weights."""
    before = layer.get_weights()
    layer.set_weights(weights)
    try:
        yield
    finally:
        layer.set_weights(before)
