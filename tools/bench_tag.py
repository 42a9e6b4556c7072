"""How fast is `tag`, against what this machine can do at most, a plain loop, and MediaPipe? And is it exact?

    python tools/bench_tag.py speed MODEL PHOTOS --labels FILE [--mediapipe PYTHON] [--rounds 7]
    python tools/bench_tag.py exact MODEL PHOTOS                  every label that of `evaluate`
    python tools/bench_tag.py kills MODEL PHOTOS --pictures 100000 --kills 20
    python tools/bench_tag.py memory MODEL PHOTOS --pictures 100000

`speed` runs its measurements one after the other in each round, in changing order, so that each ratio is of neighbours
in time; medians over the rounds, with their spread. The limit is cores x 1 / (reduced decode + resize + invoke), each
of the three measured alone, in one process with nothing else running. `tag` is the whole of it: reading, checksums,
hand-over, rows on the disk, by processes that have started (`start_seconds`). The plain loop is cv2.imread, cv2.resize
and LiteRT's Interpreter as one writes it; MediaPipe is its ImageClassifier in a loop, in PYTHON's environment.

`kills` and `memory` tag hard links to PHOTOS in a temporary folder.
"""

from __future__ import annotations

import argparse
import collections
import csv
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgenn.tagging.catalogue import Request, tag_catalogue
from edgenn.tagging.engine import Workers, rules_for, tag
from edgenn.tagging.listing import pictures
from edgenn.tagging.records import to_row
from edgenn_device import model_file, preprocess
from edgenn_device.classifier import Classifier
from edgenn_device.model_file import ModelFile

_TAG = [sys.executable, "-c", "from edgenn.cli.tag import command; command.main()"]

_MEDIAPIPE = """
import json, sys, time
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision
model, paths = json.load(sys.stdin)
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model), max_results=3)
with vision.ImageClassifier.create_from_options(options) as classifier:
    for path in paths[:20]:
        classifier.classify(mp.Image.create_from_file(path))
    began = time.perf_counter()
    for path in paths:
        classifier.classify(mp.Image.create_from_file(path))
    print(len(paths) / (time.perf_counter() - began))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "exact", "kills", "memory"))
    parser.add_argument("model")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--labels", help="labels file of a model that carries none")
    parser.add_argument("--mediapipe", metavar="PYTHON", help="interpreter of an environment with mediapipe")
    parser.add_argument("--rounds", type=int, default=7, help="of speed (default 7)")
    parser.add_argument("--sample", type=int, default=1000, help="of speed: pictures that `tag` gets (default 1000)")
    parser.add_argument("--pictures", type=int, default=100_000, help="of kills and memory (default 100000)")
    parser.add_argument("--kills", type=int, default=20, help="(default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    model = model_file.load(options.model, labels=options.labels)
    figures = {"speed": speed, "exact": exact, "kills": kills, "memory": memory}[options.what](model, options)
    print(json.dumps(figures, indent=1))


def speed(model: ModelFile, options: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second of each way, by round, and the ratios."""
    paths = [*pictures([str(options.photos)])]
    few, many = (random.Random(0).sample(paths, min(count, len(paths))) for count in (150, options.sample))
    cores = len(os.sched_getaffinity(0))
    parts: list[dict[str, float]] = []
    shares: list[float] = []

    def limit() -> float:
        parts.append(stages(model, few))
        return cores / sum(parts[-1].values())

    for path in paths:
        Path(path).read_bytes()  # page cache
    began = time.perf_counter()
    with Workers(model, rules_for(model, 3, None, "auto")) as crew, tempfile.TemporaryFile() as rows:
        start_seconds = time.perf_counter() - began
        processes = [os.getpid(), *children()]

        def whole() -> float:
            before, began = sum(map(cpu_seconds, processes)), time.perf_counter()
            for record in crew.tag(many):
                rows.write(to_row(record))
            os.fsync(rows.fileno())
            rate = len(many) / (time.perf_counter() - began)
            spent = sum(map(cpu_seconds, processes)) - before
            # Of the CPU seconds that this took, those that a picture must cost: also telling on a busy machine.
            shares.append(sum(stages(model, few, time.process_time).values()) * len(many) / spent)
            return rate

        ways: dict[str, Callable[[], float]] = {
            "limit": limit,
            "tag": whole,
            "plain": lambda: plain_loop(options.model, few),
        }
        if options.mediapipe:
            ways["mediapipe"] = lambda: mediapipe(options.mediapipe, options.model, few)
        for way in ways.values():
            way()  # warm
        parts.clear()
        shares.clear()
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds):
            order = [*ways]
            for name in order[number % len(order) :] + order[: number % len(order)]:
                rates[name].append(ways[name]())
            line = ", ".join(f"{name} {values[-1]:.1f}" for name, values in rates.items())
            print(f"round {number + 1}: {line} pictures a second", file=sys.stderr)
    return {
        "pictures": {"tag": len(many), "others": len(few)},
        "cores": cores,
        "runtime": Classifier(model, threads=1).interpreter.description,
        "start_seconds": round(start_seconds, 2),
        "alone_ms": {stage: spread([1000 * part[stage] for part in parts]) for stage in parts[0]},
        "per_second": {name: spread(values) for name, values in rates.items()},
        "ratios": {
            f"tag/{name}": spread([a / b for a, b in zip(rates["tag"], values, strict=True)])
            for name, values in rates.items()
            if name != "tag"
        },
        "cpu_share_of_stages": spread(shares),
    }


