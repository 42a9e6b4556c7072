"""Does the pipeline keep up with the interpreter? Frames a second of `run` beside a bare invoke loop, in one process.

In each round, one after the other and in changing order: `invoke` in a loop on one tensor; the pipeline on SOURCE,
every frame as fast as possible; a plain loop (read, resize, invoke in sequence) as one writes it with OpenCV; and
`beside`, the invoke loop while another process reads and preprocesses SOURCE at the pipeline's pace. Cores that share
units (hardware threads, a virtual machine's) slow each other down; `beside` shares nothing but the machine with its
neighbour, so it is the most that overlapping the two can reach there.
Rounds make the ratios fair on a machine whose clock or neighbours vary: each ratio is of neighbours in time, and the
median over the rounds is given with its spread.

    python tools/bench_pipeline.py MODEL SOURCE [--seconds 3] [--rounds 5] [--threads 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgenn_device import preprocess
from edgenn_device.cameras import open_source
from edgenn_device.cameras.stills import StillsSource
from edgenn_device.card import InputSpec
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError
from edgenn_device.pipeline import STAGES, Pipeline
from edgenn_device.profiler import Histogram


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .tflite")
    parser.add_argument("source", help="a folder or glob of pictures, or a video file")
    parser.add_argument("--labels", help="labels file of a model that carries none")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--threads", type=int, default=1, help="of the interpreter (default 1)")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        classifier = Classifier(options.model, labels=options.labels, runtime=options.runtime, threads=options.threads)
        figures = measure(classifier, options.source, options.seconds, options.rounds)
    except EdgennError as error:
        sys.exit(f"bench_pipeline: {error}")
    print(json.dumps(figures, indent=1) if options.json else table(figures))


def measure(classifier: Classifier, source: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Frames a second of each way, by round, and the figures made of them."""
    stages = {stage: Histogram() for stage in STAGES}
    ways: dict[str, Callable[[], float]] = {
        "invoke": lambda: bare_invoke(classifier, seconds),
        "pipeline": lambda: pipeline(classifier, source, seconds, stages),
        "plain": lambda: plain_loop(classifier, source, seconds),
        "beside": lambda: invoke_beside(classifier, source, seconds, pace),
    }
    warm = ways["pipeline"]  # before anything is counted: page cache, allocations, clock
    pace = max(warm(), warm())
    stages.update({stage: Histogram() for stage in STAGES})
    fps: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        order = list(ways)
        for name in order[number % 4 :] + order[: number % 4]:
            fps[name].append(ways[name]())
    ratios = {
        f"{a}/{b}": [x / y for x, y in zip(fps[a], fps[b], strict=True)]
        for a, b in (("pipeline", "invoke"), ("beside", "invoke"), ("pipeline", "beside"), ("pipeline", "plain"))
    }
    return {
        "model": str(classifier.model.path),
        "runtime": classifier.interpreter.description,
        "source": source,
        "seconds": seconds,
        "rounds": rounds,
        "fps": {name: spread(values) for name, values in fps.items()},
        "ratios": {name: spread(values) for name, values in ratios.items()},
        "stages": {
            stage: {f"p{p}_ms": round(histogram.percentile(p) * 1000, 3) for p in (50, 90, 99)}
            for stage, histogram in stages.items()
        },
    }


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "low": round(min(values), 3),
        "high": round(max(values), 3),
    }


def bare_invoke(classifier: Classifier, seconds: float) -> float:
    """`invoke` and nothing else, on one tensor of noise."""
    spec = classifier.model.input
    noise = np.random.default_rng(0).integers(0, 256, (1, *spec.shape))
    tensor = noise.astype(spec.dtype)
    count, began = 0, time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        classifier.scores(tensor)
        count += 1
    return count / elapsed


