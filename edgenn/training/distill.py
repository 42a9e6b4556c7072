"""A teacher: a trained network whose answers another one learns beside the labels.

Teacher and student see the very same view of a photo (Beyer et al. 2022, arXiv:2106.05237, section 3.1: an answer to
another view teaches less). To compute the teacher for every photo of every epoch would cost many times the student's
own training, so each photo has a fixed number of views, the teacher answers each once, and its answers are kept on disk
for this run and the next. The view itself is not kept: it is drawn again from the photo's name and the view's number,
at the teacher's input size as well as at the student's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn.data.cache import by_use, cache_folder
from edgenn.extras import require
from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.files import written_aside

from . import run
from .augment import DRAWS, vary, view_draws
from .feed import Feed
from .photos import PhotoFeed, photo_feed
from .recipe import Recipe

_BATCH = 64
# Sets of answers that are kept: a few bytes a photo, and each belongs to one teacher, one set of photos and one recipe.
_MOST_KEPT = 32


@dataclass(frozen=True)
class Teacher:
    """A trained network and how to ask it.

    Attributes:
      model: keras.Model: float32 0..255 -> probabilities.
      digest: hex sha256 of its file.
      input: what a photo is made into for it.
      columns: which of its outputs is which of the student's classes.
    """

    model: Any
    digest: str
    input: InputSpec
    columns: tuple[int, ...]


def teacher(path: str, labels: Sequence[str], student: InputSpec) -> Teacher:
    """Load a run or a .keras model as teacher.

    Args:
      path: a run's folder, its model.keras, or another .keras file, which must have the labels in the same order.
      labels: the student's classes.
      student: the student's input: colours and resize rule of a teacher that does not say its own.

    Raises:
      EdgennError: no such model, or one that tells other classes apart.
    """
    keras = require("keras")
    file = Path(path) / run.MODEL if Path(path).is_dir() else Path(path)
    known = run.Run.load(file.parent) if (file.parent / run.SETTINGS).is_file() else None
    if not file.is_file():
        raise EdgennError(f"the teacher {path} does not exist: give a run or a .keras file")
    try:
        model = keras.models.load_model(file, compile=False)
    except Exception as error:  # Keras raises whatever its layers raise
        reason = " ".join(str(error).split())[:200]
        raise EdgennError(f"the teacher {path} is no model that Keras loads ({reason}): give a run or .keras") from None
    theirs = known.labels if known else tuple(labels)
    outputs = model.output_shape[-1]
    if outputs != len(theirs) or sorted(theirs) != sorted(labels):
        what = ", ".join(theirs) if known else f"{outputs} classes"
        raise EdgennError(
            f"the teacher {path} tells apart {what}, and these photos {', '.join(labels)}: train one on these"
        )
    height, width, channels = model.input_shape[1:]
    default = replace(student, height=height, width=width, channels=channels, colour="grey" if channels == 1 else "rgb")
    return Teacher(
        model,
        hashlib.sha256(file.read_bytes()).hexdigest(),
        known.recipe.input if known else default,
        tuple(theirs.index(label) for label in labels),
    )


def answers(
    teacher: Teacher, photos: PhotoFeed, recipe: Recipe, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float16]:
    """What the teacher says to every view of every photo: float16 (views, count, classes), probabilities.

    View `v` of a photo is `vary(photo, view_draws(name, v), recipe.augmentation)`.

    Args:
      photos: the student's; decoded once more for the teacher if its input is another one.
      recipe: its views and augmentation are used.
      progress: called with the number of views of photos answered and their total.
    """
    values = [
        teacher.digest,
        teacher.columns,
        asdict(teacher.input),
        asdict(recipe.augmentation),
        hashlib.sha256(photos.names.tobytes()).hexdigest(),
    ]
    folder = cache_folder() / "teachers" / hashlib.sha256(json.dumps(values).encode()).hexdigest()[:24]
    shape = photos.count, photos.classes
    missing = [view for view in range(recipe.views) if _kept(_file(folder, view), shape) is None]
    if missing:
        theirs, problems = photo_feed(photos.pictures, teacher.input, photos.classes, recipe)
        if problems:  # the student has it already: its rows and the teacher's would no longer be of the same photos
            raise EdgennError(f"{problems[0].path}: {problems[0].reason}")
        for number, view in enumerate(missing):
            before = number * photos.count

            def done(count: int, before: int = before) -> None:
                if progress:
                    progress(before + count, len(missing) * photos.count)

            scores = _answer(teacher, theirs, view, recipe, done)
            with written_aside(_file(folder, view)) as aside, aside.open("wb") as file:
                np.save(file, scores)
        _forget(folder.parent)
    os.utime(folder)
    kept = [_kept(_file(folder, view), shape) for view in range(recipe.views)]
    if any(scores is None for scores in kept):
        raise EdgennError(f"the disk of {folder} gives back other bytes than were written: set XDG_CACHE_HOME")
    return np.stack([scores for scores in kept if scores is not None])


class TaughtFeed(Feed):
    """Photos in one of their views, chosen at random each time, with the teacher's answer to that view."""

    def __init__(self, photos: PhotoFeed, answers: NDArray[np.float16]) -> None:
        super().__init__(photos.labels, photos.classes, photos.recipe)
        self.photos, self.answers = photos, answers

    def take(self, index: Any, seed: Any, training: bool) -> Any:
        if not training:
            return self.photos.take(index, seed, training)
        tf = require("tensorflow")
        batch = index.shape[0]
        views = tf.random.stateless_uniform([batch], seed, 0, len(self.answers), tf.int32)
        pixels, draws, soft = tf.numpy_function(
            self._view, [index, views], (tf.uint8, tf.float32, tf.float32), stateful=False
        )
        photos = tf.cast(tf.ensure_shape(pixels, (batch, *self.photos.shape)), tf.float32)
        varied = vary(photos, tf.ensure_shape(draws, (batch, DRAWS)), self.recipe.augmentation)
        return varied, tf.ensure_shape(soft, (batch, self.classes))

    def _view(self, index: NDArray[np.int64], views: NDArray[np.int32]) -> tuple[Any, Any, Any]:
        try:
            pixels = self.photos.rows(index)
        except EdgennError as error:
            self.failure = error
            raise
        return pixels, view_draws(self.photos.names[index], views), self.answers[views, index].astype(np.float32)


