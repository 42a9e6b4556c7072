"""What was put right on the review page, as folders for the next training: DIR/<label>/picture.

Copies, so that the catalogue stays as it is, and into a folder of training photos as well as into a new one: nothing
there is replaced, and applying the same corrections twice adds nothing. Refuses a picture that is no longer the one
that was looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError

from .reading import is_remote, picture_bytes
from .sorting import copy_beside, folder_name

SCHEMA = 1


@dataclass(frozen=True)
class Applied:
    """What became of corrections.

    Attributes:
      folder: where the labels' folders are.
      copied: pictures that were added.
      present: pictures that were there already.
      left_out: (path, reason) of the others.
    """

    folder: Path
    copied: int
    present: int
    left_out: tuple[tuple[str, str], ...]


def apply(corrections: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Applied:
    """Copy corrected pictures into folders named for their labels.

    Args:
      corrections: corrections.json, as the review page writes it.
      folder: holds, or is to hold, a folder for each label.

    Raises:
      EdgennError: the file is not one of corrections, or the folder cannot be written.
    """
    copied = present = 0
    left_out = []
    for path, sha256, label in _read(Path(corrections)):
        try:
            if is_remote(path):
                raise EdgennError("not a local file: copy it here first")
            if hashlib.sha256(picture_bytes(path)).hexdigest() != sha256:
                raise EdgennError("has changed since it was tagged: tag it again")
            place = copy_beside(path, str(Path(folder) / folder_name(label)))
        except EdgennError as error:
            left_out.append((path, str(error)))
            continue
        except OSError as error:
            raise EdgennError(f"{folder} cannot be written ({error.strerror}): choose another with --to") from None
        copied, present = copied + (place is not None), present + (place is None)
    return Applied(Path(folder), copied, present, tuple(left_out))


def _read(path: Path) -> list[tuple[str, str, str]]:
    try:
        found: Any = json.loads(path.read_text("utf-8"))
        schema, entries = found["schema"], found["corrections"]
        rows = [(entry["path"], entry["sha256"], entry["label"]) for entry in entries]
    except OSError as error:
        raise EdgennError(f"{path} cannot be read ({error.strerror}): check the path") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EdgennError(f"{path} holds no corrections: download it from the page that --review writes") from None
    if schema != SCHEMA:
        raise EdgennError(f"{path} has schema {schema} and this edgenn reads {SCHEMA}: pip install -U edgenn")
    if not all(isinstance(text, str) and text for row in rows for text in row):
        raise EdgennError(f"{path} holds a correction that is not whole: download it again")
    return rows
