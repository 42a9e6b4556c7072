"""Whether two measurements differ, and by how much at least and at most.

Two things timed in turns in one measurement are compared round by round, which a busy machine hardly disturbs. Two
measurements made one after the other can only be told apart by more than the machine's own moods, and how much that is
follows from how each of them wandered. Where the difference is no larger, it says "no difference shown"; it never
guesses. Takes the JSON documents of `edgenn profile`, which may come from two machines, and says what else differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import EdgennError
from .interval import paired_shift, separate_shift
from .report import SCHEMA, three_digits

# Two interpreters of one model in one process differ by up to this much (memory layout, measured in BENCHMARKS.md):
# a smaller difference, however certain, is not one of the models.
INDISTINCT = 0.01
# Of the environment, what changes from minute to minute; all else is named where it differs.
_OF_THE_MOMENT = {
    "memory_available", "clock_mhz", "temperature", "throttled", "throttled_before", "load_average", "busy_by_others",
}  # fmt: skip
# Of these the figures speak, so they say themselves what differs; not what the figures were measured on.
_OF_THE_VARIANT = ("model", "model_sha256", "runtime", "runtime_version", "kernels", "threads")


@dataclass(frozen=True)
class Difference:
    """How the second of two measurements differs from the first.

    Attributes:
      first, second: medians in seconds.
      change: second over first, minus 1.
      low, high: bounds of the change at 95%; None where there is too little to say.
      paired: whether rounds of one measurement were compared; else two measurements by their intervals.
      verdict: "slower", "faster" or "no difference shown", of the second.
    """

    first: float
    second: float
    change: float
    low: float | None
    high: float | None
    paired: bool

    @property
    def verdict(self) -> str:
        if self.low is not None and self.low > INDISTINCT:
            return "slower"
        if self.high is not None and self.high < -INDISTINCT:
            return "faster"
        return "no difference shown"

    def to_dict(self) -> dict[str, Any]:
        """Medians in ms, changes as shares (0.05 is 5% slower)."""
        values = asdict(self)
        medians = {f"{name}_p50_ms": values.pop(name) * 1e3 for name in ("first", "second")}
        return {**medians, **values, "verdict": self.verdict}

    def short(self) -> str:
        """Change, bounds and verdict: "+5.0% (+4.4% to +5.7%)", or "no difference shown (-0.3% to +0.4%)"."""
        bounds = "" if self.low is None or self.high is None else f" ({self.low:+.1%} to {self.high:+.1%})"
        known = self.verdict != "no difference shown"
        return f"{f'{self.change:+.1%}' if known else self.verdict}{bounds}"

    def to_text(self) -> str:
        """One line: "4.58 → 4.81 ms, +5.0% (+4.4% to +5.7%): slower"."""
        bounds = "" if self.low is None or self.high is None else f" ({self.low:+.1%} to {self.high:+.1%})"
        medians = f"{three_digits(self.first * 1e3)} → {three_digits(self.second * 1e3)} ms"
        return f"{medians}, {self.change:+.1%}{bounds}: {self.verdict}"


@dataclass(frozen=True)
class Comparison:
    """Two documents beside each other.

    Attributes:
      unlike: what was not the same, "threads: 1, then 2"; empty when only the moment differs.
      disturbances: sentences of either document, with "first: " or "second: " before them.
      differences: (what was compared, how it differs).
    """

    unlike: tuple[str, ...]
    disturbances: tuple[str, ...]
    differences: tuple[tuple[str, Difference], ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "unlike": list(self.unlike),
            "disturbances": list(self.disturbances),
            "differences": [{"compared": what, **found.to_dict()} for what, found in self.differences],
        }

    def to_text(self) -> str:
        lines = [f"! {sentence}" for sentence in self.disturbances]
        if self.unlike:
            lines += ["! Not measured alike:", *(f"!   {line}" for line in self.unlike)]
        lines += [f"{what}: {found.to_text()}" for what, found in self.differences]
        if all(found.verdict == "no difference shown" and not found.paired for _, found in self.differences):
            lines.append(
                "To tell less apart, measure both in turns: edgenn profile --compare FIRST.tflite SECOND.tflite"
            )
        return "\n".join(lines)


def difference(first: Mapping[str, Any], second: Mapping[str, Any], *, paired: bool) -> Difference:
    """Compare two entries of `variants`.

    Args:
      paired: both were timed in turns, so that block k of one stands beside block k of the other.
    """
    before, after = first["invoke_ms"]["p50"] / 1e3, second["invoke_ms"]["p50"] / 1e3
    shift = _paired(first, second) if paired else _separate(first["invoke_ms"], second["invoke_ms"])
    if shift is None:
        return Difference(before, after, after / before - 1, None, None, paired)
    change, low, high = (math.expm1(bound) for bound in shift)
    return Difference(before, after, change, low, high, paired)


def within(document: Mapping[str, Any]) -> list[tuple[str, Difference]]:
    """Every further variant of a document beside its first, round by round."""
    first, *others = document["variants"]
    return [(label(other, document), difference(first, other, paired=True)) for other in others]


def halves(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A document of two models as one of each; `compare` knows by the session that they were timed in turns.

    Raises:
      EdgennError: it holds one model only.
    """
    first, *others = document["variants"]
    models = [variant for variant in others if variant["model_sha256"] != first["model_sha256"]]
    if not models:
        raise EdgennError("the two models are one and the same: there is nothing to compare")
    parts = [
        [one for one in document["variants"] if one["model_sha256"] == key["model_sha256"]]
        for key in (first, models[0])
    ]
    return {**document, "variants": parts[0]}, {**document, "variants": parts[1]}


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Compare two documents of `edgenn profile --json`: each variant with its like, else the first with the first.

    Raises:
      EdgennError: one of them is no such document, or of another schema.
    """
    for which, document in (("first", first), ("second", second)):
        _check(which, document)
    # Of one measurement, split into two documents: still in turns.
    paired = first["session"] == second["session"]
    others = {_likeness(variant): variant for variant in second["variants"]}
    pairs = [(mine, others[key]) for mine in first["variants"] if (key := _likeness(mine)) in others]
    if not pairs:
        pairs = [(first["variants"][0], second["variants"][0])]
    # Of models that were timed in turns, that they differ is the question and no answer.
    unlike = [] if paired else _unlike(pairs[0][0], pairs[0][1], _OF_THE_VARIANT)
    keys = [*first["environment"], *(key for key in second["environment"] if key not in first["environment"])]
    unlike += _unlike(
        first["environment"],
        second["environment"],
        [key for key in keys if key not in _OF_THE_MOMENT and key not in _OF_THE_VARIANT],
    )
    named = [("", first)] if paired else [("first: ", first), ("second: ", second)]
    disturbed = [f"{which}{sentence}" for which, document in named for sentence in document["disturbances"]]
    found = [(mine["description"], difference(mine, yours, paired=paired)) for mine, yours in pairs]
    return Comparison(tuple(unlike), tuple(disturbed), tuple(found))


def label(variant: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What tells a variant from the others of its document: the model where there are several, and what ran it."""
    models = {other["model"] for other in document["variants"]}
    return variant["description"] if len(models) == 1 else f"{variant['model']}, {variant['description']}"


