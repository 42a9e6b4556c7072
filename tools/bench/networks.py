"""Benchmarks of what networks reach from photos and from trained weights, and on a film of the photos."""

from __future__ import annotations

import statistics

from .benchmark import (
    ACCURACY,
    MEMORY,
    POINTS,
    SIZE,
    TIME,
    TRAINED,
    Benchmark,
    Figure,
    Reader,
    Tolerance,
    cell,
    every,
    printed,
)

_PHOTOS = "From photos to an int8 model"
_WEIGHTS = "Starting from trained weights"
_FLOAT = r"^validation accuracy ([\d.]+)"
_CONVERTED = r"^int8 +([\d.]+)"
_KILOBYTES = r"^int8 .* ([\d,]+) kB$"
_AGREEMENT = r"^agreement +([\d.]+)"

_TRAIN = """edgenn train CLOTHING --network simple_cnn --out runs/clothing
edgenn convert runs/clothing
edgenn evaluate runs/clothing/model.tflite CLOTHING"""


def _points(before: Reader, after: Reader) -> Reader:
    """Points of accuracy lost."""
    return lambda outcome: round(100 * (before(outcome) - after(outcome)), 2)


FROM_PHOTOS = (
    Benchmark(
        "clothing",
        _PHOTOS,
        _TRAIN,
        25,
        (
            Figure("float", "| validation accuracy, float | {target} | {}", printed(_FLOAT), TRAINED),
            Figure("int8", "XNNPACK) | …| {} (", printed(r"^accuracy ([\d.]+)"), TRAINED),
            Figure(
                "lost in int8",
                "XNNPACK) | {target} points lower | …): {} points |",
                _points(printed(_FLOAT), printed(_CONVERTED)),
                POINTS,
                unit="points",
            ),
            Figure("same label", cell("same label from float and int8", 2), printed(_AGREEMENT), ACCURACY),
            Figure("file", "kB in float32; {} kB file", printed(_KILOBYTES), SIZE, unit="kB"),
        ),
    ),
    Benchmark(
        "clothing-seed-1",
        _PHOTOS,
        _TRAIN,
        25,
        (
            Figure("float", "| validation accuracy, float | {target} | … | {} (", printed(_FLOAT), TRAINED),
            Figure("int8", "XNNPACK) | …|…| {}: … points", printed(r"^accuracy ([\d.]+)"), TRAINED),
            Figure("same label", cell("same label from float and int8", 3), printed(_AGREEMENT), ACCURACY),
        ),
        each=(
            {
                "--out runs/clothing": "--seed 1 --out runs/clothing-1",
                "runs/clothing\n": "runs/clothing-1\n",
                "runs/clothing/": "runs/clothing-1/",
            },
        ),
    ),
    Benchmark(
        "three-classes",
        _PHOTOS,
        "edgenn train CLOTHING --classes t-shirt,shirt,outwear --out runs/three",
        12,
        (
            Figure("float", "--out runs/three`: {} float", printed(_FLOAT), TRAINED),
            Figure("int8", "--out runs/three`: … float and {} int8", printed(_CONVERTED), TRAINED),
            Figure("file", "the same label for each of them, {} kB", printed(_KILOBYTES), SIZE, unit="kB"),
        ),
        after="edgenn convert runs/three",
    ),
    Benchmark(
        "demo",
        _PHOTOS,
        "edgenn demo",
        3,
        (
            Figure(
                "float",
                "(450 unseen test photos): {} float",
                lambda outcome: printed(r"^accuracy, unseen photos +([\d.]+)%")(outcome) / 100,
                TRAINED,
            ),
            Figure(
                "int8",
                "(450 unseen test photos): … float, {} int8",
                lambda outcome: printed(r"^accuracy, unseen photos .* ([\d.]+)%$")(outcome) / 100,
                TRAINED,
            ),
            Figure("file", "int8, {} kB; the whole demo", printed(r"^size .* ([\d,]+) kB$"), SIZE, unit="kB"),
            Figure(
                "whole",
                "the whole demo took {} s (limit 180 s)",
                printed(r"^written to .* in (\d+) s;"),
                TIME,
                "≤ 180",
                "s",
            ),
        ),
    ),
)

_V2 = (
    "edgenn train CLOTHING --recipe models/clothing-mobilenet_v2/recipe.toml --weights "
    "WEIGHTS/mobilenet_v2_1.0_224_notop_bncal.weights.h5 --seed N --out runs/v2-N"
)
_V1 = (
    "edgenn train CLOTHING --recipe models/clothing-mobilenet_v1_025/recipe.toml --weights "
    "WEIGHTS/mobilenet_v1_0.25_128_notop_bncal.weights.h5 --seed N --out runs/v1-N"
)
_SECONDS = r"^validation accuracy .*, (\d+) s\)"
_SEEDS = (0, 1, 2)

