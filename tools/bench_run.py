"""What the runner costs beside the network itself: throughput, time added to a frame, a still scene, a cold start.

Four measurements, each interleaved with what it is compared to and repeated; ratios are of neighbours in time, given as
their median with the lowest and the highest.

throughput  Frames a second from a 1080p MJPEG stream, beside `invoke` alone in a loop with the same threads, and
            beside a loop as people write it (cv2.VideoCapture, resize, invoke). The stream comes from a process of its
            own that sends pictures encoded before, 5% faster than `invoke` alone; its work and the kernel's take their
            part of the same cores. One interpreter thread, so that a core is left for the rest.
added       Time of a frame beyond preprocess and invoke: between two invokes when frames are always waiting, and from
            capture to result when they come 30 a second.
gate        CPU seconds of the process with the motion gate and without, on a still 1080p scene of 30 frames a second.
start       From the start of the process to the first result of one picture, and the peak of its resident memory:
            `edgenn run --limit 1` beside a script of cv2 and LiteRT.

    python tools/bench_run.py [throughput added gate start] [--model MODEL.tflite] [--rounds 5] [--seconds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mjpeg_server import pictures, running

from edgenn_device.cameras import open_source
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError
from edgenn_device.motion import Gate
from edgenn_device.pipeline import Pipeline, Result
from edgenn_device.profiler.environment import environment

SIZE = (1080, 1920)
CAMERA_FPS = 30.0
# Seconds before a still scene counts as one: opening, and what the gate waits for after a change.
WARM = 2.0
# The stream's pace, so that the interpreter and not the stream is what is measured.
AHEAD = 1.05

# What somebody writes who has read the documentation of both libraries.
SCRIPT = """
import sys
import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1], num_threads=int(sys.argv[3]))
interpreter.allocate_tensors()
entry, exit = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
_, height, width, _ = entry["shape"]
picture = cv2.resize(cv2.imread(sys.argv[2]), (width, height), interpolation=cv2.INTER_AREA)
interpreter.set_tensor(entry["index"], cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)[np.newaxis])
interpreter.invoke()
print(int(interpreter.get_tensor(exit["index"]).argmax()), flush=True)
"""
# As users have it: Python keeps what it has compiled.
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
CONVERT = """
import sys
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
converter = tf.lite.TFLiteConverter.from_keras_model(keras.applications.MobileNetV2(weights=None))
converter.optimizations = [tf.lite.Optimize.DEFAULT]
random = np.random.default_rng(0)
converter.representative_dataset = lambda: (
    [random.uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)] for _ in range(8)
)
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.uint8
Path(sys.argv[1]).write_bytes(converter.convert())
"""
LAUNCHER = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, flush=True)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="throughput, added, gate, start (default: all)")
    parser.add_argument("--model", help="a uint8 .tflite (default: MobileNetV2 at 224 with random weights, made here)")
    parser.add_argument("--labels", help="labels file of a model that carries none")
    parser.add_argument("--threads", type=int, default=1, help="of the interpreter (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default 5)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ways = {"throughput": throughput, "added": added, "gate": gate, "start": start}
    if unknown := set(options.what) - set(ways):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(ways)}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = options.model or str(mobilenet_v2(Path(folder)))
            classifier = Classifier(model, labels=options.labels, threads=options.threads)
            figures: dict[str, Any] = {
                "machine": environment(),
                "runtime": classifier.interpreter.description,
                "model": f"{Path(model).name}, {classifier.model.input.width}x{classifier.model.input.height}",
                "rounds": options.rounds,
                "seconds": options.seconds,
            }
            for name in options.what or ways:
                figures[name] = ways[name](classifier, options)
        except EdgennError as error:
            sys.exit(f"bench_run: {error}")
    print(json.dumps(figures, indent=1, default=str) if options.json else table(figures))


def mobilenet_v2(folder: Path) -> Path:
    """MobileNetV2 1.0 at 224x224, 1000 classes, int8 with uint8 ends, random weights: its pace does not depend on them.

    In a process of its own: TensorFlow's threads and memory are not to be there while something is measured.
    """
    path = folder / "mobilenet_v2.tflite"
    done = subprocess.run([sys.executable, "-c", CONVERT, str(path)], capture_output=True, text=True)
    if done.returncode:
        raise EdgennError(f"no model could be made, give --model: {done.stderr[-300:]}")
    return path


def throughput(classifier: Classifier, options: argparse.Namespace) -> dict[str, Any]:
    bare_invoke(classifier, 1.0)
    rows: list[dict[str, float]] = []
    with running(AHEAD * bare_invoke(classifier, 2.0)) as url:
        read_pipeline(classifier, url, 1.0)
        for number in range(options.rounds):
            row: dict[str, float] = {}
            ways: list[Callable[[], None]] = [
                lambda row=row: row.update(invoke=bare_invoke(classifier, options.seconds)),  # type: ignore[misc]
                lambda row=row: row.update(of_pipeline(classifier, url, options.seconds)),  # type: ignore[misc]
                lambda row=row: row.update(of_plain_loop(classifier, url, options.seconds)),  # type: ignore[misc]
            ]
            for way in ways[number % 3 :] + ways[: number % 3]:
                way()
            rows.append(row)
    return {
        "fps": {name: spread([row[name] for row in rows]) for name in ("invoke", "pipeline", "plain")},
        "pipeline / invoke": spread([row["pipeline"] / row["invoke"] for row in rows]),
        "pipeline / plain": spread([row["pipeline"] / row["plain"] for row in rows]),
        "capture+preprocess_ms": {
            "pipeline": spread([row["prepared"] * 1000 for row in rows]),
            "plain": spread([row["plain_prepared"] * 1000 for row in rows]),
        },
        "capture+preprocess, plain / pipeline": spread([row["plain_prepared"] / row["prepared"] for row in rows]),
    }


def bare_invoke(classifier: Classifier, seconds: float) -> float:
    """`invoke` and nothing else on one tensor of noise: a second."""
    spec = classifier.model.input
    tensor = np.random.default_rng(0).integers(0, 256, (1, *spec.shape)).astype(spec.dtype)
    count, began = 0, time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        classifier.scores(tensor)
        count += 1
    return count / elapsed


def of_pipeline(classifier: Classifier, url: str, seconds: float) -> dict[str, float]:
    results, elapsed, _ = read_pipeline(classifier, url, seconds)
    prepared = statistics.median(r.stages["capture"] + r.stages["preprocess"] for r in results)
    return {"pipeline": len(results) / elapsed, "prepared": prepared}


def read_pipeline(
    classifier: Classifier, url: str, seconds: float, gate: Gate | None = None, warm: float = 0.0
) -> tuple[list[Result], float, float]:
    """Results after the first and `warm` seconds, the seconds they took, and CPU seconds of this process meanwhile."""
    pipeline = Pipeline(open_source(url, input=classifier.model.input), classifier, gate=gate)
    kept: list[Result] = []
    began = cpu = 0.0
    opened = time.monotonic()
    with closing(pipeline.results()) as results:
        for result in results:
            if not began:
                if time.monotonic() - opened < warm:
                    continue
                began, cpu = time.monotonic(), time.process_time()
                continue
            kept.append(slim(result))
            if time.monotonic() - began >= seconds:
                break
    return kept, time.monotonic() - began, time.process_time() - cpu


def slim(result: Result) -> Result:
    """Without its picture, of which seconds of stream would fill the memory."""
    from dataclasses import replace

    return replace(result, frame=replace(result.frame, image=b""))


def of_plain_loop(classifier: Classifier, url: str, seconds: float) -> dict[str, float]:
    """Read, resize, invoke, one after the other, with OpenCV's own functions and threads."""
    spec = classifier.model.input
    camera = cv2.VideoCapture(url)
    camera.read()
    prepared: list[float] = []
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        asked = time.monotonic()
        taken, picture = camera.read()
        if not taken:
            raise EdgennError("the plain loop lost the stream")
        resized = cv2.resize(picture, (spec.width, spec.height), interpolation=cv2.INTER_AREA)
        tensor = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)[np.newaxis].astype(spec.dtype, copy=False)
        prepared.append(time.monotonic() - asked)
        classifier.scores(tensor)
    camera.release()
    return {"plain": len(prepared) / elapsed, "plain_prepared": statistics.median(prepared)}


