"""Figures of a profile as SVG text, drawn with the standard library alone: a device has nothing else.

Colours come from the page's style sheet (classes and custom properties), so that they follow light and dark. Every text
is escaped: layers and sources are named by strangers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .histogram import Histogram
from .report import three_digits
from .roofline import OPERATIONS_PER_MAC, Machine, Point
from .timeline import THREADS, Span

# Units of the drawing: the width of a page's column in CSS pixels, so that text is as large as the page's.
WIDTH = 880
_LEFT, _RIGHT = 64, 16
_BARS = 60
_STAGES = ("capture", "preprocess", "invoke", "decide")


def histogram(latencies: Histogram) -> str:
    """How often which latency, from the shortest to a little beyond p99; p50, p90 and p99 marked.

    The few that took longer are counted in words: one of 5 ms would leave no width for thousands of 0.2 ms. "" for
    fewer than 2 runs, or where nearly all are alike.
    """
    low, p99 = latencies.min, latencies.percentile(99)
    high = min(latencies.max, p99 + (p99 - low) / 4)
    if latencies.count < 2 or high <= low:
        return ""
    counts, longer = [0.0] * _BARS, 0
    step = (high - low) / _BARS
    for begin, end, count in latencies.buckets():
        if begin > high:
            longer += count
            continue
        # A bucket may be wider than a bar: its count is spread over those it covers.
        first, last = (min(_BARS - 1, max(0, int((edge - low) / step))) for edge in (begin, max(begin, end - 1e-12)))
        for bar in range(first, last + 1):
            counts[bar] += count / (last - first + 1)
    height, top, base = 256, 66, 206
    scale = (base - top) / max(counts)
    wide = (WIDTH - _LEFT - _RIGHT) / _BARS
    parts = [
        f'<rect class="bar" x="{_LEFT + bar * wide:.1f}" y="{base - count * scale:.1f}" width="{wide - 1:.1f}" '
        f'height="{count * scale:.1f}"/>'
        for bar, count in enumerate(counts)
        if count
    ]
    for value in _ticks(low * 1e3, high * 1e3):
        x = _LEFT + (value / 1e3 - low) / step * wide
        parts.append(f'<text class="faint" x="{x:.1f}" y="{base + 20}" text-anchor="middle">{value:g}</text>')
    for line, p in enumerate((50, 90, 99)):  # a line each: they may lie close together
        x = _LEFT + (latencies.percentile(p) - low) / step * wide
        label = f"p{p} {three_digits(latencies.percentile(p) * 1e3)}"
        side, beside = ("end", x - 4) if x > WIDTH - 90 else ("start", x + 4)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{8 + 16 * line}" y2="{base}"/>')
        parts.append(f'<text x="{beside:.1f}" y="{18 + 16 * line}" text-anchor="{side}">{label}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    beyond = f"{longer} of {latencies.count} took longer, up to {three_digits(latencies.max * 1e3)} " if longer else ""
    parts.append(f'<text class="faint" x="{WIDTH - _RIGHT}" y="{base + 40}" text-anchor="end">{beyond}ms</text>')
    words = f"histogram of {latencies.count} latencies, p50 {three_digits(latencies.percentile(50) * 1e3)} ms"
    return _svg(height, words, parts)


def roofline(machine: Machine, points: Sequence[Point]) -> str:
    """Operators by intensity and achieved rate, both logarithmic, below the roof; "" where none multiplies anything."""
    shown = [point for point in points if point.gops and point.intensity > 0]
    if not shown:
        return ""
    peak = OPERATIONS_PER_MAC * machine.int8 / 1e9
    slope = machine.memory / 1e9
    low_x = 10 ** math.floor(math.log10(min(point.intensity for point in shown)))
    high_x = 10 ** math.ceil(math.log10(max(2 * peak / slope, *(point.intensity for point in shown), low_x * 10)))
    low_y = 10 ** math.floor(math.log10(min(point.gops or 1.0 for point in shown)))
    high_y = 10 ** math.ceil(math.log10(1.2 * max(peak, *(point.gops or 0.0 for point in shown))))
    height, top, base = 380, 16, 320

    def x(value: float) -> float:
        return _LEFT + math.log(value / low_x) / math.log(high_x / low_x) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return base - math.log(max(value, low_y) / low_y) / math.log(high_y / low_y) * (base - top)

    parts = []
    for power in range(round(math.log10(low_x)), round(math.log10(high_x)) + 1):
        at = x(10.0**power)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{base}"/>')
        parts.append(
            f'<text class="faint" x="{at:.1f}" y="{base + 20}" text-anchor="middle">{_plain(10.0**power)}</text>'
        )
    for power in range(round(math.log10(low_y)), round(math.log10(high_y)) + 1):
        at = y(10.0**power)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="faint" x="{_LEFT - 8}" y="{at + 5:.1f}" text-anchor="end">{_plain(10.0**power)}</text>'
        )
    ridge = peak / slope
    begin = max(low_x, low_y / slope)
    roof = f"{x(begin):.1f},{y(begin * slope):.1f} {x(ridge):.1f},{y(peak):.1f} {x(high_x):.1f},{y(peak):.1f}"
    parts.append(f'<polyline class="roof" points="{roof}"/>')
    parts.append(
        f'<text x="{WIDTH - _RIGHT - 4}" y="{y(peak) - 8:.1f}" text-anchor="end">{peak:.0f} int8 GOPS, '
        f"{slope:.1f} GB/s</text>"
    )
    for point in shown:
        name = escape(f"{point.layer or point.name}: {three_digits(point.gops or 0)} GOPS")
        kind = " light" if point.bound == "memory" else ""
        parts.append(
            f'<circle class="dot{kind}" cx="{x(point.intensity):.1f}" cy="{y(point.gops or low_y):.1f}" r="5">'
            f"<title>{name}</title></circle>"
        )
    parts.append(
        f'<text class="faint" x="{WIDTH - _RIGHT}" y="{base + 42}" text-anchor="end">operations for each byte</text>'
    )
    parts.append(f'<text class="faint" x="{_LEFT + 8}" y="{top + 14}">GOPS</text>')
    return _svg(height, f"{len(shown)} operators below a roof of {peak:.0f} GOPS", parts)


def timeline(spans: Sequence[Span]) -> str:
    """One row for each thread, one box for each stage at work on a frame; "" without spans.

    The wait for the next frame belongs to no stage, so capture is drawn for its last part at most.
    """
    working = [span for span in spans if span.stage != "capture"]
    if not working:
        return ""
    begin = min(span.began for span in working)
    end = max(span.ended for span in working)
    # A camera's capture lasts until its next picture is there: of the first ones, only what belongs to the picture.
    begin = min([begin, *(span.ended for span in spans if span.stage == "capture")])
    row, top = 56, 26
    height = top + row * len(THREADS) + 34
    scale = (WIDTH - _LEFT - _RIGHT - 24) / max(end - begin, 1e-9)
    left = _LEFT + 24
    invoked = {span.frame for span in spans if span.stage == "invoke"}
    parts = []
    for number, thread in enumerate(THREADS):
        parts.append(f'<text class="faint" x="0" y="{top + row * number + 26}">{thread}</text>')
    for span in spans:
        first = max(begin, span.began)
        if span.ended < begin:
            continue
        place = top + row * THREADS.index(span.thread)
        wide = max(1.5, (span.ended - first) * scale)
        if span.ended > end:
            wide = max(1.5, (end - first) * scale)
        at = left + (first - begin) * scale
        stage = span.stage if span.stage in _STAGES else "sink"
        kind = stage if span.frame in invoked or span.stage not in ("capture", "preprocess") else "dropped"
        words = escape(f"{span.stage}, frame {span.frame}: {three_digits((span.ended - span.began) * 1e3)} ms")
        parts.append(
            f'<rect class="{kind}" x="{at:.1f}" y="{place}" width="{wide:.1f}" height="36" rx="3">'
            f"<title>{words}</title></rect>"
        )
        if wide > 9 * len(str(span.frame)) + 8:
            parts.append(
                f'<text class="on" x="{at + wide / 2:.1f}" y="{place + 23}" text-anchor="middle">{span.frame}</text>'
            )
    base = top + row * len(THREADS) - 8
    parts.append(f'<line class="axis" x1="{left}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    for value in _ticks(0.0, (end - begin) * 1e3):
        at = left + value / 1e3 * scale
        parts.append(f'<text class="faint" x="{at:.1f}" y="{base + 20}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text class="faint" x="0" y="{base + 20}">ms</text>')
    return _svg(height, "what capture, preprocess and invoke did, frame by frame", parts)


def _svg(height: int, words: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(words)}">'
        f"<title>{escape(words)}</title>{''.join(parts)}</svg>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round values between two."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 9) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _plain(value: float) -> str:
    return f"{value:.0f}" if value >= 1 else f"{value:g}"
