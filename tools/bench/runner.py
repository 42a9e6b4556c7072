"""Benchmarks of the runner and the profiler: frames a second, time added, memory over a long run, false alarms."""

from __future__ import annotations

from .benchmark import EXACT, MEMORY, RATIO, TIME, Benchmark, Figure, Tolerance, cell, printed, told

_RUNNER = "The runner against the bare interpreter"
_V2 = "CORAL/mobilenet_v2_1.0_224_quant.tflite"


def _pipeline(name: str, row: str, model: str, film: bool) -> Benchmark:
    ratios = ("pipeline/invoke", "beside/invoke", "pipeline/beside", "pipeline/plain")
    return Benchmark(
        name,
        _RUNNER,
        "python tools/bench_pipeline.py MODEL SOURCE --seconds 3 --rounds 5",
        4 if film else 3,
        (
            Figure("invoke", cell(row, 1), told("fps", "invoke", "median"), TIME, unit="fps"),
            *(
                Figure(
                    ratio,
                    cell(row, column),
                    told("ratios", ratio, "median"),
                    RATIO,
                    target="≥ .9" if ratio == "pipeline/invoke" else "",
                )
                for column, ratio in enumerate(ratios, 2)
            ),
        ),
        each=({"MODEL": model, "SOURCE": "validation.mp4" if film else "CLOTHING/validation"},),
        before="python tools/video_of_photos.py make CLOTHING/validation validation.mp4" if film else "",
        more=" --json",
    )


PIPELINE = (
    _pipeline("pipeline-film", "MobileNetV2 224 (CORAL), film 480×640", _V2, True),
    _pipeline("pipeline-photos", "MobileNetV2 224 (CORAL), photos 400×533", _V2, False),
    _pipeline("small-photos", "simple_cnn 96, photos 400×533", "runs/clothing/model.tflite", False),
    _pipeline("small-film", "simple_cnn 96, film 480×640", "runs/clothing/model.tflite", True),
)

# Points of a share of frames.
_SHARE = Tolerance(absolute=2.0)
_CAMERA = "A camera that nobody watches"

RUNNER = (
    Benchmark(
        "runner",
        _CAMERA,
        "python tools/bench_run.py throughput added gate start --rounds 3 --seconds 4",
        3,
        (
            Figure(
                "pipeline over invoke",
                "| frames a second of the pipeline over `invoke` in a loop (…) | {target} | {} (",
                told("throughput", "pipeline / invoke", "median"),
                RATIO,
            ),
            Figure(
                "capture and preprocess, plain over pipeline",
                "| capture and preprocess, … | {target} | {} (",
                told("throughput", "capture+preprocess, plain / pipeline", "median"),
                RATIO,
            ),
            Figure(
                "pipeline over plain loop",
                "| frames a second, pipeline over plain loop (…) | | {} (",
                told("throughput", "pipeline / plain", "median"),
                RATIO,
            ),
            Figure(
                "beyond preprocess and invoke, p50",
                "| from capture's end … p50 | {target} µs |… since then about {} (below)",
                told("added", "queue and decide at 30 fps, us", "p50", "median"),
                TIME,
                unit="µs",
            ),
            Figure(
                "between two invokes, p50",
                "| between two invokes at full speed, p50 | {target} µs | {} µs",
                told("added", "between two invokes, us", "p50", "median"),
                TIME,
                unit="µs",
            ),
            Figure(
                "CPU with the gate over without",
                "| CPU with the motion gate … | {target} | {} (",
                told("gate", "with / without", "median"),
                RATIO,
            ),
            Figure(
                "cold start over a bare script",
                "| cold start … | {target} | {} (",
                told("start", "edgenn / script", "median"),
                RATIO,
            ),
            Figure(
                "resident memory above the script",
                "| resident memory above the bare script | {target} MB | {} MiB",
                told("start", "MiB above"),
                Tolerance(absolute=3.0),
                unit="MiB",
            ),
        ),
        more=" --json",
    ),
    Benchmark(
        "runner-added",
        _CAMERA,
        "python tools/bench_run.py added --rounds 2 --seconds 4",
        3,
        (
            Figure(
                "beyond preprocess and invoke, p50",
                "p50 … → {} µs and …, p90",
                told("added", "queue and decide at 30 fps, us", "p50", "median"),
                TIME,
                "≤ 200",
                "µs",
            ),
            Figure(
                "the same, p90",
                "µs, p90 … → {} µs and",
                told("added", "queue and decide at 30 fps, us", "p90", "median"),
                TIME,
                unit="µs",
            ),
        ),
        more=" --json",
    ),
    Benchmark(
        "soak-stream",
        _CAMERA,
        "python tools/soak.py stream --out DIR",
        32,
        (
            Figure(
                "growth in the second half",
                "| stream, …: growth in the second half | {target} MB | {} MiB",
                told("growth_in_second_half_mib"),
                Tolerance(absolute=1.0),
                unit="MiB",
            ),
            Figure("resident memory", "| stream, …|…|… to {} MiB)", told("rss_mib", "last"), MEMORY, unit="MiB"),
            Figure(
                "threads",
                "| the same, threads and descriptors in the second half | constant | {} threads",
                told("second_half", "threads", 1),
                EXACT,
            ),
            Figure(
                "descriptors, most",
                "| the same, threads and descriptors in the second half | constant |… to {} descriptors",
                told("second_half", "descriptors", 1),
                Tolerance(absolute=2),
            ),
        ),
        needs=("mosquitto",),
    ),
    Benchmark(
        "soak-frames",
        _CAMERA,
        "python tools/soak.py frames --out DIR",
        45,
        (
            Figure(
                "growth in the second half",
                "| frames, …: growth in the second half | {target} MB | {} MiB",
                told("growth_in_second_half_mib"),
                Tolerance(absolute=1.0),
                unit="MiB",
            ),
            Figure("resident memory", "| frames, …|…|… to {} MiB)", told("rss_mib", "last"), MEMORY, unit="MiB"),
            Figure(
                "threads",
                "| the same, threads and descriptors | constant | {} threads",
                told("second_half", "threads", 1),
                EXACT,
            ),
            Figure(
                "descriptors",
                "| the same, threads and descriptors | constant |…; {} descriptors",
                told("second_half", "descriptors", 1),
                Tolerance(absolute=2),
            ),
        ),
    ),
    Benchmark(
        "gate",
        _CAMERA,
        "python tools/bench_gate.py MODEL --photos CLOTHING/validation --seconds 60",
        2,
        (
            Figure(
                "frames spared",
                "900 frames): {}% of the frames spared",
                printed(r"^photos +10 +10 +([\d.]+)%"),
                _SHARE,
                unit="%",
            ),
            Figure(
                "labels that differ",
                "spared the network; {}% of the labels differ",
                printed(r"^photos +10 +10 +[\d.]+% +([\d.]+)%"),
                _SHARE,
                unit="%",
            ),
            Figure(
                "labels that differ by noise alone",
                "in their noise alone {}% do",
                printed(r"^photos +other noise +[\d.]+% +([\d.]+)%"),
                _SHARE,
                unit="%",
            ),
        ),
        each=({"MODEL": _V2},),
    ),
)

