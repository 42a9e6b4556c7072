"""Pages stand alone, run nothing, and show hostile names as the text they are."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenn.data import Problem
from edgenn.evaluation import Confused, Evaluation, Mistake, Predictions, plots, report
from edgenn_device.errors import EdgennError

HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}"


def evaluation(**changes):
    """Of two pictures, one wrong, in a class with a hostile name."""
    labels = (HOSTILE, "hat")
    values = {
        "model": Path("runs/first/model.keras"),
        "photos": Path("photos"),
        "runtime": "by hand 1.0",
        "split": "validation",
        "pictures": 2,
        "accuracy": 0.5,
        "interval": (0.1, 0.9),
        "calibration_error": 0.2,
        "labels": labels,
        "classes": {
            HOSTILE: {"precision": None, "recall": 0.0, "f1": 0.0, "pictures": 1},
            "hat": {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "pictures": 1},
        },
        "confusion": np.array([[0, 1], [0, 1]]),
        "confused": (Confused(HOSTILE, "hat", 1, 1.0),),
        "worst": (),
        "problems": (),
        "notes": (),
        "seconds": 1.25,
        "predictions": Predictions(np.eye(2, dtype=np.float32)[[1, 1]], "by hand 1.0"),
        "truth": np.array([0, 1]),
        "paths": (Path("a.png"), Path("b.png")),
    }
    return Evaluation(**{**values, **changes})


class Reader(HTMLParser):
    """Collects tags, what they refer to, and text; notices tags that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.references, self.text, self.open = [], [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "wrong <b>.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8))
    return path


def test_a_report_stands_alone_and_is_well_formed(picture):
    worst = (Mistake(picture, HOSTILE, "hat", 0.93),)
    html = report.evaluation_page(evaluation(worst=worst, notes=("a note",), problems=(Problem(picture, "cut"),)))
    page = Reader(html)
    assert page.open == []
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert len(page.references) == 3  # the confusion matrix, the worst picture and the reliability diagram
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", html)
    for text in (
        "50.0%",
        "10.0% to 90.0%",
        "by hand 1.0",
        "first: 50.0% right",
        "a note",
        "93.0% sure",
        "cut",
        "0.667",
    ):
        assert text in page.text


def test_hostile_names_are_text(picture):
    html = report.evaluation_page(evaluation(worst=(Mistake(picture, "hat", HOSTILE, 0.9),), notes=(HOSTILE,)))
    assert "<script" not in html
    page = Reader(html)
    assert page.text.count(HOSTILE) >= 4  # class, pair, title of the picture, note
    assert "wrong <b>.png" in page.text


def test_classes_without_pictures_are_one_column_of_the_matrix(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "confusion", lambda matrix, labels: drawn.append((matrix.tolist(), labels)) or b"")
    absent = {"precision": 0.0, "recall": None, "f1": 0.0, "pictures": 0}
    present = {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "pictures": 4}
    html = report.evaluation_page(
        evaluation(
            labels=("a", "b", "c", "d"),
            classes={"a": absent, "b": present, "c": absent, "d": present},
            confusion=np.array([[0, 0, 0, 0], [1, 2, 1, 0], [0, 0, 0, 0], [2, 0, 0, 2]]),
        )
    )
    assert drawn == [([[2, 0, 2], [0, 2, 2], [0, 0, 0]], ["b", "d", "(other)"])]
    assert "taken for 2 classes of which there are none" in Reader(html).text


def test_a_page_without_mistakes_or_problems_says_no_more_than_that():
    clean = evaluation(confusion=np.diag([1, 1]), confused=(), accuracy=1.0)
    text = Reader(report.evaluation_page(clean)).text
    assert "Nothing was taken for anything else" in text
    assert "Worst" not in text
    assert "Left out" not in text


def test_intervals_steps_and_what_they_lead_to_are_shown():
    share = report.Share(0.75, (0.583, 0.871))
    step = report.Step("hat is confused", "Look at <these>.", "edgenn train --epochs 9", "pairs")
    sections = [
        report.Section("Next", [report.Steps([step])]),
        report.Section("Pairs", [report.Table(("class", "recall"), [("hat", share)])], "pairs"),
    ]
    html = report.page("Title", sections)
    page = Reader(html)
    assert page.references == ["#pairs"]
    assert 'id="pairs"' in html
    for text in ("58 to 87%", "75.0%", "Look at <these>.", "edgenn train --epochs 9"):
        assert text in page.text
    assert "--low:58.3%;--high:87.1%" in html


def test_a_picture_that_is_gone_costs_no_report(picture, tmp_path):
    gone = (Mistake(tmp_path / "gone.png", "hat", "cap", 0.9), Mistake(picture, "hat", "cap", 0.8))
    assert Reader(report.evaluation_page(evaluation(worst=gone))).references[1:-1] == [
        report.data_uri(report.thumbnail(picture))
    ]


def test_a_name_that_is_not_utf_8_can_be_written():
    page = report.page("model \udcff", [report.Section("s", [report.Text("\udcff")])])
    assert page.encode("utf-8")


def test_every_part_of_a_page():
    figure = plots.confusion([[1, 0], [0, 1]], ["a", "b"])
    html = report.page(
        "Title",
        [
            report.Section("Tiles", [report.Tiles([report.Tile("speed", "3 ms", "p50")])]),
            report.Section(
                "Table", [report.Table(("a", "b", "c"), [("x", 1234, None), ("y", float("nan"), 0.25)], "C")]
            ),
            report.Section("Shares", [report.Table(("a", "b"), [("x", report.Share(0.123)), ("y", None)])]),
            report.Section("Figure", [report.Figure(figure, "words", "caption")]),
            report.Section("Pictures", [report.Pictures([report.Picture(figure, "hat", "note", wrong=True)])]),
            report.Section("Rest", [report.Text("words"), report.Lines(["l1"]), report.Commands("edgenn run --x")]),
        ],
        lead="Lead",
        footer="Footer",
    )
    page = Reader(html)
    assert page.open == []
    for text in (
        "Title",
        "Lead",
        "Footer",
        "speed",
        "3 ms",
        "1,234",
        "–",
        "0.250",
        "12.3%",
        "caption",
        "edgenn run --x",
    ):
        assert text in page.text
    assert "--share:12.3%" in html


def test_a_template_of_ones_own_extends_ours(tmp_path):
    (tmp_path / "mine.html").write_text(
        '{% extends "base.html" %}{% from "parts.html" import tiles %}{% block main %}{{ tiles(it) }}{% endblock %}'
    )
    template = report.environment(tmp_path).get_template("mine.html")
    html = template.render(title="<t>", lead="", footer="", version="1", it=report.Tiles([report.Tile("<n>", "v")]))
    assert "&lt;n&gt;" in html
    assert "<n>" not in html


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((300, 500, 3), (115, 192)),  # the longer side becomes 192
        ((500, 300), (192, 115)),  # grey
        ((20, 10, 3), (20, 10)),  # small ones stay
        ((2000, 3, 3), (192, 1)),  # never thinner than a pixel
    ],
)
def test_thumbnails(shape, expected):
    jpeg = report.thumbnail(np.full(shape, 90, np.uint8))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2] == expected
    assert report.data_uri(jpeg).startswith("data:image/jpeg;base64,")


def test_thumbnails_of_files(picture):
    assert report.thumbnail(picture) == report.thumbnail(str(picture)) == report.thumbnail(picture.read_bytes())
    with pytest.raises(EdgennError, match="does not exist"):
        report.thumbnail(picture.with_name("none.png"))
