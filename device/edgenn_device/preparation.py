"""The preprocess stage: a frame becomes the tensor that the network is given, or is left out.

Whoever prepares holds everything of this stage: the sight of the scene, the watch over the camera's pictures, and the
ring of input tensors that are allocated once. One thread at a time, which need not always be the same (`Pipeline` says
which). It waits for nothing and asks no network.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .cameras.base import Frame, Image
from .decision import Decision
from .errors import EdgennError
from .picture_watch import PictureWatch
from .sight import Sight

if TYPE_CHECKING:
    # Not at run time: whoever brings another classifier needs no TFLite runtime, and without a gate there is none.
    from .classifier import Classification
    from .feed import Feed
    from .model_file import ModelFile
    from .motion import Gate

# Seconds between two looks at the size of a live source's pictures.
_SIZE_EVERY = 1.0

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


@dataclass(slots=True)
class Loaded:
    """A classifier, the decision on its scores, and the tensors that pictures are made into for it."""

    classifier: Classifies
    decision: Decision
    ring: deque[NDArray[Any]]

    @classmethod
    def of(cls, classifier: Classifies, decision: Decision, ahead: int) -> Loaded:
        """`ahead` is how many tensors may wait for the interpreter."""
        spec = classifier.model.input
        # One is being written, one is being invoked, the others wait: the ring is never empty.
        ring = deque(np.empty((1, *spec.shape), spec.dtype) for _ in range(ahead + 2))
        return cls(classifier, decision, ring)


@dataclass(frozen=True, slots=True)
class Ready:
    """A frame in front of the interpreter, and when it passed the stages before.

    Without a tensor the network has nothing to do: what was decided holds, or, when it is `blank`, there is nothing.
    """

    model: Loaded
    frame: Frame
    tensor: NDArray[Any] | None
    blank: bool
    captured: float
    began: float
    ended: float

    def give_back(self) -> None:
        if self.tensor is not None:
            self.model.ring.append(self.tensor)


class Preparation:
    """Of the frames of one feed.

    Args:
      feed: whose frames they are.
      gate: spares the network frames on which nothing has changed; None spares it none.
      live: whether pictures that show nothing are a fault (a lens cap) and not somebody's wish.

    Attributes:
      typical: seconds that a frame takes, on the average of the latest; 0 before the first.
      bad: frames that could not be decoded, or showed nothing in passing.
      spared: frames of a still scene that were left out because its scores are still to come.
    """

    def __init__(self, feed: Feed, gate: Gate | None, live: bool) -> None:
        self.typical = 0.0
        self.bad = 0
        self.spared = 0
        self._feed, self._live = feed, live
        self._sight = Sight(gate)
        self._watch = PictureWatch(feed.source.name)
        self._sized_at = -math.inf
        self._model: Loaded | None = None
        self._scene_waits = False

    @property
    def trouble(self) -> str:
        """What is wrong with the pictures that come now; "" while they are good."""
        return self._watch.trouble

    def of(self, model: Loaded, frame: Frame, captured: float, waiting: Callable[[], bool]) -> Ready | None:
        """Make a frame ready; None when it is left out.

        Args:
          model: what to prepare it for.
          captured: `time.monotonic()` at which it had been read.
          waiting: whether the frame before still waits for the interpreter.
        """
        began = time.monotonic()
        if model is not self._model:
            self._model = model
            self._sight.forget()
        spec = model.classifier.model.input
        tensor = None
        if self._live and captured - self._sized_at >= _SIZE_EVERY:
            self._sized_at = captured
            self._note_size(frame.image)
        try:
            frame, image, still = self._sight.of(frame, self._feed.source.view, spec)
            if not still:
                tensor = model.ring.pop()
                model.classifier.preprocess(image, out=tensor)
        except EdgennError as error:
            if tensor is not None:
                model.ring.append(tensor)
            self._leave_out(frame, error)
            return None
        ended = time.monotonic()
        blank = False
        if tensor is not None:
            self.typical = average(self.typical, ended - began)
            if self._live and self._watch.shows_nothing(tensor, spec, captured):
                model.ring.append(tensor)
                tensor, blank = None, True
                self._sight.forget()
                if self._watch.briefly(captured):
                    self.bad += 1
                    return None
        elif self._live and self._scene_waits and waiting():
            # It would displace what waits: the same scene, whose scores are still to come.
            self.spared += 1
            return None
        self._scene_waits = tensor is not None
        return Ready(model, frame, tensor, blank, captured, began, ended)

    def _note_size(self, image: Image) -> None:
        if not isinstance(image, bytes):
            self._watch.of_size(image.shape[1], image.shape[0])
            return
        from .picture_header import read_header

        try:
            header = read_header(image)
        except EdgennError:
            # Why it cannot be read is told where it is read.
            return
        self._watch.of_size(header.width, header.height)

    def _leave_out(self, frame: Frame, error: EdgennError) -> None:
        self.bad += 1
        self._sight.forget()
        if frame.path is not None:
            _log.warning("%s left out: %s", frame.path, error)
            return
        if self.bad == 1:
            _log.warning("frame %d of %s left out: %s", frame.index, self._feed.source.name, error)
        self._watch.unreadable(str(error))


def average(past: float, now: float) -> float:
    """Follow a duration that varies: a quarter of each new one, all of the first."""
    return past + (now - past) / 4 if past else now
