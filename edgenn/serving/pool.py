"""A fixed number of interpreters, each with its own thread, and a bounded queue before them.

Threads, because decoding and the runtimes let go of Python's lock: on two cores they gave what processes gave
(docs/serving.md has the figures), and one process has one queue, one memory and one set of metrics. Each interpreter
computes with a single thread. The pool knows nothing of HTTP, and nothing here waits for a client.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile
from edgenn_device.picture_header import TooManyPixels, read_header

from .limits import Refusal, busy

T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """Scores of one picture: float32 of shape (classes,), and the seconds of its two stages."""

    scores: NDArray[np.float32]
    preprocess: float
    invoke: float


class Pool:
    """Runs work on interpreters of one model.

    Args:
      model: a verified model file.
      workers: interpreters, one thread each.
      waiting: most pieces of work in the queue.
      patience: seconds after which queued work is refused instead of begun.
      runtime: as for `Interpreter`.

    Raises:
      EdgennError: no runtime here can execute the model.

    Attributes:
      running: pieces of work that have a thread.
      labels: names of the classes.
      description: of one interpreter.
    """

    def __init__(self, model: ModelFile, *, workers: int, waiting: int, patience: float, runtime: str = "auto") -> None:
        # OpenCV's own threads would compete with ours for the same cores.
        cv2.setNumThreads(1)
        self.workers = workers
        self._capacity = workers + waiting
        self.patience = patience
        self._admitted = 0
        self.running = 0
        self._counting = threading.Lock()
        classifiers = [Classifier(model, runtime=runtime, threads=1) for _ in range(workers)]
        self.labels = classifiers[0].labels
        self.description = classifiers[0].interpreter.description
        self._free: queue.SimpleQueue[Classifier] = queue.SimpleQueue()
        for classifier in classifiers:
            # The first run allocates; it is done before anybody waits for it.
            spec = classifier.model.input
            classifier.scores(np.zeros((1, *spec.shape), spec.dtype))
            self._free.put(classifier)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="interpreter")

    @property
    def depth(self) -> int:
        """Pieces of work that wait."""
        return max(0, self._admitted - self.running)

    @property
    def full(self) -> bool:
        """Whether the next piece of work would be refused."""
        return self._admitted >= self._capacity

    async def run(self, work: Callable[[Classifier], T]) -> tuple[T, float]:
        """Run `work` with a free interpreter, in order of arrival.

        Returns:
          What it returned, and the seconds it waited in the queue.

        Raises:
          Refusal: 503, at once if the queue is full, or when it waited for too long.
        """
        with self._counting:
            if self._admitted >= self._capacity:
                raise busy(f"{self.depth} requests wait already: try again in a second, or ask another server")
            self._admitted += 1
        arrived = time.perf_counter()
        try:
            result = asyncio.get_running_loop().run_in_executor(self._threads, self._work, work, arrived)
        except RuntimeError:  # closed
            with self._counting:
                self._admitted -= 1
            raise busy("the server is stopping: ask another one") from None
        # Shielded: the place in the queue is given back when the work is over, not when its client goes away.
        return await asyncio.shield(result)

    def close(self) -> None:
        """Take no more work, drop what waits, and return when what runs has ended."""
        self._threads.shutdown(cancel_futures=True)

    def _work(self, work: Callable[[Classifier], T], arrived: float) -> tuple[T, float]:
        with self._counting:
            self.running += 1
        try:
            waited = time.perf_counter() - arrived
            if waited > self.patience:
                raise busy(f"no interpreter was free within {self.patience:g} s: try again later")
            classifier = self._free.get()
            try:
                return work(classifier), waited
            finally:
                self._free.put(classifier)
        finally:
            with self._counting:
                self.running -= 1
                self._admitted -= 1


def score(classifier: Classifier, content: bytes | NDArray[Any], pixels: int) -> Scored:
    """Scores of an encoded picture of at most `pixels` pixels, or of an input tensor.

    Raises:
      Refusal: 413, more pixels than that.
      EdgennError: not a picture that can be read.
    """
    began = time.perf_counter()
    if isinstance(content, bytes):
        if not content:
            raise EdgennError("the picture is empty: send a JPEG, PNG, WebP, BMP or TIFF as the body")
        try:
            header = read_header(content)
        except TooManyPixels:
            raise Refusal(413, f"more than {pixels / 1e6:g} million pixels are not decoded: send it smaller") from None
        if header.width * header.height > pixels:
            raise Refusal(
                413,
                f"a picture of {header.width}x{header.height} pixels: at most {pixels / 1e6:g} million are decoded, "
                "send it smaller",
            )
        content = classifier.preprocess(content)
    ready = time.perf_counter()
    scores = classifier.scores(content)
    if not np.isfinite(scores.sum()):
        # A float model can give such scores; JSON cannot carry them.
        scores = np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
    return Scored(scores, ready - began, time.perf_counter() - ready)
