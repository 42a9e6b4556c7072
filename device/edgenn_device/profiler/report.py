"""A Profile as JSON with a schema (`table` has it for the terminal, `markdown` to paste, `page` as HTML).

Milliseconds here, because a person reads them. Measures nothing, and rounds nothing in JSON. docs/profiling.md
documents the schema; whatever changes the meaning of a name raises SCHEMA.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from . import operators, state
from .histogram import Histogram
from .measure import Profile
from .sweep import Variant

SCHEMA = 1
# A profiled sum of operators further from the whole than this is said to be.
_GAP = 0.05
# The metric of MLPerf's single stream.
MLPERF_PERCENTILE = 90


def to_dict(profile: Profile) -> dict[str, Any]:
    """What `edgenn profile --json` prints. Durations in ms (`_ms`) or µs (`microseconds`), memory in bytes."""
    timed = profile.operators
    variants = [variant_dict(variant) for variant in profile.variants]
    # Of the first variant, what ARCHITECTURE's table of verbs names; the rest of it stands in `variants` alone.
    first = {key: variants[0][key] for key in _OF_THE_FIRST}
    return {
        "schema": SCHEMA,
        "session": profile.session,
        "time": datetime.fromtimestamp(profile.time, UTC).isoformat(timespec="seconds"),
        "quiet": profile.quiet,
        "disturbances": list(profile.disturbances),
        **first,
        "mlperf": _mlperf(profile),
        "variants": variants,
        "cold_start_ms": {stage: spent * 1e3 for stage, spent in (profile.cold_start or {}).items()} or None,
        "stages": {stage: percentiles(spent) for stage, spent in profile.stages.durations.items()},
        "pipeline": _pipeline(profile),
        "operators": grouped(timed),
        "layers": [asdict(layer) for layer in timed.layers],
        "operator_times": {
            "runs": timed.runs,
            "sum_microseconds": timed.sum_microseconds,
            "whole_microseconds": timed.whole_microseconds,
            "reason": timed.reason or gap(timed),
        },
        "roofline": _roofline(profile),
        "memory": profile.memory,
        "energy": asdict(profile.energy),
        "environment": {**profile.environment, "busy_by_others": profile.busy_by_others},
        "state": {
            "before": profile.before.to_dict(),
            "during": state.during(profile.during),
            "after": profile.after.to_dict(),
        },
    }


_OF_THE_FIRST = (
    "model", "runtime", "description", "threads", "runs", "warm_up_runs", "ended_by", "drift", "invoke_ms", "histogram",
)  # fmt: skip


def variant_dict(variant: Variant) -> dict[str, Any]:
    """One entry of `variants`."""
    invoke, interval = variant.steady.latencies, variant.steady.interval
    named = asdict(variant)
    del named["steady"]
    return {
        **named,
        "runs": invoke.count,
        "warm_up_runs": variant.steady.warm_up,
        "ended_by": variant.steady.ended_by,
        "drift": variant.steady.drift,
        "invoke_ms": {
            **percentiles(invoke),
            "std": invoke.std * 1e3,
            "min": invoke.min * 1e3,
            "max": invoke.max * 1e3,
            "p50_interval": [bound * 1e3 for bound in interval] if interval else None,
        },
        "blocks": [[block.began, block.latencies.count, block.median * 1e3] for block in variant.steady.blocks],
        "histogram": invoke.to_dict(),
    }


def percentiles(latencies: Histogram) -> dict[str, float]:
    """p50, p90, p99, p99_9 and mean in milliseconds. Of too few runs (see `limits`), a percentile is the slowest."""
    values = {f"p{p:g}".replace(".", "_"): latencies.percentile(p) * 1e3 for p in (50, 90, 99, 99.9)}
    return {**values, "mean": latencies.mean * 1e3}


def grouped(timed: operators.OperatorTimes) -> list[dict[str, Any]]:
    """Layers of one kind together: [{name, version, count, macs, bytes, microseconds, share}], the dearest first.

    microseconds and share are None where nothing was timed.
    """
    groups: dict[tuple[str, int | None], dict[str, Any]] = {}
    for layer in timed.layers:
        group = groups.setdefault(
            (layer.name, layer.version),
            {"name": layer.name, "version": layer.version, "count": 0, "macs": 0, "bytes": 0}
            | ({"microseconds": 0.0, "share": 0.0} if timed.runs else {"microseconds": None, "share": None}),
        )
        group["count"] += 1
        group["macs"] += layer.macs
        group["bytes"] += layer.bytes
        if timed.runs:
            group["microseconds"] += layer.microseconds or 0.0
            group["share"] += layer.share or 0.0
    return sorted(groups.values(), key=lambda group: (-(group["microseconds"] or 0), -group["macs"], group["name"]))


def gap(timed: operators.OperatorTimes) -> str:
    """A sentence where the operators' sum and the whole differ by more than 5%, else ""."""
    total, whole = timed.sum_microseconds, timed.whole_microseconds
    if not total or not whole or abs(total / whole - 1) <= _GAP:
        return ""
    return (
        f"The operators add up to {total / whole:.0%} of the whole: the rest lies between them, and the runtime cuts "
        "each time off at a whole µs."
    )


def machine(profile: Profile) -> str:
    """Board, CPU, cores, governor, clock and temperature in one line, as far as they are known."""
    facts = profile.environment
    parts = [facts["board"], facts["cpu"], f"{facts['cores']} cores", facts["governor"]]
    now = profile.after
    clocks = state.during(profile.during)["clock_mhz"] or ([now.clock_mhz] if now.clock_mhz else [])
    if clocks:
        # The clock while it worked, not after.
        parts.append(" to ".join(dict.fromkeys(f"{clock:.0f}" for clock in clocks)) + " MHz")
    if now.temperature is not None:
        parts.append(f"{now.temperature:.0f} °C")
    return ", ".join(str(part) for part in parts if part)


def three_digits(value: float) -> str:
    """Three significant digits, which is what the histogram keeps, but no more than three decimals."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def _mlperf(profile: Profile) -> dict[str, Any] | None:
    if not profile.mlperf:
        return None
    latencies = profile.steady.latencies
    return {
        "rules": "MLPerf Inference 0.5, single stream",
        "queries": latencies.count,
        "p90_ms": latencies.percentile(MLPERF_PERCENTILE) * 1e3,
    }


def _roofline(profile: Profile) -> dict[str, Any] | None:
    if profile.machine is None:
        return None
    return {"machine": asdict(profile.machine), "points": [asdict(point) for point in profile.points]}


def _pipeline(profile: Profile) -> dict[str, Any] | None:
    stages = profile.stages
    if stages.latency is None:
        return None
    began = min((span.began for span in stages.timeline), default=0.0)
    return {
        "source": stages.source,
        "frames": stages.frames,
        "dropped": stages.dropped,
        "fps": stages.fps,
        "age_ms": percentiles(stages.latency),
        "timeline": [
            [span.stage, span.frame, (span.began - began) * 1e3, (span.ended - began) * 1e3] for span in stages.timeline
        ],
    }