def _paired(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[float, float, float] | None:
    pairs = zip(first["blocks"], second["blocks"], strict=False)
    return paired_shift([math.log(b[2] / a[2]) for a, b in pairs if a[2] > 0 and b[2] > 0])


def _separate(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[float, float, float] | None:
    if not first["p50_interval"] or not second["p50_interval"]:
        return None
    bounds = [(values["p50"], *values["p50_interval"]) for values in (first, second)]
    if min(min(values) for values in bounds) <= 0:
        return None
    one, other = (tuple(math.log(bound) for bound in values) for values in bounds)
    return separate_shift((one[0], one[1], one[2]), (other[0], other[1], other[2]))


def _likeness(variant: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two variants must share to be compared: what ran them. The model is what one compares."""
    return variant["runtime"], variant["kernels"], variant["threads"]


def _unlike(first: Mapping[str, Any], second: Mapping[str, Any], keys: Any) -> list[str]:
    return [
        f"{key}: {_said(first.get(key))}, then {_said(second.get(key))}"
        for key in keys
        if first.get(key) != second.get(key)
    ]


def _said(value: Any) -> str:
    return (
        "unknown" if value is None else f"{value[:16]}…" if isinstance(value, str) and len(value) == 64 else str(value)
    )


def _check(which: str, document: Any) -> None:
    if not isinstance(document, dict) or not isinstance(document.get("variants"), list) or not document["variants"]:
        raise EdgennError(f"the {which} file is no profile: write one with `edgenn profile MODEL --out FILE.json`")
    if document.get("schema") != SCHEMA:
        raise EdgennError(
            f"the {which} profile has schema {document.get('schema')} and this edgenn reads {SCHEMA}: measure again"
        )
    missing = {"session", "environment", "disturbances"} - set(document)
    if missing:
        raise EdgennError(f"the {which} profile lacks {', '.join(sorted(missing))}: write it again with --out")
