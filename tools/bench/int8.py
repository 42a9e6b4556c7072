"""Benchmarks of what int8 costs and what restores it, on the runs that `networks` has trained; and of damaged files."""

from __future__ import annotations

import json
import statistics

from .benchmark import (
    ACCURACY,
    EXACT,
    POINTS,
    RATIO,
    SIZE,
    TIME,
    TRAINED,
    Benchmark,
    Figure,
    Outcome,
    Reader,
    Tolerance,
    cell,
    printed,
    written,
)

_SEEDS = (0, 1, 2)
_V2_RUNS = "runs/v2-0 runs/v2-1 runs/v2-2"
_V1_RUNS = "runs/v1-0 runs/v1-1 runs/v1-2"
_INT8 = "python tools/bench_int8.py RUN... --photos CLOTHING --schemes int8,qat"


def _of(key: str, run: int | None = None) -> Reader:
    """A column of bench_int8, of one run or its mean."""

    def read(outcome: Outcome) -> float:
        values = [float(result[key]) for result in json.loads((outcome.folder / "bench_int8.json").read_text())]
        return statistics.mean(values) if run is None else values[run]

    return read


def _row(name: str, row: str, key: str, bound: str = "…") -> tuple[Figure, ...]:
    """Three seeds and their mean, which is held to the row's bound if its column has one."""
    each = [Figure(f"{name}, seed {seed}", cell(row, seed + 2, 5), _of(key, seed), ACCURACY) for seed in _SEEDS]
    return (*each, Figure(f"{name}, mean", f"| {row} | {bound} |…|…|…| {{}}…|¶", _of(key), ACCURACY))


QUANTIZED = (
    Benchmark(
        "int8-v2",
        "int8",
        _INT8,
        15,
        (
            *_row("float", "float", "float"),
            *_row("LiteRT", "`int8`, LiteRT", "int8"),
            Figure(
                "points lost",
                "| `int8`, LiteRT | {target} points lost |…|…|…|…: {} points, met",
                _of("drop_points"),
                POINTS,
            ),
            *_row("tflite-runtime", "`int8`, tflite-runtime", "tflite_runtime"),
            *_row("same label", "`int8`, same label", "agreement"),
            *_row("as simulated", "`int8`, as simulated", "simulated_agreement", "{target}"),
        ),
        each=({"RUN...": _V2_RUNS, "int8,qat": "int8"},),
        needs=("tflite-runtime",),
    ),
    Benchmark(
        "qat-v2",
        "int8",
        _INT8,
        60,
        (
            *_row("LiteRT", "`qat`, LiteRT", "int8"),
            Figure(
                "points lost",
                "| `qat`, LiteRT | {target} points lost |…|…|…|…: {} points, met",
                _of("drop_points"),
                POINTS,
            ),
            *_row("tflite-runtime", "`qat`, tflite-runtime", "tflite_runtime"),
            *_row("same label", "`qat`, same label", "agreement"),
            *_row("as simulated", "`qat`, as simulated", "simulated_agreement", "{target}"),
        ),
        each=({"RUN...": _V2_RUNS, "int8,qat": "qat"},),
        needs=("tflite-runtime",),
    ),
    Benchmark(
        "int8-v1",
        "int8",
        _INT8,
        8,
        (
            *_row("float", "V1 float", "float"),
            *_row("LiteRT", "V1 `int8`, LiteRT", "int8"),
            *_row("tflite-runtime", "V1 `int8`, tflite-runtime", "tflite_runtime"),
            Figure("points lost", "| V1 `int8`, LiteRT |…|…|…|…|…: {} points |¶", _of("drop_points"), POINTS),
        ),
        each=({"RUN...": _V1_RUNS, "int8,qat": "int8"},),
        needs=("tflite-runtime",),
    ),
    Benchmark(
        "qat-v1",
        "int8",
        _INT8,
        15,
        (
            *_row("LiteRT", "V1 `qat`, LiteRT", "int8"),
            Figure(
                "points lost",
                "| V1 `qat`, LiteRT | {target} points lost |…|…|…|…: {} points, met",
                _of("drop_points"),
                POINTS,
            ),
            *_row("tflite-runtime", "V1 `qat`, tflite-runtime", "tflite_runtime"),
            *_row("same label", "V1 `qat`, same label", "agreement"),
            *_row("as simulated", "V1 `qat`, as simulated", "simulated_agreement", "{target}"),
        ),
        each=({"RUN...": _V1_RUNS, "int8,qat": "qat"},),
        needs=("tflite-runtime",),
    ),
    Benchmark(
        "conversion",
        "int8",
        "python tools/bench_conversion.py runs/v2-0 --photos CLOTHING --pictures 500 --rounds 2",
        4,
        (
            Figure(
                "ours over TensorFlow's",
                "nothing else running: {} (…; target {target}, met",
                written("conversion.json", "ratios", "ours/plain", "median"),
                RATIO,
            ),
            Figure(
                "ours",
                "nothing else running: … (…; {} s over",
                written("conversion.json", "seconds", "ours", "median"),
                TIME,
                unit="s",
            ),
        ),
        more=" --out conversion.json",
    ),
)

_RUINS = ("channels", "outlier", "constant channel")
_WAYS = {"int8": 2, "percentile": 3, "equalized": 4, "qat": 5, "mixed": 6}
# What is ruined falls apart in its own way each time.
_RUINED = Tolerance(absolute=0.06)

DAMAGED = (
    Benchmark(
        "ruined",
        "int8",
        "python tools/bench_ruined.py",
        6,
        (
            Figure("healthy, float", "Healthy: {}, and", written("ruined.json", 0, "float"), TRAINED),
            Figure(
                "healthy, int8", "Healthy: …, and {} (", written("ruined.json", 0, "ways", "int8", "accuracy"), TRAINED
            ),
            *(
                Figure(
                    f"{ruin}, {way}",
                    cell(ruin, column),
                    written("ruined.json", place, "ways", way, "accuracy"),
                    _RUINED,
                )
                for place, ruin in enumerate(_RUINS, 1)
                for way, column in _WAYS.items()
            ),
            Figure(
                "layers named rightly",
                "The layer named is the one that was ruined, all three times",
                lambda outcome: sum(
                    one["named"] for one in json.loads((outcome.folder / "ruined.json").read_text())[1:]
                ),
                EXACT,
                value=3,
            ),
        ),
        more=" --out ruined.json",
    ),
    Benchmark(
        "damaged-files",
        "int8",
        "python -m tools.fuzz_model_files --count 10000 --seed 0",
        15,
        (
            Figure("refused", "Of 10,000, {} were refused with one line", printed(r"^all +(\d+)"), SIZE),
            Figure("ran", "with one line, {} ran", printed(r"^all +\d+ +(\d+)"), SIZE),
            Figure(
                "refused by the runtime", "{} were refused by the runtime", printed(r"^all +\d+ +\d+ +(\d+)"), RATIO
            ),
            Figure(
                "crashed, hung, wrote outside", "none crashed, hung", printed(r"^all.* (\d+)$"), EXACT, "≤ 0", value=0
            ),
        ),
    ),
)

INT8 = (*QUANTIZED, *DAMAGED)
