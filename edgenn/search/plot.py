"""The Pareto front as a PNG: int8 accuracy against latency, area for size, colour for the network.

Draws what it is given; what keeps the limits and is not rejected is a full disc, the rest are hollow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgenn.evaluation import plots
from edgenn.extras import require

from . import outcome
from .limits import Limits, kilobytes, milliseconds
from .outcome import Outcome

# The palette of Okabe and Ito (see `plots`), in the order in which networks appear.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7280")
# Points² of the largest model's disc, and the least that can be seen.
_LARGEST, _LEAST = 420.0, 22.0
# Inches; at 96 pixels each the narrow one fits a telephone held upright.
_WIDE, _NARROW = (7.4, 4.9), (3.4, 4.4)


def pareto(outcomes: Sequence[Outcome], limits: Limits, *, narrow: bool = False) -> bytes:
    """A PNG of all finished trials; there has to be one.

    Args:
      outcomes: those that are not done are left out.
      narrow: for a screen of a telephone.
    """
    done, front = outcome.done(outcomes), outcome.front(outcomes, limits)
    fits, best = {one.number for one in outcome.within(outcomes, limits)}, outcome.best(outcomes, limits)
    largest = max(one.bytes or 0 for one in done)
    networks = list(dict.fromkeys(one.network for one in sorted(done, key=lambda one: one.number)))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(networks)}
    with plots.drawing():
        figure = plots.new_figure(*(_NARROW if narrow else _WIDE))
        axes = figure.subplots()
        if front:
            x = [_ms(one) for one in front]
            y = [one.accuracy for one in front]
            axes.step(x, y, where="post", color=plots.FAINT, linewidth=1.2, zorder=1)
        for one in sorted(done, key=lambda one: -(one.bytes or 0)):  # small ones on top
            colour, full = colours[one.network], one.number in fits
            axes.scatter(
                [_ms(one)],
                [one.accuracy],
                s=_area(one.bytes or 0, largest),
                facecolor=colour if full else "none",
                edgecolor="white" if full else colour,
                linewidth=0.8 if full else 1.5,
                alpha=0.9 if full else 0.75,
                zorder=3 if full else 2,
            )
        if limits.latency is not None:
            axes.axvline(limits.latency * 1e3, color=plots.ORANGE, linestyle="--", linewidth=1.4, zorder=0)
        axes.set_xscale("log")
        _milliseconds(axes, done, limits)
        axes.set_xlabel("median latency, milliseconds")
        axes.set_ylabel("int8 accuracy, validation photos")
        axes.yaxis.set_major_formatter(require("matplotlib.ticker").FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        axes.margins(y=0.12)
        if best is not None:
            _mark(axes, best, _area(best.bytes or 0, largest))
        _legend(figure, colours, done, fits, largest, limits, 2 if narrow else 4)
        return plots.as_png(figure)


def _ms(one: Outcome) -> float:
    assert one.latency is not None
    return one.latency.median * 1e3


def _area(size: int, largest: int) -> float:
    return max(_LEAST, _LARGEST * size / max(largest, 1))


def _milliseconds(axes: Any, done: Sequence[Outcome], limits: Limits) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, as plain numbers, and room on both sides."""
    ticker = require("matplotlib.ticker")
    values = [*(_ms(one) for one in done), *([limits.latency * 1e3] if limits.latency is not None else [])]
    axes.set_xlim(min(values) / 1.5, max(values) * 1.5)
    axes.xaxis.set_major_locator(ticker.LogLocator(10, (1.0, 2.0, 5.0), numticks=12))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _mark(axes: Any, best: Outcome, area: float) -> None:
    """A ring around the best, and its figures above."""
    axes.scatter(
        [_ms(best)], [best.accuracy], s=area + 130, facecolor="none", edgecolor=plots.INK, linewidth=1.6, zorder=4
    )
    words = f"best: {best.accuracy:.1%}, {milliseconds(_ms(best) / 1e3)} ms, {kilobytes(best.bytes or 0)} kB"
    axes.set_title(words, loc="right", fontsize=9)


def _legend(
    figure: Any,
    colours: dict[str, str],
    done: Sequence[Outcome],
    fits: set[int],
    largest: int,
    limits: Limits,
    columns: int,
) -> None:
    line = require("matplotlib.lines").Line2D
    entries = [
        line(
            [],
            [],
            marker="o",
            linestyle="",
            markersize=8,
            color=colour,
            label=plots.shortened(name),
        )
        for name, colour in colours.items()
    ]
    if any(one.number not in fits for one in done):
        entries.append(
            line(
                [],
                [],
                marker="o",
                linestyle="",
                markersize=8,
                markerfacecolor="none",
                color=plots.FAINT,
                label="beyond a limit, or rejected",
            )
        )
    if limits.latency is not None:
        entries.append(
            line(
                [],
                [],
                color=plots.ORANGE,
                linestyle="--",
                linewidth=1.4,
                label=f"limit {milliseconds(limits.latency)} ms",
            )
        )
    side = _area(largest, largest) ** 0.5
    entries.append(
        line(
            [],
            [],
            marker="o",
            linestyle="",
            markersize=side / 2,
            color=plots.GRID,
            label=f"area: {kilobytes(largest / 4)} kB",
        )
    )
    figure.legend(handles=entries, loc="outside lower center", ncols=min(columns, len(entries)), fontsize=8.5)
