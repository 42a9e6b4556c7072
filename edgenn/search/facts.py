"""What is known of a network before it is trained, and what follows for the limits.

Its int8 size is estimated from its layers, its latency from how fast this machine computed the networks before it. The
latter is rough, so only what is far above the limit is given up; the former is within a few percent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from edgenn import networks
from edgenn.networks import figures
from edgenn.networks.weights import IMAGENET, load
from edgenn.training import Recipe
from edgenn_device.errors import EdgennError

from .limits import Limits, kilobytes, milliseconds
from .outcome import Outcome, done

# The estimate of the size is within 3% (see `figures.int8_size`), and metadata and card only add to it.
SURELY_LARGE = 1.05
# Estimated by the fastest rate so far, a latency may still be too high, by how much worse earlier networks used the
# machine: of edgenn's networks on one x86 machine the rates lie within a factor of three for all but the smallest.
SURELY_SLOW = 2.0


@dataclass(frozen=True)
class Facts:
    """Weights, multiplications with an addition for one picture, and bytes of the int8 file without card."""

    parameters: int
    macs: int
    int8_bytes: int


class Unfit(Exception):
    """A network that need not be trained, and why; `excess` as of `Limits`."""

    def __init__(self, reason: str, excess: dict[str, float] | None = None) -> None:
        super().__init__(reason)
        self.excess = excess or {}


def facts(recipe: Recipe, classes: int, weights: Sequence[str]) -> tuple[Facts, str]:
    """Of a recipe's network, and the first of `weights` that fits it; builds it, unless it was asked before.

    Args:
      weights: as `Recipe.weights`, in the order of preference.

    Raises:
      Unfit: it cannot be built so, or none of the weights fits.
    """
    shape, options = recipe.input.shape, json.dumps(recipe.network_options, sort_keys=True)
    found = _facts(recipe.network, options, shape, classes, tuple(weights))
    if isinstance(found, str):
        raise Unfit(found)
    return found


@lru_cache(4096)
def _facts(
    name: str, options: str, shape: tuple[int, int, int], classes: int, weights: tuple[str, ...]
) -> tuple[Facts, str] | str:  # the reason why not, because what is raised is not kept
    given, reason = json.loads(options), ""
    try:
        model = networks.build(name, shape, classes, **given)
    except EdgennError as error:
        return str(error)
    for trained in weights:
        try:
            if trained != "none":
                load(model, networks.network(name), trained, given)
        except EdgennError as error:
            reason = reason or str(error)
            continue
        return Facts(model.count_params(), figures.macs(model), figures.int8_size(model)), trained
    return reason


def rate(outcomes: Sequence[Outcome], machine: str) -> float | None:
    """Multiplications a second of the network that used `machine` best; None before the first was measured on it."""
    rates = [
        one.macs / one.latency.median
        for one in done(outcomes)
        if one.macs and one.latency and one.latency.machine == machine and one.latency.median > 0
    ]
    return max(rates, default=None)


def check(known: Facts, limits: Limits, fastest: float | None) -> None:
    """Give up what cannot keep the limits.

    Args:
      fastest: see `rate`.

    Raises:
      Unfit: with the reason.
    """
    latency = None if fastest is None else known.macs / fastest
    excess = limits.excess(latency, known.int8_bytes)
    if limits.size is not None and known.int8_bytes > SURELY_LARGE * limits.size:
        raise Unfit(f"about {kilobytes(known.int8_bytes)} kB is too large", excess)
    if limits.latency is not None and latency is not None and latency > SURELY_SLOW * limits.latency:
        raise Unfit(f"about {milliseconds(latency)} ms or more is too slow", excess)


def fetch(names: Sequence[str], base: Recipe, classes: int, weights: Sequence[str]) -> None:
    """See to it, before anything begins, that the weights that Keras publishes are there, if they are asked for.

    Raises:
      EdgennError: they cannot be fetched.
    """
    for name in names if IMAGENET in weights else ():
        network = networks.network(name)
        if network.imagenet is not None:
            options = {key: value for key, value in base.network_options.items() if key in network.options}
            model = networks.build(name, base.replace(size=base.size or network.size).input.shape, classes, **options)
            load(model, network, IMAGENET, options)
