"""The words of this room: a picture, what is wrong with one, a data set, and a part of it in memory."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Progress: TypeAlias = Callable[[int, int], None]
"""Called as progress(done, total) on the caller's own thread; the last call has done == total."""


# Of how many training pictures a sample tells.
_SAMPLE = 64
# More photos that were left out than this are counted, not listed.
_MOST_TOLD = 10


class Picture:
    """A labelled file, in some 200 bytes: a data set may have a million of them.

    Attributes:
      label: index into `Dataset.labels`.
      digest: sha256 of the file's content, 32 bytes.
    """

    __slots__ = ("_path", "digest", "label")

    def __init__(self, path: str | os.PathLike[str], label: int, sha256: str) -> None:
        self._path, self.label, self.digest = os.fspath(path), label, bytes.fromhex(sha256)

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self._path)

    @property
    def sha256(self) -> str:
        """Hex digest of the file's content."""
        return self.digest.hex()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Picture):
            return NotImplemented
        return (self._path, self.label, self.digest) == (other._path, other.label, other.digest)

    def __hash__(self) -> int:
        return hash((self._path, self.label, self.digest))

    def __repr__(self) -> str:
        return f"Picture({self._path!r}, {self.label}, {self.sha256!r})"


@dataclass(frozen=True)
class Problem:
    """A file or folder that was left out, and one line that says why and how to mend it."""

    path: Path
    reason: str


def told(problems: Sequence[Problem]) -> list[str]:
    """What was left out and why, for a person: a line each, the rest counted where there are many."""
    lines = [f"{problem.path}: {problem.reason}" for problem in problems[:_MOST_TOLD]]
    return lines if len(problems) <= _MOST_TOLD else [*lines, f"{len(problems) - _MOST_TOLD} more"]


@dataclass(frozen=True)
class Dataset:
    """What `scan` found.

    Attributes:
      root: the folder that was scanned.
      labels: class names, sorted by name or in the order that was asked for.
      splits: pictures of "train", "validation" and, if there is a folder of that name, "test"; each sorted by label
        and path.
      problems: what was left out, sorted by path.
      duplicates: groups of files with identical content that stand in different splits or under different labels.
        They are all in `splits` still: which of them is right, a person must say.
      fingerprint: hex sha256 over label, split and content of every picture: equal for equal data sets, whatever the
        files are called.
      split_rule: "folders" if train and validation are folders, "content hash" if validation was chosen by `split`.
    """

    root: Path
    labels: tuple[str, ...]
    splits: dict[str, tuple[Picture, ...]]
    problems: tuple[Problem, ...]
    duplicates: tuple[tuple[Path, ...], ...]
    fingerprint: str
    split_rule: Literal["folders", "content hash"]

    @property
    def sample(self) -> str:
        """By which others can tell later whether photos are among those for training here (see `among`).

        The last six bytes of the training pictures' digests in hex, the smallest `_SAMPLE` of them with spaces between
        (the first bytes decide where `split` puts a picture, and would all be of one side). Who has a tenth of the same
        pictures has one of these with a probability of 1 - 0.9^64 = 99.9 percent.
        """
        return " ".join(heapq.nsmallest(_SAMPLE, {_short(picture) for picture in self.splits["train"]}))


def among(pictures: Iterable[Picture], sample: str) -> bool:
    """Whether any of `pictures` is in a `Dataset.sample`.

    Of two different pictures six bytes are equal once in 2^48: none of a million is taken for one of a sample with a
    probability of 0.9999998.
    """
    known = frozenset(sample.split())
    return bool(known) and any(_short(picture) in known for picture in pictures)


def _short(picture: Picture) -> str:
    return picture.digest[-6:].hex()


@dataclass(frozen=True)
class Loaded:
    """Pictures in memory.

    Attributes:
      tensors: uint8, shape (n, height, width, channels), as `edgenn_device.preprocess.to_bytes` makes them.
      labels: int64, shape (n,).
      pictures: the n pictures, in the order in which they were given.
      problems: the pictures given that could not be decoded and are left out.
    """

    tensors: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    pictures: tuple[Picture, ...]
    problems: tuple[Problem, ...]
