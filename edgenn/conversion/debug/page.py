"""The page of a diagnosis: the answer first, then layers, ranges, classes, photos and bytes. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgenn.evaluation import plots, report
from edgenn_device.errors import EdgennError

from .advice import Layer
from .diagnosis import Diagnosis
from .size import Size

_MOST_PICTURES = 24


def page(diagnosis: Diagnosis) -> str:
    """The text of one HTML file that stands alone.

    Raises:
      EdgennError: Jinja or matplotlib is not installed.
    """
    verdict = diagnosis.verdict
    answer = "healthy" if verdict.healthy else f"{verdict.guilty} is guilty" if verdict.guilty else "loses"
    return report.page(
        f"{diagnosis.model.name}: {answer}",
        sections(diagnosis),
        lead=f"{diagnosis.model}, {diagnosis.scheme or 'quantized'}, beside the float model of {diagnosis.run} on "
        f"{diagnosis.pictures} validation photos",
        footer=f"{diagnosis.runtime} · measured in {diagnosis.seconds:.0f} s",
    )


def sections(diagnosis: Diagnosis) -> list[report.Section]:
    """What `page` shows, for a page that shows more."""
    found = [_answer(diagnosis)]
    if diagnosis.layers:
        found += [_layers(diagnosis), _ranges(diagnosis)]
    return [*found, _classes(diagnosis), _flips(diagnosis), _size(diagnosis.size)]


def _answer(diagnosis: Diagnosis) -> report.Section:
    verdict = diagnosis.verdict
    lost = diagnosis.float_accuracy - diagnosis.int8_accuracy
    first = diagnosis.layers[0] if diagnosis.layers else None
    tiles = [
        report.Tile("float", report.percent(diagnosis.float_accuracy), f"on {diagnosis.pictures} photos"),
        report.Tile(
            "int8", report.percent(diagnosis.int8_accuracy), f"{-100 * lost:+z.1f} points, p = {diagnosis.p_value:.2g}"
        ),
        report.Tile("agreement", report.percent(diagnosis.agreement), f"{len(diagnosis.flips)} photos flipped"),
    ]
    if first and first.share:
        name = "guilty" if verdict.guilty else "costs most"
        tiles.append(report.Tile(name, first.name, f"{first.share:.0%} of the noise at the scores"))
    parts: list[report.Part] = [report.Tiles(tiles), *(report.Text(sentence) for sentence in verdict.why)]
    if verdict.mend:
        how = f"What to do, cheapest first, each an option of edgenn convert {diagnosis.run}:"
        parts += [report.Text(how), report.Lines(verdict.mend)]
    parts += [report.Text(note) for note in diagnosis.notes]
    return report.Section("The answer", parts)


def _layers(diagnosis: Diagnosis) -> report.Section:
    alone = any(layer.ratio is not None for layer in diagnosis.layers)
    parts: list[report.Part] = [
        report.Text(
            "Signal to quantization noise in decibels: 20 dB is noise of a tenth of the signal's size, 40 dB of a "
            f"hundredth. Measured on {diagnosis.layer_pictures} photos. "
        )
    ]
    if alone:
        parts.append(
            report.Text(
                "Alone: only this layer is rounded, everything else is float, and the noise is measured at the scores. "
                "So the layer that does the damage stands out, wherever it shows. Together: the layer's own output in "
                "the file, with all roundings before it."
            )
        )
    parts.append(
        report.Figure(
            levels(diagnosis),
            "Signal to quantization noise of each layer, from the first to the last; the table has the figures.",
        )
    )
    columns: tuple[str, ...] = ("layer", "share of noise", "alone dB", "weights", "activation", "together dB", "kind")
    rows = [
        (
            layer.name,
            report.Share(layer.share if layer.share is not None else math.nan),
            _whole(layer.ratio),
            _whole(layer.ratio_weights),
            _whole(layer.ratio_activation),
            _whole(layer.accumulated),
            layer.kind,
        )
        for layer in diagnosis.layers
    ]
    if not alone:
        columns, rows = (columns[0], *columns[5:]), [(row[0], *row[5:]) for row in rows]  # type: ignore[misc]
    parts.append(
        report.Table(columns, rows, "The layer that costs most, or is guilty, first; – where nothing is lost.")
    )
    return report.Section("Layers", parts)


def levels(diagnosis: Diagnosis) -> bytes:
    """A PNG: layers from first to last downwards, dB to the right; each alone, and together with all before it."""
    layers = {layer.name: layer for layer in diagnosis.layers}
    shown = [layers[name] for name in diagnosis.order if name in layers]
    with plots.drawing():
        figure = plots.new_figure(3.4, 1.1 + 0.24 * len(shown))
        axes = figure.subplots()
        places = range(len(shown))
        together = [_drawn(layer.accumulated) for layer in shown]
        axes.plot(together, places, color=plots.BLUE, marker="o", markersize=4, linewidth=1.4, label="together")
        alone = [_drawn(layer.ratio) for layer in shown]
        if any(not math.isnan(value) for value in alone):
            axes.scatter(alone, places, color=plots.ORANGE, marker="D", s=26, zorder=3, label="alone, at the scores")
        axes.set_yticks(places, [plots.shortened(layer.name) for layer in shown], fontsize=7.5, color=plots.INK)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_xlabel("dB; further left is more noise", fontsize=7.5)
        axes.tick_params(axis="x", labelsize=7.5)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=7.5)
        return plots.as_png(figure)


def _ranges(diagnosis: Diagnosis) -> report.Section:
    ranked: Sequence[Layer] = diagnosis.layers
    activations = [
        (
            layer.name,
            values.low,
            values.high,
            values.bounds[0] if values.bounds else None,
            values.bounds[1] if values.bounds else None,
            f"{values.clipped:.2%}" if values.bounds else "–",
            values.outlier,
            values.channels,
        )
        for layer in ranked
        if (values := layer.activation)
    ]
    weights = [
        (layer.name, values.low, values.high, values.outlier, values.channels)
        for layer in ranked
        if (values := layer.weights)
    ]
    parts: list[report.Part] = [
        report.Table(
            ("layer", "lowest", "highest", "range from", "to", "outside", "largest / 99.9%", "channels"),
            activations,
            "Activations in float, and the range that the file rounds them to. Largest over the 99.9th percentile: 2 "
            "costs one bit of eight. Channels: largest over smallest, each by its 99.9th percentile.",
        )
    ]
    if weights:
        parts.append(
            report.Table(
                ("layer", "lowest", "highest", "largest / 99.9%", "channels"),
                weights,
                "Weights. A convolution has a scale for each channel, a Dense layer one for all.",
            )
        )
    return report.Section("Ranges", parts)


def _classes(diagnosis: Diagnosis) -> report.Section:
    rows = [
        (
            entry.label,
            entry.pictures,
            report.Share(entry.float_right / entry.pictures),
            report.Share(entry.int8_right / entry.pictures),
            f"{entry.int8_right - entry.float_right:+d}" if entry.int8_right != entry.float_right else "",
        )
        for entry in diagnosis.classes
    ]
    return report.Section(
        "Classes",
        [
            report.Table(
                ("class", "photos", "float", "int8", "difference"), rows, "Share of a class's photos got right."
            )
        ],
    )


def _flips(diagnosis: Diagnosis) -> report.Section:
    if not diagnosis.flips:
        return report.Section("Photos that flipped", [report.Text("None: both give every photo the same label.")])
    shown = []
    for flip in diagnosis.flips[:_MOST_PICTURES]:
        try:
            image = report.thumbnail(flip.path)
        except EdgennError:
            continue  # gone since it was classified
        note = (
            f"is {flip.true} · float {flip.float_label} {report.percent(flip.float_score)} · "
            f"int8 {flip.int8_label} {report.percent(flip.int8_score)} · {flip.path.name}"
        )
        title = f"{flip.float_label} → {flip.int8_label}"
        shown.append(report.Picture(image, title, note, wrong=flip.int8_label != flip.true, alt=flip.path.name))
    rest = len(diagnosis.flips) - len(shown)
    parts: list[report.Part] = [
        report.Text("First those that float has right and int8 has not, the surest first."),
        report.Pictures(shown),
    ]
    if rest > 0:
        parts.append(report.Text(f"And {rest} more."))
    return report.Section("Photos that flipped", parts)


def _size(size: Size) -> report.Section:
    beyond = (size.measured or 0) - size.arena
    measured = "not to be had" if size.measured is None else kilobytes(size.measured)
    tiles = [
        report.Tile("file", kilobytes(size.file), f"labels and card {kilobytes(size.attached)}"),
        report.Tile("weights", kilobytes(size.weights), f"around them {kilobytes(size.structure)}"),
        report.Tile("arena", kilobytes(size.arena), f"at the least {kilobytes(size.peak)}, at {size.busiest}"),
        report.Tile(
            "arena in LiteRT",
            measured,
            f"{kilobytes(beyond)} of it kernels' scratch" if beyond > 0 else "built-in kernels",
        ),
    ]
    rows = [
        (
            entry.name,
            entry.operator,
            entry.weights,
            report.Share(entry.weights / size.weights if size.weights else 0.0),
            "×".join(map(str, entry.shape)),
            entry.activation,
        )
        for entry in size.operators
    ]
    columns = ("layer", "operator", "weights", "of all", "gives", "bytes of it")
    return report.Section("Bytes", [report.Tiles(tiles), report.Table(columns, rows)])


def kilobytes(size: int) -> str:
    """A size for people, in decimal units as file managers have them."""
    return f"{size / 1e6:.2f} MB" if size >= 1_000_000 else f"{size / 1e3:.1f} kB"


def _whole(ratio: float | None) -> int | None:
    return round(ratio) if ratio is not None and math.isfinite(ratio) else None


def _drawn(ratio: float | None) -> float:
    return ratio if ratio is not None and math.isfinite(ratio) else math.nan
