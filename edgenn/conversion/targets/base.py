"""What a target says of itself, and how what it finds fault with is told. Knows no target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgenn_device.graph import Graph
    from edgenn_device.interpreter import Runtime

CONVERT_INT8 = "convert it again with --quantization int8"
# What to build instead, by operator; the same on every target that lacks it.
INSTEAD = {
    "BATCH_MATMUL": "use convolutions in place of attention",
    "ELU": "use ReLU",
    "GELU": "use ReLU or ReLU6",
    "HARD_SWISH": "use ReLU6, as MobileNetV2 does",
    "LEAKY_RELU": "use ReLU or PReLU",
    "NEG": "use BatchNormalization in place of LayerNormalization",
    "PACK": "use Concatenate",
    "SPLIT": "use one Conv2D for each part",
    "TILE": "leave UpSampling2D out; a classifier needs nothing enlarged",
    "TRANSPOSE_CONV": "use Conv2D; a classifier needs nothing enlarged",
    "WHILE": "use an unrolled recurrent layer (unroll=True)",
}


@dataclass(frozen=True)
class Finding:
    """What keeps a target from running a model.

    Attributes:
      operator: index of the operator in the graph; None if it is no single one.
      what: what is wrong, without the full stop.
      mend: what to do.
      one_scale_mends: converting with one scale for a Dense layer, in place of one for each output, may do.
    """

    operator: int | None
    what: str
    mend: str
    one_scale_mends: bool = False


@dataclass(frozen=True)
class Target:
    """What a model is converted for.

    Attributes:
      computer: what computes there, as a sentence names it.
      findings: (graph, the flatbuffer that it was read from) -> what keeps it from running the model.
      remarks: (graph, a name for each operator) -> sentences on what is worth knowing of a model that it runs.
      runtimes: what runs the file there; a converted model is run in each of them that is here.
      int8_only: it computes no float, so no layer can be kept in float.
      one_scale_for_dense: a Dense layer is given one scale for all its outputs.
      compiled: the Edge TPU compiler takes the file from here (`edgetpu.examine`).
    """

    computer: str
    findings: Callable[[Graph, bytes], Iterable[Finding]]
    remarks: Callable[[Graph, Sequence[str]], Iterable[str]] = lambda graph, names: ()
    runtimes: tuple[Runtime, ...] = ("litert", "tflite-runtime")
    int8_only: bool = False
    one_scale_for_dense: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether a target can run a model.

    Attributes:
      ok: it can, wholly.
      reasons: sentences on why not, in which layer, and what to do; with `ok`, on what is worth knowing.
    """

    ok: bool
    reasons: tuple[str, ...] = ()


def sentences(found: Sequence[Finding], names: Sequence[str]) -> tuple[str, ...]:
    """One sentence for each thing that is wrong, with all the layers in which it is, `names` for each operator."""
    where: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        place = where.setdefault((finding.what, finding.mend), [])
        if finding.operator is not None and names[finding.operator] not in place:
            place.append(names[finding.operator])
    return tuple(f"{what}{_listed(places)}: {mend}." for (what, mend), places in where.items())


def dense_scales(found: Sequence[Finding]) -> str | None:
    """What a setting of the converter may mend: one scale for a Dense layer in place of one for each output. None if
    nothing is of that kind."""
    return next((finding.what for finding in found if finding.one_scale_mends), None)


def instead(name: str) -> str:
    """What to build in place of an operator that a target does not have."""
    return INSTEAD.get(name, "build the network without it")


def _listed(places: Sequence[str], most: int = 3) -> str:
    if not places:
        return ""
    more = f" and {len(places) - most} more" if len(places) > most else ""
    return f" ({', '.join(places[:most])}{more})"