FROM_WEIGHTS = (
    Benchmark(
        "transfer-v2",
        _WEIGHTS,
        _V2,
        20,
        (
            *(
                Figure(
                    f"seed {seed}",
                    f"| validation accuracy |{'…|' * (seed + 1)} {{}} (epoch",
                    printed(_FLOAT, seed),
                    TRAINED,
                )
                for seed in _SEEDS
            ),
            Figure(
                "mean",
                "met: {} in the mean",
                lambda outcome: statistics.mean(every(_FLOAT, outcome)[:3]),
                TRAINED,
                target="≥ .93",
            ),
            Figure(
                "photos to model and plots",
                "| photos to model and plots, seconds | {target} | {} |",
                printed(_SECONDS),
                TIME,
                unit="s",
            ),
            Figure(
                "the whole command",
                cell("the whole command, with its report", 2),
                printed(r"^took ([\d.]+) s"),
                TIME,
                unit="s",
            ),
            Figure(
                "with a warm cache", "with a warm cache: {} s (target 120", printed(_SECONDS, 3), TIME, "≤ 120", "s"
            ),
            Figure(
                "resident memory",
                "| resident memory at most, GB | {target} | {} |",
                lambda outcome: outcome.peak / 1e9,
                MEMORY,
                unit="GB",
            ),
        ),
        each=({"edgenn": "time edgenn", "N": "0"}, {"N": "1"}, {"N": "2"}),
        after=_V2.replace("runs/v2-N", "runs/v2-warm").replace("--seed N", "--seed 0"),
        cold=True,
    ),
    Benchmark(
        "transfer-v1",
        _WEIGHTS,
        _V1,
        20,
        (
            *(
                Figure(
                    f"seed {seed}",
                    "batch normalisation trained): " + "…, " * seed + "{}",
                    printed(_FLOAT, seed),
                    TRAINED,
                    target="≥ .85",
                )
                for seed in _SEEDS
            ),
        ),
        each=({"N": "0"}, {"N": "1"}, {"N": "2"}),
    ),
    Benchmark(
        "stream",
        _WEIGHTS,
        "python tools/bench_stream.py",
        30,
        (
            Figure(
                "3,000 pictures",
                "3,000 pictures held {} MB",
                printed(r"^ +3,000 pictures: .*most ([\d,]+) MB"),
                MEMORY,
                unit="MB",
            ),
            Figure(
                "30,000 pictures",
                "one with 30,000 {} MB",
                printed(r"^ +30,000 pictures: .*most ([\d,]+) MB"),
                MEMORY,
                unit="MB",
            ),
            Figure(
                "100,000 pictures",
                "one with 100,000 {} MB",
                printed(r"^ +100,000 pictures: .*most ([\d,]+) MB"),
                MEMORY,
                unit="MB",
            ),
            Figure(
                "each",
                "some {} bytes a picture",
                printed(r"^most +(-?\d+) bytes"),
                Tolerance(absolute=1000),
                unit="bytes",
            ),
        ),
    ),
    Benchmark(
        "frozen",
        _WEIGHTS,
        "tools/bench_transfer.py frozen",
        1,
        (
            Figure("LiteRT, a photo", "frozen`): {} ms a photo", printed(r"^LiteRT.*\(([\d.]+) to"), TIME, unit="ms"),
            Figure(
                "TensorFlow, a photo",
                "interpreter a core, {} ms",
                printed(r"^TensorFlow, .*\(([\d.]+) to"),
                TIME,
                unit="ms",
            ),
            Figure(
                "outputs differ by",
                "outputs differ by … to {}e-5",
                lambda outcome: 1e5 * printed(r"differ by at most ([\de.+-]+) of")(outcome),
                Tolerance(absolute=2),
                unit="e-5",
            ),
        ),
        each=(
            {
                "tools/bench_transfer.py frozen": "python tools/bench_transfer.py frozen CLOTHING "
                "--recipe models/clothing-mobilenet_v2/recipe.toml "
                "--weights WEIGHTS/mobilenet_v2_1.0_224_notop_bncal.weights.h5 --rounds 5"
            },
        ),
    ),
)

VIDEO = (
    Benchmark(
        "video",
        "A video as a camera",
        """python tools/video_of_photos.py make CLOTHING/validation validation.mp4
edgenn run runs/clothing/model.tflite --source validation.mp4 --fast --json --profile > results.jsonl
python tools/video_of_photos.py score validation.mp4 results.jsonl""",
        2,
        (
            Figure(
                "frames with the right label",
                "the label is right for {} of the frames",
                printed(r"settled \d+, right ([\d.]+)"),
                # Of a network that is trained anew, and through a film.
                Tolerance(absolute=0.02),
            ),
        ),
    ),
)

NETWORKS = (*FROM_PHOTOS, *FROM_WEIGHTS, *VIDEO)
