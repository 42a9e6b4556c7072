"""In which precision a processor may compute while it trains."""

from __future__ import annotations

import os

import pytest

from edgenn.training import precision

VARIABLE = "ONEDNN_DEFAULT_FPMATH_MODE"


@pytest.mark.parametrize(
    ("asked", "before", "after"),
    [
        ("auto", None, "BF16"),  # the processor decides: one that cannot multiply bfloat16 ignores it
        ("mixed", None, "BF16"),
        ("float32", None, None),  # nothing is rounded
        ("auto", "STRICT", "STRICT"),  # whoever has set it keeps what they set
    ],
)
def test_factors_may_be_rounded_unless_float32_is_asked_for(
    asked: str, before: str | None, after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if before:
        monkeypatch.setenv(VARIABLE, before)
    precision.allow_bfloat16(asked)
    assert os.environ.get(VARIABLE) == after
