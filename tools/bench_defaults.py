"""What is each default of training worth? One setting changed at a time, on photos of one's own or on drawn garments.

    python tools/bench_defaults.py --weights WEIGHTS.h5 --out FILE.csv                  # drawn garments
    python tools/bench_defaults.py PHOTOS --weights WEIGHTS.h5 --out FILE.csv --seeds 0 1 2

Two networks: `simple_cnn` at 64 from scratch, and MobileNetV1 0.25 at 128 from trained weights (left out without
--weights). Each arm is the default recipe with one setting changed, trained once for every seed; what stands in
FILE.csv already is not trained again. Printed: accuracy of the best epoch on validation, mean and each seed, and the
difference to the default of the same seeds.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from pathlib import Path
from typing import Any

import edgenn
from edgenn.data import garments
from edgenn.training.recipe import Augmentation, Recipe

SCRATCH = {"network": "simple_cnn", "size": 64, "epochs": 20, "network_options": {"width": 16}}
TRANSFER = {"network": "mobilenet_v1", "size": 128, "network_options": {"alpha": 0.25}}
STILL = Augmentation(False, 0, 0, 0, 0, 0, 0, 0)
ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "mixup 0": {"mixup": 0.0},
    "mixup 0.2": {"mixup": 0.2},
    "ema 0": {"ema": 0.0},
    "ema 0.99": {"ema": 0.99},
    "label smoothing 0": {"label_smoothing": 0.0},
    "no augmentation": {"augmentation": STILL},
    "learning rate / 3": {"learning_rate": 1 / 3},
    "learning rate x 3": {"learning_rate": 3.0},
    "balance weights": {"balance": "weights"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path, help="default: drawn garments")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("bench_defaults.csv"))
    args = parser.parse_args()
    done = {(row["mode"], row["arm"], int(row["seed"])): float(row["accuracy"]) for row in _rows(args.out)}
    with tempfile.TemporaryDirectory() as scratch:
        photos = args.photos or _drawn(Path(scratch) / "photos")
        modes = {
            "scratch": SCRATCH,
            **({"transfer": {**TRANSFER, "weights": str(args.weights)}} if args.weights else {}),
        }
        for mode, base in modes.items():
            usual = Recipe(**base).resolved()
            for arm, change in ARMS.items():
                if "learning_rate" in change:
                    change = {"learning_rate": change["learning_rate"] * usual.learning_rate}
                if arm != "default" and all(getattr(usual, name) == value for name, value in change.items()):
                    continue
                for seed in args.seeds:
                    if (mode, arm, seed) in done:
                        continue
                    out = Path(scratch) / f"{mode}-{len(done)}"
                    run = edgenn.train(photos, out, report=False, seed=seed, **base, **change)
                    done[mode, arm, seed] = run.accuracy
                    _append(args.out, mode, arm, seed, run.accuracy)
            _show(mode, done, args.seeds)


def _drawn(folder: Path) -> Path:
    """60 photos of each garment to learn from, and 360 to validate on, so that one is .003."""
    garments.write(folder, per_class=480, seed=7)
    for photo in (folder / "train").glob("*/*.jpg"):
        if int(photo.stem) >= 60:
            photo.unlink()
    return folder


def _show(mode: str, done: dict[tuple[str, str, int], float], seeds: list[int]) -> None:
    usual = statistics.mean(done[mode, "default", seed] for seed in seeds)
    print(f"{mode}: validation accuracy, seeds {', '.join(map(str, seeds))}")
    for arm in ARMS:
        if (mode, arm, seeds[0]) in done:
            each = [done[mode, arm, seed] for seed in seeds]
            mean = statistics.mean(each)
            print(f"  {arm:<20}{mean:.3f}  {mean - usual:+.3f}  ({', '.join(f'{a:.3f}' for a in each)})")


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open())) if path.exists() else []


def _append(path: Path, *values: object) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(("mode", "arm", "seed", "accuracy"))
        writer.writerow(values)


if __name__ == "__main__":
    main()
