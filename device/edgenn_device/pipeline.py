"""capture ∥ preprocess ∥ invoke: three stages in three threads, so that the slowest sets the pace and not their sum.

Invoke runs on the caller's thread, which is also where results and errors come out. The capture thread only reads the
source; the preprocess thread writes into a small ring of input tensors. For a live source the newest frame wins: what
could not be taken in time is dropped and counted, and no queue delays what is shown. For any other source nothing is
lost, and the queues make the faster stages wait.

While a live source is so slow that the interpreter waits for it anyway, working ahead gains nothing and each
hand-over costs a wake-up: then the caller's thread prepares the frames as well, and the preprocess thread rests until
frames have to wait again. The right to prepare goes from thread to thread with a frame (`_Handed`), so that there is
always one that has it and never two.

A tensor of the ring is copied into the interpreter's own input once: while a network runs its input belongs to it, so
the next frame cannot be written there yet. For 224x224x3 that is some 10 µs beside milliseconds of invoke.

A live source's picture without content (a lens cap, a camera that has lost its sensor) is "unknown" and no matter for
the network.

Does not draw, print or store, and keeps no result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cameras.base import Frame, Source
from .channel import Channel, Ended, Late
from .decision import HALF_LIFE, IN_A_ROW, UNKNOWN, Decision
from .errors import EdgennError
from .feed import Feed
from .preparation import Classifies, Loaded, Preparation, Ready, average
from .sight import moment_of

if TYPE_CHECKING:
    # Not at run time: without a gate nothing here needs OpenCV.
    from .classifier import Classification
    from .motion import Gate

# What `Result.stages` holds; together they are the latency.
STAGES = ("capture", "queue", "preprocess", "invoke", "decide")
# Frames and tensors that may wait in front of a stage when nothing may be lost: enough that one large picture among
# small ones does not leave the interpreter idle, few enough that they are megabytes.
_WAITING = 2
# How long an exit waits for the preprocess thread, which never takes longer than one picture.
_PATIENCE = 0.5
# Of a live source: how much earlier than expected the interpreter may be done and still find its next tensor ready, in
# durations of the preprocess stage. 1 would be just in time.
_HEAD_START = 1.5
# Seconds between two looks at a source that gives nothing: has it hung?
_LOOK_AFTER = 0.5

# The caller's thread prepares a live source's frames while it waits for each, on the average, for at least this many
# durations of the preprocess stage: then it can do that in the time in which it has nothing to do.
_SLOW = 2.0
# Frames before that is judged for the first time, and anew after a change.
_JUDGED = 16
# Frames in a row that had to wait while the caller's thread prepared: the source is not slow any more.
_BEHIND = 3


@dataclass(frozen=True, slots=True)
class Result:
    """One classified frame.

    Attributes:
      frame: the frame itself; its image is what was looked at, where the source left a view to apply.
      classification: label and confidence as decided over time; top and scores are of the averaged scores.
      stages: seconds by stage: capture (from the frame's own time until it was read), queue (waiting, before preprocess
        and before invoke), preprocess, invoke, decide.
      latency: seconds from the frame's own time to this result; the sum of the stages.
      skipped: the network was not asked: the motion gate found the scene unchanged, or the picture shows nothing.
    """

    frame: Frame
    classification: Classification
    stages: dict[str, float]
    latency: float
    skipped: bool = False


@dataclass(frozen=True)
class Summary:
    """A run in figures.

    Frames classified (those of which the network was spared are in `skipped` too), dropped as stale and bad
    (unreadable); seconds until the last result.
    """

    frames: int
    dropped: int
    bad: int
    seconds: float
    skipped: int = 0

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
      gate: spares the network frames on which nothing has changed; None classifies every one.

    Attributes:
      opened: whether the source has opened, so that there is something to sum up.
      frames: how many have been classified so far.
      skipped: how many of them without the network.

    >>> with_a_camera = Pipeline(open_source("0"), Classifier("garments.tflite"))       # doctest: +SKIP
    >>> for result in with_a_camera.results(limit=100):                                 # doctest: +SKIP
    ...     print(result.classification.label, result.latency)
    """

    def __init__(
        self,
        source: Source,
        classifier: Classifies,
        decision: Decision | None = None,
        *,
        top_k: int = 3,
        gate: Gate | None = None,
    ) -> None:
        self.live = source.live
        self.top_k = top_k
        self.gate = gate
        self.opened = False
        self.frames = 0
        self.skipped = 0
        self._displaced = 0
        self._began = 0.0
        self._ended = 0.0
        self._ahead = 1 if source.live else _WAITING
        self._feed = Feed(source, self._ahead)
        self._ready: Channel[_Handed] = Channel(self._ahead, newest_wins=source.live)
        self._model = Loaded.of(classifier, decision or _decision(source, classifier), self._ahead)
        self._preparation = Preparation(self._feed, gate, source.live)
        # The scores that were last decided on, averaged over time.
        self._held: NDArray[np.float32] | None = None
        # When the interpreter is expected to ask for its next tensor; 0, and the event set, while it waits for one.
        self._due = 0.0
        self._idle = threading.Event()
        # Set by the caller's thread: it wants the right to prepare, or gives it back.
        self._wanted = False
        self._given_back = threading.Event()
        # Of the caller's thread: whether it has that right; seconds it waited for a frame, on the average of the
        # latest, and of how many; frames in a row that had to wait for it.
        self._mine = False
        self._waited, self._judged = 0.0, 0
        self._behind = 0

    @property
    def source(self) -> Source:
        """The one that gives frames now; another one than at first when that has hung."""
        return self._feed.source

    @property
    def classifier(self) -> Classifies:
        """The one that frames are prepared for now."""
        return self._model.classifier

    @property
    def decision(self) -> Decision:
        return self._model.decision

    @property
    def dropped(self) -> int:
        """Frames of a live source that a newer one displaced before the interpreter could take them."""
        return self._feed.dropped + self._displaced + self._preparation.spared

    @property
    def bad(self) -> int:
        """Frames that could not be decoded or showed nothing, and pictures that could not even be read."""
        return self._preparation.bad + self._feed.skipped

    @property
    def trouble(self) -> str:
        """What is wrong with the pictures that come now; "" while they are good."""
        return self._preparation.trouble

    def summary(self) -> Summary:
        return Summary(self.frames, self.dropped, self.bad, max(0.0, self._ended - self._began), self.skipped)

    def swap(self, classifier: Classifies) -> None:
        """Classify with another model from the next frame on. Any thread; no frame is lost or answered twice.

        A frame that was made into a tensor before is still answered by the model it was made for. The decision over
        time begins anew, by the same rules and with the new card's minimum confidence: labels may be others.
        """
        decision = self.decision.renewed(classifier.labels, _minimum_confidence(classifier))
        self._model = Loaded.of(classifier, decision, self._ahead)

    def stop(self) -> None:
        """End `results` now, from any thread. Returns at once."""
        self._ready.close()
        self._feed.stop()

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
        thread = threading.Thread(target=self._preprocess, name="edgenn_preprocess", daemon=True)
        try:
            self._feed.open()
            self.opened = True
            self._began = time.monotonic()
            thread.start()
            yield from self._invoke(limit)
        finally:
            self._ready.close()
            self._wake()
            self._feed.close()
            self._given_back.set()
            if thread.ident is not None:
                thread.join(_PATIENCE)

    def _preprocess(self) -> None:
        try:
            while True:
                if self.live:
                    self._await_turn(self._preparation.typical)
                ready = self._prepare(*self._feed.get())
                if ready is None:
                    continue
                last = self._wanted
                stale = self._ready.put(_Handed(ready, last))
                if stale is not None:
                    stale.ready.give_back()
                    self._displaced += 1
                if last:
                    self._given_back.wait()
                    self._given_back.clear()
        except Ended:
            self._ready.finish()
        except BaseException as error:
            self._ready.finish(error)

    def _prepare(self, frame: Frame, captured: float) -> Ready | None:
        return self._preparation.of(self._model, frame, captured, lambda: bool(self._ready))

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
            try:
                ready = self._next()
            except Late:
                self._feed.look_after()
                continue
            except Ended:
                return
            if ready is None:
                continue
            began = time.monotonic()
            scores = self._held
            if ready.tensor is not None:
                self._due = began + period
                scores = ready.model.classifier.scores(ready.tensor)
                ready.give_back()
            invoked = time.monotonic()
            frame = ready.frame
            classification = self._decide(ready, None if ready.blank else scores)
            ended = time.monotonic()
            self.frames += 1
            self.skipped += ready.tensor is None
            self._ended = ended
            waited = (ready.began - ready.captured) + (began - ready.ended)
            spent = (
                ready.captured - frame.time,
                waited,
                ready.ended - ready.began,
                invoked - began,
                ended - invoked,
            )
            stages = dict(zip(STAGES, spent, strict=True))
            yield Result(frame, classification, stages, ended - frame.time, ready.tensor is None)
            if ready.tensor is not None:
                # With what the caller does with a result: it is part of what the next tensor waits for.
                period = average(period, time.monotonic() - began)

    def _next(self) -> Ready | None:
        """What the interpreter is to look at next; None when the next frame is left out.

        Raises:
          Late: nothing has come for a while.
          Ended: nothing will come any more.
        """
        if not self._mine:
            if not self._ready:
                self._wake()
            asked = time.monotonic()
            handed = self._ready.get(_LOOK_AFTER if self.live else None)
            self._judge(time.monotonic() - asked)
            self._mine = handed.last
            return handed.ready
        if self._feed.waiting:
            self._behind += 1
            if self._behind >= _BEHIND:
                self._mine = self._wanted = False
                self._waited, self._judged = 0.0, 0
                self._given_back.set()
                return None
        else:
            self._behind = 0
        return self._prepare(*self._feed.get(_LOOK_AFTER))

    def _judge(self, waited: float) -> None:
        """Want the right to prepare when the interpreter waits for a live source long enough to do that meanwhile."""
        self._waited = average(self._waited, waited)
        self._judged += 1
        slow = self._waited >= _SLOW * self._preparation.typical
        self._wanted = self.live and self._judged >= _JUDGED and slow

    def _decide(self, ready: Ready, scores: NDArray[np.float32] | None) -> Classification:
        """What a frame amounts to: by the network's scores, by those that hold, or by none."""
        model = ready.model
        if scores is None:
            model.decision = model.decision.renewed(model.classifier.labels, _minimum_confidence(model.classifier))
            nothing = np.zeros(len(model.classifier.labels), np.float32)
            return replace(model.classifier.result(nothing, self.top_k), label=UNKNOWN, confidence=0.0)
        # An average that is averaged with itself stays what it is, and time goes on.
        decided = model.decision.update(scores, moment_of(ready.frame))
        self._held = decided.scores
        classification = model.classifier.result(decided.scores, self.top_k)
        if classification.label == decided.label:
            return classification
        return replace(classification, label=decided.label, confidence=decided.confidence)


@dataclass(frozen=True, slots=True)
class _Handed:
    """What goes from the preprocess thread to the caller's.

    Attributes:
      last: the right to prepare goes with it: the preprocess thread prepares nothing more until it is given back.
    """

    ready: Ready
    last: bool


def _decision(source: Source, classifier: Classifies) -> Decision:
    return Decision(
        classifier.labels,
        half_life=HALF_LIFE if source.continuous else None,
        minimum_confidence=_minimum_confidence(classifier),
        in_a_row=IN_A_ROW if source.continuous else 1,
    )


def _minimum_confidence(classifier: Classifies) -> float | None:
    card = classifier.model.card
    return card.minimum_confidence if card else None
