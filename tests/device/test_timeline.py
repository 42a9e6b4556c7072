"""When each frame was in which stage, of a real pipeline with a classifier that computes nothing."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import numpy as np
import pytest

from edgenn_device.cameras.base import Frame, Source
from edgenn_device.card import InputSpec
from edgenn_device.classifier import Classification
from edgenn_device.pipeline import STAGES, Pipeline
from edgenn_device.profiler.stages import Stopwatch, excerpt
from edgenn_device.profiler.timeline import Span, Timeline, trace_events
from edgenn_device.sinks.base import Sink


class Model:
    input = InputSpec(height=2, width=2)
    card = None


class Blind:
    """Sees one label in everything."""

    model: Any = Model()
    labels = ("grey",)

    def preprocess(self, image: Any, out: Any = None) -> Any:
        out[:] = 0
        return out

    def scores(self, tensor: Any) -> Any:
        return np.ones(1, np.float32)

    def result(self, scores: Any, top_k: int = 3) -> Classification:
        return Classification("grey", 1.0, (("grey", 1.0),), scores)


class Pictures(Source):
    name, live, continuous = "pictures", False, False

    def __init__(self, count: int) -> None:
        self.left = iter(range(count))
        self.opened = self.closed = False
        self.skipped = 7

    def open(self) -> None:
        self.opened = True

    def read(self) -> Frame | None:
        index = next(self.left, None)
        return None if index is None else Frame(np.zeros((2, 2, 3), np.uint8), time.monotonic(), index)

    def close(self) -> None:
        self.closed = True


class Kept(Sink):
    name = "kept"

    def __init__(self) -> None:
        self.frames: list[int] = []

    def write(self, result: Any) -> None:
        self.frames.append(result.frame.index)


@pytest.fixture
def watched() -> tuple[Timeline, Stopwatch, Kept, Pictures]:
    timeline, source, sink = Timeline(), Pictures(20), Kept()
    pipeline = Pipeline(timeline.source(source), timeline.classifier(Blind()))
    stopwatch = Stopwatch(timeline)
    for result in pipeline.results():
        stopwatch.write(result, [sink])
    assert pipeline.bad == 7  # what the source itself left out still counts
    return timeline, stopwatch, sink, source


def test_every_frame_passes_every_stage_in_order(watched) -> None:
    timeline, _, sink, source = watched
    assert source.opened
    assert source.closed
    assert sink.frames == list(range(20))
    ways: dict[int, list[Span]] = {}
    for span in timeline.spans():
        ways.setdefault(span.frame, []).append(span)
    assert sorted(ways) == list(range(20))
    for way in ways.values():
        assert [span.stage for span in way] == ["capture", "preprocess", "invoke", "decide", "sink kept"]
        assert all(span.began <= span.ended for span in way)
        assert all(one.ended <= following.began + 1e-9 for one, following in itertools.pairwise(way))


def test_stages_and_sinks_make_up_the_age(watched) -> None:
    _, stopwatch, _, _ = watched
    named = stopwatch.named()
    assert list(named) == [*STAGES, "sink kept", "age"]
    assert all(spent.count == 20 for spent in named.values())
    parts = sum(spent.total for name, spent in named.items() if name != "age")
    # What lies between a decision and the sink (the generator's hand-over) is of the age, and of no stage.
    assert parts <= named["age"].total + 1e-6
    assert parts == pytest.approx(named["age"].total, rel=0.5)


def test_a_trace_that_perfetto_reads(watched) -> None:
    timeline, _, _, _ = watched
    document = json.loads(timeline.to_json())
    events = document["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert list(names.values()) == ["capture", "preprocess", "invoke, decide, sinks"]
    slices = [event for event in events if event["ph"] == "X"]
    assert {event["name"] for event in slices} == {"capture", "preprocess", "invoke", "decide", "sink kept"}
    assert min(event["ts"] for event in slices) == 0
    assert all(event["dur"] >= 0 for event in slices)
    # Arrows: a start, a step and an end for every frame, each within a slice of its thread.
    for kind in "stf":
        arrows = [event for event in events if event["ph"] == kind]
        assert sorted(event["id"] for event in arrows) == list(range(20))
        for arrow in arrows:
            assert any(
                one["tid"] == arrow["tid"] and one["ts"] <= arrow["ts"] <= one["ts"] + one["dur"] for one in slices
            )


def test_a_dropped_frame_is_named_so() -> None:
    spans = [
        Span("capture", 0, 1.0, 1.1),
        Span("capture", 1, 1.1, 1.2),
        Span("preprocess", 1, 1.2, 1.3),
        Span("capture", 2, 1.2, 1.3),
        Span("preprocess", 2, 1.3, 1.4),
        Span("invoke", 2, 1.4, 1.5),
        Span("capture", 3, 1.4, 1.5),  # not dropped: its turn has not come
    ]
    names = [(event["name"], event["args"]["frame"]) for event in trace_events(spans) if event["ph"] == "X"]
    assert ("capture, dropped", 0) in names
    assert ("preprocess, dropped", 1) in names
    assert ("capture", 2) in names
    assert ("capture", 3) in names


def test_the_excerpt_is_from_the_middle_and_keeps_dropped_frames() -> None:
    spans = tuple(Span("invoke", frame, frame, frame + 0.5) for frame in range(0, 100, 2))
    spans += (Span("capture", 51, 50.9, 51.0),)
    shown = excerpt(spans)
    assert len([span for span in shown if span.stage == "invoke"]) == 12
    assert 51 in {span.frame for span in shown}
    assert excerpt(()) == ()


def test_frames_that_are_dropped_do_not_pile_up() -> None:
    timeline = Timeline()
    for index in range(1000):
        timeline._captured_frame(Frame(b"%d" % index, 0.0, index), 0.0, 0.0)
    assert len(timeline._pictures) <= 64
