"""The simulated network that a .tflite was made from, put together again from the run's float model and the file.

The ranges are read from the file's scales, and so are the weights that the device has; what a weight was before it was
rounded is in the run, except for a network that was trained while rounding: then the file's own weights are the
reference, and that is said (`Simulation.origin`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require
from edgenn_device.model_file import ModelFile

from ..fake_quant import mending
from ..fake_quant.network import Network, steps_of
from ..fake_quant.rewrite import quantization_aware
from .matching import Matches, Wiring, bias_of, kernel_of, match

Origin = Literal["run", "equalized", "file"]
# A weight is rounded to the nearest step; what is beyond half a step is left for rounding in float32.
_HALF_A_STEP = 0.51


@dataclass
class Simulation:
    """A file as a Keras network that can round and not round, layer by layer.

    Attributes:
      aware: the network; its kernels are in float, its ranges those of the file.
      network: its steps.
      matches: which operator computes which layer.
      rounded: layer -> kernel and bias as the file has them.
      in_float: names of FakeQuant layers whose tensors the file keeps in float.
      origin: where the kernels come from: the "run" itself; the run with channels "equalized" as the file has them; the
        "file", because its weights are no rounded form of the run's (it was trained while rounding).
    """

    aware: Any
    network: Network
    matches: Matches
    rounded: dict[str, list[NDArray[np.float32]]]
    in_float: set[str]
    origin: Origin


def simulate(model: Any, file: ModelFile) -> Simulation:
    """Put the simulated network of a file together.

    Args:
      model: the run's float keras.Model.
      file: converted from it.

    Raises:
      EdgennError: a layer cannot be simulated; it is named with the reason.
    """
    aware = quantization_aware(model)
    network = steps_of(aware)
    matches = match(network, file)
    rounded = _rounded(aware, file, matches)
    in_float = _set_ranges(network, file, matches)
    return Simulation(aware, network, matches, rounded, in_float, _origin(aware, file, matches, rounded))


def _rounded(aware: Any, file: ModelFile, matches: Matches) -> dict[str, list[NDArray[np.float32]]]:
    found = {}
    for name, index in matches.kernels.items():
        layer, operator = aware.get_layer(name), file.graph.operators[index]
        kernel, bias = layer.get_weights()
        values = kernel_of(file, operator, kernel.shape)
        if values is not None:
            of_file = bias_of(file, operator)
            found[name] = [values, np.zeros_like(bias) if of_file is None else of_file.reshape(bias.shape)]
    return found


def _set_ranges(network: Network, file: ModelFile, matches: Matches) -> set[str]:
    """Give each FakeQuant the range that the file has there; names of those that the file keeps in float."""
    wiring = Wiring(file.graph)
    ranges: dict[str, list[tuple[float, float]]] = {}
    layers = {step.name: step.layer for step in network.steps if step.kind == "FakeQuant"}
    for step in network.steps:
        if step.kind == "FakeQuant" and step.output in matches.places:
            bounds = wiring.bounds(matches.places[step.output])
            if bounds:
                ranges.setdefault(step.name, []).append(bounds)
    for name, found in ranges.items():
        for site in range(layers[name].sites):
            layers[name].set_bounds(site, min(low for low, _ in found), max(high for _, high in found))
    return set(layers) - set(ranges)


def _origin(aware: Any, file: ModelFile, matches: Matches, rounded: dict[str, list[NDArray[np.float32]]]) -> Origin:
    """Make the kernels those that were rounded for the file, and say where they come from."""
    if _is_rounding_of(aware, file, matches, rounded):
        return "run"
    layers = [aware.get_layer(name) for name in rounded]
    kept = [(layer.get_weights(), layer.activation) for layer in layers]
    _equalize_as(aware, file, matches)
    if _is_rounding_of(aware, file, matches, rounded):
        return "equalized"
    for layer, (_, activation) in zip(layers, kept, strict=True):
        layer.activation = activation
        layer.set_weights(rounded[layer.name])
    return "file"


def _is_rounding_of(
    aware: Any, file: ModelFile, matches: Matches, rounded: dict[str, list[NDArray[np.float32]]]
) -> bool:
    for name, (values, _) in rounded.items():
        kernel = aware.get_layer(name).get_weights()[0]
        step = _step(file, matches, name, kernel.shape)
        # Kernels in float are those of the run as they are, or halved in precision.
        allowed = step * _HALF_A_STEP if step is not None else np.abs(kernel) * 1e-3 + 1e-6
        if np.any(np.abs(values - kernel) > allowed + 1e-7):
            return False
    return True


def _step(file: ModelFile, matches: Matches, name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """A kernel's scales in a shape that goes with it; None if it is not quantized."""
    operator = file.graph.operators[matches.kernels[name]]
    scales = np.asarray(file.graph.tensors[operator.inputs[1]].scales, np.float32)
    if not scales.size:
        return None
    depthwise = len(shape) == 4 and scales.size == shape[2] * shape[3]
    return scales.reshape(shape[2:]) if depthwise and scales.size > 1 else scales


def _equalize_as(aware: Any, file: ModelFile, matches: Matches) -> None:
    """Scale the channels as `mending.equalize` did for this file.

    By what a channel was divided stands in its scale: that is the largest weight after the division, over 127.
    """
    keras, tf = require("keras"), require("tensorflow")
    from ..fake_quant.layers import no_less_than_bias

    for pair in mending.pairs(aware):
        if pair.first.name not in matches.kernels or pair.second.name not in matches.kernels:
            continue
        weights, bias = pair.first.get_weights()
        step = _step(file, matches, pair.first.name, weights.shape)
        if step is None or step.size != bias.size:
            continue
        if pair.first.activation is keras.activations.relu6:
            pair.first.activation = keras.activations.relu
        channels = weights.reshape(-1, bias.size)
        reach = no_less_than_bias(tf.constant(np.abs(channels).max(0)), tf.constant(bias)).numpy()
        factor = reach / (127 * step.reshape(-1))
        shaped = factor.reshape(weights.shape[2:]) if "Depthwise" in type(pair.first).__name__ else factor
        pair.first.set_weights([weights / shaped, bias / factor])
        after = pair.second.get_weights()
        shape = (1, 1, -1, 1) if "Depthwise" in type(pair.second).__name__ else (-1, 1)
        pair.second.set_weights([after[0] * factor.reshape(shape), *after[1:]])
