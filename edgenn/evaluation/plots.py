"""Figures for people: training curves, confusion matrices, latency histograms, each as the bytes of a PNG.

Draws what it is given and computes nothing of its own; returns bytes, so that the caller may write them beside their
place and rename, or put them into a page. matplotlib is loaded inside the functions, and used without pyplot: no window
system, no state shared between figures or threads.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgenn.extras import require

DPI = 144
# Hues of the palette of Okabe and Ito, "Color universal design" (2008), told apart by every kind of colour vision.
BLUE, ORANGE = "#0072b2", "#d55e00"
LIGHT_BLUE = "#56b4e9"
INK, FAINT, GRID = "#1f2430", "#6b7280", "#e3e6eb"

# More cells than this and a count no longer fits into one; more classes, and their names give way to numbers.
_MOST_COUNTED_CLASSES = 30
_MOST_NAMED_CLASSES = 60
_LONGEST_LABEL = 24
_PERCENTILES = (50, 90, 99)

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": "#c3c8d0",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a label with a dollar sign is a label, not a formula
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


def curves(history: Mapping[str, Sequence[float]], best_epoch: int | None = None) -> bytes:
    """Loss and accuracy over the epochs, training beside validation.

    Args:
      history: columns of equal length, one entry an epoch: "loss", "val_loss", "accuracy", "val_accuracy"; those
        that are missing are not drawn, others are ignored.
      best_epoch: the epoch, counted from 1, whose weights were kept; None takes the highest validation accuracy, and
        of equal ones the lowest validation loss.

    Returns:
      A PNG.
    """
    with drawing():
        figure = new_figure(10.0, 3.8)
        panels = figure.subplots(1, 2)
        columns = {name: np.asarray(values, float) for name, values in history.items()}
        if best_epoch is None:
            best_epoch = _best_epoch(columns)
        for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
            axes.set_title(name.capitalize())
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(integer=True, min_n_ticks=1))
            for column, label, colour in ((name, "training", BLUE), (f"val_{name}", "validation", ORANGE)):
                values = columns.get(column, np.empty(0))
                if values.size:
                    # A single epoch makes no line: mark the points while they are few.
                    marker = "o" if values.size <= 12 else ""
                    axes.plot(
                        np.arange(1, values.size + 1), values, color=colour, label=label, marker=marker, markersize=4
                    )
                    axes.set_xlim(1 - 0.02 * values.size, values.size * 1.02 + (values.size == 1))
            if best_epoch is not None:
                _mark_best(axes, columns.get(f"val_{name}", np.empty(0)), best_epoch, percent=name == "accuracy")
            if axes.has_data():
                axes.legend(loc="best")
        panels[1].yaxis.set_major_formatter(require("matplotlib.ticker").PercentFormatter(1.0, decimals=0))
        return as_png(figure)


def confusion(matrix: ArrayLike, labels: Sequence[str], title: str = "") -> bytes:
    """A confusion matrix: colour is the share of its row (of the pictures that truly are of that class), the figure in
    a cell how many pictures.

    Args:
      matrix: integers of shape (classes, classes), row the true class, column the predicted one.
      labels: names of the classes, in that order.

    Returns:
      A PNG, larger for more classes. Above 30 classes the counts are left out, above 60 the names.
    """
    counts = np.asarray(matrix)
    classes = len(labels)
    if counts.shape != (classes, classes) or classes == 0:
        raise ValueError(f"a confusion matrix of shape {counts.shape} does not fit {classes} labels")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    names = [shortened(label) for label in labels]
    longest = max(map(len, names)) if classes <= _MOST_NAMED_CLASSES else 3
    with drawing({"axes.grid": False}):
        cell = float(np.clip(5.6 / classes, 0.3, 0.85)) if classes <= _MOST_NAMED_CLASSES else 9.0 / classes
        side, margin = cell * classes, 0.75 + 0.075 * longest
        figure = new_figure(max(side + margin + 0.9, 4.2), max(side, 1.6) + margin * 0.85)
        axes = figure.subplots()
        image = axes.imshow(shares, cmap=_white_to_blue(), vmin=0.0, vmax=1.0, aspect="equal")
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if title:
            axes.set_title(title)
        if classes <= _MOST_NAMED_CLASSES:
            size = float(np.clip(cell * 20, 6.5, 10))
            upright = cell * 12 < longest  # names side by side would run into each other
            axes.set_xticks(range(classes), names, fontsize=size, color=INK)
            if upright:
                for text in axes.get_xticklabels():
                    text.set(rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(classes), names, fontsize=size, color=INK)
            _rule_cells(axes, classes)
        if classes <= _MOST_COUNTED_CLASSES:
            _write_counts(axes, counts, shares, cell)
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.03, aspect=28, ticks=[0, 0.5, 1])
        bar.outline.set_visible(False)
        bar.ax.set_yticklabels(["0%", "50%", "100%"], fontsize=8)
        bar.set_label("share of the true class", fontsize=8)
        return as_png(figure)


def reliability(confidence: ArrayLike, accuracy: ArrayLike, pictures: ArrayLike) -> bytes:
    """A reliability diagram: how often answers are right, by how sure they are, and below it how many there are.

    Args:
      confidence, accuracy, pictures: of bins of equal width over 0..1, as `metrics.reliability` gives them.

    Returns:
      A PNG.
    """
    sure, right, count = (np.asarray(values, float) for values in (confidence, accuracy, pictures))
    filled, width = count > 0, 1 / len(count)
    places = (np.arange(len(count)) + 0.5) * width
    with drawing():
        figure = new_figure(4.4, 4.8)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, linestyle="--")
        above.bar(places[filled], right[filled], width * 0.92, color=LIGHT_BLUE, label="right")
        above.plot(sure[filled], sure[filled], "o", color=ORANGE, markersize=5, label="as sure as it was")
        above.set_ylabel("right")
        above.set_ylim(0, 1)
        above.set_xlim(0, 1)
        above.legend(loc="upper left")
        below.bar(places, count, width * 0.92, color=GRID)
        below.set_ylabel("photos")
        below.set_xlabel("how sure the answer was")
        percent = require("matplotlib.ticker").PercentFormatter(1.0, decimals=0)
        above.yaxis.set_major_formatter(percent)
        below.xaxis.set_major_formatter(percent)
        below.yaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(3, integer=True))
        return as_png(figure)


def latencies(stages: Mapping[str, Any], title: str = "") -> bytes:
    """Histograms of how long things took, one panel below another, each with its p50, p90 and p99 marked.

    Args:
      stages: name -> durations in seconds, shape (n,), or a `edgenn_device.profiler` Histogram of them; an empty one
        is left out.

    Returns:
      A PNG, axes in milliseconds. Each panel has its own scale and ends a little above its p99; how many durations
      lie beyond is written into it.

    Raises:
      ValueError: no stage holds a duration.
    """
    measured = {name: values for name, stage in stages.items() if (values := _milliseconds(stage)).size}
    if not measured:
        raise ValueError("no stage holds a duration")
    with drawing():
        figure = new_figure(8.0, 0.5 + 1.75 * len(measured))
        rows = figure.subplots(len(measured), 1, squeeze=False)[:, 0]
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
        for axes, (name, values) in zip(rows, measured.items(), strict=True):
            _latency_panel(axes, name, values)
        rows[-1].set_xlabel("milliseconds")
        return as_png(figure)


def _milliseconds(stage: Any) -> NDArray[np.float64]:
    if hasattr(stage, "buckets"):
        low, high, count = np.array(stage.buckets(), float).reshape(-1, 3).T
        return np.repeat((low + high) / 2, count.astype(np.int64)) * 1e3
    return np.asarray(stage, float).reshape(-1) * 1e3


def _latency_panel(axes: Any, name: str, values: NDArray[np.float64]) -> None:
    marks = np.percentile(values, _PERCENTILES)
    low, high = float(values.min()), float(marks[-1])
    room = max(0.12 * (high - low), 0.02 * high, 1e-6)
    window = (max(0.0, low - room), high + room)
    axes.hist(values, bins=np.linspace(*window, 61), color=LIGHT_BLUE, histtype="stepfilled")
    axes.set_xlim(window)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    beyond = int(np.sum(values > window[1]))
    figures = "   ".join(f"p{p} {_figures(mark)} ms" for p, mark in zip(_PERCENTILES, marks, strict=True))
    tail = f"   {beyond} beyond, up to {_figures(values.max())} ms" if beyond else ""
    axes.set_title(shortened(name), fontsize=10, pad=4)
    axes.set_title(f"{figures}{tail}", loc="right", fontsize=8.5, fontweight="normal", color=FAINT, pad=4)
    for mark, line in zip(marks, ("-", "--", ":"), strict=True):
        axes.axvline(mark, color=ORANGE, linestyle=line, linewidth=1.6)


def _best_epoch(columns: Mapping[str, NDArray[np.float64]]) -> int | None:
    accuracy = columns.get("val_accuracy", np.empty(0))
    if not np.isfinite(accuracy).any():
        return None
    loss = columns.get("val_loss", np.zeros(accuracy.size))
    best = np.flatnonzero(accuracy == np.nanmax(accuracy))
    return int(best[np.argmin(loss[best])]) + 1


def _figures(value: float) -> str:
    """Three significant figures: 0.0412, 8.60, 152."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:.0f}"


