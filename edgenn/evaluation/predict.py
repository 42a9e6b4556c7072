"""What a model says about pictures that are tensors already: the same call for .keras and .tflite.

Takes bytes as `preprocess.to_bytes` gives them and does to them what the model's own input wants; reads no pictures
and knows no labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn_device.errors import EdgennError

from .model import opened

# Large enough to fill two cores, small enough that 64 float pictures of 224x224x3 take 37 MB.
BATCH = 64
# Softmax outputs of an int8 model are multiples of 1/256 and a float's may pass 1 by a rounding; logits pass it by far.
_ABOVE_ONE = 1.01


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said.

    Attributes:
      probabilities: float32 (n, classes), in the order of the model's labels.
      runtime: what computed them, with its version.
    """

    probabilities: NDArray[np.float32]
    runtime: str

    @property
    def top1(self) -> NDArray[np.int64]:
        """The class of the highest probability of each picture, int64 (n,); the lower index of equal ones."""
        best: NDArray[np.int64] = np.argmax(self.probabilities, axis=1)
        return best


def predict(
    model: Any,
    tensors: NDArray[np.uint8],
    *,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Predictions:
    """Ask a model about pictures.

    Args:
      model: a run's folder, a .keras or a .tflite; or a keras.Model, a Classifier or a `model.Model`.
      tensors: uint8 (n, height, width, channels), in the colour order of the model's `input_spec`.
      progress: called with (pictures done, pictures in all).
      threads: CPU threads for a .tflite; None lets the runtime choose.

    Raises:
      EdgennError: the model cannot be loaded, is not a classifier of pictures, or takes tensors of another shape.
    """
    asked = opened(model, threads=threads)
    if tensors.dtype != np.uint8 or tensors.shape[1:] != asked.input.shape:
        raise EdgennError(
            f"{asked.name} takes uint8 pictures of shape {asked.input.shape}, "
            f"not {tensors.dtype} of {tensors.shape[1:]}: prepare them with its input_spec"
        )
    scores = np.empty((len(tensors), asked.classes), np.float32)
    for start in range(0, len(tensors), BATCH):
        batch = slice(start, min(start + BATCH, len(tensors)))
        scores[batch] = asked.scores(tensors[batch])
        if progress:
            progress(batch.stop, len(tensors))
    return Predictions(probabilities(scores), asked.runtime)


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores (n, classes) as probabilities: as they are when all lie in 0..1, else their softmax (they are logits)."""
    if scores.size == 0 or (scores.min() >= 0 and scores.max() <= _ABOVE_ONE):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares
