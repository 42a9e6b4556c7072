"""From figures to words: is the model healthy, which layer costs most, why, and what to type.

Judges by the gate's own rule, so that nothing that passed it is called ill. Advises only what the network allows and
what has not been done already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .. import gate, targets
from .comparison import Spread

Cause = Literal["", "channels", "outlier", "clipped", "weights", "activation", "many", "unknown"]
# One layer is called guilty when it alone adds more noise to the scores than all others together.
GUILTY_SHARE = 0.5
# A bit of the eight that is lost to rare or uneven values is worth naming.
_ONE_BIT = 1.0
# Layers that make up this share of the noise are named where no single one is guilty.
_MOST_OF_IT = 0.8
_NAMED = 3
# Share of a tensor's rounding noise that is clipping, above which its range is too narrow rather than too coarse.
_MOSTLY = 0.5


@dataclass(frozen=True)
class Layer:
    """What rounding does to one layer. Ratios are in dB (`noise`), infinite where nothing is lost.

    Attributes:
      name: in the run's network (a SeparableConv2D has two: NAME_depthwise and NAME).
      kind: class of the layer; `operator` what computes it in TFLite, "" if it was not found in the file.
      ratio: at the scores, with only this layer rounded; of it `ratio_weights` by its kernel alone and
        `ratio_activation` by the tensor that it gives alone. None where layers could not be rounded one by one.
      clipping: share of the tensor's noise that comes of values beyond its range and not of its steps.
      share: of the noise that all layers, each by itself, add to the scores.
      accumulated: of what the layer gives, float against the file, with all roundings before it.
      weights: how its weights lie; None without a kernel.
      activation: how the values that it gives lie.
    """

    name: str
    kind: str
    operator: str
    ratio: float | None
    ratio_weights: float | None
    ratio_activation: float | None
    clipping: float | None
    share: float | None
    accumulated: float | None
    weights: Spread | None
    activation: Spread | None


@dataclass(frozen=True)
class Lost:
    """What quantization cost on photos.

    Attributes:
      pictures: how many there were.
      lost: how many more the float model gets right.
      flips: how many get another label.
    """

    pictures: int
    lost: int
    flips: int

    @property
    def healthy(self) -> bool:
        """By the gate's rule: accuracy within its drop, agreement above its floor; one photo is no evidence."""
        drop = self.lost > max(1.0, gate.MAX_DROP / 100 * self.pictures)
        apart = self.flips > max(1.0, (1 - gate.LEAST_AGREEMENT) * self.pictures)
        return not (drop or apart)


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
      healthy: int8 does what float does, on these photos.
      guilty: the layer that costs most, if it costs more than all others together and the model is not healthy.
      cause: why that layer loses, in one word of `Cause`; "many" if no single one is guilty.
      why: sentences.
      mend: sentences that say what to type, what to try first first.
    """

    healthy: bool
    guilty: str
    cause: Cause
    why: tuple[str, ...]
    mend: tuple[str, ...]


@dataclass(frozen=True)
class Means:
    """What may be advised.

    Attributes:
      scheme: how the file was quantized, in the words of its card.
      target: what it was made for.
      kind: what the file is called in sentences.
      pairs: layer whose channels can be evened out -> the layer with a kernel that alone reads them.
      readers: layer -> layers that read what it gives.
      named: layer of the simulated network -> the run's own name for it.
    """

    scheme: str = ""
    target: str = ""
    kind: str = "int8"
    pairs: Mapping[str, str] = field(default_factory=dict)
    readers: Callable[[str], tuple[str, ...]] = field(default=lambda layer: ())
    named: Callable[[str], str] = field(default=lambda layer: layer)

    @property
    def trained(self) -> bool:
        return "aware" in self.scheme

    @property
    def equalized(self) -> bool:
        return "equalized" in self.scheme


def judge(layers: Sequence[Layer], lost: Lost, means: Means) -> Verdict:
    """The answer, from layers with the dearest first."""
    dearest = layers[0] if layers and layers[0].share else None
    if lost.healthy:
        return Verdict(True, "", "", _healthy(lost, dearest, means.kind), ())
    measured = [_loss(lost, means.kind)]
    if dearest is None:
        first = f"; its error grows most in {layers[0].name}" if layers else ""
        why = f"Layers could not be rounded one by one{first}."
        return Verdict(False, "", "unknown", (*measured, why), (_train(means),))
    pair = _uneven_pair(layers, means)
    if pair and pair[2] > max(GUILTY_SHARE, dearest.share or 0):
        return Verdict(
            False, pair[0].name, "channels", (*measured, _blame_pair(*pair)), _mend(pair[0], "channels", means)
        )
    if (dearest.share or 0) < GUILTY_SHARE:
        return Verdict(False, "", "many", (*measured, _many(layers)), _mend_many(means))
    cause, why = _cause(dearest)
    blame = f"{dearest.name} ({dearest.kind}) adds {dearest.share:.0%} of all noise at the scores: {why}."
    return Verdict(False, dearest.name, cause, (*measured, blame), _mend(dearest, cause, means))


def _uneven_pair(layers: Sequence[Layer], means: Means) -> tuple[Layer, Layer, float] | None:
    """The dearest two layers between which channels differ, with the share of the noise that comes of that.

    Uneven channels cost twice: small ones are lost in the scale that they share, and the kernel that reads them, which
    has large weights for small channels, is rounded by its largest.
    """
    named = {layer.name: layer for layer in layers}
    found = []
    for first, second in ((named.get(a), named.get(b)) for a, b in means.pairs.items()):
        if first and second and first.activation and second.weights:
            uneven = min(_bits(first.activation.typical), _bits(second.weights.inputs))
            if uneven >= _ONE_BIT:
                share = _part(first, first.ratio_activation) + _part(second, second.ratio_weights)
                found.append((first, second, share))
    return max(found, key=lambda pair: pair[2], default=None)


def _part(layer: Layer, ratio: float | None) -> float:
    """What of a layer's share has this ratio by itself."""
    if ratio is None or layer.ratio is None or not layer.share:
        return 0.0
    return float(layer.share * 10 ** ((layer.ratio - ratio) / 10))


