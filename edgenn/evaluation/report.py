"""Pages for people: one HTML file that stands alone, opens without a network and runs no script.

Knows how a page looks and how an evaluation is told; measures nothing and writes no file. Every text is escaped: a
label or a path is whatever somebody called a folder. To make a page of your own out of the same parts:

    from edgenn.evaluation import report
    html = report.page("My page", [
        report.Section("How good", [report.Tiles([report.Tile("accuracy", "91.5%", "89.2% to 93.4%")]),
                                    report.Text("Measured on photos that training has not seen.")]),
        report.Section("Curves", [report.Figure(plots.curves(history), alt="loss and accuracy over the epochs")]),
        report.Section("Classes", [report.Table(("class", "pictures", "recall"), [("hat", 12, report.Share(0.75))])]),
        report.Section("Wrong", [report.Pictures([report.Picture(report.thumbnail(path), "hat", wrong=True)])]),
    ], lead="One line below the title")
    write_atomically(out, html)

A template of your own extends base.html and takes the macros of parts.html: `environment(folder)` finds both.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

import edgenn
from edgenn.extras import require
from edgenn_device import preprocess
from edgenn_device.errors import EdgennError

from . import metrics, plots
from .model import RUN_MODEL

if TYPE_CHECKING:
    from .evaluate import Evaluation

TEMPLATES = Path(__file__).parent / "templates"
# A picture in a page: 192 pixels are sharp at the width it is shown, about 7 KB as JPEG.
THUMBNAIL_SIDE = 192
THUMBNAIL_QUALITY = 82
# A figure of 144 pixels an inch is shown at half its pixels at most, so that its text is the size of the page's.
_SCREEN_DPI = 96

_MOST_PAIRS = 12
_MOST_PICTURES = 24
_MOST_PROBLEMS = 50


@dataclass(frozen=True)
class Tile:
    """One figure with its name above it and a remark below it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """Figures side by side."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Share:
    """A cell of a table that shows a share (0..1) in percent, on a bar of that length; NaN shows as a dash.

    `interval` (low, high), if given, is drawn and written below it.
    """

    value: float
    interval: Sequence[float] | None = None


@dataclass(frozen=True)
class Table:
    """Rows of cells: text, numbers (int as they are, float with three decimals, None and NaN as a dash) or Share."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | Share | None]]
    caption: str = ""

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers alone, and is set flush right."""
        cells = [row[column] for row in self.rows]
        return any(cell is not None for cell in cells) and all(
            cell is None or isinstance(cell, (int, float, np.number)) for cell in cells
        )

    def bars(self, column: int) -> bool:
        """Whether a column holds shares."""
        return any(isinstance(row[column], Share) for row in self.rows)


@dataclass(frozen=True)
class Figure:
    """A PNG as `plots` makes it. `alt` says in words what is to be seen."""

    kind: ClassVar[str] = "figure"
    png: bytes
    alt: str
    caption: str = ""

    @property
    def width(self) -> int:
        """Width in CSS pixels at which its text is as large as it was drawn; a narrow screen shrinks it."""
        # A PNG begins with an 8-byte signature, then length and name of the header chunk, then the width.
        return int.from_bytes(self.png[16:20], "big") * _SCREEN_DPI // plots.DPI


@dataclass(frozen=True)
class Picture:
    """A photo (bytes of a JPEG or PNG) with a title and a remark, which may have lines; `wrong` sets its title in the
    colour of mistakes."""

    image: bytes
    title: str
    note: str = ""
    wrong: bool = False
    alt: str = ""


@dataclass(frozen=True)
class Pictures:
    """Photos in a grid."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Lines:
    """A list, one line each."""

    kind: ClassVar[str] = "lines"
    lines: Sequence[str]


@dataclass(frozen=True)
class Step:
    """Something to be done: the fact, what to do, what to type for it, and the anchor of the section that shows it."""

    fact: str
    do: str
    command: str = ""
    anchor: str = ""


@dataclass(frozen=True)
class Steps:
    """A numbered list of things to be done, the first one first."""

    kind: ClassVar[str] = "steps"
    steps: Sequence[Step]


@dataclass(frozen=True)
class Commands:
    """Text as one would type it."""

    kind: ClassVar[str] = "commands"
    text: str


Part = Tiles | Table | Figure | Pictures | Text | Lines | Steps | Commands


@dataclass(frozen=True)
class Section:
    """A titled sheet of parts, from top to bottom; `anchor` is what a Step refers to."""

    title: str
    parts: Sequence[Part]
    anchor: str = ""


