"""capture ∥ preprocess ∥ invoke: three stages in three threads, so that the slowest sets the pace and not their sum.

Invoke runs on the caller's thread, which is also where results and errors come out. The capture thread only reads the
source; the preprocess thread writes into a small ring of input tensors that are allocated once. For a live source the
newest frame wins: what could not be taken in time is dropped and counted, and no queue delays what is shown. For any
other source nothing is lost, and the queues make the faster stages wait.

Does not draw, print or store, and keeps no result.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .cameras.base import Frame, Image, Source
from .channel import Channel, Ended
from .decision import HALF_LIFE, Decision
from .errors import EdgennError

if TYPE_CHECKING:
    # Not at run time: whoever brings another classifier needs no TFLite runtime.
    from .classifier import Classification
    from .model_file import ModelFile

# What `Result.stages` holds; together they are the latency.
STAGES = ("capture", "queue", "preprocess", "invoke", "decide")
# Frames and tensors that may wait in front of a stage when nothing may be lost: enough that one large picture among
# small ones does not leave the interpreter idle, few enough that they are megabytes.
_WAITING = 2
# How long an exit waits for a thread. Only a source that hangs in native code takes longer; it is left behind.
_PATIENCE = 1.0
# Of a live source: how much earlier than expected the interpreter may be done and still find its next tensor ready, in
# durations of the preprocess stage. 1 would be just in time.
_HEAD_START = 1.5

_log = logging.getLogger(__name__)


class Classifies(Protocol):
    """What the pipeline needs of a `Classifier`."""

    @property
    def model(self) -> ModelFile: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    def preprocess(self, image: Image, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def scores(self, tensor: NDArray[Any]) -> NDArray[np.float32]: ...
    def result(self, scores: NDArray[np.float32], top_k: int = 3) -> Classification: ...


@dataclass(frozen=True, slots=True)
class Result:
    """One classified frame.

    Attributes:
      frame: the frame itself.
      classification: label and confidence as decided over time; top and scores are of the averaged scores.
      stages: seconds by stage: capture (from the frame's own time until it was read), queue (waiting, before preprocess
        and before invoke), preprocess, invoke, decide.
      latency: seconds from the frame's own time to this result; the sum of the stages.
    """

    frame: Frame
    classification: Classification
    stages: dict[str, float]
    latency: float


@dataclass(frozen=True)
class Summary:
    """A run in figures: frames classified, dropped as stale and bad (unreadable); seconds until the last result."""

    frames: int
    dropped: int
    bad: int
    seconds: float

    @property
    def fps(self) -> float:
        """Frames classified a second."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


