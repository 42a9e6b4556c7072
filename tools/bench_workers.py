"""Two worker processes against one: the same run by `edgenn train`, alone and under TF_CONFIG on 127.0.0.1.

    python tools/bench_workers.py PHOTOS
    python tools/bench_workers.py                # drawn garments

Nothing is drawn at random beyond weights and order (machines draw their own augmentation, each for its own photos), so
that what differs is the order of sums; the learning rate is low, for a high one amplifies that. Printed: training and
validation loss of every epoch of both, their greatest difference, and the seconds of an epoch: two processes on one
machine share its processors, which says what the exchange of gradients costs and not what a second machine gains.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from edgenn.data import garments
from edgenn_device.profiler.environment import environment

RECIPE = """
network = "simple_cnn"
size = 64
epochs = 6
patience = 6
learning_rate = 1e-4
mixup = 0.0

[network_options]
width = 16
dropout = 0.0

[augmentation]
flip = false
rotation = 0.0
shift = 0.0
zoom = 0.0
brightness = 0.0
contrast = 0.0
saturation = 0.0
erase = 0.0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path, help="default: drawn garments")
    given = parser.parse_args()
    print(environment())
    with tempfile.TemporaryDirectory(prefix="edgenn-workers-") as scratch:
        folder = Path(scratch)
        (folder / "recipe.toml").write_text(RECIPE)
        photos = given.photos or folder / "photos"
        if given.photos is None:
            garments.write(photos, 200)
        one = trained(photos, folder, ["alone"])
        two = trained(photos, folder, ["first", "second"])
    print(f"{'epoch':>5}  {'loss, one':>10}  {'two':>10}  {'validation, one':>16}  {'two':>10}")
    for a, b in zip(one, two, strict=True):
        print(f"{a['epoch']:>5}  {a['loss']:>10}  {b['loss']:>10}  {a['val_loss']:>16}  {b['val_loss']:>10}")
    for name in ("loss", "val_loss", "val_accuracy"):
        greatest = max(abs(float(a[name]) - float(b[name])) for a, b in zip(one, two, strict=True))
        print(f"{name}: differs by at most {greatest:.2g}")
    seconds = [statistics.median(float(row["seconds"]) for row in rows[1:]) for rows in (one, two)]
    print(f"an epoch: one {seconds[0]:.1f} s, two {seconds[1]:.1f} s, {seconds[1] / seconds[0]:.2f}")


def trained(photos: Path, folder: Path, names: list[str]) -> list[dict[str, str]]:
    """The history of one run by as many processes as there are names; each is given a folder of its own."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    workers = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    for listener in listeners:
        listener.close()
    processes = []
    for index, name in enumerate(names):
        environ = dict(os.environ)
        if len(names) > 1:
            task = {"type": "worker", "index": index}
            environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
        python = [sys.executable, "-c", "from edgenn.cli import main; main()", "train", str(photos)]
        options = ["--recipe", str(folder / "recipe.toml"), "--out", str(folder / name)]
        processes.append(subprocess.Popen([*python, *options], env=environ, stdout=subprocess.DEVNULL))
    if any(process.wait() for process in processes):
        sys.exit(f"training of {' and '.join(names)} failed, see above")
    with (folder / names[0] / "history.csv").open() as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
