"""Where a frame's time goes: a histogram for every stage of the pipeline, for each sink and for the frame's age.

Takes results one by one as a Pipeline gives them, and writes them to the sinks on the way, so that it can time those.
Opens no source and prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import EdgennError
from ..pipeline import STAGES, Pipeline, Result
from .histogram import Histogram
from .timeline import Span, Timeline

if TYPE_CHECKING:
    from ..classifier import Classifier
    from ..sinks.base import Sink

# The age of a frame when the last sink has it, beside the stages that it is made of.
AGE = "age"
# Of a run's timeline, what a report shows: enough frames to see the rhythm, few enough to tell them apart.
_SHOWN = 12


@dataclass(frozen=True)
class Stages:
    """Where a frame's time goes.

    Attributes:
      source: what gave the frames; "" when only preprocess and invoke were measured, without a pipeline.
      durations: a histogram for each stage and each sink ("sink NAME").
      latency: from a frame's capture until the last sink had it (without sinks: until it was decided); None without a
        pipeline.
      frames, dropped, fps: of the pipeline's run.
      timeline: what each stage did with some frames from the middle of the run.
    """

    source: str
    durations: dict[str, Histogram]
    latency: Histogram | None = None
    frames: int = 0
    dropped: int = 0
    fps: float = 0.0
    timeline: tuple[Span, ...] = ()


@dataclass
class Stopwatch:
    """Counts the stages of results, and times sinks.

    Attributes:
      durations: by stage, in the order in which a frame meets them; sinks behind the stages.
      age: of frames, when the last sink has them.
      timeline: also told, if there is one.
    """

    timeline: Timeline | None = None
    durations: dict[str, Histogram] = field(default_factory=lambda: {stage: Histogram() for stage in STAGES})
    age: Histogram = field(default_factory=Histogram)

    def write(self, result: Result, sinks: Iterable[Sink] = ()) -> None:
        """Hand a result to every sink in turn, and count."""
        ended = result.frame.time + result.latency
        for sink in sinks:
            began = time.monotonic()
            sink.write(result)
            ended = time.monotonic()
            name = f"sink {sink.name}"
            self.durations.setdefault(name, Histogram()).record(ended - began)
            if self.timeline:
                self.timeline.add(name, result.frame.index, began, ended)
        for stage, spent in result.stages.items():
            self.durations[stage].record(spent)
        self.age.record(ended - result.frame.time)
        if self.timeline:
            self.timeline.decided(result)

    def named(self) -> dict[str, Histogram]:
        """Stages, sinks and the age of the frame, in this order."""
        return {**self.durations, AGE: self.age}


def stages_of(classifier: Classifier, source: str, seconds: float, timeline: Timeline | None = None) -> Stages:
    """Run the pipeline over a source for about `seconds`, or until the source ends.

    Raises:
      EdgennError: the source does not open or gives nothing to classify.
    """
    from ..cameras import open_source

    timeline = timeline or Timeline()
    opened = open_source(source, input=classifier.model.input)
    pipeline = Pipeline(timeline.source(opened), timeline.classifier(classifier))
    stopwatch = Stopwatch(timeline)
    first: Result | None = None
    deadline = 0.0
    with closing(pipeline.results()) as results:
        for result in results:
            # The first frame waits for the camera and for the pipeline to fill: it counts only if it is the only one.
            if first is None:
                first, deadline = result, time.monotonic() + seconds
                continue
            stopwatch.write(result)
            if time.monotonic() > deadline:
                break
    if first is None:
        raise EdgennError(f"{opened.name} gave no picture to measure: try --source synthetic")
    if not stopwatch.age.count:
        stopwatch.write(first)
    summary = pipeline.summary()
    return Stages(
        opened.name,
        stopwatch.durations,
        stopwatch.age,
        summary.frames,
        summary.dropped,
        summary.fps,
        excerpt(timeline.spans()),
    )


def excerpt(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """Spans of some invoked frames in the middle, and of the frames that were dropped between them."""
    invoked = [span.frame for span in spans if span.stage == "invoke"]
    begin = max(0, (len(invoked) - _SHOWN) // 2)
    shown = invoked[begin : begin + _SHOWN]
    return tuple(span for span in spans if shown and shown[0] <= span.frame <= shown[-1])