_PROFILER = "The profiler"
_COMPARE = (
    "python tools/bench_profiler_compare.py CORAL/mobilenet_v1_0.25_128_quant.tflite --seconds 3 --pairs 10 [--noise]"
)
_ONE, _OTHER = "in turns", "one after the other"


def _compare(name: str, noise: str, turns: str, files: str) -> Benchmark:
    columns = (
        ("false alarms", "alarms", "≤ 1"),
        ("5% found", "found", "≥ 9"),
        ("intervals overlap", "overlaps", "≥ 18"),
    )
    return Benchmark(
        name,
        _PROFILER,
        _COMPARE,
        10,
        tuple(
            Figure(
                f"{row}: {what}",
                cell(row, column),
                told("scores", way, key),
                # What two files show is left to the host's wandering.
                Tolerance(absolute=2 if way == _ONE else 5),
                target,
            )
            for row, way in ((turns, _ONE), (files, _OTHER))
            for column, (what, key, target) in enumerate(columns, 1)
        ),
        each=({"[--noise]": noise},),
        more=" --json",
    )


PROFILER = (
    Benchmark(
        "profiler",
        _PROFILER,
        "python tools/bench_profiler.py CORAL/mobilenet_v2_1.0_224_quant.tflite --rounds 100 --runs 8",
        1,
        (
            Figure(
                "difference to a bare loop",
                "in a bare loop; −{}% (target: within",
                lambda outcome: abs(printed(r"^difference .*, ([+-][\d.]+)%")(outcome)),
                Tolerance(absolute=1.0),
                "≤ 1",
                "%",
            ),
            Figure(
                "under the profiler, p50",
                "each: p50 {} µs",
                printed(r"^under the profiler +p50 +([\d.]+)"),
                TIME,
                unit="µs",
            ),
        ),
    ),
    _compare("profiler-compare", "", "in turns, machine otherwise idle", "two files, machine otherwise idle"),
    _compare("profiler-noise", "--noise", "in turns, with `--noise`", "two files, with `--noise`"),
    Benchmark(
        "operators",
        _PROFILER,
        "python tools/bench_profiler_operators.py CORAL/mobilenet_v2_1.0_224_quant.tflite --repetitions 6",
        1,
        (
            Figure(
                "sum, least",
                "the operators add up to {}% to …% of the whole (target 95%)",
                printed(r"^sums ([\d.]+)%"),
                Tolerance(absolute=3.0),
                "≥ 95",
                "%",
            ),
            Figure(
                "the same three dearest",
                "the three dearest are those of LiteRT's own summary in {} of 6",
                printed(r"as LiteRT has them in (\d+) of"),
                Tolerance(absolute=1),
            ),
        ),
    ),
    Benchmark(
        "calibrate",
        _PROFILER,
        "python tools/calibrate_devices.py",
        1,
        (
            Figure(
                "mean error",
                "held out the mean error is {}%",
                printed(r"mean error ([\d.]+)%"),
                Tolerance(absolute=0.1),
                unit="%",
            ),
            Figure(
                "largest error",
                "the mean error is …%, the largest {}%",
                printed(r"largest ([\d.]+)%"),
                Tolerance(absolute=1.0),
                unit="%",
            ),
            Figure("rows held out", "Of {} CPU rows that were held out", printed(r"^held out: (\d+) rows"), EXACT),
        ),
    ),
)


RUNNING = (*PIPELINE, *RUNNER, *PROFILER)
