"""One picture's path in, its record out: what every process of every engine does, with one model and one thread.

A picture that cannot be read is a record with a reason, never an exception. Pixels never leave the process: paths
come in and records go out, so there is nothing to share between processes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2

from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile
from edgenn_device.picture_header import read_header

from .reading import is_remote, picture_bytes
from .records import UNKNOWN, Tagged

# An object store answers after 20 to 100 ms and a picture takes 2 to 20: this many requests keep a core busy.
_REQUESTS = 16


@dataclass(frozen=True)
class Rules:
    """How pictures are tagged; equal rules and an equal model give equal records.

    Attributes:
      top: how many of the best labels a record holds.
      minimum_confidence: below it a picture is "unknown"; None says that of none.
      runtime: as for `edgenn_device.Interpreter`.
    """

    top: int = 3
    minimum_confidence: float | None = None
    runtime: str = "auto"


class Tagger:
    """Tags pictures with one model, in the calling thread.

    Raises:
      EdgennError: no runtime here can execute the model.
    """

    def __init__(self, model: ModelFile, rules: Rules) -> None:
        # One process for each core: more threads in each would only take the cores from one another.
        cv2.setNumThreads(1)
        self._classifier = Classifier(model, runtime=rules.runtime, threads=1)
        self._rules = rules

    def tag(self, path: str, content: Callable[[], bytes] | None = None) -> Tagged:
        """The record of one picture.

        Args:
          path: a path or URL.
          content: gives the file's bytes or raises EdgennError; None reads `path` now.
        """
        try:
            data = content() if content else picture_bytes(path)
        except EdgennError as error:
            return Tagged(path, error=str(error))
        digest = hashlib.sha256(data).hexdigest()
        try:
            header = read_header(data)
            # Decoded at the largest JPEG reduction that covers the input.
            scores = self._classifier.scores(self._classifier.preprocess(data))
        except EdgennError as error:
            return Tagged(path, bytes=len(data), sha256=digest, error=str(error))
        result = self._classifier.result(scores, self._rules.top)
        width, height = (header.height, header.width) if header.turned else (header.width, header.height)
        confidence = _rounded(result.confidence)
        least = self._rules.minimum_confidence
        return Tagged(
            path,
            # What is written is compared: as a float32, 0.7 is less than 0.7.
            label=UNKNOWN if least is not None and confidence < least else result.label,
            confidence=confidence,
            top=tuple((label, _rounded(score)) for label, score in result.top),
            width=width,
            height=height,
            bytes=len(data),
            sha256=digest,
        )


class ReadAhead:
    """Tags batches of paths in order; what lies behind URLs is fetched while earlier pictures are computed."""

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger
        self._readers = ThreadPoolExecutor(_REQUESTS)
        self._batches: deque[list[tuple[str, Future[bytes] | None]]] = deque()

    def __len__(self) -> int:
        return len(self._batches)

    def put(self, paths: Sequence[str]) -> None:
        """Take a batch, and begin to fetch what is remote."""
        self._batches.append(
            [(path, self._readers.submit(picture_bytes, path) if is_remote(path) else None) for path in paths]
        )

    def results(self) -> Iterator[Tagged]:
        """The records of the oldest batch."""
        for path, fetched in self._batches.popleft():
            yield self._tagger.tag(path, fetched.result if fetched else None)

    def close(self) -> None:
        """End the readers; what they have begun is dropped."""
        self._readers.shutdown(wait=False, cancel_futures=True)


def _rounded(score: float) -> float:
    """Seven significant digits, as many as a float32 has: 0.7 instead of 0.699999988079071."""
    return float(f"{score:.7g}")