def invoke_beside(classifier: Classifier, source: str, seconds: float, pace: float) -> float:
    """The invoke loop, while another process reads and preprocesses `pace` frames a second."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    neighbour = spawn.Process(
        target=keep_preprocessing, args=(source, classifier.model.input, pace, ready), daemon=True
    )
    neighbour.start()
    try:
        if not ready.wait(60):
            raise EdgennError("the process beside did not start")
        return bare_invoke(classifier, seconds)
    finally:
        neighbour.kill()
        neighbour.join()


def keep_preprocessing(source: str, spec: InputSpec, pace: float, ready: Event) -> None:
    """In the neighbour: frames of `source`, over and over, made into tensors and thrown away."""
    cv2.setNumThreads(1)
    out = np.empty((1, *spec.shape), spec.dtype)
    count, began = 0, time.monotonic()
    while True:
        with open_source(source, fast=True) as frames:
            while (frame := frames.read()) is not None:
                preprocess.to_tensor(frame.image, spec, out=out)
                count += 1
                if not ready.is_set():
                    ready.set()
                    count, began = 0, time.monotonic()
                time.sleep(max(0.0, began + count / pace - time.monotonic()))


def pipeline(classifier: Classifier, source: str, seconds: float, stages: dict[str, Histogram]) -> float:
    """All that `edgenn run` does with each frame but printing; a source that ends is begun again."""
    count, elapsed = 0, 0.0
    while elapsed < seconds:
        run = Pipeline(open_source(source, fast=True), classifier)
        with closing(run.results()) as results:
            for result in results:
                for stage, spent in result.stages.items():
                    stages[stage].record(spent)
                if elapsed + run.summary().seconds >= seconds:
                    break
        if not run.frames:
            raise EdgennError(f"{source} gives nothing that can be classified")
        # The run's own time: starting threads and filling the queues is in it, listing a folder is not.
        count, elapsed = count + run.frames, elapsed + run.summary().seconds
    return count / elapsed


def plain_loop(classifier: Classifier, source: str, seconds: float) -> float:
    """Read, resize, invoke, one after the other, with OpenCV's own functions and its own threads."""
    spec = classifier.model.input
    count, elapsed = 0, 0.0
    while elapsed < seconds:
        pictures = pictures_of(source)
        began = time.monotonic()
        for picture in pictures:
            resized = cv2.resize(picture, (spec.width, spec.height), interpolation=cv2.INTER_AREA)
            tensor = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)[np.newaxis]
            classifier.result(classifier.scores(tensor.astype(spec.dtype, copy=False)))
            count += 1
            if elapsed + time.monotonic() - began >= seconds:
                break
        elapsed += time.monotonic() - began
    return count / elapsed


def pictures_of(source: str) -> Iterator[np.ndarray]:
    opened = open_source(source, fast=True)
    if isinstance(opened, StillsSource):
        opened.open()
        paths = [frame.path for frame in iter(opened.read, None)]
        return (picture for path in paths if (picture := cv2.imread(path)) is not None)
    if not Path(source).is_file():
        raise EdgennError(f"{source} is neither a folder or glob of pictures nor a video file")
    return frames_of(cv2.VideoCapture(source))


def frames_of(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        taken, picture = video.read()
        if not taken:
            return
        yield picture


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['model']} on {figures['source']}",
        f"{figures['runtime']}; {figures['rounds']} rounds of {figures['seconds']:g} s each, interleaved",
        "",
    ]
    lines += [
        f"{name:<18} {v['median']:8.1f} fps   ({v['low']:.1f} to {v['high']:.1f})" for name, v in figures["fps"].items()
    ]
    lines += [
        f"{name:<18} {v['median']:8.3f}       ({v['low']:.3f} to {v['high']:.3f})"
        for name, v in figures["ratios"].items()
    ]
    lines += ["", "pipeline stage       p50 ms    p90 ms    p99 ms"]
    lines += [
        f"{stage:<18} {v['p50_ms']:8.3f}  {v['p90_ms']:8.3f}  {v['p99_ms']:8.3f}"
        for stage, v in figures["stages"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
