"""A Profile as Markdown, to paste into an issue or a README."""

from __future__ import annotations

from collections.abc import Sequence

from .measure import Profile
from .report import machine, percentiles, three_digits
from .wording import VARIANT_HEADS, cells, ending, energy_line, mlperf_line, operator_rows, variant_rows


def to_markdown(profile: Profile) -> str:
    """Markdown for an issue or a README: what to compare, and what it was measured on."""
    invoke = percentiles(profile.steady.latencies)
    environment = profile.environment
    figures = f"p50 {three_digits(invoke['p50'])} ms, p99 {three_digits(invoke['p99'])} ms"
    lines = [f"**{profile.model}**: {figures} on {machine(profile)}", ""]
    for sentence in profile.disturbances:
        lines += [f"> **{sentence}**", ""]
    if len(profile.variants) > 1:
        lines += [*_markdown_table(VARIANT_HEADS, variant_rows(profile)), ""]
    lines += _markdown_table(
        ["", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "mean ms"],
        [
            [name, *cells(spent)]
            for name, spent in [("invoke alone", profile.steady.latencies), *profile.stages.durations.items()]
            if spent.count
        ],
    )
    lines += ["", f"{ending(profile)} {profile.description}."]
    if profile.mlperf:
        lines += ["", mlperf_line(profile)]
    if profile.cold_start:
        parts = ", ".join(f"{stage} {three_digits(spent * 1e3)}" for stage, spent in profile.cold_start.items())
        lines += ["", f"Cold start {three_digits(sum(profile.cold_start.values()) * 1e3)} ms: {parts}."]
    if profile.operators.runs:
        lines += ["", *_markdown_table(["operator", "count", "µs", "share", "M MACs"], operator_rows(profile))]
    if profile.energy.joules is not None:
        lines += ["", energy_line(profile)]
    facts = {key: value for key, value in environment.items() if value is not None and key != "memory_available"}
    lines += ["", "<details><summary>Environment</summary>", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", "</details>", ""]
    return "\n".join(lines)


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]