def stages(model: ModelFile, paths: list[str], clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Seconds a picture of each stage alone, one thread."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    classifier, spec = Classifier(model, threads=1), model.input
    files = [Path(path).read_bytes() for path in paths]
    cover = (spec.height, spec.width)
    decode, decoded = timed(lambda data: preprocess.decode(data, cover), files, clock)
    resize, tensors = timed(classifier.preprocess, decoded, clock)
    invoke, _ = timed(classifier.scores, tensors, clock)
    cv2.setNumThreads(threads)
    return {"decode": decode, "resize": resize, "invoke": invoke}


def timed(work: Callable[[Any], Any], items: list[Any], clock: Callable[[], float]) -> tuple[float, list[Any]]:
    for item in items[:10]:
        work(item)
    began = clock()
    results = [work(item) for item in items]
    return (clock() - began) / len(items), results


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def plain_loop(model: str, paths: list[str]) -> float:
    """Read, resize, invoke, one after the other, with every library's own defaults."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model)
    interpreter.allocate_tensors()
    given, got = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    _, height, width, _ = given["shape"]
    began = time.perf_counter()
    for path in paths:
        picture = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        tensor = cv2.resize(picture, (int(width), int(height)), interpolation=cv2.INTER_AREA)
        interpreter.set_tensor(given["index"], tensor[np.newaxis])
        interpreter.invoke()
        int(interpreter.get_tensor(got["index"])[0].argmax())
    return len(paths) / (time.perf_counter() - began)


def mediapipe(python: str, model: str, paths: list[str]) -> float:
    done = subprocess.run(
        [python, "-c", _MEDIAPIPE], input=json.dumps([model, paths]), capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def spread(values: list[float]) -> dict[str, float]:
    return {name: round(f(values), 3) for name, f in (("median", statistics.median), ("low", min), ("high", max))}


def exact(model: ModelFile, options: argparse.Namespace) -> dict[str, Any]:
    """Whether `tag` and `evaluate` say the same of every picture."""
    from edgenn.evaluation import evaluate

    evaluation = evaluate(options.model, options.photos, labels=options.labels)
    paths = [str(path) for path in evaluation.paths]
    tagged = [record.top[0][0] for record in tag(model, paths, minimum_confidence=0.0)]
    said = [model.labels[index] for index in evaluation.predictions.top1]
    truth = [model.labels[index] for index in evaluation.truth]
    return {
        "pictures": len(paths),
        "same_label": sum(a == b for a, b in zip(tagged, said, strict=True)),
        "accuracy_tag": sum(a == b for a, b in zip(tagged, truth, strict=True)) / len(paths),
        "accuracy_evaluate": evaluation.accuracy,
    }


def kills(model: ModelFile, options: argparse.Namespace) -> dict[str, Any]:
    """SIGKILL at random sizes of the rows, the same command again each time, then a count of every path."""
    chance = random.Random(options.seed)
    with links(options.photos, options.pictures) as folder:
        out = folder.parent / "tags.csv"
        command = [*_TAG, options.model, str(folder), "--out", str(out)]
        command += ["--labels", options.labels] if options.labels else []
        rows = out.with_name("tags.csv.partial") / "rows"
        moments = sorted(chance.uniform(0, 0.97) for _ in range(options.kills))
        killed = []
        expected = options.pictures * bytes_a_row(model, folder)
        for moment in moments:
            process = subprocess.Popen(command)
            while process.poll() is None and (rows.stat().st_size if rows.exists() else 0) < moment * expected:
                time.sleep(0.002)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            killed.append(process.wait() == -signal.SIGKILL)
            print(f"killed at {moment:.3f}: {rows.stat().st_size if rows.exists() else 0} bytes", file=sys.stderr)
        subprocess.run(command, check=True)
        with open(out, newline="") as file:
            counts = collections.Counter(row["path"] for row in csv.DictReader(file))
        wanted = {str(path) for path in folder.rglob("*.jpg")}
        return {
            "pictures": options.pictures,
            "killed": sum(killed),
            "rows": counts.total(),
            "twice": sum(count > 1 for count in counts.values()),
            "missing": len(wanted - counts.keys()),
            "foreign": len(counts.keys() - wanted),
        }


def bytes_a_row(model: ModelFile, folder: Path) -> float:
    some = [*itertools.islice(folder.rglob("*.jpg"), 50)]
    rows = [len(to_row(record)) for record in tag(model, some)]
    return statistics.mean(rows)


def memory(model: ModelFile, options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory of the parent and its processes, in MB, at the half and at the end, and its peaks."""
    samples: list[tuple[int, float]] = []
    with links(options.photos, options.pictures) as folder:

        def report(stage: str, done: int, total: int | None) -> None:
            if stage == "tagging" and done % 1000 == 0:
                samples.append((done, resident()))

        request = Request(model, rules_for(model, 3, None, "auto"), (str(folder),), folder.parent / "tags.csv")
        summary = tag_catalogue(request, report=report)
    first = [mb for done, mb in samples if done <= options.pictures / 2]
    second = [mb for done, mb in samples if done > options.pictures / 2]
    return {
        "pictures": summary.pictures,
        "per_second": round(summary.per_second, 1),
        "peak_first_half_mb": round(max(first), 1),
        "peak_second_half_mb": round(max(second), 1),
        "at_half_mb": round(first[-1], 1),
        "at_end_mb": round(second[-1], 1),
        "growth_second_half_mb": round(second[-1] - first[-1], 1),
    }


def resident() -> float:
    """Of this process and its children, in MB."""
    pages = 0
    for process in (os.getpid(), *children()):
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def links(photos: Path, count: int) -> Iterator[Path]:
    """A folder of `count` pictures, in folders of 1,000: links to copies of `photos`."""
    with tempfile.TemporaryDirectory() as root:
        originals = Path(root) / "originals"
        originals.mkdir()
        copies = []
        for number, path in enumerate(pictures([str(photos)])):
            copies.append(originals / f"{number}.jpg")
            copies[-1].write_bytes(Path(path).read_bytes())
        folder = Path(root) / "catalogue"
        for number in range(count):
            place = folder / f"{number // 1000:05d}" / f"{number:08d}.jpg"
            if number % 1000 == 0:
                place.parent.mkdir(parents=True)
            os.link(copies[number % len(copies)], place)
        yield folder


if __name__ == "__main__":
    main()