def added(classifier: Classifier, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds, each figure the median over the rounds of a round's percentile."""
    between: dict[str, list[float]] = {"p50": [], "p90": []}
    beyond: dict[str, list[float]] = {"p50": [], "p90": []}
    with running(AHEAD * bare_invoke(classifier, 2.0)) as fast, running(CAMERA_FPS) as steady:
        for _ in range(options.rounds):
            results, _, _ = read_pipeline(classifier, fast, options.seconds)
            # When a result was decided, and when its invoke began.
            ends = np.array([r.frame.time + r.latency for r in results])
            begins = ends - [r.stages["invoke"] + r.stages["decide"] for r in results]
            invoked = ends - [r.stages["decide"] for r in results]
            gaps = begins[1:] - invoked[:-1]
            results, _, _ = read_pipeline(classifier, steady, options.seconds)
            extra = [r.stages["queue"] + r.stages["decide"] for r in results]
            for name, share in (("p50", 50), ("p90", 90)):
                between[name].append(float(np.percentile(gaps, share)) * 1e6)
                beyond[name].append(float(np.percentile(extra, share)) * 1e6)
    return {
        "between two invokes, us": {name: spread(values) for name, values in between.items()},
        "queue and decide at 30 fps, us": {name: spread(values) for name, values in beyond.items()},
    }


def gate(classifier: Classifier, options: argparse.Namespace) -> dict[str, Any]:
    shares: dict[str, list[float]] = {"without": [], "with": []}
    skipped: list[float] = []
    with running(CAMERA_FPS, still=True) as url:
        for _ in range(options.rounds):
            _, elapsed, cpu = read_pipeline(classifier, url, options.seconds, warm=WARM)
            shares["without"].append(cpu / elapsed)
            results, elapsed, cpu = read_pipeline(classifier, url, options.seconds, Gate(), WARM)
            shares["with"].append(cpu / elapsed)
            skipped.append(sum(r.skipped for r in results) / len(results))
    return {
        "cores in use": {name: spread(values) for name, values in shares.items()},
        "with / without": spread([a / b for a, b in zip(shares["with"], shares["without"], strict=True)]),
        "frames without the network": spread(skipped),
    }


def start(classifier: Classifier, options: argparse.Namespace) -> dict[str, Any]:
    model, threads = str(classifier.model.path), str(classifier.interpreter.threads)
    seconds: dict[str, list[float]] = {"script": [], "edgenn": []}
    peaks: dict[str, list[float]] = {"script": [], "edgenn": []}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.jpg"
        picture.write_bytes(next(pictures(SIZE[1], SIZE[0], still=True)))
        labels = ["--labels", options.labels] if options.labels else []
        edgenn = [sys.executable, "-c", "from edgenn.cli import main; main()", "run", model, *labels]
        commands = {
            "script": [sys.executable, "-c", SCRIPT, model, str(picture), threads],
            "edgenn": [*edgenn, "--source", str(picture), "--limit", "1", "--threads", threads],
        }
        for name, command in commands.items():  # and page cache, and Python's compiled files
            peaks[name] = [peak_memory(command) / 2**20 for _ in range(3)]
        for number in range(4 * options.rounds):
            for name in sorted(commands, reverse=bool(number % 2)):
                seconds[name].append(seconds_to_first_line(commands[name]))
    pairs = list(zip(seconds["edgenn"], seconds["script"], strict=True))
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "edgenn / script": spread([mine / bare for mine, bare in pairs]),
        "peak MiB": {name: spread(values) for name, values in peaks.items()},
        "MiB above": round(statistics.median(peaks["edgenn"]) - statistics.median(peaks["script"]), 1),
    }


