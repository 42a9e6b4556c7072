"""When each frame was in which stage: watches a pipeline from outside, and writes what Perfetto opens.

Wraps the source and the classifier that a Pipeline is given; the pipeline knows nothing of it, and without a Timeline
nothing is wrapped. Keeps the last spans of a long run and forgets the first; adds up nothing, `stages` does.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cameras.base import Frame, Image, Source

if TYPE_CHECKING:
    from ..classifier import Classification
    from ..model_file import ModelFile
    from ..pipeline import Result
    from ..preparation import Classifies

# A frame leaves about five spans of 200 bytes: the last minutes of a camera in 20 MB.
_KEPT = 100_000
# Frames between capture and preprocess, of which there are never more than a few.
_UNDERWAY = 64
# The thread that works in each stage. Sinks and decision run where the network is invoked.
_THREADS = {"capture": "capture", "preprocess": "preprocess", "decide": "invoke", "invoke": "invoke"}
THREADS = ("capture", "preprocess", "invoke")
_TITLES = {"capture": "capture", "preprocess": "preprocess", "invoke": "invoke, decide, sinks"}


@dataclass(frozen=True, slots=True)
class Span:
    """A stage at work on a frame.

    Attributes:
      stage: of `pipeline.STAGES` without queue, or "sink NAME".
      frame: its index.
      began, ended: `time.monotonic()` in seconds. That of capture begins when the source was asked for the frame, so
        it holds the wait for a camera's next picture.
    """

    stage: str
    frame: int
    began: float
    ended: float

    @property
    def thread(self) -> str:
        """One of THREADS."""
        return _THREADS.get(self.stage, "invoke")


class Timeline:
    """Collects spans. Every stage appends from its own thread; whoever reads them waits until the pipeline has ended.

    >>> timeline = Timeline()                                                              # doctest: +SKIP
    >>> pipeline = Pipeline(timeline.source(source), timeline.classifier(classifier))      # doctest: +SKIP
    >>> for result in pipeline.results(limit=100): timeline.decided(result)                # doctest: +SKIP
    >>> write_atomically("timeline.json", timeline.to_json())                              # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._spans: deque[Span] = deque(maxlen=_KEPT)
        # Index of the frame that a picture belongs to, by the picture's identity while it is under way: the classifier
        # is handed pictures and tensors, not frames.
        self._pictures: dict[int, int] = {}
        self._tensors: dict[int, int] = {}

    def source(self, source: Source) -> Source:
        """The same source, watched."""
        return _Watched(source, self)

    def classifier(self, classifier: Classifies) -> Classifies:
        """The same classifier, watched."""
        return _WatchedClassifier(classifier, self)

    def add(self, stage: str, frame: int, began: float, ended: float) -> None:
        self._spans.append(Span(stage, frame, began, ended))

    def decided(self, result: Result) -> None:
        """Note the decision on a frame, which is not the classifier's."""
        ended = result.frame.time + result.latency
        self.add("decide", result.frame.index, ended - result.stages["decide"], ended)

    def spans(self) -> tuple[Span, ...]:
        """In the order in which they ended."""
        return tuple(sorted(self._spans, key=lambda span: span.ended))

    def to_json(self) -> str:
        """Chrome's trace event format, one thread a stage, arrows from stage to stage of every frame.

        Source: "Trace Event Format", Google, sections Complete, Metadata and Flow Events; times in µs.
        """
        return json.dumps({"traceEvents": trace_events(self.spans()), "displayTimeUnit": "ms"})

    def _captured_frame(self, frame: Frame, began: float, ended: float) -> None:
        if len(self._pictures) >= _UNDERWAY:  # of frames that were dropped
            for picture in [key for key, index in self._pictures.items() if index < frame.index - _UNDERWAY // 2]:
                del self._pictures[picture]
        self._pictures[id(frame.image)] = frame.index
        self.add("capture", frame.index, began, ended)

    def _preprocessed(self, image: Image, tensor: NDArray[Any], began: float, ended: float) -> None:
        index = self._pictures.get(id(image), -1)
        self._tensors[id(tensor)] = index
        self.add("preprocess", index, began, ended)

    def _invoked(self, tensor: NDArray[Any], began: float, ended: float) -> None:
        self.add("invoke", self._tensors.get(id(tensor), -1), began, ended)


def trace_events(spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Events for `traceEvents`: threads named by stage, a slice for every span, arrows along every frame's way."""
    spans = tuple(spans)
    process = os.getpid()
    origin = min((span.began for span in spans), default=0.0)
    numbers = {thread: number for number, thread in enumerate(THREADS, 1)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": "edgenn"}}
    ]
    for thread, number in numbers.items():
        same = {"ph": "M", "pid": process, "tid": number}
        events.append({**same, "name": "thread_name", "args": {"name": _TITLES[thread]}})
        events.append({**same, "name": "thread_sort_index", "args": {"sort_index": number}})
    invoked = {span.frame for span in spans if span.stage == "invoke"}
    last = max(invoked, default=-1)
    for span in spans:
        microseconds = (span.began - origin) * 1e6
        place = {"pid": process, "tid": numbers[span.thread], "ts": microseconds}
        dropped = span.thread != "invoke" and span.frame < last and span.frame not in invoked
        name = f"{span.stage}, dropped" if dropped else span.stage
        duration = (span.ended - span.began) * 1e6
        events.append(
            {**place, "ph": "X", "name": name, "cat": span.thread, "dur": duration, "args": {"frame": span.frame}}
        )
        arrow = {"capture": "s", "preprocess": "t", "invoke": "f"}.get(span.stage)
        if arrow and span.frame in invoked:
            # An arrow binds to the slice that encloses its time.
            where = {**place, "ts": microseconds + duration / 2, "bp": "e"}
            events.append({**where, "ph": arrow, "name": "frame", "cat": "frame", "id": span.frame})
    return events


class _Watched(Source):
    """A source whose reads are noted; whatever else it is asked, the other answers."""

    def __init__(self, source: Source, timeline: Timeline) -> None:
        self._source = source
        self._timeline = timeline
        self.name, self.live, self.continuous = source.name, source.live, source.continuous
        self.view = source.view

    @property
    def skipped(self) -> int:  # type: ignore[override]
        return self._source.skipped

    def open(self) -> None:
        self._source.open()
        # Some only learn from the device what they are.
        self.name, self.live, self.continuous = self._source.name, self._source.live, self._source.continuous

    def read(self) -> Frame | None:
        began = time.monotonic()
        frame = self._source.read()
        if frame is not None:
            self._timeline._captured_frame(frame, began, time.monotonic())
        return frame

    def close(self) -> None:
        self._source.close()


class _WatchedClassifier:
    """A classifier whose preprocess and scores are noted."""

    def __init__(self, classifier: Classifies, timeline: Timeline) -> None:
        self._classifier = classifier
        self._timeline = timeline

    @property
    def model(self) -> ModelFile:
        return self._classifier.model

    @property
    def labels(self) -> tuple[str, ...]:
        return self._classifier.labels

    def preprocess(self, image: Image, out: NDArray[Any] | None = None) -> NDArray[Any]:
        began = time.monotonic()
        tensor = self._classifier.preprocess(image, out=out)
        self._timeline._preprocessed(image, tensor if out is None else out, began, time.monotonic())
        return tensor

    def scores(self, tensor: NDArray[Any]) -> NDArray[np.float32]:
        began = time.monotonic()
        scores = self._classifier.scores(tensor)
        self._timeline._invoked(tensor, began, time.monotonic())
        return scores

    def result(self, scores: NDArray[np.float32], top_k: int = 3) -> Classification:
        return self._classifier.result(scores, top_k)
