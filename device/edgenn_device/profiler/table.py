"""A Profile as text for a terminal of 80 to 120 columns.

Shows what a person compares first and leaves the rest to `report.to_dict`. Colours nothing, so that it can be piped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from .histogram import Histogram
from .measure import Profile
from .report import gap, machine, three_digits
from .wording import (
    LAYER_HEADS,
    VARIANT_HEADS,
    cells,
    cold_rows,
    ending,
    energy_line,
    layer_rows,
    memory_rows,
    mlperf_line,
    operator_rows,
    variant_rows,
)

# Of the layers, the ones that are worth changing.
_DEAREST = 10
_BARS = 12
# Columns for a kernel's name.
_KERNEL = 20
_ASCII = str.maketrans({"█": "#", "µ": "u", "·": "-", "–": "-", "…": "~", "±": "+-", "°": " "})
_NAMES = ("p50", "p90", "p99", "p99.9")


def to_text(profile: Profile, width: int = 100) -> str:
    """The table for a terminal of `width` columns (80 at least)."""
    width = max(80, width)
    blocks = [
        "\n".join([*(f"! {sentence}" for sentence in profile.disturbances), _headline(profile)]),
        _latency(profile, width),
        _variants(profile),
        _bars(profile.steady.latencies, width),
        _rows(list(map(tuple, cold_rows(profile))), "cold start", ("ms",)),
        _rows(_stage_rows(profile), _stage_title(profile), ("p50", "p90", "p99", "mean ms")),
        _operator_block(profile, width),
        _rows(list(map(tuple, memory_rows(profile))), "memory", ("MB",)),
        "\n".join(textwrap.wrap(f"energy: {energy_line(profile)}", width)),
        _environment(profile, width),
    ]
    return "\n\n".join(block for block in blocks if block)


def plain(text: str) -> str:
    """The same for a terminal that knows ASCII only."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def _headline(profile: Profile) -> str:
    return f"{profile.model} · {profile.description}\n{machine(profile)}"


def _latency(profile: Profile, width: int) -> str:
    invoke = profile.steady.latencies
    *named, mean = cells(invoke)
    lines = [
        "invoke  " + "   ".join(f"{name} {value}" for name, value in zip(_NAMES, named, strict=True)) + " ms",
        f"        mean {mean} ± {three_digits(invoke.std * 1e3)}, {three_digits(invoke.min * 1e3)} to "
        f"{three_digits(invoke.max * 1e3)} ms",
    ]
    sentences = [ending(profile), *([mlperf_line(profile)] if profile.mlperf else [])]
    for sentence in sentences:
        lines += textwrap.wrap(sentence, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _variants(profile: Profile) -> str:
    """What was timed in turns, beside the first."""
    if len(profile.variants) == 1:
        return ""
    return _rows([tuple(row) for row in variant_rows(profile)], "timed in turns", VARIANT_HEADS[1:])


def _bars(latencies: Histogram, width: int) -> str:
    """How the latencies are distributed, from the shortest to p99; slower ones in a line of their own."""
    low, high = latencies.min, latencies.percentile(99)
    if latencies.count < _BARS or high <= low:
        return ""
    step = (high - low) / _BARS
    counts = [0] * _BARS
    beyond = 0
    for begin, end, count in latencies.buckets():
        middle = (begin + end) / 2
        if middle > high:
            beyond += count
        else:
            counts[min(_BARS - 1, max(0, int((middle - low) / step)))] += count
    longest = max(counts)
    room = width - 26
    lines = []
    for row, count in enumerate(counts):
        bar = "█" * max(1 if count else 0, round(count / longest * room))
        lines.append(f"{three_digits((low + step * row) * 1e3):>9} ms  {f'{bar} {count}'.strip()}")
    if beyond:
        lines.append(
            f"{three_digits(high * 1e3):>9} ms  and above: {beyond}, up to {three_digits(latencies.max * 1e3)} ms"
        )
    return "\n".join(lines)


def _stage_title(profile: Profile) -> str:
    stages = profile.stages
    if not stages.source:
        return "stages (without a pipeline, of a 640x480 picture)"
    dropped = f", {stages.dropped} dropped as stale" if stages.dropped else ""
    return f"stages of {stages.source}: {stages.frames} frames, {stages.fps:.1f} a second{dropped}"


def _stage_rows(profile: Profile) -> list[tuple[str, ...]]:
    named = dict(profile.stages.durations)
    if profile.stages.latency is not None:
        named["age of the frame"] = profile.stages.latency
    return [(name, *(cells(spent)[column] for column in (0, 1, 2, 4))) for name, spent in named.items()]


def _operator_block(profile: Profile, width: int) -> str:
    timed = profile.operators
    blocks = [_rows([tuple(row) for row in operator_rows(profile)], "operators", ("count", "µs", "share", "M MACs"))]
    if timed.runs and timed.sum_microseconds and timed.whole_microseconds:
        # Multiply-adds stand in the table above.
        heads = (*LAYER_HEADS[:3], *LAYER_HEADS[4:])
        rows = [(*row[:4], *row[5:]) for row in layer_rows(profile, _DEAREST)]
        figures = [max(map(len, column)) + 2 for column in zip(heads[1:], *(row[2:] for row in rows), strict=True)]
        room = width - _KERNEL - sum(figures) - 6
        shown = [(_shortened(row[0], room), _shortened(row[1], _KERNEL), *row[2:]) for row in rows]
        blocks.append(_rows(shown, f"the {len(rows)} dearest layers", heads))
        if profile.machine:
            blocks.append("\n".join(textwrap.wrap(f"roof: {profile.machine.description}", width)))
        blocks.append(
            f"operators together {timed.sum_microseconds:.0f} µs of {timed.whole_microseconds:.0f} µs, "
            f"{timed.runs} profiled runs"
        )
    note = timed.reason or gap(timed)
    return "\n\n".join(blocks) + (f"\n{note}" if note else "")


def _environment(profile: Profile, width: int) -> str:
    facts = profile.environment
    versions = [f"{name} {facts[name]}" for name in ("python", "numpy", "opencv", "edgenn") if facts[name]]
    system = f"{facts['os'] or 'Linux'}, kernel {facts['kernel']}, {facts['architecture']}"
    lines = textwrap.wrap(f"{', '.join(versions)}; {system}", width, break_on_hyphens=False)
    if profile.busy_by_others is not None:
        lines.append(f"other programs took {profile.busy_by_others:.0%} of the CPU meanwhile")
    lines.append(f"flatbuffer sha256 {str(facts['model_sha256'])[:16]}…")
    return "\n".join(lines)


def _rows(rows: Sequence[tuple[str, ...]], title: str, heads: Sequence[str]) -> str:
    """A titled table: the first column to the left, columns of figures to the right, "kernel" to the left."""
    if not rows:
        return ""
    first = max(len(title), *(len(row[0]) + 2 for row in rows))
    widths = [max(len(head), *(len(row[column]) for row in rows)) for column, head in enumerate(heads, 1)]

    def line(name: str, cells: Sequence[str]) -> str:
        padded = (
            f"{cell:<{size}}" if head == "kernel" else f"{cell:>{size}}"
            for cell, size, head in zip(cells, widths, heads, strict=True)
        )
        return f"{name:<{first}}  {'  '.join(padded)}".rstrip()

    return "\n".join([line(title, heads), *(line(f"  {row[0]}", row[1:]) for row in rows)])


def _shortened(text: str, room: int) -> str:
    """The end of a long name: what tells layers apart comes last."""
    return text if len(text) <= room else "…" + text[len(text) - room + 1 :]