def page(title: str, sections: Iterable[Section], *, lead: str = "", footer: str = "") -> str:
    """A page as the text of one HTML file.

    Raises:
      EdgennError: Jinja is not installed.
    """
    html = (
        environment()
        .get_template("report.html")
        .render(title=title, sections=list(sections), lead=lead, footer=footer, version=edgenn.__version__)
    )
    # A file name that is not UTF-8 reaches us as lone surrogates, which no page can hold.
    return str(html.encode("utf-8", "replace").decode("utf-8"))


def environment(*folders: str | os.PathLike[str]) -> Any:
    """A jinja2.Environment with our templates, filters and escaping; templates in `folders` come first."""
    jinja2 = require("jinja2")
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*(os.fspath(folder) for folder in folders), str(TEMPLATES)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(data_uri=data_uri, text=_cell, length_of_bar=_length_of_bar, breaking_at_underscores=_breaking)
    return found


def thumbnail(picture: str | os.PathLike[str] | bytes | NDArray[np.uint8], side: int = THUMBNAIL_SIDE) -> bytes:
    """A JPEG of a picture, its longer side `side` pixels or less.

    Args:
      picture: a path, the bytes of a picture file, or uint8 pixels (H, W, 3) BGR or (H, W) grey.

    Raises:
      EdgennError: it cannot be read.
    """
    if isinstance(picture, (str, os.PathLike)):
        pixels = preprocess.read(picture, cover=(side, side))
    elif isinstance(picture, bytes):
        pixels = preprocess.decode(picture, cover=(side, side))
    else:
        pixels = picture
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    done, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY])
    if not done:
        raise EdgennError(f"a picture of shape {pixels.shape} cannot be written as JPEG")
    return jpeg.tobytes()


def data_uri(image: bytes) -> str:
    """A PNG or JPEG as the address that holds it."""
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def percent(share: float) -> str:
    """0.9149 -> "91.5%"; NaN -> "–"."""
    return "–" if share != share else f"{share:.1%}"


def evaluation_page(evaluation: Evaluation) -> str:
    """The report of an evaluation, as the text of one HTML file."""
    return page(
        f"{_name(evaluation.model)}: {percent(evaluation.accuracy)} right",
        evaluation_sections(evaluation),
        lead=f"{evaluation.model} on {_photos(evaluation)}",
        footer=f"measured in {evaluation.seconds:.1f} s",
    )


def evaluation_sections(evaluation: Evaluation) -> list[Section]:
    """What `evaluation_page` shows, for a page that shows more."""
    sections = [
        Section("Result", [_tiles(evaluation), *([Lines(evaluation.notes)] if evaluation.notes else [])]),
        classes_section(evaluation),
        Section("What is taken for what", [_confusion(evaluation), *_pairs(evaluation)], "confusion"),
    ]
    if evaluation.worst:
        lead = Text("Wrong, and surest of it. Where the label is wrong rather than the model, mend the photo's folder.")
        sections.append(Section("Worst pictures", [lead, _worst(evaluation)], "worst"))
    sections.append(_calibration(evaluation))
    if evaluation.problems:
        sections.append(Section("Left out", [Text("These could not be read."), _problems(evaluation)]))
    return sections


def _name(model: Path) -> str:
    """A run's model is called as every run's model is: the run's name says more."""
    return model.parent.name if model.name == RUN_MODEL and model.parent.name else model.name


def _photos(evaluation: Evaluation) -> str:
    which = "all photos" if evaluation.split == "all" else f"the {evaluation.split} photos"
    return f"{which} of {evaluation.photos}"


def _tiles(evaluation: Evaluation) -> Tiles:
    low, high = evaluation.interval
    return Tiles(
        [
            Tile("accuracy", percent(evaluation.accuracy), f"95% interval {low:.1%} to {high:.1%}"),
            Tile("pictures", f"{evaluation.pictures:,}", f"{evaluation.wrong:,} of them wrong"),
            Tile("calibration error", percent(evaluation.calibration_error), "mean gap of confidence and accuracy"),
            Tile("runtime", evaluation.runtime, "another runtime may differ"),
        ]
    )


