"""The state of an unfinished run on disk: written aside and renamed after every epoch, read when the run is resumed.

RUN/unfinished holds training.json (what is being trained: recipe and photos) and one file for each stage of training.
It appears with the first epoch done and goes when the run is complete; a process that is killed at any moment leaves
either the state of one epoch or of the next. Refuses to go on with other settings or other photos.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically, written_aside

from .recipe import Recipe

FOLDER, IDENTITY = "unfinished", "training.json"


@dataclass(frozen=True)
class Checkpoint:
    """Where one stage of a run keeps its state.

    Attributes:
      folder: RUN/unfinished.
      identity: plain values that say what is trained; written with the first state.
      name: of the stage; a run that trains in several stages takes a checkpoint for each by `stage`.
    """

    folder: Path
    identity: dict[str, Any]
    name: str = "training"

    @property
    def path(self) -> Path:
        """The file of this stage."""
        return self.folder / f"{self.name}.npz"

    def stage(self, name: str) -> Checkpoint:
        """The checkpoint of another stage of the same run."""
        return Checkpoint(self.folder, self.identity, name)

    def save(self, arrays: dict[str, list[Any]], facts: dict[str, Any]) -> None:
        """Keep a state in place of the one before.

        Args:
          arrays: lists of arrays by name.
          facts: plain values.

        Raises:
          EdgennError: the disk is full or RUN cannot be written.
        """
        try:
            self._write(arrays, facts)
        except EdgennError:
            if not any(self.folder.glob("*.npz")):  # not one epoch was kept: leave nothing behind
                self.clear()
                with suppress(OSError):
                    self.folder.parent.rmdir()
            raise

    def _write(self, arrays: dict[str, list[Any]], facts: dict[str, Any]) -> None:
        if not (self.folder / IDENTITY).exists():
            write_atomically(self.folder / IDENTITY, json.dumps(self.identity, indent=1) + "\n")
        named = {f"{name}/{i}": array for name, group in arrays.items() for i, array in enumerate(group)}
        counts = {name: len(group) for name, group in arrays.items()}
        text = json.dumps({**facts, "counts": counts})
        with written_aside(self.path) as aside, aside.open("wb") as file:
            np.savez(file, facts=np.frombuffer(text.encode(), np.uint8), **named)

    def load(self) -> tuple[dict[str, list[Any]], dict[str, Any]] | None:
        """The arrays and facts last saved, or None if there are none.

        Raises:
          EdgennError: the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                facts = json.loads(file["facts"].tobytes())
                counts = facts.pop("counts")
                return {name: [file[f"{name}/{i}"] for i in range(n)] for name, n in counts.items()}, facts
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise EdgennError(f"{self.path} is damaged ({error}): give --overwrite to start anew") from None

    def clear(self) -> None:
        """Forget the run: it is complete, or another one begins."""
        # The identity goes first: without it nothing is resumed, whatever is left.
        (self.folder / IDENTITY).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def unfinished(run: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the unfinished run in this folder trains, or None if there is none to resume.

    Raises:
      EdgennError: it cannot be read.
    """
    path = Path(run) / FOLDER / IDENTITY
    try:
        values = json.loads(path.read_text("utf-8"))
        values["recipe"] = Recipe.from_dict(values["recipe"], str(path))
        return {**values, "fingerprint": str(values["fingerprint"])}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EdgennError(f"{path} is damaged ({error}): give --overwrite to start anew") from None
