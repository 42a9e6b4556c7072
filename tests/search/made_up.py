"""Trials that nobody trained, for what only looks at figures, and a conversion that takes no time."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

from edgenn.search.outcome import Latency, Outcome
from edgenn.training import Recipe

SHIPPED = Path(__file__).parents[2] / "models/garments/garments.tflite"
RECIPE = Recipe(network="simple_cnn", network_options={"width": 8, "depth": 3}, epochs=20).resolved().to_dict()


def trial(
    number: int, accuracy: float = 0.9, latency: float = 0.01, size: int = 100_000, passed: bool = True, **more: Any
) -> Outcome:
    """A trial that is done."""
    timed = Latency(latency, latency * 0.99, latency * 1.01, 1000, "made up", "litert")
    figures = {"state": "done", "recipe": RECIPE, "float_accuracy": accuracy, "pictures": 200, "macs": 1_000_000}
    return Outcome(number, accuracy=accuracy, latency=timed, bytes=size, passed=passed, **{**figures, **more})


def trials(least: int = 0) -> st.SearchStrategy[list[Outcome]]:
    """Some, in which equal accuracies and latencies are common, and some of which are not done."""
    figures = st.tuples(
        st.sampled_from([0.5, 0.8, 0.81, 0.9, 0.95]),
        st.sampled_from([0.001, 0.002, 0.01, 0.02, 0.5]),
        st.sampled_from([10_000, 999_999, 1_000_000, 1_000_001]),
        st.booleans(),
        st.sampled_from(["done", "done", "done", "stopped", "unfit", "lost", "running"]),
    )

    def made(rows: list[tuple[float, float, int, bool, str]]) -> list[Outcome]:
        return [
            trial(number, accuracy, latency, size, passed) if state == "done" else Outcome(number, state=state)  # type: ignore[arg-type]
            for number, (accuracy, latency, size, passed, state) in enumerate(rows)
        ]

    return st.lists(figures, min_size=least, max_size=25).map(made)


def converted(run: Any, *, out: Path, **_: Any) -> SimpleNamespace:
    """In the place of `edgenn.convert`, where what it makes is not looked at: a shipped model."""
    shutil.copy(SHIPPED, out)
    figures = {"int8_accuracy": run.accuracy, "float_accuracy": run.accuracy, "pictures": run.pictures}
    return SimpleNamespace(model=out, bytes=out.stat().st_size, passed=True, reasons=(), **figures)