def seconds_to_first_line(command: list[str]) -> float:
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=COMPILED)
    assert process.stdout is not None
    line = process.stdout.readline()
    took = time.monotonic() - began
    _, said = process.communicate()
    if not line or process.returncode:
        raise EdgennError(f"{command[2][:40]!r} failed: {said.decode(errors='replace')[-300:]}")
    return took


def peak_memory(command: list[str]) -> int:
    """Bytes of resident memory at the most.

    By way of a small process: what the kernel tells of a child counts its parent's memory up to its exec.
    """
    launched = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, *command], capture_output=True, text=True, check=True, env=COMPILED
    )
    # getrusage(2): kilobytes on Linux.
    return int(launched.stdout.splitlines()[-1]) * 1024


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "low": round(min(values), 4),
        "high": round(max(values), 4),
        "n": len(values),
    }


def table(figures: dict[str, Any]) -> str:
    lines = [f"{name}: {figures.pop(name)}" for name in ("model", "runtime")]
    machine = figures.pop("machine")
    lines.append(f"machine: {json.dumps(machine, default=str)[:600]}")
    lines.append(f"{figures.pop('rounds')} rounds of {figures.pop('seconds'):g} s, interleaved; median (low to high)")

    def add(name: str, value: Any, depth: int) -> None:
        label = f"{'  ' * depth}{name}"
        if isinstance(value, dict) and "median" in value:
            lines.append(f"{label:<44} {value['median']:>10g}   ({value['low']:g} to {value['high']:g})")
        elif isinstance(value, dict):
            lines.append(label)
            for key, inner in value.items():
                add(key, inner, depth + 1)
        else:
            lines.append(f"{label:<44} {value:>10g}")

    for name, value in figures.items():
        add(name, value, 0)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