def classes_section(evaluation: Evaluation, learnt_from: Mapping[str, int] | None = None) -> Section:
    """Recall and precision of every class; with `learnt_from` also how many photos of each were trained on."""
    rows = [
        (
            label,
            *([learnt_from.get(label, 0)] if learnt_from is not None else []),
            figures["pictures"],
            _share(figures["recall"], figures.get("recall_interval")),
            _share(figures["precision"], figures.get("precision_interval")),
            figures["f1"],
        )
        for label, figures in evaluation.classes.items()
        if figures["pictures"]
    ]
    counted = ("pictures",) if learnt_from is None else ("trained on", "tried on")
    table = Table(
        ("class", *counted, "recall", "precision", "F1"),
        rows,
        "Recall: of a class's pictures, how many were given its label. Precision: of those given it, how many bear it. "
        "Below each the range in which it lies with 95% confidence.",
    )
    return Section("Classes", [table, *_strangers(evaluation)], "classes")


def _calibration(evaluation: Evaluation) -> Section:
    diagram = metrics.reliability(evaluation.predictions.probabilities, evaluation.truth)
    sure = float(evaluation.predictions.probabilities.max(axis=1).mean())
    text = (
        f"On average it is {percent(sure)} sure of an answer, and {percent(evaluation.accuracy)} are right. Where a "
        "bar ends below its dot, answers of that sureness are right less often than it thinks. The mean gap, weighted "
        f"by pictures, is the expected calibration error: {percent(evaluation.calibration_error)}."
    )
    figure = Figure(
        plots.reliability(diagram.confidence, diagram.accuracy, diagram.pictures),
        alt="Reliability diagram: share of right answers by how sure they were",
    )
    return Section("How far to trust its confidence", [Text(text), figure], "calibration")


def _strangers(evaluation: Evaluation) -> list[Part]:
    """A line on the labels that were given though no picture bears them, as a model of many classes does."""
    count = sum(not figures["pictures"] for figures in evaluation.classes.values())
    return [Text(f"Pictures were also taken for {count} classes of which there are none here.")] if count else []


def _confusion(evaluation: Evaluation) -> Figure:
    """The matrix of the classes that have pictures; all others are one column."""
    matrix, labels = evaluation.confusion, list(evaluation.labels)
    here, others = np.flatnonzero(matrix.sum(axis=1)), np.flatnonzero(matrix.sum(axis=1) == 0)
    if len(others):
        elsewhere = matrix[np.ix_(here, others)].sum(axis=1, keepdims=True)
        matrix = np.pad(np.hstack([matrix[np.ix_(here, here)], elsewhere]), ((0, 1), (0, 0)))
        labels = [*(labels[index] for index in here), "(other)"]
    return Figure(
        plots.confusion(matrix, labels),
        alt="Confusion matrix, row the true class, column the label given; the tables say the same in figures.",
    )


def _pairs(evaluation: Evaluation) -> list[Part]:
    shown = evaluation.confused[:_MOST_PAIRS]
    if not shown:
        return [Text("Nothing was taken for anything else.")]
    rows = [(pair.true, pair.predicted, pair.count, Share(pair.share)) for pair in shown]
    return [Table(("true class", "taken for", "pictures", "share of its class"), rows, "Most confused pairs")]


def _worst(evaluation: Evaluation) -> Pictures:
    shown = []
    for mistake in evaluation.worst:
        try:
            image = thumbnail(mistake.path)
        except EdgennError:
            continue  # gone since it was classified; its path is not worth a page
        note = f"is {mistake.true} · {percent(mistake.confidence)} sure\n{mistake.path.name}"
        shown.append(Picture(image, mistake.predicted, note, wrong=True, alt=f"{mistake.true}, {mistake.path.name}"))
    return Pictures(shown)


def _problems(evaluation: Evaluation) -> Lines:
    lines = [f"{problem.path}: {problem.reason}" for problem in evaluation.problems[:_MOST_PROBLEMS]]
    rest = len(evaluation.problems) - _MOST_PROBLEMS
    return Lines(lines + ([f"and {rest:,} more"] if rest > 0 else []))


def _share(value: float | None, interval: Sequence[float] | None) -> Share | None:
    return None if value is None else Share(float(value), interval)


def _breaking(text: str) -> str:
    """HTML in which a narrow column breaks a layer's name before its number, not within."""
    from markupsafe import Markup

    return Markup("_<wbr>").join(text.split("_"))


def _length_of_bar(cell: Any) -> str:
    share = cell.value if isinstance(cell, Share) else cell
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%" if share == share and share is not None else "0.0%"


def _cell(cell: Any) -> str:
    if isinstance(cell, Share):
        return percent(cell.value)
    if cell is None or cell != cell:
        return "–"
    if isinstance(cell, (float, np.floating)):
        return f"{cell:.3f}"
    return f"{cell:,}" if isinstance(cell, (int, np.integer)) else str(cell)
