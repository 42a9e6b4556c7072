"""What edgenn's training loop costs over a bare `model.fit`: one epoch of resnet8 on 32×32 pictures in memory.

    python tools/bench_resnet8.py                             # 50,000 pictures, 5 rounds: about 40 minutes on 2 cores
    python tools/bench_resnet8.py --pictures 4000 --rounds 3  # a look

Three arms in turns, each a fresh network with the same weights, two epochs a turn of which the second is timed (the
first traces the graph): `bare`, Keras's own loop on float32 arrays with Adam; `plain`, edgenn with no augmentation and
otherwise its recipe (AdamW, clipped gradients, warmed cosine, smoothed labels), like with like; `recipe`, edgenn as it
is by default, augmentation included. All measure the same validation pictures in every epoch. Ratios are taken within
a round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from hashlib import sha256
from pathlib import Path

import numpy as np

from edgenn import networks
from edgenn.data import Picture
from edgenn.extras import require
from edgenn.training.fit import fit
from edgenn.training.photos import ArrayFeed
from edgenn.training.recipe import Augmentation, Recipe
from edgenn_device.profiler.environment import environment

CLASSES = 10
STILL = Augmentation(False, 0, 0, 0, 0, 0, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()

    random = np.random.default_rng(0)
    tensors = random.integers(0, 256, (given.pictures, 32, 32, 3), np.uint8)
    labels = random.integers(0, CLASSES, given.pictures)
    few = max(given.batch, given.pictures // 50)

    def edgenn(augmentation: Augmentation) -> float:
        recipe = Recipe(
            network="resnet8", size=32, batch=given.batch, epochs=2, patience=2, augmentation=augmentation
        ).resolved()
        whole = ArrayFeed(tensors, named(labels), CLASSES, recipe)
        part = ArrayFeed(tensors[:few], named(labels[:few]), CLASSES, recipe)
        return fit(network(), whole, part, recipe)[1].seconds

    def bare() -> float:
        keras = require("keras")
        model = network()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        times: list[float] = []
        clock = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: times.append(-time.perf_counter()),
            on_epoch_end=lambda *_: times.append(times.pop() + time.perf_counter()),
        )
        x = tensors.astype(np.float32)
        check = (x[:few], labels[:few])
        model.fit(x, labels, batch_size=given.batch, epochs=2, validation_data=check, verbose=0, callbacks=[clock])
        return times[1]

    arms = {"bare": bare, "plain": lambda: edgenn(STILL), "recipe": lambda: edgenn(Augmentation())}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    print(environment())
    for turn in range(given.rounds):
        # Another order each time, so that none is always first.
        for name in sorted(arms, key=lambda name, turn=turn: (list(arms).index(name) + turn) % len(arms)):
            seconds[name].append(arms[name]())
            print(f"round {turn + 1} {name:6} {seconds[name][-1]:7.2f} s an epoch", flush=True)
    for name in ("plain", "recipe"):
        ratios = [a / b for a, b in zip(seconds[name], seconds["bare"], strict=True)]
        print(
            f"{name}/bare: median {statistics.median(ratios):.3f} of {len(ratios)} "
            f"({min(ratios):.3f} to {max(ratios):.3f}), {given.pictures} pictures, batch {given.batch}"
        )


def network() -> object:
    """resnet8, with the same starting weights each time."""
    require("keras").utils.set_random_seed(0)
    return networks.build("resnet8", (32, 32, 3), CLASSES)


def named(labels: np.ndarray) -> list[Picture]:
    """Pictures that exist in name only."""
    return [Picture(Path(str(i)), int(label), sha256(b"%d" % i).hexdigest()) for i, label in enumerate(labels)]


if __name__ == "__main__":
    main()
