"""How long our int8 conversion takes beside TensorFlow's own converter, for the same network and pictures.

    python tools/bench_conversion.py RUN --photos PHOTOS [--pictures 500] [--rounds 3] [--out FILE.json]

Arms, in turns and in changing order, each in a fresh process that has the network and the pictures loaded before its
time begins; it ends with the flatbuffer in memory:

plain    tf.lite.TFLiteConverter.from_keras_model, int8 throughout, the pictures as representative data set
ours     what `edgenn convert` does in its place: simulation, biases, ranges, conversion in a child process. It takes
         no further pictures once ranges have settled
all      ours, made to take every picture

Ratios are taken within a round. Left out of ours are the checks, which the plain converter does not make: how far the
pictures reach on validation photos, the gate, runtimes and golden vectors.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgenn import data
from edgenn.conversion import interchange
from edgenn.conversion.fake_quant import ranges
from edgenn.conversion.quantize import Quantizer
from edgenn.extras import require
from edgenn_device.files import write_atomically
from edgenn_device.profiler.environment import environment

ARMS = ("plain", "ours", "all")
# Pictures of the validation pass that is left out: one, because what it measures has to have a shape.
_NO_VALIDATION = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--photos", type=Path, help="where the photos are, if not where they were in training")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON to write besides")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(timed(options.arm, options.run, np.load(options.photos))))
        return
    with interchange.opened(options.run, options.photos) as original, tempfile.TemporaryDirectory() as folder:
        chosen = data.calibration(original.dataset.splits["train"], options.pictures, original.recipe.seed)
        pictures = Path(folder) / "pictures.npy"
        np.save(pictures, data.load(chosen, original.input).tensors)
        rounds: list[dict[str, dict[str, Any]]] = []
        for number in range(options.rounds):
            turn = number % len(ARMS)
            rounds.append({arm: in_child(arm, original.path, pictures) for arm in (*ARMS[turn:], *ARMS[:turn])})
            told = ", ".join(f"{arm} {rounds[-1][arm]['seconds']:.1f} s" for arm in ARMS)
            print(f"round {number + 1}: {told}", file=sys.stderr)
        document = {
            "pictures": len(chosen),
            "parameters": original.parameters,
            "environment": environment(),
            "rounds": rounds,
            "seconds": {arm: spread([round_[arm]["seconds"] for round_ in rounds]) for arm in ARMS},
            "cpu_seconds": {arm: spread([round_[arm]["cpu_seconds"] for round_ in rounds]) for arm in ARMS},
            "ratios": {
                f"{arm}/plain": spread([round_[arm]["seconds"] / round_["plain"]["seconds"] for round_ in rounds])
                for arm in ARMS[1:]
            },
        }
    if options.out:
        write_atomically(options.out, json.dumps(document, indent=1, default=str))
    for figure in ("seconds", "cpu_seconds", "ratios"):
        print(f"{figure:12}" + "  ".join(f"{name} {values}" for name, values in document[figure].items()))
    print(f"{len(chosen)} pictures, of which ours took {rounds[0]['ours']['pictures']}")


def in_child(arm: str, network: Path, pictures: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, str(network), "--photos", str(pictures), "--arm", arm]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise SystemExit(f"{arm}: {child.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return figures


def timed(arm: str, network: Path, pictures: Any) -> dict[str, Any]:
    """One arm: wall time and CPU time of all its processes, and the size of what came out."""
    require("tensorflow")
    model = require("keras").models.load_model(network, compile=False)
    used = len(pictures)
    before, began = cpu_seconds(), time.perf_counter()
    if arm == "plain":
        content = plain(model, pictures)
    else:
        if arm == "all":
            ranges._QUIET_PICTURES = len(pictures) + 1
        made = Quantizer(network, model, pictures, pictures[:_NO_VALIDATION], train=lambda aware: None).make("int8")
        content, used = made.content, made.calibration_pictures
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "cpu_seconds": cpu_seconds() - before, "bytes": len(content), "pictures": used}


def plain(model: Any, pictures: Any) -> bytes:
    """What a page about TensorFlow Lite tells one to write."""
    tf = require("tensorflow")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([picture[None].astype(np.float32)] for picture in pictures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    content: bytes = converter.convert()
    return content


def cpu_seconds() -> float:
    """Of this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def spread(values: list[float]) -> dict[str, float]:
    return {name: round(f(values), 2) for name, f in (("median", statistics.median), ("low", min), ("high", max))}


if __name__ == "__main__":
    main()