class Pipeline:
    """Frames of a source, classified. Runs once.

    Args:
      source: not yet opened; it is closed at the end.
      classifier: gives input tensor, scores and labels.
      decision: how scores become a label; None takes an average over time for a continuous source and each frame by
        itself for any other, with the minimum confidence of the model's card.
      top_k: how many of the best labels a result holds.

    Attributes:
      opened: whether the source has opened, so that there is something to sum up.
      frames: how many have been classified so far.

    >>> with_a_camera = Pipeline(open_source("0"), Classifier("garments.tflite"))       # doctest: +SKIP
    >>> for result in with_a_camera.results(limit=100):                                 # doctest: +SKIP
    ...     print(result.classification.label, result.latency)
    """

    def __init__(
        self, source: Source, classifier: Classifies, decision: Decision | None = None, *, top_k: int = 3
    ) -> None:
        self.source = source
        self.classifier = classifier
        self.decision = decision or _decision(source, classifier)
        self.top_k = top_k
        self.opened = False
        self.frames = 0
        # Each counted by one thread.
        self._dropped_frames = 0
        self._dropped_tensors = 0
        self._bad = 0
        self._began = 0.0
        self._ended = 0.0
        ahead = 1 if source.live else _WAITING
        self._captured: Channel[tuple[Frame, float]] = Channel(ahead, newest_wins=source.live)
        self._ready: Channel[_Ready] = Channel(ahead, newest_wins=source.live)
        spec = classifier.model.input
        # One is being written, one is being invoked, the others wait: the ring is never empty.
        self._ring = deque(np.empty((1, *spec.shape), spec.dtype) for _ in range(ahead + 2))
        # When the interpreter is expected to ask for its next tensor; 0, and the event set, while it waits for one.
        self._due = 0.0
        self._idle = threading.Event()

    @property
    def dropped(self) -> int:
        """Frames of a live source that a newer one displaced before the interpreter could take them."""
        return self._dropped_frames + self._dropped_tensors

    @property
    def bad(self) -> int:
        """Frames that could not be decoded, and pictures that could not even be read."""
        return self._bad + self.source.skipped

    def summary(self) -> Summary:
        return Summary(self.frames, self.dropped, self.bad, max(0.0, self._ended - self._began))

    def results(self, limit: int | None = None) -> Generator[Result, None, None]:
        """Open the source and classify until it ends, `limit` results have come, or the iterator is closed.

        Raises:
          EdgennError: the source does not open, or fails later in a way that it cannot mend itself.
        """
        if limit is not None and limit < 1:
            raise EdgennError(f"a limit of {limit} frames leaves nothing to do: it is 1 or more")
        if self._began:
            raise RuntimeError("a Pipeline runs once: make another")
        self._began = self._ended = time.monotonic()
        stages = (self._capture, self._preprocess)
        threads = [threading.Thread(target=stage, name=f"edgenn{stage.__name__}", daemon=True) for stage in stages]
        try:
            self.source.open()
            self.opened = True
            self._began = time.monotonic()
            for thread in threads:
                thread.start()
            yield from self._invoke(limit)
        finally:
            self._captured.close()
            self._ready.close()
            self._wake()
            self.source.close()
            for thread in threads:
                if thread.ident is not None:
                    thread.join(_PATIENCE)

    def _capture(self) -> None:
        try:
            while (frame := self.source.read()) is not None:
                if self._captured.put((frame, time.monotonic())) is not None:
                    self._dropped_frames += 1
        except Ended:
            return
        except BaseException as error:
            self._captured.finish(error)
        else:
            self._captured.finish()

    def _preprocess(self) -> None:
        typical = 0.0
        try:
            while True:
                if self.source.live:
                    self._await_turn(typical)
                frame, captured = self._captured.get()
                tensor = self._ring.pop()
                began = time.monotonic()
                try:
                    self.classifier.preprocess(frame.image, out=tensor)
                except EdgennError as error:
                    self._ring.append(tensor)
                    self._leave_out(frame, error)
                    continue
                ended = time.monotonic()
                typical = _average(typical, ended - began)
                stale = self._ready.put(_Ready(frame, tensor, captured, began, ended))
                if stale is not None:
                    self._ring.append(stale.tensor)
                    self._dropped_tensors += 1
        except Ended:
            self._ready.finish()
        except BaseException as error:
            self._ready.finish(error)

    def _await_turn(self, typical: float) -> None:
        """Of a live source, take the next frame no earlier than its tensor is needed, `typical` seconds from its start.

        A tensor made earlier would be stale when its turn comes, and replaced by one of a newer frame: work that, on a
        small board, the interpreter's own threads have to wait for. Only when the interpreter takes longer than
        expected is the tensor that waits for it replaced, whenever a newer frame comes.
        """
        while True:
            self._idle.clear()
            early = self._due - time.monotonic() - (0 if self._ready else _HEAD_START * typical)
            if early <= 0:
                return
            self._idle.wait(early)

    def _wake(self) -> None:
        self._due = 0.0
        self._idle.set()

    def _invoke(self, limit: int | None) -> Iterator[Result]:
        period = 0.0
        while limit is None or self.frames < limit:
            if not self._ready:
                self._wake()
            try:
                ready = self._ready.get()
            except Ended:
                return
            began = time.monotonic()
            self._due = began + period
            scores = self.classifier.scores(ready.tensor)
            invoked = time.monotonic()
            self._ring.append(ready.tensor)
            frame = ready.frame
            classification = self._decide(scores, frame.time if frame.moment is None else frame.moment)
            ended = time.monotonic()
            self.frames += 1
            self._ended = ended
            waited = (ready.began - ready.captured) + (began - ready.ended)
            spent = (
                ready.captured - frame.time,
                waited,
                ready.ended - ready.began,
                invoked - began,
                ended - invoked,
            )
            yield Result(frame, classification, dict(zip(STAGES, spent, strict=True)), ended - frame.time)
            # With what the caller does with a result: it is part of what the next tensor waits for.
            period = _average(period, time.monotonic() - began)

    def _decide(self, scores: NDArray[np.float32], moment: float) -> Classification:
        decided = self.decision.update(scores, moment)
        classification = self.classifier.result(decided.scores, self.top_k)
        if classification.label == decided.label:
            return classification
        return replace(classification, label=decided.label, confidence=decided.confidence)

    def _leave_out(self, frame: Frame, error: EdgennError) -> None:
        self._bad += 1
        if frame.path is not None:
            _log.warning("%s left out: %s", frame.path, error)
        elif self._bad == 1:
            _log.warning("frame %d of %s left out: %s", frame.index, self.source.name, error)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A tensor in front of the interpreter, and when its frame passed the stages before."""

    frame: Frame
    tensor: NDArray[Any]
    captured: float
    began: float
    ended: float


def _decision(source: Source, classifier: Classifies) -> Decision:
    card = classifier.model.card
    return Decision(
        classifier.labels,
        half_life=HALF_LIFE if source.continuous else None,
        minimum_confidence=card.minimum_confidence if card else None,
    )


def _average(past: float, now: float) -> float:
    """Follow a duration that varies: a quarter of each new one, all of the first."""
    return past + (now - past) / 4 if past else now
