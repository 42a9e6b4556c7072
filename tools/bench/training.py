"""Benchmarks of training itself: what its loop and its pipeline cost, and what it keeps when it is killed or shared."""

from __future__ import annotations

from .benchmark import ACCURACY, EXACT, RATIO, Benchmark, Figure, Tolerance, printed

_SECTION = "Training itself"

TRAINING = (
    Benchmark(
        "feed",
        _SECTION,
        "python tools/bench_feed.py CLOTHING --rounds 3",
        5,
        (
            Figure(
                "photos from the store over an array in memory",
                "| a step, photos from the store over an array | {target} | {} (",
                printed(r"^store/array: median ([\d.]+)"),
                Tolerance(share=0.05),
            ),
        ),
    ),
    Benchmark(
        "resnet8",
        _SECTION,
        "python tools/bench_resnet8.py --rounds 2",
        15,
        (
            Figure(
                "plain over bare",
                "| the same, no augmentation |…| {} (",
                printed(r"^plain/bare: median ([\d.]+)"),
                RATIO,
            ),
            Figure(
                "recipe over bare",
                "over `model.fit` on arrays | {target} | {} (",
                printed(r"^recipe/bare: median ([\d.]+)"),
                RATIO,
            ),
        ),
    ),
    Benchmark(
        "kill-training",
        _SECTION,
        "python tools/kill_training.py CLOTHING",
        8,
        (
            Figure("epochs", "with `--resume`: {} epochs", printed(r"^killed \d+ times +(\d+) epochs"), EXACT),
            Figure(
                "undisturbed",
                "accuracy {} undisturbed",
                printed(r"^undisturbed .*?: accuracy ([\d.]+)"),
                Tolerance(absolute=0.025),
            ),
            Figure(
                "killed",
                "undisturbed, {} killed",
                printed(r"^killed \d+ times .*?: accuracy ([\d.]+)"),
                Tolerance(absolute=0.025),
            ),
        ),
    ),
    Benchmark(
        "workers",
        _SECTION,
        "python tools/bench_workers.py",
        3,
        (
            Figure(
                "loss",
                "training losses differ by at most {},",
                printed(r"^loss: differs by at most ([\d.e+-]+)"),
                ACCURACY,
            ),
        ),
    ),
)
