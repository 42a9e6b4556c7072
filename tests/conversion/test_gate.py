"""The gate's rules, on answers made up for the purpose: what may pass, and what is said of what may not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgenn.conversion import gate
from edgenn.conversion.runtimes import Ran
from edgenn.evaluation.predict import Predictions
from edgenn_device.classifier import Classifier
from edgenn_device.model_file import load

ROOT = Path(__file__).parents[2]
INT8, FLOAT = ROOT / "models" / "garments" / "garments.tflite", ROOT / "tests" / "data_files" / "tiny_float.tflite"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Any:
    """judged(before, after, max_drop, …): the verdict when float and file give these classes and 0 is always right."""

    def judge(
        before: list[int],
        after: list[int],
        max_drop: float = 1.0,
        *,
        file: Path = INT8,
        ran: tuple[Ran, ...] = (),
        **given: Any,
    ) -> gate.Verdict:
        def predict(model: Any, tensors: Any) -> Predictions:
            classes = after if isinstance(model, Classifier) else before
            return Predictions(np.eye(3, dtype=np.float32)[classes], "made up")

        monkeypatch.setattr(gate, "predict", predict)
        monkeypatch.setattr(gate, "run_in_each", lambda model, target: ran)
        truth = np.zeros(len(before), np.int64)
        network = SimpleNamespace(layers=[])
        return gate.Judge(network, np.zeros((len(before), 1, 1, 3), np.uint8), truth, "pi", max_drop).judge(
            load(file), **given
        )

    return judge


LOSES, OTHER = "points of validation accuracy", "another label than the float model"


@pytest.mark.parametrize(
    ("photos", "lost", "gained", "moved", "max_drop", "said"),
    [
        (100, 0, 0, 0, 1.0, []),
        # One photo is no evidence, however few there are.
        (10, 1, 0, 0, 1.0, []),
        (10, 2, 0, 0, 1.0, [LOSES, OTHER]),
        (100, 1, 0, 0, 0.0, []),
        # Just what is allowed, and one more.
        (1000, 10, 0, 0, 1.0, []),
        (1000, 11, 0, 0, 1.0, [LOSES]),
        (1000, 11, 0, 0, 1.1, []),
        # What is lost here and gained there costs nothing.
        (1000, 30, 30, 0, 1.0, []),
        (1000, 0, 50, 0, 1.0, []),
        # As accurate, or nobody minds, and yet another model.
        (1000, 60, 60, 0, 1.0, [OTHER]),
        (1000, 0, 0, 100, 1.0, []),
        (1000, 0, 0, 101, 1.0, [OTHER]),
        (1000, 101, 0, 0, 100.0, [OTHER]),
    ],
)
def test_what_may_pass(
    photos: int, lost: int, gained: int, moved: int, max_drop: float, said: list[str], judged: Any
) -> None:
    """`lost` are right before alone, `gained` after alone, `moved` wrong in another way."""
    same = photos - lost - gained - moved
    verdict = judged(
        [0] * (same + lost) + [1] * (gained + moved), [0] * same + [1] * lost + [0] * gained + [2] * moved, max_drop
    )
    assert len(verdict.reasons) == len(said), verdict.reasons
    assert all(what in reason for what, reason in zip(said, verdict.reasons, strict=True))
    assert verdict.passed == (not said)
    assert verdict.before == pytest.approx((same + lost) / photos)
    assert verdict.after == pytest.approx((same + gained) / photos)
    assert verdict.agreement == pytest.approx(same / photos)


@pytest.mark.parametrize(
    ("photos", "lost", "words"), [(100, 2, "100 photos cannot rule out chance"), (1000, 30, "no chance result")]
)
def test_how_sure_a_loss_is_is_said(photos: int, lost: int, words: str, judged: Any) -> None:
    verdict = judged([0] * photos, [1] * lost + [0] * (photos - lost))
    assert words in verdict.reasons[0]
    assert verdict.p_value == pytest.approx(2.0 ** (1 - lost))


def test_what_a_runtime_says_counts(judged: Any) -> None:
    ran = (
        Ran("litert", True, "ran the golden inputs"),
        Ran("an old one", False, "refuses it (no SOFTMAX)"),
        # That one is not here is no fault of the file.
        Ran("another", None, "not run in it"),
    )
    assert judged([0] * 10, [0] * 10, ran=ran).reasons == ("an old one refuses it (no SOFTMAX)",)


def test_a_float_tensor_is_no_int8(judged: Any) -> None:
    [reason] = judged([0] * 10, [0] * 10, file=FLOAT).reasons
    assert "tensors are still float: TensorFlow has no int8 CONV_2D (layer" in reason
    assert judged([0] * 10, [0] * 10, file=FLOAT, in_float=None).passed
