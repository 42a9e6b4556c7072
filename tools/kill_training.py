"""Kill training at random moments, resume it, and compare it with undisturbed runs of the same recipe.

    python tools/kill_training.py PHOTOS                                   # simple_cnn at 64, 8 epochs, 10 kills
    python tools/kill_training.py PHOTOS --recipe RECIPE.toml --kills 4

Undisturbed runs of seeds 0 and 1, and of seed 0 once more, say what a seed and what the order of sums on several
threads are worth. Then seed 0 is begun again and killed by SIGKILL again and again, each time after a random part of
a third of the time that an undisturbed run takes, so that some kills fall into the imports and the reading of photos;
each time `--resume` goes on if there is something to go on with. Printed: a line a kill, and epochs, best epoch,
validation accuracy and loss of each run.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgenn.training import Run
from edgenn.training.checkpoint import FOLDER, Checkpoint, unfinished
from edgenn_device.profiler.environment import environment

RECIPE = """
network = "simple_cnn"
size = 64
epochs = 8
patience = 8

[network_options]
width = 16
"""
# A kill comes within this share of an undisturbed run's time, so that several are needed to get through.
SHARE = 0.35


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--recipe", type=Path, help="(default: simple_cnn at 64 pixels, width 16, 8 epochs)")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    print(environment())
    with tempfile.TemporaryDirectory(prefix="edgenn-kill-") as scratch:
        folder = Path(scratch)
        recipe = given.recipe or folder / "recipe.toml"
        if given.recipe is None:
            recipe.write_text(RECIPE)

        def command(name: str, seed: int, *more: str) -> list[str]:
            python = [sys.executable, "-c", "from edgenn.cli import main; main()"]
            options = ["--recipe", str(recipe), "--seed", str(seed), "--out", str(folder / name), *more]
            return [*python, "train", str(given.photos), *options]

        seconds = 0.0
        for name, seed in (("undisturbed", 0), ("the same again", 0), ("another seed", 1)):
            began = time.monotonic()
            subprocess.run(command(name, seed), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds = time.monotonic() - began
            line(name, folder / name, seconds)
        kills = 0
        while not (folder / "killed" / "run.json").exists():
            process = subprocess.Popen(
                command("killed", 0, *(["--resume"] if unfinished(folder / "killed") else [])),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                process.wait(chance.uniform(0, SHARE * seconds) if kills < given.kills else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                print(f"kill {kills}: after {kept(folder / 'killed')} epochs", flush=True)
            else:
                if process.returncode:
                    sys.exit(f"training ended with {process.returncode} by itself: {command('killed', 0)}")
        line(f"killed {kills} times", folder / "killed")


def kept(run: Path) -> int:
    """Epochs that an unfinished run has kept, of all its stages."""
    stages = [Checkpoint(run / FOLDER, {}, path.stem).load() for path in (run / FOLDER).glob("*.npz")]
    return sum(len(stage[1]["epochs"]) for stage in stages if stage)


def line(name: str, folder: Path, seconds: float | None = None) -> None:
    run = Run.load(folder)
    rows = list(csv.DictReader((folder / "history.csv").open()))
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    print(
        f"{name:16} {run.epochs} epochs, best {best['epoch']:>2}: accuracy {float(best['val_accuracy']):.4f} "
        f"loss {float(best['val_loss']):.4f}; last: accuracy {float(rows[-1]['val_accuracy']):.4f} "
        f"loss {float(rows[-1]['val_loss']):.4f}" + (f"  {seconds:.0f} s" if seconds else ""),
        flush=True,
    )


if __name__ == "__main__":
    main()
