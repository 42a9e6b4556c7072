"""A Profile as one HTML page that stands alone: no script, nothing fetched, drawn with the standard library.

A device makes it itself, where the workstation's reports and their libraries are not installed; the look is theirs.
Every text is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from . import drawing
from .measure import Profile
from .report import gap, machine, three_digits
from .style import CSS
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

_PERCENTILES = ("p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "mean ms")
_LAYERS = 30


def to_html(profile: Profile) -> str:
    """The page as text."""
    title = f"{profile.model}: profile"
    sections = [
        _section("Latency of invoke", _latency(profile)),
        _section("Timed in turns", _table(VARIANT_HEADS, variant_rows(profile)) if len(profile.variants) > 1 else ""),
        _section("Where a frame's time goes", _stages(profile)),
        _section("Operators", _operators(profile)),
        _section("Roofline", _roofline(profile)),
        _section("Cold start", _table(("", "ms"), cold_rows(profile))),
        _section("Memory and energy", _table(("", "MB"), memory_rows(profile)) + _text(energy_line(profile))),
        _section("Environment", _environment(profile)),
    ]
    warnings = "".join(f'<p class="warning">{escape(sentence)}</p>' for sentence in profile.disturbances)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<header>\n{warnings}"
        f'<h1>{escape(profile.model)}</h1>\n<p class="faint">{escape(profile.description)} · {escape(machine(profile))}'
        f"</p>\n</header>\n<main>\n{_tiles(profile)}{''.join(sections)}</main>\n"
        f"<footer>edgenn {escape(str(profile.environment['edgenn'] or ''))}</footer>\n</body>\n</html>\n"
    )


def _tiles(profile: Profile) -> str:
    named = dict(zip(("p50", "p90", "p99"), cells(profile.steady.latencies), strict=False))
    tiles = [(f"invoke, {name}", f"{value} ms") for name, value in named.items() if value != "–"]
    if profile.stages.latency is not None:
        tiles.append(("age of a frame, p50", f"{cells(profile.stages.latency)[0]} ms"))
        tiles.append(("frames a second", f"{profile.stages.fps:.1f}"))
    if profile.energy.joules is not None:
        tiles.append(("energy of an inference", f"{three_digits(profile.energy.joules * 1e3)} mJ"))
    told = "".join(f'<div><dt>{escape(name)}</dt><dd class="value">{escape(value)}</dd></div>' for name, value in tiles)
    return f'<section><dl class="tiles">{told}</dl></section>\n'


def _latency(profile: Profile) -> str:
    rows = [["invoke", *cells(profile.steady.latencies)]]
    return (
        _figure(drawing.histogram(profile.steady.latencies))
        + _table(("", *_PERCENTILES), rows)
        + _text(ending(profile), *([mlperf_line(profile)] if profile.mlperf else []))
    )


def _stages(profile: Profile) -> str:
    stages = profile.stages
    rows = [[name, *cells(spent)] for name, spent in stages.durations.items()]
    if stages.latency is None:
        return _table(("", *_PERCENTILES), rows) + _text("Without a pipeline, of a 640x480 picture.")
    rows.append(["age of the frame", *cells(stages.latency)])
    dropped = f"{stages.dropped} dropped as stale" if stages.dropped else "none dropped"
    return (
        _figure(drawing.timeline(stages.timeline), "Boxes are frames by number; grey ones were dropped for newer ones.")
        + _table(("", *_PERCENTILES), rows)
        + _text(f"{stages.source}: {stages.frames} frames, {stages.fps:.1f} a second, {dropped}.")
    )


def _operators(profile: Profile) -> str:
    timed = profile.operators
    kinds = _table(("", "count", "µs", "share", "M MACs"), operator_rows(profile), bar=3)
    if not timed.runs or not timed.sum_microseconds or not timed.whole_microseconds:
        return kinds + _text(timed.reason)
    together = (
        f"Operators together {timed.sum_microseconds:.0f} µs of {timed.whole_microseconds:.0f} µs, {timed.runs} "
        "profiled runs."
    )
    layers = layer_rows(profile, _LAYERS)
    return (
        kinds
        + _text(together, timed.reason or gap(timed))
        + f"<h3>The {len(layers)} dearest layers</h3>"
        + _table(("", *LAYER_HEADS), layers, bar=3)
    )


def _roofline(profile: Profile) -> str:
    if profile.machine is None:
        return ""
    drawn = drawing.roofline(profile.machine, profile.points)
    if not drawn:
        return ""
    return _figure(drawn, "Pale dots: below the slope of memory. Point at a dot for its layer.") + _text(
        f"Roof: {profile.machine.description}."
    )


def _environment(profile: Profile) -> str:
    facts = {**profile.environment, "busy by others": profile.busy_by_others}
    told = {key.replace("_", " "): value for key, value in facts.items() if value is not None}
    rows = [[key, f"{value:.0%}" if key == "busy by others" else str(value)] for key, value in told.items()]
    return _table((), rows)


def _section(title: str, inside: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}</section>\n" if inside else ""


def _figure(drawn: str, caption: str = "") -> str:
    told = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{drawn}{told}</figure>\n" if drawn else ""


def _text(*sentences: str) -> str:
    return "".join(f"<p>{escape(sentence)}</p>\n" for sentence in sentences if sentence)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], bar: int | None = None) -> str:
    """First column to the left, columns of figures to the right; column `bar` holds shares, drawn as bars."""
    if not rows:
        return ""
    numbers = [all(map(_is_number, column)) for column in zip(*(row[1:] for row in rows), strict=True)]
    kinds = ["", *("" if place == bar else "number" if number else "words" for place, number in enumerate(numbers, 1))]
    head = "".join(f"<th{_class(kind)}>{escape(name)}</th>" for name, kind in zip(heads, kinds, strict=False))
    body = []
    for name, *values in rows:
        told = [f'<th scope="row">{escape(name)}</th>']
        for place, value in enumerate(values, 1):
            if place == bar and value.endswith("%"):
                told.append(f'<td class="bar" style="--share: {escape(value)}"><span>{escape(value)}</span></td>')
            else:
                told.append(f"<td{_class(kinds[place])}>{escape(value)}</td>")
        body.append(f"<tr>{''.join(told)}</tr>")
    top = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return f'<div class="scroll"><table>{top}<tbody>{"".join(body)}</tbody></table></div>\n'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _is_number(text: str) -> bool:
    try:
        float(text.rstrip("%"))
    except ValueError:
        return text in ("–", "")
    return True
