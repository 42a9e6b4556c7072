"""Separate pictures: one file, a folder (with all folders in it) or a glob, in natural order (2.jpg before 10.jpg).

Hands over the bytes as they are on disk, so that the preprocess stage can decode a JPEG at the reduction it needs. A
picture that cannot be read is skipped with a warning and counted; it never ends the run.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from ..addresses import hidden
from ..errors import EdgennError
from ..home import expanded
from .base import Frame, Source

# What a folder is searched for; a glob says for itself what it wants.
PICTURES = frozenset(
    (".bmp", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)

_log = logging.getLogger(__name__)


class StillsSource(Source):
    """Pictures from disk, each once; `live` and `continuous` are False.

    In a folder of class folders (FOLDER/<class>/*.jpg) the name of the class folder is the frame's `truth`.

    Args:
      spec: a picture, a folder, or a glob such as "photos/*.jpg" or "photos/**/*.png".
    """

    live = False
    continuous = False

    def __init__(self, spec: str | os.PathLike[str]) -> None:
        self.name = str(spec)
        self._root = Path(expanded(spec))
        self._paths: list[Path] = []
        self._rest: Iterator[Path] = iter(())
        self._index = 0

    def open(self) -> None:
        self._paths = sorted(self._find(), key=_natural)
        if not self._paths:
            if self._root.is_dir():
                raise EdgennError(f"the folder {self.name} holds no picture ({', '.join(sorted(PICTURES))})")
            raise EdgennError(f"there is no picture {hidden(self.name)}: check the path")
        self._rest = iter(self._paths)

    def read(self) -> Frame | None:
        for path in self._rest:
            taken_at = time.monotonic()
            try:
                data = path.read_bytes()
            except OSError as error:
                self.skipped += 1
                _log.warning("%s left out: %s", path, error.strerror or error)
                continue
            frame = Frame(data, taken_at, self._index, str(path), self._truth(path))
            self._index += 1
            return frame
        return None

    def close(self) -> None:
        self._rest = iter(())

    def __len__(self) -> int:
        """Number of pictures found by `open`."""
        return len(self._paths)

    def _find(self) -> list[Path]:
        if self._root.is_file():
            return [self._root]
        if self._root.is_dir():
            found = (
                Path(folder) / name
                for folder, _, names in os.walk(self._root)
                for name in names
                if Path(name).suffix.lower() in PICTURES and not name.startswith(".")
            )
        else:
            # pathlib's glob takes no absolute pattern.
            found = (Path(name) for name in glob.glob(str(self._root), recursive=True))  # noqa: PTH207
        # Neither pipes nor devices, whose read would never end.
        return [path for path in found if path.is_file()]

    def _truth(self, path: Path) -> str | None:
        return path.parent.name if self._root.is_dir() and path.parent != self._root else None


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that compares digits as numbers."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part]
