"""Benchmarks of `edgenn tag` and `edgenn serve`, beside MediaPipe, a plain loop and wrk."""

from __future__ import annotations

from typing import Any

from .benchmark import EXACT, MEMORY, RATIO, TIME, Benchmark, Figure, Reader, Tolerance, document, told

_LABELS = " --labels CORAL/imagenet_labels.txt"
_TAG = "Tagging a catalogue"
_CATALOGUE = "python tools/bench_tag.py {} CORAL/mobilenet_v1_0.25_128_quant.tflite CLOTHING/validation --labels …"
_PUT_LABELS = {" --labels …": _LABELS}

TAGGING = (
    Benchmark(
        "tag",
        _TAG,
        "python tools/bench_tag.py speed CORAL/mobilenet_v2_1.0_224_quant.tflite CLOTHING "
        "--labels CORAL/imagenet_labels.txt --mediapipe VENV/bin/python --rounds 7 --sample 800",
        2,
        (
            Figure(
                "tag / limit", "| `tag` / limit | {} (…) | {target}, met", told("ratios", "tag/limit", "median"), RATIO
            ),
            Figure(
                "tag / plain loop",
                "| `tag` / plain cv2 + LiteRT loop | {} (…) | {target}, met",
                told("ratios", "tag/plain", "median"),
                RATIO,
            ),
            Figure(
                "tag / MediaPipe",
                "| `tag` / MediaPipe's ImageClassifier in a loop | {} (…) | {target},",
                told("ratios", "tag/mediapipe", "median"),
                RATIO,
            ),
            Figure("tag", "{} pictures a second against", told("per_second", "tag", "median"), TIME, unit="a second"),
        ),
    ),
    Benchmark(
        "tag-kills",
        _TAG,
        _CATALOGUE.format("kills"),
        20,
        (
            Figure("rows", "at random moments: {} rows", told("rows"), EXACT),
            Figure("twice", "rows, none twice", told("twice"), EXACT, value=0),
            Figure("missing", "none twice, none missing", told("missing"), EXACT, value=0),
        ),
        each=(_PUT_LABELS,),
    ),
    Benchmark(
        "tag-memory",
        _TAG,
        _CATALOGUE.format("memory"),
        10,
        (
            Figure("at the end", "Memory: {} MB at half and at the end", told("at_end_mb"), MEMORY, unit="MB"),
            Figure(
                "growth in the second half",
                "MB at half and at the end",
                told("growth_second_half_mb"),
                Tolerance(absolute=2.0),
                "< 20",
                "MB",
                value=0,
            ),
        ),
        each=(_PUT_LABELS,),
    ),
    Benchmark(
        "tag-exact",
        _TAG,
        "python tools/bench_tag.py exact runs/clothing/model.tflite CLOTHING",
        1,
        (
            Figure("same label", "give the same label for {} of 341", told("same_label"), EXACT),
            Figure("accuracy", "pictures, accuracy {} both", told("accuracy_tag"), Tolerance(absolute=0.015)),
        ),
    ),
)


def _rounds(key: str) -> Reader:
    """The most of a figure over the rounds of wrk."""
    return lambda outcome: max(float(one[key]) for one in document(outcome)["throughput"]["serve"])


def _overload(connections: int, *keys: Any) -> Reader:
    return told("overload", {64: 0, 128: 1}[connections], *keys)


SERVING = (
    Benchmark(
        "serve",
        "Serving",
        "python tools/bench_serve.py CORAL/mobilenet_v2_1.0_224_quant.tflite CLOTHING/validation "
        "--labels CORAL/imagenet_labels.txt --seconds 6 --rounds 3 --malformed 10000",
        2,
        (
            Figure(
                "serve / loop",
                "| 32 connections, serve / loop, by round |…, …, {} (…) | {target}, met",
                told("throughput", "ratio"),
                RATIO,
            ),
            Figure("32 connections, p99", "| 32 connections, p99 |… to {} ms", _rounds("p99_ms"), TIME, unit="ms"),
            *(
                figure
                for connections in (64, 128)
                for figure in (
                    Figure(
                        f"{connections}: answered",
                        f"| {connections} connections | {{}} answered",
                        _overload(connections, "per_second"),
                        TIME,
                        unit="a second",
                    ),
                    Figure(
                        f"{connections}: resident memory",
                        f"| {connections} connections |… → {{}} MB",
                        _overload(connections, "rss_mb", 1),
                        MEMORY,
                        unit="MB",
                    ),
                )
            ),
            Figure(
                "malformed, refused",
                "| 10,000 malformed bodies | {} × 400",
                told("malformed", "statuses", "400"),
                EXACT,
            ),
        ),
        needs=("wrk",),
    ),
)
