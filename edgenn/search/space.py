"""What is searched: for each network its width or depth and the sides of its input, for all how strongly to augment
and how fast to learn.

What a recipe says stays as it says; what it leaves open is chosen here. Nothing is trained and nothing is judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenn import networks
from edgenn.training import Augmentation, Recipe
from edgenn_device.errors import EdgennError

if TYPE_CHECKING:
    import optuna

# Options that change what a network costs. Alphas are those that weights are published for, in the papers and by
# keras.applications; widths and depths go from a quarter of the default's multiplications to about four times as many.
# A network that is not here is searched by its input's side alone.
OPTIONS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "simple_cnn": {"width": (8, 16, 24, 32, 40, 48), "depth": (3, 4, 5)},
    "resnet8": {"width": (8, 16, 24, 32)},
    "ds_cnn": {"width": (32, 64, 96, 128), "depth": (3, 4, 5, 6)},
    "mobilenet_v1": {"alpha": (0.25, 0.5, 0.75, 1.0)},
    "mobilenet_v2": {"alpha": (0.35, 0.5, 0.75, 1.0)},
    "mobilenet_v3_small": {"alpha": (0.5, 0.75, 1.0)},
}
# Times the recipe's augmentation. Few steps and not a continuum: what a frozen part makes of augmented photos is kept
# on disk, and found again only for the same augmentation.
STRENGTHS = (0.0, 0.5, 1.0, 1.5)
# Times the default of the network and mode, on a logarithmic scale.
LEARNING_RATES = (0.3, 3.0)
# A trial has this share of the epochs that the network would have by itself, rounded up: enough to tell good settings
# from bad ones, and the cosine of the learning rate still ends at zero.
SHARE_OF_EPOCHS = 0.5

_STRENGTH, _RATE, _NETWORK = "augmentation", "learning_rate", "network"


def checked(names: Sequence[str], base: Recipe) -> tuple[str, ...]:
    """The networks to search among: those asked for, all if none. Files as they can be found from any folder.

    Raises:
      EdgennError: there is no such network, or it does not take what the recipe says.
    """
    chosen = tuple(dict.fromkeys(names)) or networks.names()
    known = {name: networks.network(name) for name in chosen}
    for option in base.network_options:
        if not any(option in network.options for network in known.values()):
            raise EdgennError(f"none of {', '.join(chosen)} has the option {option!r} that the recipe gives")
    return tuple(name if name in networks.names() else str(Path(name).resolve()) for name in chosen)


def defaults(called: str, name: str, base: Recipe) -> dict[str, Any]:
    """Parameters of the trial that takes a network as it comes.

    Args:
      called: the network, as all machines that share the search call it.
      name: of it, or its path here.
    """
    network = networks.network(name)
    own = {f"{name}.{option}": network.options[option] for option in _open(name, base)}
    if base.size is None and len(network.sizes) > 1:
        own[f"{name}.size"] = network.size
    return {_NETWORK: called, **own, _STRENGTH: 1.0, **({_RATE: 1.0} if base.learning_rate is None else {})}


def network_for(trial: optuna.Trial, names: Mapping[str, str], base: Recipe) -> Recipe:
    """The network that a trial stands for: the base with network, options and size.

    Args:
      names: what the networks are called (see `defaults`) -> their names or paths.
    """
    name = names[trial.suggest_categorical(_NETWORK, list(names))]
    network = networks.network(name)
    options = {option: value for option, value in base.network_options.items() if option in network.options}
    for option, values in _open(name, base).items():
        options[option] = trial.suggest_categorical(f"{name}.{option}", list(values))
    side = base.size
    if side is None:
        side = network.size
        if len(network.sizes) > 1:
            low, high = min(network.sizes), max(network.sizes)
            side = trial.suggest_int(f"{name}.size", low, high, step=_step(network.sizes))
    return replace(base, network=name, network_options=options, size=side)


def recipe_for(trial: optuna.Trial, chosen: Recipe, photos: int) -> Recipe:
    """The whole recipe that a trial stands for, resolved.

    Args:
      chosen: what `network_for` gave, with the weights to start from.
      photos: how many there are to train on.
    """
    strength = trial.suggest_float(_STRENGTH, STRENGTHS[0], STRENGTHS[-1], step=STRENGTHS[1] - STRENGTHS[0])
    resolved = chosen.resolved(photos)
    rate = float(resolved.learning_rate or 0.0)
    if chosen.learning_rate is None:
        rate = float(f"{rate * trial.suggest_float(_RATE, *LEARNING_RATES, log=True):.3g}")
    epochs = chosen.epochs or math.ceil(SHARE_OF_EPOCHS * (resolved.epochs or 1))
    augmentation = scaled(chosen.augmentation, strength)
    return replace(resolved, learning_rate=rate, epochs=epochs, augmentation=augmentation)


def scaled(augmentation: Augmentation, strength: float) -> Augmentation:
    """Every change of a photo, `strength` times as far, as far as it may go; the mirror stays as it is but for 0."""
    farthest = {"rotation": 180.0, "shift": 0.5, "zoom": 0.9, "crop": 0.95}
    values = {
        f.name: round(min(farthest.get(f.name, 1.0), strength * getattr(augmentation, f.name)), 6)
        for f in fields(augmentation)
        if f.name != "flip"
    }
    return Augmentation(flip=augmentation.flip and strength > 0, **values)


def _open(name: str, base: Recipe) -> dict[str, Sequence[float]]:
    """Options of a network that the recipe leaves open, each with its values."""
    searched = OPTIONS.get(name, {})
    return {option: values for option, values in searched.items() if option not in base.network_options}


def _step(sizes: Sequence[int]) -> int:
    return reduce(math.gcd, (size - sizes[0] for size in sizes[1:]))
