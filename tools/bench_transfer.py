"""What does transfer learning reach, how long does it take, and is the frozen part run in the right way?

    python tools/bench_transfer.py train PHOTOS --recipe RECIPE --weights WEIGHTS [--seeds 0 1 2] [--out FOLDER]
    python tools/bench_transfer.py frozen PHOTOS --recipe RECIPE --weights WEIGHTS [--rounds 7]

`train` runs `edgenn train` for every seed, each time as a process of its own: cold, with an empty cache of its own, and
warm, with what the cold run left in it. The wall time is of the whole process, from its start to its end; the memory is
the greatest sum of the resident memory of the process and its children, looked at every 0.1 s. Both cold and warm runs
find the photos in the operating system's cache, if there is room for them.

`frozen` measures the frozen part on some photos in turn, as LiteRT with one interpreter a core (what edgenn does
without a GPU) and as TensorFlow, and how far their outputs differ, as share of the greatest.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

_TRAIN = [sys.executable, "-c", "from edgenn.cli import main; main()", "train"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "frozen"))
    parser.add_argument("photos", type=Path)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="keep the runs here (default: a temporary folder)")
    parser.add_argument("--rounds", type=int, default=7, help="of frozen (default 7)")
    parser.add_argument("--sample", type=int, default=256, help="of frozen: photos a round (default 256)")
    parser.add_argument("--distill", default="", help="of train: a run that teaches")
    options = parser.parse_args()
    print(machine())
    (train if options.what == "train" else frozen)(options)


def machine() -> str:
    """What the figures were measured on."""
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "ai-edge-litert", "numpy"))
    load = os.getloadavg()[0]
    return f"{model.split(':')[1].strip()}, {len(os.sched_getaffinity(0))} cores, load {load:.1f}; {packages}"


def train(options: argparse.Namespace) -> None:
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgenn-bench-") as folder:
        out = options.out or Path(folder) / "runs"
        for seed in options.seeds:
            cache = Path(folder) / f"cache{seed}"
            for state in ("cold", "warm"):
                run = out / f"{state}{seed}"
                arguments = [str(options.photos), "--recipe", str(options.recipe), "--weights", options.weights]
                arguments += ["--seed", str(seed), "--out", str(run), "--overwrite", "--json"]
                arguments += ["--distill", options.distill] if options.distill else []
                seconds, peak, text = watched([*_TRAIN, *arguments], {"XDG_CACHE_HOME": str(cache)})
                said = json.loads(text)
                row = {"seed": seed, "cache": state, "seconds": seconds, "peak": peak, **said["validation"]}
                row["epochs"], row["disk"] = (
                    said["epochs"],
                    sum(p.stat().st_size for p in cache.rglob("*") if p.is_file()),
                )
                results.append(row)
                print(
                    f"seed {seed} {state}: {row['accuracy']:.4f} of {row['pictures']} validation photos, "
                    f"{row['epochs']} epochs, {seconds:.0f} s, {peak / 1e9:.2f} GB resident, "
                    f"{row['disk'] / 1e9:.2f} GB of cache",
                    flush=True,
                )
    print("\n| | accuracy, mean (least to most) | wall time, s, median (least to most) | resident, GB, most |")
    print("|---|---|---|---|")
    for state in ("cold", "warm"):
        rows = [row for row in results if row["cache"] == state]
        accuracy, seconds = ([row[name] for row in rows] for name in ("accuracy", "seconds"))
        print(
            f"| {state}, {len(rows)} seeds | {statistics.mean(accuracy):.4f} ({min(accuracy):.4f} to "
            f"{max(accuracy):.4f}) | {statistics.median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f}) | "
            f"{max(row['peak'] for row in rows) / 1e9:.2f} |"
        )


def watched(command: list[str], environment: dict[str, str]) -> tuple[float, int, str]:
    """Run a command: (wall time in seconds, peak resident bytes of it and its children, what it wrote to stdout).

    Raises:
      SystemExit: it failed.
    """
    with tempfile.TemporaryFile("w+") as output:
        began, peak = time.perf_counter(), 0
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output)
        while process.poll() is None:
            peak = max(peak, sum(resident(pid) for pid in family(process.pid)))
            time.sleep(0.1)
        seconds = time.perf_counter() - began
        output.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        return seconds, peak, output.read()


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def resident(pid: int) -> int:
    """Resident bytes of a process, mapped files included (proc(5), statm)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError):
        return 0


def frozen(options: argparse.Namespace) -> None:
    from edgenn import data, networks
    from edgenn.networks import weights
    from edgenn.training import Recipe, transfer
    from edgenn.training import frozen as module

    recipe = replace(Recipe.load(options.recipe), weights=options.weights).resolved()
    dataset = data.scan(options.photos)
    model = networks.build(recipe.network, recipe.input.shape, len(dataset.labels), **recipe.network_options)
    weights.load(model, networks.network(recipe.network), recipe.weights, recipe.network_options)
    cut = transfer.cut_behind(model, recipe)
    if cut is None:
        raise SystemExit("this recipe freezes nothing")
    part, _ = transfer.parted(model, cut)
    photos = data.load(dataset.splits["train"][: options.sample], recipe.input).tensors.astype(np.float32)
    lite = module.in_litert(part.model, part.threads)
    if lite is None:
        raise SystemExit("this part has layers that are not converted")
    ways: dict[str, tuple[Callable[[Any], Any], int, int]] = {
        "LiteRT, one interpreter a core": (lite, part.threads, 32),
        "TensorFlow, batches of 32": (module.in_tensorflow(part.model), 1, 32),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    outputs = {}
    for round_ in range(options.rounds + 1):
        for name, (run, threads, batch) in ways.items():
            began = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                parts = list(pool.map(run, [photos[i : i + batch] for i in range(0, len(photos), batch)]))
            if round_:  # the first is for warming up
                times[name].append((time.perf_counter() - began) / len(photos) * 1000)
            outputs[name] = np.concatenate(parts)
    for name, each in times.items():
        print(f"{name}: {statistics.median(each):.2f} ms a photo ({min(each):.2f} to {max(each):.2f}, n {len(each)})")
    first, second = times.values()
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    print(f"TensorFlow takes {statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})")
    one, other = outputs.values()
    print(
        f"outputs up to {cut} differ by at most {np.abs(one - other).max() / np.abs(other).max():.1e} of the greatest"
    )


if __name__ == "__main__":
    main()
