"""Is the input pipeline ever the brake? The time of a training step by where its photos come from, as ratios.

    python tools/bench_feed.py PHOTOS                            # labelled photos as `edgenn train` takes them
    python tools/bench_feed.py PHOTOS --network mobilenet_v2 --size 224 --most 600 --rounds 3

Arms in turns, each a fresh network with the same weights, two epochs a turn of which the second is timed (the first
traces the graph): `batch`, the very same batch again and again, so nothing but the network; `array`, photos decoded in
one array in memory; `store`, photos decoded in the store on disk, read back by every step. Both of the latter with the
recipe's augmentation. Ratios are taken within a round. What the operating system has in its cache it has for the store
as well: on a set larger than memory the disk counts, and `--drop-caches` (root) empties the cache before each turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from edgenn import data, networks
from edgenn.data.store import Stored
from edgenn.extras import require
from edgenn.training.feed import Feed
from edgenn.training.fit import fit
from edgenn.training.photos import ArrayFeed, StoreFeed
from edgenn.training.recipe import Recipe
from edgenn_device.profiler.environment import environment


class OneBatch(Feed):
    """The first batch of another feed, for every step."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed.labels, feed.classes, feed.recipe)
        self.feed = feed

    def take(self, index: Any, seed: Any, training: bool) -> Any:
        raise NotImplementedError("batches come whole")

    def batches(self, batch: int, *, training: bool, seed: int = 0, part: tuple[int, int] = (0, 1)) -> Any:
        first = next(iter(self.feed.batches(batch, training=training, seed=seed)))
        return require("tensorflow").data.Dataset.from_tensors(first).repeat(self.steps(batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--network", default="simple_cnn")
    parser.add_argument("--size", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--most", type=int, help="photos to take; all if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drop-caches", action="store_true")
    given = parser.parse_args()

    recipe = Recipe(network=given.network, size=given.size, batch=given.batch, epochs=2, patience=2).resolved()
    dataset = data.scan(given.photos)
    classes = len(dataset.labels)
    every = max(1, len(dataset.splits["train"]) // given.most) if given.most else 1
    pictures = dataset.splits["train"][::every]
    loaded = data.load(pictures, recipe.input)
    array = ArrayFeed(loaded.tensors, loaded.pictures, classes, recipe)
    few = data.load(dataset.splits["validation"][: recipe.batch], recipe.input)
    check = ArrayFeed(few.tensors, few.pictures, classes, recipe)

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = StoreFeed(Stored(pictures, recipe.input, folder=Path(folder)), classes, recipe)
        feeds: dict[str, Feed] = {"batch": OneBatch(array), "array": array, "store": store}
        seconds: dict[str, list[float]] = {name: [] for name in feeds}
        print(environment())
        steps = array.steps(recipe.batch or 0)
        for turn in range(given.rounds):
            for name in sorted(feeds, key=lambda name, turn=turn: (list(feeds).index(name) + turn) % len(feeds)):
                if given.drop_caches:
                    Path("/proc/sys/vm/drop_caches").write_text("1")
                seconds[name].append(epoch(recipe, classes, feeds[name], check) / steps)
                print(f"round {turn + 1} {name:5} {seconds[name][-1] * 1e3:8.2f} ms a step", flush=True)
    what = f"{recipe.network} {recipe.size}×{recipe.size}, batch {recipe.batch}, {len(pictures)} photos"
    for one, other in (("store", "array"), ("array", "batch"), ("store", "batch")):
        ratios = [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
        low, high = min(ratios), max(ratios)
        print(
            f"{one}/{other}: median {statistics.median(ratios):.3f} of {len(ratios)} ({low:.3f} to {high:.3f}), {what}"
        )


def epoch(recipe: Recipe, classes: int, feed: Feed, check: Feed) -> float:
    """Seconds of the second epoch, the one batch of its validation included."""
    require("keras").utils.set_random_seed(0)
    model = networks.build(recipe.network, recipe.input.shape, classes)
    return fit(model, feed, check, recipe)[1].seconds


if __name__ == "__main__":
    main()
