"""The gate: whether a converted file may go to a device, and if not, why.

Compares the file with the Keras model on the same validation photos, on the runtime it will meet, and looks into its
graph. What few photos cannot tell apart is said and not hidden: the p-value of McNemar's test stands beside the drop.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn.evaluation import metrics, predict
from edgenn.evaluation.predict import Predictions
from edgenn_device.classifier import Classifier
from edgenn_device.graph import Graph
from edgenn_device.model_file import ModelFile

from . import edgetpu, mixed, targets
from .layer_names import keras_layers, name_layers
from .runtimes import Ran, run_in_each

# Points of validation accuracy that a conversion may cost.
MAX_DROP = 1.0
# Share of photos on which file and float model have to agree. Below it the file is another model, whatever its
# accuracy: int8 networks of MobileNet's kind measured 0.96 to 1.00 (BENCHMARKS.md), broken ones far below.
LEAST_AGREEMENT = 0.9


@dataclass(frozen=True)
class Verdict:
    """What the comparison came to; accuracies and agreement 0..1.

    Attributes:
      before, after: accuracy of the Keras model and of the file.
      agreement: share of photos that get the same label from both.
      p_value: that both are equally accurate, given these photos (`metrics.mcnemar`).
      expected, actual: what each said; `truth` is what is right.
      reasons: why the file is refused, one sentence each; none if it passed.
      runtimes: what came of running it in each runtime of the target.
    """

    before: float
    after: float
    agreement: float
    p_value: float
    expected: Predictions
    actual: Predictions
    truth: NDArray[np.int64]
    reasons: tuple[str, ...]
    runtimes: tuple[Ran, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.reasons

    @property
    def minimum_confidence(self) -> float | None:
        """The file's score below which "unknown" is the better answer (`metrics`)."""
        return metrics.minimum_confidence(self.actual.probabilities.max(1), self.actual.top1 == self.truth)


class Judge:
    """Judges files made from one Keras model.

    Args:
      model: the keras.Model.
      tensors, truth: validation photos, uint8 (n, height, width, channels), and their labels (n,).
      target: what the file is for.
      max_drop: points of accuracy that it may cost.
    """

    def __init__(
        self, model: Any, tensors: NDArray[np.uint8], truth: NDArray[np.int64], target: str, max_drop: float
    ) -> None:
        self.tensors, self.truth, self.target, self.max_drop = tensors, truth, target, max_drop
        self.layers = keras_layers(model)
        self.expected = predict(model, tensors)

    def judge(
        self, model: ModelFile, *, in_float: Collection[str] | None = (), edge_tpu: edgetpu.Report | None = None
    ) -> Verdict:
        """Compare a file with the Keras model, and run it in each runtime of its target.

        Args:
          model: with a card; golden vectors need not be on it.
          in_float: the layers that may be float; None where all may.
          edge_tpu: what an Edge TPU makes of it.
        """
        actual = predict(Classifier(model), self.tensors)
        before, after = self.expected.top1, actual.top1
        right_before, right_after = before == self.truth, after == self.truth
        lost = int(right_before.sum()) - int(right_after.sum())
        p_value = metrics.mcnemar(self.truth, before, after)
        agreement = metrics.agreement(before, after)
        ran = run_in_each(model, self.target)
        reasons = [*self._structure(model, in_float, edge_tpu), *(it.reason for it in ran if it.ok is False)]
        # One photo more or less is no evidence, however few there are.
        if lost > max(1.0, self.max_drop / 100 * len(self.truth)):
            reasons.append(
                f"it loses {100 * lost / len(self.truth):.1f} points of validation accuracy and {self.max_drop:g} are "
                f"allowed ({_certainty(p_value, len(self.truth))})"
            )
        if agreement < LEAST_AGREEMENT and int((before != after).sum()) > 1:
            reasons.append(
                f"it gives another label than the float model for {1 - agreement:.0%} of the photos, and "
                f"{1 - LEAST_AGREEMENT:.0%} are allowed"
            )
        return Verdict(
            before=float(right_before.mean()),
            after=float(right_after.mean()),
            agreement=agreement,
            p_value=p_value,
            expected=self.expected,
            actual=actual,
            truth=self.truth,
            reasons=tuple(reasons),
            runtimes=ran,
        )

    def _structure(
        self, model: ModelFile, in_float: Collection[str] | None, edge_tpu: edgetpu.Report | None
    ) -> list[str]:
        reasons = list(edge_tpu.reasons) if edge_tpu else []
        # What the compiler did counts, where it did something; what is known to be at risk counts where it did not.
        if edge_tpu is None or edge_tpu.content is None:
            verdict = targets.check(model, self.target, self.layers)
            reasons += [] if verdict.ok else verdict.reasons
        floats = [tensor.name for tensor in model.graph.tensors if tensor.dtype.startswith("float")]
        if in_float is not None and not in_float and floats:
            reasons.append(f"{len(floats)} tensors are still float{_where(model.graph, self.layers)}")
        elif in_float:
            reasons += mixed.not_as_asked(model.graph, in_float, self.layers)
        return reasons


def _where(graph: Graph, layers: Sequence[str]) -> str:
    """Which operator computes in float first, and which layer of the network that is."""
    named = name_layers(graph, layers)
    for index, operator in enumerate(graph.operators):
        read = [graph.tensors[tensor] for tensor in operator.inputs if tensor != -1]
        if any(tensor.dtype.startswith("float") and not tensor.constant for tensor in read):
            return f": TensorFlow has no int8 {operator.name} ({named[index]})"
    return ""


def _certainty(p_value: float, pictures: int) -> str:
    """The p-value in words."""
    if p_value < 0.05:
        return f"no chance result: McNemar p = {p_value:.2g} with {pictures} photos"
    return f"{pictures} photos cannot rule out chance: McNemar p = {p_value:.2g}"
