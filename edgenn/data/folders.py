"""Which files of a folder are pictures of which class, and whether folders already split them.

Reads names only, never contents. Two layouts: PHOTOS/<class>/… and PHOTOS/{train,validation,test}/<class>/…, pictures
at any depth below the class folder. Hidden files and folders, files that are no pictures and a folder `unlabelled` are
passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import category

from edgenn_device.errors import EdgennError

from .dataset import Problem

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"})
# Pictures to a person, but not to every OpenCV: named, so that nobody trains on half of their photos unawares.
UNREAD_SUFFIXES = frozenset({".gif", ".heic", ".heif", ".avif", ".jxl"})

# Where a device keeps photos that nobody has labelled yet (edgenn_device.uncertain).
UNLABELLED = "unlabelled"

Split = Literal["train", "validation", "test"]
_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Found:
    """Files by class and split.

    Attributes:
      labels: names of the class folders.
      files: (path as text, which takes a quarter of a Path's room, index of its label, split or None where folders do
        not say).
      folders: split -> its folder, empty if folders do not split.
      problems: what looks like a picture and is not taken.
    """

    labels: tuple[str, ...]
    files: list[tuple[str, int, Split | None]]
    folders: dict[Split, Path]
    problems: list[Problem]


def find(root: Path, wanted: Sequence[str] = (), least_classes: int = 2) -> Found:
    """List the pictures below `root`.

    Args:
      root: PHOTOS.
      wanted: take only these class folders, with labels in this order; empty takes all, sorted by name.
      least_classes: 2, or 1 where one class is enough.

    Raises:
      EdgennError: no such folder, a file, unreadable; too few class folders; an unknown or repeated class; a
        class name that cannot be a label; two folders for one split.
    """
    entries, files = _folders_and_files(root)
    folders = _split_folders(root, entries)
    listings: dict[Split | None, tuple[Path, list[Path], list[Path]]] = {None: (root, entries, files)}
    if folders:
        listings = {split: (path, *_folders_and_files(path)) for split, path in folders.items()}

    problems = [
        Problem(path, "stands in no class folder: move it into one")
        for _, _, files in listings.values()
        for path in files
        if path.suffix.lower() in SUFFIXES
    ]
    names = {entry.name for _, entries, _ in listings.values() for entry in entries} - {UNLABELLED}
    labels = _labels(folders.get("train", root), names, wanted, problems, least_classes)

    # A link back to one of these would make every photo a photo of the class in which the link stands.
    above = {_identity(path) for path in (root, *folders.values())}
    taken: list[tuple[str, int, Split | None]] = []
    for label, name in enumerate(labels):
        for split, (_, entries, _) in listings.items():
            for folder in entries:
                if folder.name == name:
                    for item in _pictures(folder, set(above)):
                        if isinstance(item, Problem):
                            problems.append(item)
                        else:
                            taken.append((str(item), label, split))
    return Found(labels, taken, folders, problems)


def check_apart(photos: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """See that what is written at `out` will not be taken for photos.

    Raises:
      EdgennError: `out` is in the folder of the photos, or is it.
    """
    if Path(out).resolve().is_relative_to(Path(photos).resolve()):
        raise EdgennError(f"{out} lies in the photos, and its plots would be trained on: give an --out elsewhere")


def _labels(
    parent: Path, names: set[str], wanted: Sequence[str], problems: list[Problem], least: int
) -> tuple[str, ...]:
    layout = f"one folder per class, as in {parent / 'CLASS' / 'photo.jpg'}"
    if not names and problems:
        raise EdgennError(f"the pictures in {problems[0].path.parent} have no label: put them into {layout}")
    if not names:
        raise EdgennError(f"{parent} holds no pictures: give it {layout}")
    if unknown := [name for name in wanted if name not in names]:
        raise EdgennError(f"{parent} has no class {unknown[0]!r}: choose from {', '.join(sorted(names))}")
    if len(set(wanted)) < len(wanted):
        raise EdgennError(f"the classes {', '.join(wanted)} name one of them twice: name each once")
    labels = tuple(wanted) or tuple(sorted(names))
    if len(labels) < least:
        raise EdgennError(f"{parent} gives one class, {labels[0]!r}, and telling apart takes two: add {layout}")
    for name in labels:
        # Labels are lines of a text file in the model: control characters, line ends and undecodable bytes break it.
        if any(category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
            raise EdgennError(f"the class folder {name!r} has a name that cannot be a label: rename it")
    return labels


def _folders_and_files(parent: Path) -> tuple[list[Path], list[Path]]:
    """Visible folders and files of a folder that must be readable, sorted by name."""
    try:
        folders, files, _ = _listing(parent)
    except FileNotFoundError:
        raise EdgennError(f"{parent} does not exist: name the folder that holds one folder per class") from None
    except NotADirectoryError:
        raise EdgennError(f"{parent} is a file: name the folder that holds one folder per class") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise EdgennError(
            f"{parent} cannot be read ({getattr(error, 'strerror', None) or error}): check its permissions"
        ) from None
    return folders, files


def _listing(parent: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """What is visible in a folder, each sorted by name: folders, files, and what is neither (a link to nothing)."""
    folders: list[Path] = []
    files: list[Path] = []
    others: list[Path] = []
    with os.scandir(parent) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            try:
                kind = folders if entry.is_dir() else files if entry.is_file() else others
            except OSError:  # a link to itself, or to where we may not look
                kind = others
            kind.append(parent / entry.name)
    return folders, files, others


def _split_folders(root: Path, folders: list[Path]) -> dict[Split, Path]:
    """The folders that split, empty if there is no train folder or if "train" is a class (of locomotives, say)."""
    named: dict[Split, list[Path]] = {}
    for folder in folders:
        if split := _SPLIT_NAMES.get(folder.name.lower()):
            named.setdefault(split, []).append(folder)
    if "train" not in named:
        return {}
    others = [folder for folder in folders if folder.name.lower() not in _SPLIT_NAMES]
    if others and not _folders_and_files(named["train"][0])[0]:
        return {}
    for split, same in named.items():
        if len(same) > 1:
            names = " and ".join(folder.name for folder in same)
            raise EdgennError(f"{root} holds {names}, which both mean {split}: join them into one folder")
    return {split: same[0] for split, same in sorted(named.items())}


def _pictures(top: Path, seen: set[tuple[int, int]]) -> Iterator[Path | Problem]:
    """Pictures at any depth, following links, every folder once."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            identity = _identity(folder)
            if identity in seen:
                continue
            seen.add(identity)
            folders, files, others = _listing(folder)
        except OSError as error:
            yield Problem(folder, f"this folder cannot be read ({error.strerror}): check its permissions")
            continue
        waiting.extend(folders)
        for path in files:
            suffix = path.suffix.lower()
            if suffix in SUFFIXES:
                yield path
            elif suffix in UNREAD_SUFFIXES:
                yield Problem(path, f"{suffix[1:].upper()} is not read: save it as JPEG or PNG")
        for path in others:
            if path.suffix.lower() in SUFFIXES:
                yield Problem(path, "not a file, or a link to nothing: put the picture there")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
