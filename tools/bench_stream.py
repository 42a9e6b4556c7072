"""Does memory stay flat as photos grow? Resident memory of scanning, storing and training, by the number of photos.

    python tools/bench_stream.py                              # draws 133,000 pictures (600 MB on disk), keeps them
    python tools/bench_stream.py --counts 1000,3000 --size 64 # a look

Each count is a process of its own that scans a folder of that many pictures, decodes them into a fresh store and trains
for `--steps` steps from it; what it holds after each, and the most it ever held, is read from /proc. The slope between
the smallest and the largest count is what a picture costs; a million pictures are extrapolated from it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from edgenn_device.profiler.environment import environment

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="3000,30000,100000")
    parser.add_argument("--size", type=int, default=96, help="side of the network's input; the store's rows")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=Path("bench-stream-photos"), help="of the drawn pictures")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.child, given.size, given.steps)))
        return
    counts = [int(count) for count in given.counts.split(",")]
    print(environment())
    results = []
    for count in counts:
        draw(given.folder / str(count), count)
        with tempfile.TemporaryDirectory(dir=given.folder) as cache:
            command = [sys.executable, __file__, "--child", str(given.folder / str(count)), "--size", str(given.size)]
            answer = subprocess.run(
                [*command, "--steps", str(given.steps)],
                env={**os.environ, "XDG_CACHE_HOME": cache},
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
        results.append(json.loads(answer.stdout.splitlines()[-1]))
        print(
            f"{count:8,} pictures: " + ", ".join(f"{k} {v / 1e6:,.0f} MB" for k, v in results[-1].items()), flush=True
        )
    for name in results[0]:
        slope = (results[-1][name] - results[0][name]) / (counts[-1] - counts[0])
        million = results[-1][name] + slope * (1_000_000 - counts[-1])
        print(f"{name:22} {slope:8.0f} bytes a picture, {million / 1e6:,.0f} MB at a million")


def draw(folder: Path, count: int) -> None:
    """`count` small pictures of flat colour and a little noise, unless they are there already."""
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(count)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    for number in range(count):
        picture = np.full((48, 48, 3), random.integers(0, 256, 3), np.uint8)
        picture[::8] ^= random.integers(0, 64, picture[::8].shape, np.uint8)
        path = folder / f"class{number % CLASSES}" / f"photo-{number:07d}.jpg"
        path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    (folder / "complete").touch()


def measure(photos: Path, size: int, steps: int) -> dict[str, int]:
    """Resident bytes after each stage, and the most at any moment."""
    from edgenn import data, networks
    from edgenn.extras import require
    from edgenn.training.fit import fit
    from edgenn.training.photos import photo_feed
    from edgenn.training.recipe import Recipe

    keras = require("keras")
    figures = {"imported": resident()}
    dataset = data.scan(photos)
    figures["scanned"] = resident()
    recipe = Recipe(size=size, epochs=1, network_options={"width": 4}).resolved()
    feeds = [
        photo_feed(dataset.splits[split], recipe.input, CLASSES, recipe, in_memory=0)[0]
        for split in ("train", "validation")
    ]
    figures["stored"] = resident()
    keras.utils.set_random_seed(0)
    model = networks.build("simple_cnn", recipe.input.shape, CLASSES, width=4)

    class Enough(Exception):
        pass

    def on_step(epoch: int, step: int, of: int, loss: float, accuracy: float) -> None:
        if step >= steps:
            raise Enough

    try:
        fit(model, feeds[0], feeds[1], recipe, on_step=on_step)
    except Enough:
        pass
    figures["trained"] = resident()
    figures["most"] = field("VmHWM")
    return figures


def resident() -> int:
    return field("VmRSS")


def field(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


if __name__ == "__main__":
    main()