def _mark_best(axes: Any, values: NDArray[np.float64], epoch: int, percent: bool) -> None:
    axes.axvline(epoch, color=FAINT, linewidth=1.0, linestyle=":")
    if 1 <= epoch <= values.size:
        best = values[epoch - 1]
        axes.plot(epoch, best, "o", color=ORANGE, markersize=8, markeredgecolor="white", markeredgewidth=1.5, zorder=5)
        figure = f"{best:.1%}" if percent else f"{best:.3f}"
        axes.set_title(f"best epoch {epoch}: {figure}", loc="right", fontsize=9, fontweight="normal", color=FAINT)


def _rule_cells(axes: Any, classes: int) -> None:
    """Thin white lines between the cells."""
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0, visible=True)
    axes.tick_params(which="minor", length=0)


def _write_counts(axes: Any, counts: NDArray[Any], shares: NDArray[np.float64], cell: float) -> None:
    digits = len(str(int(counts.max())))
    # 72 points an inch, a digit of DejaVu Sans is 0.64 of its size wide.
    size = float(np.clip(cell * 72 * 0.8 / (0.64 * max(digits, 2)), 4.0, 11.0))
    for i, j in np.argwhere(counts):
        colour = "white" if shares[i, j] > 0.65 else INK
        axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=size, color=colour)


def shortened(label: str) -> str:
    """One printable line of at most 24 characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(label)).strip()
    return line if len(line) <= _LONGEST_LABEL else f"{line[: _LONGEST_LABEL - 1].rstrip()}…"


def _white_to_blue() -> Any:
    return require("matplotlib.colors").LinearSegmentedColormap.from_list(
        # Steeper at the light end: a mistake in twenty is to be seen at a glance.
        "white_to_blue",
        [(0.0, "#f6f7f9"), (0.1, "#d3e5f1"), (0.5, "#4d9fcf"), (0.8, BLUE), (1.0, "#04507f")],
    )


@contextmanager
def drawing(more: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Our style, whatever the person's own matplotlibrc says, and nobody else's afterwards."""
    matplotlib = require("matplotlib")
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as a box; the table has the name
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, **(more or {})})
        yield


def new_figure(width: float, height: float) -> Any:
    figure = require("matplotlib.figure").Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    return figure


def as_png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
