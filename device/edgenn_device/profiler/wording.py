"""Sentences and rows of text that the table, the Markdown and the page share, so that all three say the same.

Turns figures into words; decides and measures nothing.
"""

from __future__ import annotations

import re

from . import compare
from .histogram import Histogram
from .limits import enough_runs
from .measure import Profile
from .report import MLPERF_PERCENTILE, grouped, percentiles, three_digits, variant_dict
from .steady import WIDTH

# In a kernel's name: layout and types ("Convolution (NHWC, QS8) IGEMM").
_BRACKETS = re.compile(r" \([^)]*\)")

_STARTS = {
    "python": "start Python",
    "imports": "import NumPy, OpenCV, runtime",
    "load": "read and verify the file",
    "create": "create the interpreter",
    "first": "first inference",
}

VARIANT_HEADS = ("", "p50 ms", "p90 ms", "p99 ms", "p50 beside the first")


def variant_rows(profile: Profile) -> list[list[str]]:
    """What was timed in turns: name, p50, p90, p99 and the difference to the first, as text."""
    document = {"variants": [variant_dict(variant) for variant in profile.variants]}
    told = ["", *(found.short() for _, found in compare.within(document))]
    rows = []
    for variant, words in zip(document["variants"], told, strict=True):
        figures = (three_digits(variant["invoke_ms"][p]) for p in ("p50", "p90", "p99"))
        rows.append([compare.label(variant, document), *figures, words])
    return rows


LAYER_HEADS = ("kernel", "µs", "share", "M MACs", "GOPS", "of roof")


def layer_rows(profile: Profile, most: int) -> list[list[str]]:
    """The dearest layers: name, kernel, µs, share, millions of multiply-adds, GOPS, share of what the roof allows."""
    points = {point.index: point for point in profile.points if point.index is not None}
    rows = []
    for layer in sorted(profile.operators.layers, key=lambda layer: -(layer.microseconds or 0.0))[:most]:
        point = points.get(layer.index) if layer.index is not None else None
        rows.append(
            [
                layer.layer or layer.name,
                _BRACKETS.sub("", layer.kernel or ""),
                f"{layer.microseconds or 0.0:.0f}",
                f"{layer.share or 0.0:.1%}",
                three_digits(layer.macs / 1e6) if layer.macs else "",
                three_digits(point.gops) if point and point.gops else "",
                f"{point.share:.0%} {point.bound}" if point and point.share is not None else "",
            ]
        )
    return rows


def cells(spent: Histogram) -> list[str]:
    """p50, p90, p99, p99.9 and mean in ms as text; a dash for a percentile that too few runs say nothing of."""
    values = percentiles(spent)
    fewest = {"p50": 1, **{name: enough_runs(p) for name, p in (("p90", 90), ("p99", 99), ("p99_9", 99.9))}, "mean": 1}
    return [three_digits(values[name]) if spent.count >= fewest[name] else "–" for name in values]


def ending(profile: Profile) -> str:
    """How sure the median is, and why the measurement ended, in a sentence or two."""
    steady = profile.steady
    words = f"{profile.runs} runs after {steady.warm_up} to warm up"
    if steady.interval is None:
        return f"{words}: too few to say how sure the median is."
    low, high = (three_digits(bound * 1e3) for bound in steady.interval)
    words += f"; the median lies within {low} to {high} ms (95%), {steady.width or 0:.1%} of it"
    if steady.ended_by == "interval":
        return f"{words}: narrow enough ({WIDTH:.0%}) to end."
    if steady.ended_by == "seconds" and (steady.width or 0) > WIDTH:
        return f"{words}: not {WIDTH:.0%} yet when the time was over."
    return f"{words}."


def mlperf_line(profile: Profile) -> str:
    """The 90th percentile under the rule of MLPerf's single stream, in a sentence."""
    value = profile.steady.latencies.percentile(MLPERF_PERCENTILE) * 1e3
    return (
        f"By the rule of MLPerf Inference 0.5, single stream: 90th percentile {three_digits(value)} ms of "
        f"{profile.runs} queries (no MLPerf result: that name asks for its LoadGen and a review)."
    )


def energy_line(profile: Profile) -> str:
    """Joules for each inference, or why there are none."""
    energy = profile.energy
    if energy.joules is None or energy.watts is None or energy.joules_above_rest is None:
        return energy.reason
    return (
        f"{three_digits(energy.joules * 1e3)} mJ for each inference ({three_digits(energy.joules_above_rest * 1e3)} "
        f"above rest) at {energy.watts:.2f} W, {energy.meter}. {energy.covers}"
    )


def operator_rows(profile: Profile) -> list[list[str]]:
    """Operator, count, µs, share and millions of multiply-adds, as text; "–" for what was not timed."""
    rows = []
    for group in grouped(profile.operators):
        name = f"{group['name']} v{group['version']}" if group["version"] else str(group["name"])
        spent, share = group["microseconds"], group["share"]
        timed = [f"{spent:.0f}", f"{share:.1%}"] if spent is not None and share is not None else ["–", "–"]
        rows.append([name, str(group["count"]), *timed, three_digits(group["macs"] / 1e6) if group["macs"] else ""])
    return rows


def cold_rows(profile: Profile) -> list[list[str]]:
    """What a fresh process does first, in ms; empty when it could not be measured."""
    if not profile.cold_start:
        return []
    rows = [[_STARTS.get(stage, stage), three_digits(spent * 1e3)] for stage, spent in profile.cold_start.items()]
    return [*rows, ["together", three_digits(sum(profile.cold_start.values()) * 1e3)]]


def memory_rows(profile: Profile) -> list[list[str]]:
    """Memory in MB, as far as it is known."""
    names = {
        "python": "Python alone",
        "imports": "with NumPy, OpenCV and the runtime",
        "ready": "with the model, after an inference",
        "peak": "at its peak",
        "weights": "weights in the model",
        "arena": "tensors between the operators (arena)",
        "flatbuffer": "the model's flatbuffer",
    }
    found = ((words, profile.memory.get(key)) for key, words in names.items())
    return [[words, three_digits(size / 1e6)] for words, size in found if size is not None]
