"""From nothing to a classified camera feed: draw, train, convert, evaluate, film, classify, profile, report.

The folder appears under its name when everything in it is written. It replaces an earlier demo only when asked to, and
never a folder that holds anything else.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from edgenn import evaluation
from edgenn.conversion.converter import convert
from edgenn.data import garments
from edgenn.extras import require
from edgenn.training import Augmentation, Recipe, train
from edgenn.training import run as run_files
from edgenn.training.fit import Epoch
from edgenn.training.watcher import Watcher as TrainingWatcher
from edgenn_device.cameras.video_file import VideoFileSource
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError
from edgenn_device.files import folder_written_aside, write_atomically
from edgenn_device.garments import LABELS
from edgenn_device.pipeline import STAGES, Pipeline, Result
from edgenn_device.profiler import Histogram, profile

from .outcome import MODEL, PHOTOS, REPORT, RUN, SUMMARY, VIDEO, Demo, Feed, Shown
from .watcher import Step, Watcher

T = TypeVar("T")

# Small and plain, so that two cores train it in about a minute and the file stays below 300 kB. Drawn garments vary
# enough by themselves: they are shifted and lit a little, and neither erased nor turned as far as photos, of which
# there are never enough.
RECIPE = Recipe(
    network_options={"width": 14, "depth": 4, "dropout": 0.3},
    size=64,
    epochs=26,
    patience=26,
    label_smoothing=0.05,
    augmentation=Augmentation(
        rotation=8.0, shift=0.08, zoom=0.12, brightness=0.08, contrast=0.15, saturation=0.15, erase=0.0
    ),
)


@dataclass(frozen=True)
class Extent:
    """How much of everything.

    Attributes:
      per_class: training photos of each garment; validation and test have a quarter of that each.
      size: (height, width) of photos and video in pixels.
      recipe: of the training.
      video: seconds of video; profile: seconds of profiling.
    """

    per_class: int = 600
    size: tuple[int, int] = (240, 320)
    recipe: Recipe = RECIPE
    video: float = 12.0
    profile: float = 2.0


FULL = Extent()


class _Road:
    """Times the steps and tells the watcher of them."""

    steps = ("draw photos", "train", "convert to int8", "evaluate", "film", "classify the feed", "profile", "report")

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.done: list[Step] = []

    def step(self, work: Callable[[], T], tell: Callable[[T], str]) -> T:
        name = self.steps[len(self.done)]
        self.watcher.begin(len(self.done) + 1, len(self.steps), name)
        began = time.perf_counter()
        result = work()
        step = Step(name, tell(result), time.perf_counter() - began)
        self.done.append(step)
        self.watcher.end(step)
        return result


def demo(
    out: str | os.PathLike[str] = "demo",
    *,
    seed: int = 0,
    overwrite: bool = False,
    extent: Extent = FULL,
    watcher: Watcher | None = None,
) -> Demo:
    """Go the whole road.

    Args:
      out: folder that takes photos, run, model, video and report; must not exist yet, unless `overwrite`.
      seed: of the garments and of the training.
      overwrite: replace an earlier demo at `out`.
      extent: how much of everything.
      watcher: is told what goes on.

    Raises:
      EdgennError: `out` cannot be used, or a step failed; nothing is left behind then.
    """
    began = time.perf_counter()
    target = _usable(Path(out), overwrite)
    for module in ("tensorflow", "matplotlib", "jinja2"):
        require(module)
    road = _Road(watcher or Watcher())
    with folder_written_aside(target) as folder:
        result = _walk(road, folder, seed, extent)
        # What is written names the place where it will be, not the one where it was made.
        placed = replace(
            result,
            out=target,
            run=replace(result.run, path=target / RUN, photos=(target / PHOTOS).absolute()),
            conversion=replace(result.conversion, model=target / result.conversion.model.name),
        )
        write_atomically(folder / RUN / run_files.SETTINGS, placed.run.to_json())

        def write_report() -> Path:
            from .page import page

            return write_atomically(folder / REPORT, page(placed))

        road.step(write_report, lambda _: str(target / REPORT))
        placed = replace(placed, steps=tuple(road.done), seconds=time.perf_counter() - began)
        write_atomically(folder / SUMMARY, json.dumps(placed.to_dict(), indent=1) + "\n")
    return placed


def _usable(out: Path, overwrite: bool) -> Path:
    """`out`, if a demo may be written there."""
    if out.is_dir() and any(out.iterdir()):
        if not (out / SUMMARY).is_file():
            raise EdgennError(f"{out} holds files that are not a demo's: choose another --out")
        if not overwrite:
            raise EdgennError(f"{out} holds a demo already: choose another --out, or give --overwrite")
    elif out.exists() and not out.is_dir():
        raise EdgennError(f"{out} is a file: choose another --out")
    return out


def _walk(road: _Road, folder: Path, seed: int, extent: Extent) -> Demo:
    """Every step up to the report."""
    advance = road.watcher.advance

    def share(done: int, total: int) -> None:
        advance(done / total)

    photos = folder / PHOTOS
    written = road.step(
        lambda: garments.write(photos, extent.per_class, seed=seed, size=extent.size, progress=share),
        lambda count: f"{count:,} photos of {', '.join(LABELS)}",
    )
    history = _History(advance, extent.recipe.resolved().epochs or 0)
    run = road.step(
        lambda: train(photos, folder / RUN, recipe=extent.recipe, seed=seed, watcher=history),
        lambda run: f"{run.parameters:,} parameters, {run.epochs} epochs, {run.accuracy:.1%} on validation photos",
    )
    conversion = road.step(
        lambda: convert(run, out=folder / MODEL, progress=lambda line: advance(0.0, line)),
        lambda done: f"{done.bytes / 1000:,.0f} kB, {done.agreement:.1%} of photos get the float model's label",
    )
    model = conversion.model  # one that was rejected has another name, and the rest of the road is shown with it
    tests = road.step(
        lambda: [evaluation.evaluate(each, photos, split="test", progress=share) for each in (run.model, model)],
        lambda both: f"{both[0].accuracy:.1%} float, {both[1].accuracy:.1%} int8 on {both[1].pictures} unseen photos",
    )
    truth = road.step(
        lambda: garments.write_video(folder / VIDEO, seed=seed, seconds=extent.video, size=extent.size),
        lambda truth: f"{len(truth)} frames of garments that are in no photo",
    )
    feed = road.step(
        lambda: _classify(folder / VIDEO, model, truth, share),
        lambda feed: f"{feed.right:.1%} of frames right at {feed.summary.fps:.1f} a second",
    )
    measured = road.step(
        lambda: profile(model, seconds=extent.profile, source=None, progress=lambda words: advance(0.0, words)),
        lambda measured: f"invoke p50 {measured.steady.latencies.percentile(50) * 1e3:.3f} ms, {measured.description}",
    )
    return Demo(
        out=folder,
        photos=written,
        run=run,
        history=history.columns,
        conversion=conversion,
        float_test=tests[0],
        int8_test=tests[1],
        feed=feed,
        profile=measured,
        steps=tuple(road.done),
        seconds=0.0,
    )


class _History(TrainingWatcher):
    """Keeps the curves and passes progress on."""

    def __init__(self, advance: Callable[[float, str], None], epochs: int) -> None:
        self._advance = advance
        self._epochs = epochs
        self._detail = ""
        self.columns: dict[str, list[float]] = {"loss": [], "val_loss": [], "accuracy": [], "val_accuracy": []}

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        self._advance((epoch - 1 + step / steps) / self._epochs, f"epoch {epoch} of {self._epochs}{self._detail}")

    def epoch(self, epoch: Epoch) -> None:
        for name, values in self.columns.items():
            values.append(getattr(epoch, name))
        self._detail = f", validation {epoch.val_accuracy:.1%}"


def _classify(video: Path, model: Path, truth: tuple[str, ...], share: Callable[[int, int], None]) -> Feed:
    """Run the pipeline over the video at its own pace, as over a camera."""
    stages = {name: Histogram() for name in STAGES}
    latency = Histogram()
    labels: dict[int, str] = {}
    shown: dict[int, Shown] = {}
    scenes = _scenes(truth)
    pipeline = Pipeline(VideoFileSource(video), Classifier(model))

    def keep(result: Result) -> None:
        index, said = result.frame.index, result.classification
        labels[index] = said.label
        for name, spent in result.stages.items():
            stages[name].record(spent)
        latency.record(result.latency)
        scene, ripe = scenes[index]
        if ripe and scene not in shown:
            shown[scene] = Shown(result.frame.image, truth[index], said.label, said.confidence)

    with closing(pipeline.results()) as results:
        for result in results:
            keep(result)
            share(result.frame.index + 1, len(truth))
    return Feed(truth, labels, stages, latency, pipeline.summary(), tuple(shown[key] for key in sorted(shown)))


def _scenes(truth: tuple[str, ...]) -> list[tuple[int, bool]]:
    """For each frame: the number of its scene, and whether it ends two thirds of the scene or more."""
    changes = [0, *(i for i in range(1, len(truth)) if truth[i] != truth[i - 1]), len(truth)]
    return [
        (scene, 3 * (index - first + 1) >= 2 * (last - first))
        for scene, (first, last) in enumerate(pairwise(changes))
        for index in range(first, last)
    ]
