"""What the tests notice."""

from __future__ import annotations

from .benchmark import EXACT, Benchmark, Figure, printed

MUTATED = (
    Benchmark(
        "mutate",
        "The tests",
        "python -m tools.mutate",
        5,
        (
            Figure("wrong lines", "makes {} lines wrong", printed(r"^\d+ of (\d+) caught"), EXACT),
            Figure(
                "caught by a test",
                "events and their files, signatures, SSH and the service: {} of",
                printed(r"^(\d+) of \d+ caught"),
                EXACT,
            ),
        ),
    ),
)
