"""Photos in, a run out: the whole of `edgenn train`.

The folder appears under its name when everything in it is written, never before.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgenn import data, networks
from edgenn.evaluation import metrics, plots
from edgenn.extras import require
from edgenn_device.errors import EdgennError
from edgenn_device.files import folder_written_aside, write_atomically

from . import run as files
from .fit import Epoch, Photos, fit
from .recipe import Recipe
from .run import Run, history_csv
from .watcher import Watcher


@dataclass(frozen=True)
class _Fitted:
    epochs: list[Epoch]
    interrupted: bool


def train(
    photos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: Recipe | None = None,
    overwrite: bool = False,
    watcher: Watcher | None = None,
    **changes: Any,
) -> Run:
    """Train a network on labelled photos.

    Args:
      photos: PHOTOS/<class>/*.jpg, or PHOTOS/{train,validation,test}/<class>/*.jpg.
      out: folder of the run; must not exist yet, unless `overwrite`.
      recipe: the settings; the default recipe if None.
      overwrite: replace an earlier run at `out`.
      watcher: is told what happens.
      changes: single settings of the recipe, by name; None leaves one as it is.

    Returns:
      The run, with the weights of its best epoch. Interrupted by Ctrl-C it is written with the best epoch so far and
      marked, and KeyboardInterrupt is raised again.

    Raises:
      EdgennError: photos, settings or `out` cannot be used; nothing is written then.

    >>> train("photos", "runs/first", network="simple_cnn", epochs=20).accuracy      # doctest: +SKIP
    0.86
    """
    started = time.perf_counter()
    recipe = (recipe or Recipe()).replace(**changes)
    watcher = watcher or Watcher()
    target = _usable(Path(out), overwrite)
    networks.network(recipe.network)
    dataset = data.scan(photos, recipe.classes or None)
    watcher.photos(dataset)
    keras = require("keras")
    keras.utils.set_random_seed(recipe.seed)
    model = networks.build(recipe.network, recipe.input.shape, len(dataset.labels), **recipe.network_options)
    watcher.network(recipe, model.count_params())
    training, validation = _decode(dataset, recipe, watcher)

    fitted = _fit(model, training, validation, recipe, watcher)
    predicted = model.predict(validation.tensors.astype(np.float32), batch_size=128, verbose=0).argmax(1)
    result = Run(
        path=target,
        photos=Path(photos).resolve(),
        labels=dataset.labels,
        recipe=recipe,
        fingerprint=dataset.fingerprint,
        parameters=model.count_params(),
        epochs=len(fitted.epochs),
        best_epoch=max(fitted.epochs, key=lambda e: (e.val_accuracy, -e.val_loss)).epoch,
        seconds=time.perf_counter() - started,
        accuracy=metrics.accuracy(validation.labels, predicted),
        pictures=len(validation.labels),
        interrupted=fitted.interrupted,
        versions=versions(),
    )
    matrix = metrics.confusion(validation.labels, predicted, len(dataset.labels))
    _write(result, model, fitted.epochs, matrix, overwrite)
    if fitted.interrupted:
        raise KeyboardInterrupt
    return result


def versions() -> dict[str, str]:
    """What a result depends on beyond its settings: name -> version."""
    packages = ("edgenn", "tensorflow", "keras", "numpy", "opencv-python-headless")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _fit(model: Any, training: Photos, validation: Photos, recipe: Recipe, watcher: Watcher) -> _Fitted:
    """Fit, and treat Ctrl-C as an early stop once there is an epoch worth keeping."""
    seen: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        seen.append(epoch)
        watcher.epoch(epoch)

    try:
        return _Fitted(fit(model, training, validation, recipe, on_epoch, watcher.step), interrupted=False)
    except KeyboardInterrupt:
        if not seen:
            raise
        return _Fitted(seen, interrupted=True)


def _decode(dataset: data.Dataset, recipe: Recipe, watcher: Watcher) -> tuple[Photos, Photos]:
    """Every photo of both splits as tensors; what cannot be decoded is told and left out."""
    train_part, validation_part = dataset.splits["train"], dataset.splits["validation"]
    total = len(train_part) + len(validation_part)
    first = data.load(train_part, recipe.input, lambda done, _: watcher.decoding(done, total))
    second = data.load(validation_part, recipe.input, lambda done, _: watcher.decoding(len(train_part) + done, total))
    watcher.unreadable((*dataset.problems, *first.problems, *second.problems))
    for name, part in (("training", first), ("validation", second)):
        missing = set(range(len(dataset.labels))) - set(part.labels.tolist())
        if missing:
            raise EdgennError(f"class {dataset.labels[min(missing)]!r} has no readable {name} photo: add some")
    return Photos(first.tensors, first.labels), Photos(second.tensors, second.labels)


def _usable(out: Path, overwrite: bool) -> Path:
    """`out`, if a run may be written there.

    Raises:
      EdgennError: something else stands there, or a run and `overwrite` is not given.
    """
    if out.is_dir() and any(out.iterdir()):
        if not (out / files.SETTINGS).is_file():
            raise EdgennError(f"{out} holds files that are not a run's: choose another --out")
        if not overwrite:
            raise EdgennError(f"{out} holds a run already: choose another --out, or give --overwrite")
    elif out.exists() and not out.is_dir():
        raise EdgennError(f"{out} is a file: choose another --out")
    return out


def _write(run: Run, model: Any, epochs: list[Epoch], matrix: Any, overwrite: bool) -> None:
    """Write the whole folder; an earlier run goes away only when the new one is complete."""
    history = {name: [getattr(e, name) for e in epochs] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    title = f"{run.pictures} validation photos, accuracy {run.accuracy:.3f}"
    with folder_written_aside(_usable(run.path, overwrite)) as folder:
        model.save(folder / files.MODEL, include_optimizer=False)
        write_atomically(folder / files.LABELS, "".join(f"{label}\n" for label in run.labels))
        write_atomically(folder / files.HISTORY, history_csv(epochs))
        write_atomically(folder / files.CURVES, plots.curves(history, run.best_epoch))
        write_atomically(folder / files.CONFUSION, plots.confusion(matrix, run.labels, title))
        write_atomically(folder / files.SETTINGS, run.to_json())
