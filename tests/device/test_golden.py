"""Does this machine compute what the card says: the other rounding of another processor is no fault, the rest is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenn_device import golden
from edgenn_device.interpreter import Interpreter
from edgenn_device.model_file import load

GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"


class Off(Interpreter):
    """Computes the smallest of its scores `steps` too high."""

    steps = 0

    def invoke_raw(self, tensor: np.ndarray) -> np.ndarray:
        scores = super().invoke_raw(tensor).astype(np.int64)
        scores[scores.argmin()] += self.steps
        return scores


@pytest.mark.parametrize(
    ("machine", "kernels", "steps", "right"),
    [
        ("x86_64", "builtin", 0, True),
        ("x86_64", "builtin", 1, False),  # the kind of processor that the vectors are from
        ("aarch64", "builtin", 2, True),  # rounds once where x86 rounds twice
        ("armv7l", "builtin", 2, True),
        ("aarch64", "builtin", 40, False),  # no rounding: another computation
        ("x86_64", "xnnpack", 1, True),
        ("aarch64", "xnnpack", 2, False),
    ],
)
def test_only_as_much_may_differ_as_rounding_explains(
    machine: str, kernels: str, steps: int, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(GARMENTS)
    interpreter = Off(model, kernels="builtin" if kernels == "builtin" else "default")
    interpreter.steps = steps
    monkeypatch.setattr(golden.platform, "machine", lambda: machine)
    assert golden.check(model, interpreter) is right


@pytest.mark.parametrize("other", [None, "x", [[1], [2, 3]], [[1, 2]]])
def test_a_card_without_the_other_library_leaves_one_step(other: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden.platform, "machine", lambda: "aarch64")
    model = load(GARMENTS)
    assert model.card is not None
    vectors = {"builtin": model.card.golden["builtin"], **({} if other is None else {"xnnpack": other})}
    model = replace(model, card=replace(model.card, golden=vectors))
    interpreter = Off(model, kernels="builtin")
    for steps, right in ((1, True), (2, False)):
        interpreter.steps = steps
        assert golden.check(model, interpreter) is right
