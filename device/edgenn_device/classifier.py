"""Picture in, Classification out: the model file, its preprocessing and an interpreter as one object.

Holds no state between pictures; what several frames say together is `decision`'s business.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import delegates, golden, preprocess
from .errors import EdgennError
from .interpreter import Interpreter, Kernels
from .model_file import ModelFile, load


@dataclass(frozen=True)
class Classification:
    """What a model says of one picture.

    Attributes:
      label: the class of the highest score.
      confidence: that score (0..1 for a model that ends in a softmax).
      top: the best (label, score) pairs, highest first.
      scores: float32 of shape (classes,), in the order of the model's labels.
    """

    label: str
    confidence: float
    top: tuple[tuple[str, float], ...]
    scores: NDArray[np.float32]


class Classifier:
    """Classifies pictures with one model.

    Args:
      model: path of a .tflite, or one already loaded.
      labels: a file with one label a line, for a model that carries none.
      runtime: as for `Interpreter`.
      threads: as for `Interpreter`.
      kernels: as for `Interpreter`.
      delegate: as for `Interpreter`. `standby` has a classifier that outlives its delegate.

    Raises:
      EdgennError: the file is not a usable model, no runtime here can execute it, or the delegate cannot be used.

    >>> Classifier("garments.tflite").classify("photo.jpg").label       # doctest: +SKIP
    'jacket'
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | ModelFile,
        *,
        labels: str | os.PathLike[str] | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        kernels: Kernels = "default",
        delegate: str = delegates.CPU,
    ) -> None:
        self.model = model if isinstance(model, ModelFile) else load(model, labels=labels)
        self.interpreter = Interpreter(self.model, runtime=runtime, threads=threads, kernels=kernels, delegate=delegate)
        classes = int(np.prod(self.interpreter.output.shape))
        self.labels = self.model.labels or tuple(f"class {index}" for index in range(classes))
        if len(self.labels) != classes:
            raise EdgennError(f"{self.model.path} has {classes} outputs and {len(self.labels)} labels: give --labels")

    def preprocess(self, image: NDArray[np.uint8] | bytes, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Input tensor, shape (1, height, width, channels), of a BGR uint8 picture (H, W, 3) or an encoded one."""
        return preprocess.to_tensor(image, self.model.input, out=out)

    def scores(self, tensor: NDArray[Any]) -> NDArray[np.float32]:
        """Scores of an input tensor, float32 of shape (classes,)."""
        return self.interpreter.invoke(tensor)

    def result(self, scores: NDArray[np.float32], top_k: int = 3) -> Classification:
        """The Classification that `scores` amount to. Equal scores: the lower class index comes first."""
        best = np.argsort(-scores, kind="stable")[: max(1, top_k)]
        top = tuple((self.labels[index], float(scores[index])) for index in best)
        return Classification(top[0][0], top[0][1], top, scores)

    def classify(self, image: str | os.PathLike[str] | bytes | NDArray[np.uint8], top_k: int = 3) -> Classification:
        """Classify one picture.

        Args:
          image: a path, the bytes of a JPEG or PNG, or uint8 pixels (H, W, 3) in BGR order, as OpenCV gives them.
          top_k: how many of the best labels to return.

        Raises:
          EdgennError: the picture cannot be read.
        """
        if isinstance(image, (str, os.PathLike)):
            image = preprocess.read(Path(image), cover=(self.model.input.height, self.model.input.width))
        return self.result(self.scores(self.preprocess(image)), top_k)

    def verify(self) -> bool | None:
        """Whether this machine computes the golden outputs of the model's card; None where it has none."""
        return golden.check(self.model, self.interpreter)

    def close(self) -> None:
        """Let go of what runs the model, if that is more than memory (`Standby` has a process)."""
        return None
