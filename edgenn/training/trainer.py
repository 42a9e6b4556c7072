"""Photos in, a run out: the whole of `edgenn train`.

Until it is complete, a run's folder holds nothing but RUN/unfinished, from which it can be resumed; a run that is being
replaced stays until then. Of several machines that train together only the first writes.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn import data, networks
from edgenn.evaluation import metrics
from edgenn.extras import require
from edgenn_device.errors import EdgennError

from . import checkpoint as checkpoints
from . import distill, distribute, finish
from .checkpoint import Checkpoint
from .fit import Epoch, fit, predict
from .photos import PhotoFeed, photo_feed
from .recipe import DEFAULTS, Recipe
from .report import write as write_report
from .run import Run
from .tensorboard import TensorBoard
from .watcher import Watcher


def train(
    photos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: Recipe | None = None,
    overwrite: bool = False,
    resume: bool = False,
    report: bool = False,
    watcher: Watcher | None = None,
    **changes: Any,
) -> Run:
    """Train a network on labelled photos.

    Args:
      photos: `PHOTOS/<class>/*.jpg`, or `PHOTOS/{train,validation,test}/<class>/*.jpg`.
      out: folder of the run, outside of the photos; must not exist yet, unless `overwrite` or `resume`.
      recipe: the settings; the default recipe if None, that of the unfinished run if `resume`.
      overwrite: replace an earlier run at `out`, when the new one is complete.
      resume: go on with the unfinished run at `out`.
      report: write RUN/report.html and RUN/report.json too, which looks at the photos for up to a minute.
      watcher: is told what happens.
      changes: single settings of the recipe, by name; None leaves one as it is.

    Returns:
      The run, with the weights of its best epoch. Interrupted by Ctrl-C it is written with the best epoch so far and
      marked, can be resumed, and KeyboardInterrupt is raised again.

    Raises:
      EdgennError: photos, settings or `out` cannot be used, or are not those of the run to resume; nothing is written
        then.

    >>> train("photos", "runs/first", network="simple_cnn", epochs=20).accuracy      # doctest: +SKIP
    0.86
    """
    started = time.perf_counter()
    data.check_apart(photos, out)
    target, watcher = finish.usable(Path(out), overwrite, resume), watcher or Watcher()
    recipe, fingerprint = _settings(target, recipe, changes, resume)
    dataset = data.scan(photos, recipe.classes or None)
    if resume and dataset.fingerprint != fingerprint:
        raise EdgennError(f"{photos} are not the photos that {out} was begun with: give those, or --overwrite")
    recipe = recipe.resolved(len(dataset.splits["train"]))
    strategy = distribute.strategy()
    with finish.claimed(target) if distribute.is_chief(strategy) else nullcontext():
        finish.usable(target, overwrite, resume)  # once more: another may have finished since
        watcher.photos(dataset)
        checkpoint = Checkpoint(
            target / checkpoints.FOLDER, {"recipe": recipe.to_dict(), "fingerprint": dataset.fingerprint}
        )
        keras = require("keras")
        keras.utils.set_random_seed(recipe.seed)
        with strategy.scope():
            model = networks.build(recipe.network, recipe.input.shape, len(dataset.labels), **recipe.network_options)
        watcher.network(recipe, model.count_params())
        asked = distill.teacher(recipe.distill, dataset.labels, recipe.input) if recipe.distill else None
        training, validation = _decode(dataset, recipe, watcher)
        if overwrite and not resume and distribute.is_chief(strategy):
            checkpoint.clear()

        told = _Told(
            watcher, TensorBoard(checkpoint.folder / finish.TENSORBOARD) if distribute.is_chief(strategy) else None
        )
        interrupted = False
        try:
            answers = distill.answers(asked, training, recipe, watcher.teaching) if asked else None
            _fit(model, training, answers, validation, recipe, told, checkpoint)
        except KeyboardInterrupt:
            if not told.epochs:  # no epoch worth keeping
                raise
            interrupted = True
        finally:
            told.close()
        scores = predict(model, validation)
        result = Run(
            path=target,
            photos=Path(photos).resolve(),
            labels=dataset.labels,
            recipe=recipe,
            fingerprint=dataset.fingerprint,
            parameters=model.count_params(),
            epochs=len(told.epochs),
            best_epoch=max(told.epochs, key=lambda epoch: epoch.score).epoch,
            seconds=time.perf_counter() - started + told.seconds_before,
            accuracy=metrics.accuracy(validation.labels, scores.argmax(1)),
            pictures=validation.count,
            interrupted=interrupted,
            versions=versions(),
            trained_on=dataset.sample,
        )
        matrix = metrics.confusion(validation.labels, scores.argmax(1), len(dataset.labels))
        if distribute.is_chief(strategy):
            finish.complete(result, model, told.epochs, matrix, checkpoint)
        if interrupted:
            raise KeyboardInterrupt
        if report and distribute.is_chief(strategy):
            write_report(result, model, dataset, told.epochs, training, validation, scores, watcher)
        return result


def versions() -> dict[str, str]:
    """What a result depends on beyond its settings: name -> version."""
    packages = ("edgenn", "tensorflow", "keras", "numpy", "opencv-python-headless")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _settings(target: Path, recipe: Recipe | None, changes: dict[str, Any], resume: bool) -> tuple[Recipe, str]:
    """The recipe, to be resolved, and the fingerprint of the photos of the run to resume ("" if there is none).

    Raises:
      EdgennError: settings contradict each other, or the run to resume was begun with other ones.
    """
    begun = checkpoints.unfinished(target) if resume else None
    if begun is None:
        asked = (recipe or Recipe()).replace(**changes)
        asked.resolved()  # refuses what contradicts itself, before any photo is read
        return asked, ""
    kept: Recipe = begun["recipe"]
    if recipe is None and "network_options" in changes:
        changes = {**changes, "network_options": {**kept.network_options, **changes["network_options"]}}
    asked = (recipe or kept).replace(**changes)
    left_open = [name for name in DEFAULTS[kept.mode] if getattr(asked, name) is None]
    asked = replace(asked, **{name: getattr(kept, name) for name in left_open})
    if different := asked.resolved().differences(kept):
        raise EdgennError(
            f"{target} was begun with {different[0]} {getattr(kept, different[0])!r}, not "
            f"{getattr(asked, different[0])!r}: resume it as it is, or give --overwrite"
        )
    return kept, begun["fingerprint"]


def _fit(
    model: Any,
    training: PhotoFeed,
    answers: NDArray[np.float16] | None,
    validation: PhotoFeed,
    recipe: Recipe,
    told: _Told,
    checkpoint: Checkpoint,
) -> None:
    if recipe.mode == "transfer":
        from .transfer import fit_transfer

        fit_transfer(model, training, validation, recipe, answers=answers, watcher=told, checkpoint=checkpoint)
        return
    feed = training if answers is None else distill.TaughtFeed(training, answers)
    fit(model, feed, validation, recipe, on_epoch=told.epoch, on_step=told.step, checkpoint=checkpoint)


def _decode(dataset: data.Dataset, recipe: Recipe, watcher: Watcher) -> tuple[PhotoFeed, PhotoFeed]:
    """Both splits as feeds; what cannot be decoded is told and left out."""
    parts = dataset.splits["train"], dataset.splits["validation"]
    total, before = len(parts[0]) + len(parts[1]), (0, len(parts[0]))
    classes = len(dataset.labels)

    def progress(skipped: int) -> Callable[[int, int], None]:
        return lambda done, _: watcher.decoding(skipped + done, total)

    opened = [
        photo_feed(part, recipe.input, classes, recipe, progress(skipped))
        for part, skipped in zip(parts, before, strict=True)
    ]
    watcher.unreadable((*dataset.problems, *opened[0][1], *opened[1][1]))
    for name, (feed, _) in zip(("training", "validation"), opened, strict=True):
        missing = set(range(classes)) - set(feed.labels.tolist())
        if missing:
            raise EdgennError(f"class {dataset.labels[min(missing)]!r} has no readable {name} photo: add some")
    return opened[0][0], opened[1][0]


class _Told(Watcher):
    """Passes on what it is told, keeps the epochs and writes them for TensorBoard.

    Attributes:
      epochs: all of them, those before a resumption included; `seconds_before` is how long those took.
    """

    def __init__(self, watcher: Watcher, board: TensorBoard | None) -> None:
        self.epochs: list[Epoch] = []
        self.seconds_before = 0.0
        self._watcher, self._board, self._stepped = watcher, board, False

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        self._stepped = True
        self._watcher.step(epoch, step, steps, loss, accuracy)

    def epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        if not self._stepped:
            self.seconds_before += epoch.seconds
        if self._board:
            self._board.epoch(epoch)
        self._watcher.epoch(epoch)

    def caching(self, done: int, total: int) -> None:
        self._watcher.caching(done, total)

    def teaching(self, done: int, total: int) -> None:
        self._watcher.teaching(done, total)

    def close(self) -> None:
        if self._board:
            self._board.close()
