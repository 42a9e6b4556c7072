"""From a folder of photos to a `Dataset`: found, checked, split and fingerprinted, without decoding a picture.

Every file is read once for its digest and its header; files that are not whole are reported and left out. Damage that
only decoding reveals is found by `load`, which decodes anyway. Refuses data from which no classifier can be trained
and measured, naming the class and the remedy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from edgenn_device.errors import EdgennError
from edgenn_device.picture_header import read_header

from .dataset import Dataset, Picture, Problem, Progress
from .folders import Found, Split, find
from .parallel import in_parallel
from .split import validation_contents


def scan(
    photos: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    for_training: bool = True,
) -> Dataset:
    """Find, check and split the pictures of a folder.

    Args:
      photos: PHOTOS/<class>/… (split by `split.validation_contents`) or PHOTOS/{train,validation,test}/<class>/…
        (val and valid mean validation; without a validation folder it is split off train).
      classes: take only these class folders, with labels in this order; None or empty takes all, sorted by name.
      progress: called with the number of files read and their total.
      for_training: demand at least two classes, and of each pictures on both sides of the split.

    Raises:
      EdgennError: no such folder, no class folders, an unknown or repeated class; for training also fewer than two
        classes, or a class with too few pictures for training and validation.
    """
    root = Path(photos)
    found = find(root, classes or (), least_classes=2 if for_training else 1)
    audited = in_parallel(_audit, [path for path, _, _ in found.files], progress)
    problems = [*found.problems, *(result for result in audited if isinstance(result, Problem))]
    pictures = [
        (Picture(path, label, result), split)
        for (path, label, split), result in zip(found.files, audited, strict=True)
        if isinstance(result, str)
    ]

    by_content = "validation" not in found.folders
    if by_content:
        pictures = _split_by_content(found, pictures, problems, for_training)
    elif for_training:
        _check_folders(found, pictures, problems)
    splits: dict[str, tuple[Picture, ...]] = {
        name: tuple(sorted((picture for picture, split in pictures if split == name), key=_label_and_path))
        for name in ("train", "validation", "test")
        if name != "test" or name in found.folders
    }
    return Dataset(
        root=root,
        labels=found.labels,
        splits=splits,
        problems=tuple(sorted(problems, key=lambda problem: problem.path)),
        duplicates=_duplicates(splits),
        fingerprint=_fingerprint(found.labels, splits),
        split_rule="content hash" if by_content else "folders",
    )


def _audit(file: str) -> str | Problem:
    """The hex sha256 of a whole picture file, or why it is not one."""
    path = Path(file)
    try:
        content = path.read_bytes()
        read_header(content)
    except EdgennError as error:
        return Problem(path, str(error))
    except OSError as error:
        return Problem(path, f"cannot be read ({error.strerror}): check its permissions")
    return hashlib.sha256(content).hexdigest()


def _split_by_content(
    found: Found, pictures: list[tuple[Picture, Split | None]], problems: Sequence[Problem], for_training: bool
) -> list[tuple[Picture, Split | None]]:
    """Give every picture outside of a test folder to train or validation.

    Raises:
      EdgennError: for training, a class has fewer than two different pictures, or none left for one side.
    """
    contents: dict[str, set[str]] = {name: set() for name in sorted(found.labels)}
    for picture, split in pictures:
        if split != "test":
            contents[found.labels[picture.label]].add(picture.sha256)
    for name, digests in contents.items():
        if for_training and len(digests) < 2:
            count = ("no readable picture", "only one picture (copies of it not counted)")[len(digests)]
            raise EdgennError(
                f"class {name!r} has {count}{_left_out(name, problems)}, and needs one to train on and one for "
                "validation: add some, or leave the class out"
            )
    validation = validation_contents(digests for digests in contents.values() if digests)
    for name, digests in contents.items():
        if not for_training:
            break
        if digests <= validation or digests.isdisjoint(validation):
            raise EdgennError(f"class {name!r} has hardly a picture that is not in another class too: sort them out")
    return [
        (picture, split if split == "test" else "validation" if picture.sha256 in validation else "train")
        for picture, split in pictures
    ]


def _check_folders(found: Found, pictures: list[tuple[Picture, Split | None]], problems: Sequence[Problem]) -> None:
    filled = {(picture.label, split) for picture, split in pictures}
    for label, name in enumerate(found.labels):
        if (label, "train") not in filled:
            where = found.folders["train"] / name
            reason = _left_out(name, problems)
            raise EdgennError(
                f"class {name!r} has no readable picture in {where}{reason}: add some, or leave the class out"
            )
        if (label, "validation") not in filled:
            where = found.folders["validation"] / name
            raise EdgennError(
                f"class {name!r} has no readable picture in {where}{_left_out(name, problems)}: add some, or remove "
                "the validation folder to have validation pictures chosen from train"
            )


def _left_out(name: str, problems: Sequence[Problem]) -> str:
    """Of a class without pictures: what lies in its folder all the same, such as photos that a phone saved as HEIC."""
    there = [problem for problem in problems if name in problem.path.parts[:-1]]
    if not there:
        return ""
    return f" ({len(there)} left out; {there[0].path.name}: {there[0].reason})"


def _duplicates(splits: dict[str, tuple[Picture, ...]]) -> tuple[tuple[Path, ...], ...]:
    """Groups of paths with one content in several splits or under several labels."""
    seen: set[bytes] = set()
    repeated: set[bytes] = set()
    for pictures in splits.values():
        for picture in pictures:
            (repeated if picture.digest in seen else seen).add(picture.digest)
    places: dict[bytes, list[tuple[Path, tuple[int, str]]]] = {}
    for split, pictures in splits.items():
        for picture in pictures:
            if picture.digest in repeated:
                places.setdefault(picture.digest, []).append((picture.path, (picture.label, split)))
    return tuple(
        sorted(
            tuple(sorted(path for path, _ in group))
            for group in places.values()
            if len({place for _, place in group}) > 1
        )
    )


def _fingerprint(labels: tuple[str, ...], splits: dict[str, tuple[Picture, ...]]) -> str:
    lines = sorted(
        f"{labels[picture.label]}\t{split}\t{picture.sha256}\n"
        for split, pictures in splits.items()
        for picture in pictures
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _label_and_path(picture: Picture) -> tuple[int, str]:
    """Orders texts as Paths are ordered, part by part, without holding a Path for each."""
    return picture.label, str(picture.path).replace(os.sep, "\0")