def _bits(factor: float) -> float:
    """How many of the eight bits a value loses that is smaller by a factor than what sets the scale."""
    return math.log2(max(1.0, factor))


def _blame_pair(first: Layer, second: Layer, share: float) -> str:
    channels = first.activation.channels if first.activation else 1.0
    return (
        f"{first.name} ({first.kind}) gives channels that differ by a factor of {channels:.3g} and share one scale, "
        f"and the weights of {second.name} make up for that: together this is {share:.0%} of all noise at the scores."
    )


def _healthy(lost: Lost, dearest: Layer | None, kind: str) -> tuple[str, ...]:
    same = lost.pictures - lost.flips
    says = [f"{kind} is healthy: it gives the float model's label for {same} of {lost.pictures} photos."]
    if dearest and dearest.share:
        says.append(f"What rounding there is comes from {dearest.name} first ({dearest.share:.0%} of it).")
    return tuple(says)


def _loss(lost: Lost, kind: str) -> str:
    right = f"{lost.lost} more of {lost.pictures} photos are wrong" if lost.lost > 0 else "no more photos are wrong"
    return f"{kind} loses: {right} than in float, and {lost.flips} get another label."


def _cause(layer: Layer) -> tuple[Cause, str]:
    """Why a layer loses, in one word and in a clause."""
    values = layer.activation
    if (layer.ratio_weights or 0) < (layer.ratio_activation or 0):
        if layer.kind.endswith("Dense") and layer.weights and _bits(layer.weights.typical) >= _ONE_BIT:
            return "weights", (
                "its weights have one scale, and those of its largest output are "
                f"{layer.weights.typical:.1f} times the usual ones"
            )
        return "weights", "its weights do not fit into 8 bits"
    if values is None:
        return "activation", "what it gives does not fit into 8 bits"
    if values.bounds and (layer.clipping or 0) > _MOSTLY:
        return "clipped", (
            f"{values.clipped:.2%} of what it gives, {values.low:.3g} to {values.high:.3g}, lies outside the range of "
            f"the file, {values.bounds[0]:.3g} to {values.bounds[1]:.3g}"
        )
    # The steps go to the range of the file, which may be wider or narrower than the values that were seen.
    room = max(map(abs, values.bounds)) / (max(-values.low, values.high) or 1) if values.bounds else 1.0
    rare, uneven = (_bits(factor * room) for factor in (values.outlier, values.typical))
    if max(rare, uneven) < _ONE_BIT:
        return "activation", "what it gives does not fit into 8 bits, though its values lie well"
    if rare > uneven:
        return "outlier", (
            f"the largest value that it gives is {values.outlier:.3g} times that which 99.9% stay below: all others "
            f"share {_steps(rare)} of 256 steps"
        )
    return "channels", (
        f"the channels that it gives differ by a factor of {values.channels:.3g} and share one scale: the usual one "
        f"has {_steps(uneven)} of 256 steps"
    )


def _steps(bits: float) -> str:
    """How many of 256 steps are left when so many bits are lost."""
    steps = 256 / 2**bits
    return f"about {steps:.0f}" if steps >= 1 else "less than one"


def _many(layers: Sequence[Layer]) -> str:
    named: list[str] = []
    total = 0.0
    for layer in layers:
        if total >= _MOST_OF_IT or len(named) == _NAMED:
            break
        named.append(f"{layer.name} {layer.share:.0%}")
        total += layer.share or 0
    return f"No single layer is guilty: many lose a little (most {', '.join(named)} of the noise at the scores)."


def _mend(layer: Layer, cause: Cause, means: Means) -> tuple[str, ...]:
    says = []
    if cause == "channels" and layer.name in means.pairs and not (means.equalized or means.trained):
        says.append("Even its channels out, which changes nothing in float: --quantization equalized")
    if cause == "outlier" and not means.trained:
        tried = [method for method in ("mse", "percentile") if method in means.scheme]
        if not tried:
            says.append("Leave the rare values out of its range: --ranges mse, or --ranges percentile")
        elif tried == ["mse"]:
            says.append("Leave more of the rare values out of its range: --ranges percentile")
    if cause == "clipped" and "minmax" not in means.scheme and not means.trained:
        says.append("Take the whole range: --ranges minmax")
    elif cause == "clipped":
        says.append("Its range was measured on too few or other photos: train on photos like those it is judged by.")
    return (*says, _train(means), *_keep_float(layer, cause, means))


def _mend_many(means: Means) -> tuple[str, ...]:
    return (_train(means),)


def _train(means: Means) -> str:
    if means.trained:
        return "It was trained for int8 already: train longer (--epochs), or take a wider network."
    return "Let the network get used to it: --quantization qat"


def _keep_float(layer: Layer, cause: Cause, means: Means) -> tuple[str, ...]:
    # A card may name a target of another version of edgenn.
    target = targets.target(means.target) if means.target in targets.TARGETS else None
    if target is not None and target.int8_only:
        return (f"No layer can be kept in float: {target.computer} computes in int8 only.",)
    # A tensor stays in float only between layers that are both in float.
    names = [means.named(layer.name)]
    if cause != "weights":
        names.extend(means.readers(means.named(layer.name)))
    typed = " ".join(f"--keep-float {name}" for name in dict.fromkeys(names))
    return (f"At last, for pi only: keep it in float: --quantization int8 {typed}",)
