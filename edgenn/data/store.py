"""Decoded pictures on disk: what does not fit into memory is decoded once and then read back, picture by picture.

The store lies in the user's cache folder, is shared by all runs, and is keyed by the content of a picture and the input
it was made for, so that renamed or regrouped photos are found again. It is bounded: what is used least recently goes
first, and pictures that find no room are decoded each time they are asked for. Pixels are read by `pread` and not
mapped, so that resident memory does not grow with the store.

A segment is a file of equally large rows (NAME.rows) and, written after it, the digests of its rows (NAME.digests).
Rows without digests are what a killed process left behind; no one reads them, and the next run removes them. Runs may
write at the same time: each writes segments of its own, and a segment that another run removes stays readable for those
that have it open.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically
from edgenn_device.preprocess import to_bytes

from .cache import Kept, by_use, cache_folder, evict, remove_abandoned, share_of_disk
from .dataset import Picture, Problem, Progress
from .load import decode
from .parallel import in_parallel

# Share of the disk (what is free and what the store has already) that the store may take.
SHARE_OF_DISK = 0.5
# A segment's rows: large, so that a million pictures need few open files; what a kill loses is at most one of them.
_SEGMENT = 1 << 30
# Pixels decoded at once, before they are written.
_BLOCK = 16 << 20
_DIGEST = 32


class Stored:
    """Pictures of one input, most of them in the store.

    Attributes:
      labels: int64 (n,).
      digests: (n, 32) uint8, the sha256 of each picture's file.
      problems: the pictures that cannot be decoded and are left out.
      shape: (height, width, channels) of each.
      decoded: how many had to be decoded now; 0 if the store had them all.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        spec: InputSpec,
        progress: Progress | None = None,
        *,
        folder: Path | None = None,
        most: int | None = None,
    ) -> None:
        """Find pictures in the store, and decode those that are not there.

        Args:
          pictures: for instance one split of a `Dataset`.
          spec: the input they are made for; its dtype, mean and std are not used: bytes stay bytes.
          progress: called with the number of pictures that are ready and their total.
          folder: of the store; None: pictures/ in `cache_folder()`.
          most: bytes that the store may take; None: `SHARE_OF_DISK`.

        Raises:
          EdgennError: the folder cannot be written.
        """
        self.spec, self.shape = spec, spec.shape
        self._row = int(np.prod(spec.shape))
        self._root = (folder or cache_folder() / "pictures").absolute()
        self._folder = self._root / _key(spec)
        self._files: list[BinaryIO] = []
        self._paths: list[Path] = []
        self._pictures = pictures
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _sweep(self._root)
            if most is None:
                most = share_of_disk(self._root, SHARE_OF_DISK, _segments(self._root))
            where, problems = self._fill(_digests(pictures), most // self._row * self._row, progress)
        except OSError as error:
            raise EdgennError(
                f"the picture cache {self._root} cannot be used ({error.strerror or error}): "
                "set XDG_CACHE_HOME to a folder with room"
            ) from None
        self.problems = tuple(problems[index] for index in sorted(problems))
        self._kept = np.delete(np.arange(len(pictures)), sorted(problems))
        self._where = where[self._kept]
        self.labels = np.fromiter((pictures[int(index)].label for index in self._kept), np.int64, len(self._kept))

    @property
    def digests(self) -> npt.NDArray[np.uint8]:
        """The sha256 of each picture's file: uint8 (n, 32)."""
        everything = np.frombuffer(_digests(self._pictures), np.uint8).reshape(-1, _DIGEST)
        return everything[self._kept]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The n pictures, in the order of `labels`."""
        return tuple(self._pictures[int(index)] for index in self._kept)

    @property
    def on_disk(self) -> int:
        """How many of the n pictures are in the store; the others are decoded each time."""
        return int((self._where >= 0).sum())

    def rows(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Pictures by their place: uint8 (len(index), height, width, channels).

        Raises:
          EdgennError: a picture's file has gone or the store was damaged.
        """
        out = np.empty((len(index), *self.shape), np.uint8)
        for picture, at in zip(out, index.tolist(), strict=True):
            where = int(self._where[at])
            if where < 0:
                path = self._pictures[int(self._kept[at])].path
                try:
                    to_bytes(path.read_bytes(), self.spec, out=picture)
                except OSError as error:
                    raise EdgennError(f"{path} cannot be read any more ({error.strerror}): start again") from None
                continue
            segment, row = divmod(where, 1 << 32)
            if os.preadv(self._files[segment].fileno(), [picture.data], row * self._row) != self._row:
                raise EdgennError(f"{self._paths[segment]} in the picture cache is damaged: remove it")
        return out

    def _fill(
        self, digests: bytes, left: int, progress: Progress | None
    ) -> tuple[npt.NDArray[np.int64], dict[int, Problem]]:
        """(where each picture is, -1 for nowhere; those that cannot be decoded); `left` bytes may be taken."""
        keys = np.frombuffer(digests, f"V{_DIGEST}")
        where = self._find(keys)
        missing = np.flatnonzero(where < 0)
        problems: dict[int, Problem] = {}
        self.decoded, ready = len(missing), len(keys) - len(missing)
        if progress and not len(missing):
            progress(len(keys), len(keys))
        wanted = len(missing) * self._row
        left -= evict(_segments(self._root), left - wanted, keep=set(self._paths), remove=_remove)
        for first in range(0, len(missing), max(1, _SEGMENT // self._row)):
            part = missing[first : first + max(1, _SEGMENT // self._row)]
            stored: list[int] = []
            path = self._folder / f"{uuid.uuid4().hex}.rows"
            with path.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # says that the rows are being written; see `_sweep`
                for block, pixels in self._decoded(part, problems):
                    ready += len(block)
                    if progress:
                        progress(ready, len(keys))
                    good = [i for i, at in enumerate(block) if int(at) not in problems][: max(0, left // self._row)]
                    file.write(pixels[good].data)
                    left -= len(good) * self._row
                    stored += [int(block[i]) for i in good]
                file.flush()
                os.fsync(file.fileno())
                if stored:
                    write_atomically(path.with_suffix(".digests"), keys[stored].tobytes())
            if not stored:
                path.unlink()
                continue
            where[stored] = self._open(path) * (1 << 32) + np.arange(len(stored))
        return where, problems

    def _decoded(
        self, places: npt.NDArray[np.int64], problems: dict[int, Problem]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        """Blocks of (places, pixels); what cannot be decoded is put into `problems`."""
        size = max(1, _BLOCK // self._row)
        pixels = np.empty((min(size, len(places)), *self.shape), np.uint8)
        for first in range(0, len(places), size):
            block = places[first : first + size]

            def decode_into(i: int, block: npt.NDArray[np.int64] = block) -> Problem | None:
                return decode(self._pictures[int(block[i])], self.spec, pixels[i])

            results = in_parallel(decode_into, range(len(block)))
            problems.update({int(block[i]): result for i, result in enumerate(results) if result is not None})
            yield block, pixels[: len(block)]

    def _find(self, keys: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
        """Where in the store each digest is, -1 for nowhere; opens the segments that hold any."""
        where = np.full(len(keys), -1, np.int64)
        for index in sorted(self._folder.glob("*.digests")):
            rows = index.with_suffix(".rows")
            with suppress(FileNotFoundError):  # another run is removing it
                held = np.frombuffer(index.read_bytes(), f"V{_DIGEST}")
                if rows.stat().st_size != len(held) * self._row:
                    continue
                sorter = np.argsort(held)
                place = np.minimum(np.searchsorted(held, keys, sorter=sorter), len(held) - 1)
                found = (held[sorter[place]] == keys) & (where < 0)
                if found.any():
                    where[found] = self._open(rows) * (1 << 32) + sorter[place[found]]
        return where

    def _open(self, rows: Path) -> int:
        """Open a segment for reading, mark it as used, and return its number."""
        self._files.append(rows.open("rb", buffering=0))
        self._paths.append(rows)
        os.utime(rows)
        return len(self._files) - 1


def _key(spec: InputSpec) -> str:
    """Name of the folder of all pictures made for this input by this OpenCV."""
    values = [*spec.shape, spec.colour, spec.resize, cv2.__version__]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _digests(pictures: Sequence[Picture]) -> bytes:
    return b"".join(picture.digest for picture in pictures)


def _segments(root: Path) -> list[Kept]:
    """The rows of every complete segment, least recently used first."""
    return by_use(rows for rows in root.glob("*/*.rows") if _complete(rows))


def _complete(rows: Path) -> bool:
    return rows.with_suffix(".digests").exists()


def _remove(rows: Path) -> None:
    # The digests first: without them nobody opens the rows.
    rows.with_suffix(".digests").unlink(missing_ok=True)
    rows.unlink(missing_ok=True)


def _sweep(root: Path) -> None:
    """Remove rows that a killed process left without digests."""
    for rows in root.glob("*/*.rows"):
        if not _complete(rows):
            remove_abandoned(rows, lambda rows=rows: _complete(rows))  # type: ignore[misc]
