"""A profile of a real model, and how it is told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from http_camera import Camera

from edgenn_device.errors import EdgennError
from edgenn_device.profiler import markdown, page, report, table
from edgenn_device.profiler.cold_start import STAGES as START
from edgenn_device.profiler.cold_start import cold_start
from edgenn_device.profiler.histogram import Histogram
from edgenn_device.profiler.measure import Profile, profile
from edgenn_device.profiler.steady import Steady


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The machine's roof is measured once and kept, and not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(tiny: Path) -> Path:
    return tiny / "run" / "model.tflite"


@pytest.fixture(scope="module")
def measured(model: Path) -> Profile:
    return profile(model, runs=40, seconds=0.3, threads=1)


def test_a_real_profile_says_where_the_time_goes(measured: Profile) -> None:
    assert measured.model == "model.tflite"
    assert (measured.runs, measured.threads) == (40, 1)
    assert measured.steady.latencies.min > 0
    assert set(measured.stages.durations) == {"capture", "queue", "preprocess", "invoke", "decide"}
    assert measured.stages.latency is not None
    assert measured.stages.latency.count == measured.stages.durations["invoke"].count >= 1
    # The stages are all of a frame's age.
    parts = sum(spent.total for spent in measured.stages.durations.values())
    assert parts == pytest.approx(measured.stages.latency.total, rel=1e-5)
    assert measured.cold_start is not None
    assert tuple(measured.cold_start) == START
    assert all(spent > 0 for spent in measured.cold_start.values())
    started = [measured.memory[key] or 0 for key in ("python", "imports", "ready", "peak")]
    assert started == sorted(started)
    assert 0 < (measured.memory["weights"] or 0) < (measured.memory["flatbuffer"] or 0)
    assert measured.environment["runtime"] in measured.description.replace("ai-edge-", "")
    assert measured.quiet is not bool(measured.disturbances)


def test_without_a_pipeline_preprocess_and_invoke_remain(model: Path) -> None:
    measured = profile(model, runs=5, seconds=0.1, source=None)
    assert set(measured.stages.durations) == {"preprocess", "invoke"}
    assert measured.stages.source == ""
    assert report.to_dict(measured)["pipeline"] is None


def test_a_source_of_one_picture_is_measured_too(model: Path, tiny: Path) -> None:
    picture = sorted((tiny / "photos" / "circle").iterdir())[0]
    measured = profile(model, runs=5, seconds=0.1, source=str(picture))
    assert measured.stages.frames == 1
    assert measured.stages.durations["invoke"].count == 1


def test_a_camera_is_named_without_its_password(model: Path) -> None:
    camera = Camera()
    try:
        measured = profile(model, runs=5, seconds=0.1, source=camera.url.replace("://", "://anna:secret@"))
    finally:
        camera.off()
    assert measured.stages.source == camera.url


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runs": 0}, "0 runs measure nothing"),
        ({"seconds": 0.0}, "0.0 seconds measure nothing"),
        ({"seconds": float("nan")}, "nan seconds measure nothing"),
        ({"seconds": float("inf")}, "inf seconds measure nothing"),
        ({"threads": 0}, "0 threads"),
        ({"source": "nowhere.mp4"}, "nowhere.mp4"),
        ({"runtime": "abacus"}, "abacus"),
        ({"kernels": "abacus"}, "unknown kernels 'abacus'"),
        ({"mlperf": True, "runs": 3}, "leave --runs out"),
    ],
)
def test_requests_that_make_no_sense(model: Path, options: dict, words: str) -> None:
    with pytest.raises(EdgennError, match=words):
        profile(model, **{"seconds": 0.1, **options})


def test_a_cold_start_that_fails_leaves_the_reason_to_who_asks(tmp_path: Path) -> None:
    assert cold_start(tmp_path / "nowhere.tflite") is None


def test_progress_is_told_in_order(model: Path) -> None:
    told: list[str] = []
    profile(model, runs=1, seconds=0.1, source=None, progress=told.append)
    assert told == ["cold start", "stages", "steady state", "operators", "roofline"]


# What ARCHITECTURE.md promises of `edgenn profile --json`.
PROMISED = {"model", "runtime", "threads", "runs", "invoke_ms", "stages", "operators", "memory", "environment"}


def test_json_holds_what_was_promised(measured: Profile) -> None:
    document = json.loads(json.dumps(report.to_dict(measured), allow_nan=False))
    assert document["variants"][0]["blocks"][0][1] >= 1
    assert document["roofline"]["points"]
    assert document["schema"] == 1
    assert set(document) >= PROMISED
    assert set(document["invoke_ms"]) >= {"p50", "p90", "p99", "mean"}
    assert document["invoke_ms"]["p50"] == measured.steady.latencies.percentile(50) * 1e3
    assert set(document["stages"]["preprocess"]) >= {"p50", "p90", "p99", "mean"}
    assert {"name", "version", "count"} <= set(document["operators"][0])
    assert sum(row["count"] for row in document["operators"]) == len(document["layers"])
    assert Histogram.from_dict(document["histogram"]).count == measured.runs
    assert document["pipeline"]["frames"] >= 1


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(measured: Profile, width: int) -> None:
    text = table.to_text(measured, width)
    # Sentences are not cut; figures and names stay within.
    assert [line for line in text.splitlines() if len(line) > width and line.count(" ") < 12] == []
    for words in (
        "p99.9",
        "p50 ",
        "(95%)",
        "cold start",
        "energy:",
        "of roof",
        "preprocess",
        "CONV_2D",
        "memory",
        "model.tflite",
    ):
        assert words in text
    table.plain(text).encode("ascii")


def test_a_disturbance_comes_first(measured: Profile) -> None:
    disturbed = replace(measured, disturbances=("Other programs took 50% of the CPU.",))
    assert table.to_text(disturbed, 100).startswith("! Other programs took 50% of the CPU.")
    assert "> **Other programs took 50% of the CPU.**" in markdown.to_markdown(disturbed).split("|")[0]
    assert report.to_dict(disturbed)["quiet"] is False
    quiet = replace(measured, disturbances=())
    assert table.to_text(quiet, 100).startswith("model.tflite")
    assert report.to_dict(quiet)["quiet"] is True


def test_markdown_has_figures_and_what_they_were_measured_on(measured: Profile) -> None:
    text = markdown.to_markdown(measured)
    assert text.startswith("**model.tflite**: p50 ")
    assert "| invoke alone |" in text
    assert f"- model_sha256: {measured.environment['model_sha256']}" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns <= {6, 7}


def test_threads_and_models_are_timed_in_turns(model: Path) -> None:
    measured = profile([model, model], threads=[1, 2], runs=5, seconds=0.1, source=None)
    # The same model twice is one thing.
    assert [variant.threads for variant in measured.variants] == [1, 2]
    assert measured.threads == 1
    blocks = [variant.steady.blocks for variant in measured.variants]
    assert len(blocks[0]) == len(blocks[1])
    text = table.to_text(measured, 100)
    assert "timed in turns" in text
    assert text.count("no difference shown") + text.count("% (") >= 1


def test_other_kernels_beside_the_runtimes_choice(model: Path) -> None:
    measured = profile(model, kernels=["default", "builtin"], runtime="litert", runs=5, seconds=0.1, source=None)
    assert [variant.kernels for variant in measured.variants] == ["xnnpack", "builtin"]


def test_the_state_is_looked_at_before_during_and_after(measured: Profile) -> None:
    states = report.to_dict(measured)["state"]
    assert set(states["before"]) == set(states["after"])
    assert states["during"]["looks"] == len(measured.during)


def test_mlperf_is_told_with_its_rule(measured: Profile) -> None:
    ruled = replace(measured, mlperf=True)
    for text in (table.to_text(ruled, 100), markdown.to_markdown(ruled), page.to_html(ruled)):
        assert "MLPerf Inference 0.5" in " ".join(text.split())
        assert "MLPerf" not in table.to_text(measured, 100)
    assert report.to_dict(ruled)["mlperf"]["queries"] == measured.runs
    assert report.to_dict(measured)["mlperf"] is None


def test_the_page_stands_alone_and_escapes(measured: Profile) -> None:
    # The layers of so small a model may all be too short to have a share of the roof.
    timed = tuple(replace(point, gops=1.0, gigabytes=1.0, share=0.5) for point in measured.points)
    html = page.to_html(replace(measured, points=timed, disturbances=("<script>alert(1)</script> & more",)))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://", html)
    for words in ("Latency of invoke", "Where a frame&#x27;s time goes", "Roofline", "Cold start", "model_sha256"):
        assert words.replace("_", " ") in html
    # Every drawing is well-formed by itself.
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) >= 2
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).tag == "svg"
        assert "nan" not in drawing
        assert "inf" not in drawing


def test_one_run_is_reported_without_an_interval(measured: Profile) -> None:
    single = replace(measured, variants=(replace(measured.variants[0], steady=Steady(Histogram([0.005]), 1, "runs")),))
    assert report.to_dict(single)["invoke_ms"]["p50_interval"] is None
    assert "too few to say how sure" in table.to_text(single, 100)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1234.5, "1234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (0.0, "0.000")],
)
def test_three_digits(value: float, expected: str) -> None:
    assert report.three_digits(value) == expected
