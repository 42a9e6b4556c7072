"""Figures are PNGs of a sensible size, whatever they are given; how they look is for eyes."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest

from edgenn.evaluation import plots
from edgenn_device.profiler.histogram import Histogram


def size_of(png: bytes) -> tuple[int, int]:
    """(width, height) of a PNG that decodes and is not blank."""
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.std() > 1
    return picture.shape[1], picture.shape[0]


@pytest.fixture(autouse=True)
def _no_warning():
    """A user sees warnings on the screen: there must be none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    "history",
    [
        {"loss": [2.0, 1.0], "val_loss": [2.1, 1.2], "accuracy": [0.2, 0.6], "val_accuracy": [0.1, 0.5]},
        {"loss": [1.0], "val_loss": [1.1], "accuracy": [0.5], "val_accuracy": [0.4]},  # one epoch
        {"loss": [1.0, 0.5], "accuracy": [0.5, 0.6]},  # no validation
        {"loss": [1.0, float("nan")], "val_accuracy": [float("nan")] * 2},  # it diverged
        {"loss": np.linspace(2, 0, 500), "val_loss": np.linspace(2, 1, 500), "seconds": np.ones(500)},
        {},
    ],
)
def test_curves(history):
    width, height = size_of(plots.curves(history))
    assert 1000 < width < 2000
    assert 300 < height < 1000


def test_the_best_epoch_is_the_most_accurate_then_the_one_of_least_loss():
    columns = {"val_accuracy": np.array([0.5, 0.8, 0.8, 0.7]), "val_loss": np.array([1.0, 0.7, 0.6, 0.1])}
    assert plots._best_epoch(columns) == 3
    assert plots._best_epoch({"loss": np.ones(3)}) is None
    assert plots.curves(columns) == plots.curves(columns, best_epoch=3)
    assert plots.curves(columns) != plots.curves(columns, best_epoch=2)


@pytest.mark.parametrize("classes", [2, 3, 10, 30, 50, 120])
def test_confusion(classes):
    matrix = np.random.default_rng(0).integers(0, 1000, (classes, classes))
    width, height = size_of(plots.confusion(matrix, [f"class {i}" for i in range(classes)], "title"))
    assert 500 < width < 3500
    assert 300 < height < 3500


@pytest.mark.parametrize(
    "label",
    [
        "$\\frac$",  # looks like a formula, and is not even a whole one
        "a very long name of a garment " * 10,
        "衬衫 рубашка 👕",  # partly not in the font
        "two\nlines\tand \x1b[31m",
        "\udcff",  # a folder name that is not UTF-8
        "",
    ],
)
def test_any_label_can_be_drawn(label):
    width, height = size_of(plots.confusion([[3, 1], [0, 2]], [label, "other"]))
    assert max(width, height) < 1500


def test_an_empty_class_is_a_row_without_colour():
    assert size_of(plots.confusion([[0, 0], [0, 0]], ["a", "b"]))


def test_a_matrix_that_does_not_fit_its_labels_is_refused():
    with pytest.raises(ValueError, match="does not fit 3 labels"):
        plots.confusion(np.eye(2, dtype=int), ["a", "b", "c"])


def test_reliability_draws_empty_bins_too():
    drawn = plots.reliability([0.1, np.nan, 0.8], [0.0, np.nan, 0.9], [1, 0, 40])
    assert min(size_of(drawn)) > 400
    assert plots.reliability([np.nan] * 3, [np.nan] * 3, [0] * 3)[:4] == b"\x89PNG"


def test_latencies():
    invoke = np.random.default_rng(0).gamma(9, 1e-3, 500)
    one = size_of(plots.latencies({"invoke": invoke}))
    three = size_of(plots.latencies({"capture": [0.004], "invoke": invoke, "decide": [0.0, 0.0], "none": []}, "frames"))
    assert three[0] == one[0]
    assert three[1] > 2 * one[1]
    with pytest.raises(ValueError, match="no stage"):
        plots.latencies({"invoke": []})


def test_latencies_come_as_the_profiler_counts_them():
    seconds = np.random.default_rng(0).gamma(9, 1e-3, 500)
    np.testing.assert_allclose(
        np.sort(plots._milliseconds(Histogram(seconds))), np.sort(seconds) * 1e3, rtol=1e-3, atol=1e-6
    )
    assert size_of(plots.latencies({"invoke": Histogram(seconds)}))
    with pytest.raises(ValueError, match="no stage"):
        plots.latencies({"invoke": Histogram()})


def test_a_figure_is_the_same_twice_and_leaves_matplotlib_as_it_was():
    import matplotlib

    first = plots.curves({"loss": [2.0, 1.0]})
    with matplotlib.rc_context({"font.size": 20.0, "axes.facecolor": "red"}):  # a person's own style
        assert plots.curves({"loss": [2.0, 1.0]}) == first
        assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["axes.facecolor"]) == (20.0, "red")
