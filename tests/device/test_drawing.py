"""Figures of a profile: what is drawn lies within the picture, and a few slow runs do not hide all others."""

import re
from xml.etree import ElementTree

from hypothesis import example, given
from hypothesis import strategies as st

from edgenn_device.profiler import drawing
from edgenn_device.profiler.histogram import Histogram


def elements(svg, kind, name):
    return [element for element in ElementTree.fromstring(svg).iter(kind) if element.get("class") == name]


def test_a_few_slow_runs_are_counted_in_words_and_leave_the_others_their_width():
    usual = [0.150e-3 + number * 1e-8 for number in range(9_990)]
    svg = drawing.histogram(Histogram([*usual, *[5e-3] * 10]))
    bars = elements(svg, "rect", "bar")
    assert sum(float(bar.get("width")) for bar in bars) > drawing.WIDTH / 2
    assert "10 of 10000 took longer, up to 5.00 ms" in svg


def test_where_nothing_took_longer_nothing_is_said():
    assert "took longer" not in drawing.histogram(Histogram([0.001, 0.002, 0.003]))


def test_marks_that_lie_close_together_have_their_words_on_lines_of_their_own():
    svg = drawing.histogram(Histogram([0.001] * 50 + [0.00101] * 49 + [0.00102, 0.002]))
    words = [text for text in ElementTree.fromstring(svg).iter("text") if re.match(r"p\d\d ", text.text)]
    assert len({text.get("y") for text in words}) == len(words) == 3


@given(st.lists(st.floats(1e-6, 10.0), max_size=300))
@example([0.001] * 200 + [0.5])
@example([0.001, 0.001])
def test_whatever_was_measured_lies_within_the_picture(seconds):
    svg = drawing.histogram(Histogram(seconds))
    if not svg:
        return
    for bar in elements(svg, "rect", "bar"):
        x, y, width, height = (float(bar.get(name)) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + width <= drawing.WIDTH
        assert 0 <= y <= y + height <= 256
    for mark in elements(svg, "line", "mark"):
        assert 0 <= float(mark.get("x1")) <= drawing.WIDTH