def _answer(
    teacher: Teacher, photos: PhotoFeed, view: int, recipe: Recipe, done: Callable[[int], None]
) -> NDArray[np.float16]:
    tf = require("tensorflow")

    def ask(pixels: Any, draws: Any) -> Any:
        varied = vary(tf.cast(pixels, tf.float32), draws, recipe.augmentation)
        return teacher.model(varied, training=False)

    shapes = (None, *photos.shape), (None, DRAWS)
    asked = tf.function(
        ask,
        input_signature=[tf.TensorSpec(shapes[0], tf.uint8), tf.TensorSpec(shapes[1], tf.float32)],
        autograph=False,
    )
    scores = np.empty((photos.count, photos.classes), np.float16)
    for first in range(0, photos.count, _BATCH):
        index = np.arange(first, min(first + _BATCH, photos.count))
        said = asked(photos.rows(index), view_draws(photos.names[index], view)).numpy()
        scores[index] = said[:, teacher.columns]
        done(int(index[-1]) + 1)
    return scores


def _kept(path: Path, shape: tuple[int, int]) -> NDArray[np.float16] | None:
    """A view's answers; None if there are none, or not as many."""
    try:
        scores: NDArray[np.float16] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return scores if scores.dtype == np.float16 and scores.shape == shape else None


def _file(folder: Path, view: int) -> Path:
    return folder / f"view{view:03d}.npy"


def _forget(folder: Path) -> None:
    """Remove the sets of answers that were used least recently, beyond `_MOST_KEPT`."""
    for kept in by_use(path for path in folder.iterdir() if path.is_dir())[:-_MOST_KEPT]:
        shutil.rmtree(kept.path, ignore_errors=True)
