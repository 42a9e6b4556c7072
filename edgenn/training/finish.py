"""The last step of training: everything that a run holds is written, and then takes its place.

Heavy files are made in RUN/unfinished first; then what stood in RUN goes, the new files are renamed into it, and
run.json comes last: a folder without it is not a run. A process killed anywhere in between is resumed to the same end.
From before its first epoch until then a run is held against a second process by a lock, which dies with its process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgenn.evaluation import plots
from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically

from . import run as files
from .checkpoint import FOLDER, Checkpoint, unfinished
from .fit import Epoch
from .run import Run, history_csv

TENSORBOARD = "tensorboard"
# Beside RUN/unfinished, which is emptied while it is held.
LOCK = f"{FOLDER}.lock"


def usable(out: Path, overwrite: bool, resume: bool) -> Path:
    """`out`, if a run may be written there.

    Raises:
      EdgennError: something else stands there; a run, finished or not, and neither `overwrite` nor `resume` is given.
    """
    if out.exists() and not out.is_dir():
        raise EdgennError(f"{out} is a file: choose another --out")
    begun = unfinished(out) is not None
    if resume and not begun:
        raise EdgennError(f"{out} holds no unfinished run: leave --resume away")
    if resume or (overwrite and begun):
        return out
    if begun:
        raise EdgennError(
            f"{out} holds an unfinished run: give --resume to go on with it, or --overwrite to start anew"
        )
    if out.is_dir() and any(path.name not in (FOLDER, LOCK) for path in out.iterdir()):
        if not (out / files.SETTINGS).is_file():
            raise EdgennError(f"{out} holds files that are not a run's: choose another --out")
        if not overwrite:
            raise EdgennError(f"{out} holds a run already: choose another --out, or give --overwrite")
    return out


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold the run's folder against a second process; the claim ends with this one, however that ends.

    Raises:
      EdgennError: another process holds it, or it cannot be written.
    """
    place = out / LOCK
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = open(place, "w")  # noqa: SIM115
    except OSError as error:
        raise EdgennError(f"{out} cannot be written ({error.strerror}): choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(lock.fileno()), place.stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError:
            held = True  # This file system has no locks.
        if not held:  # or it was held until just now, and the lock is that of a file that is gone
            raise EdgennError(f"{out} is being trained by another edgenn train: give another --out")
        try:
            yield
        finally:
            place.unlink(missing_ok=True)
            with suppress(OSError):
                out.rmdir()  # if nothing was written


def complete(run: Run, model: Any, epochs: Sequence[Epoch], matrix: Any, checkpoint: Checkpoint) -> None:
    """Put the run in its place.

    Args:
      matrix: int64 (classes, classes), confusion on the validation photos.
      checkpoint: of this run; forgotten at the end, unless the run was interrupted and can still be resumed.
    """
    history = {name: [getattr(e, name) for e in epochs] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    title = f"{run.pictures} validation photos, accuracy {run.accuracy:.3f}"
    new = checkpoint.folder / "complete"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    model.save(new / files.MODEL, include_optimizer=False)
    write_atomically(new / files.LABELS, "".join(f"{label}\n" for label in run.labels))
    write_atomically(new / files.HISTORY, history_csv(epochs))
    write_atomically(new / files.CURVES, plots.curves(history, run.best_epoch))
    write_atomically(new / files.CONFUSION, plots.confusion(matrix, run.labels, title))
    write_atomically(new / files.SETTINGS, run.to_json())
    _take_place(run.path, new, checkpoint.folder / TENSORBOARD)
    if not run.interrupted:
        checkpoint.clear()


def _take_place(folder: Path, new: Path, logs: Path) -> None:
    (folder / files.SETTINGS).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name not in (FOLDER, LOCK):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    logs.replace(folder / TENSORBOARD)  # there also after a kill in the middle of this: a resumed run writes them anew
    for path in sorted(new.iterdir(), key=lambda path: path.name == files.SETTINGS):
        path.replace(folder / path.name)
    new.rmdir()
