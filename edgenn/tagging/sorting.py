"""Pictures into a folder for each label, moved or linked, never over something that is there.

A picture is put in its new place first (a hard link, or a copy where the file system differs), then its row is made
certain, and only then its old name is removed: killed at any moment, the picture is found under at least one of the
two names, and the next run recognises what was done. A label is somebody's text: it names one folder, never a path.
"""

from __future__ import annotations

import errno
import filecmp
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgenn_device.errors import EdgennError

from .records import Tagged

_PLACEHOLDER = "{label}"
# File systems without hard links, or a boundary between two.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_LONGEST_NAME = 200
_MOST_HINTS = 100_000


class Sorter:
    """Puts pictures where their label belongs.

    Args:
      pattern: a folder with {label} in it.
      link: make symbolic links and leave the pictures where they are.
      resuming: an earlier run may have placed the next pictures already. Ends with the first that it had not, unless
        `always_resuming`: a watched folder comes back in another order.

    Raises:
      EdgennError: the pattern has no {label}.
    """

    def __init__(self, pattern: str, link: bool, *, resuming: bool = False, always_resuming: bool = False) -> None:
        if _PLACEHOLDER not in pattern:
            raise EdgennError(f"{pattern!r} names one folder for all labels: put {_PLACEHOLDER} in it")
        self.pattern = os.path.abspath(os.path.expanduser(pattern))  # noqa: PTH100, PTH111 - keeps {label} as it is
        self.link = link
        self._resuming = resuming or always_resuming
        self._always = always_resuming
        self._hints: dict[str, int] = {}

    @property
    def root(self) -> Path:
        """The folder that holds all labels' folders."""
        return Path(self.pattern.partition(_PLACEHOLDER)[0] + "_").parent

    def place(self, record: Tagged) -> str:
        """Put a picture in its new place and return that; the old one stays until `release`.

        Raises:
          FileNotFoundError: the picture has gone.
        """
        folder = self.pattern.replace(_PLACEHOLDER, folder_name(record.label))
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        source = os.path.abspath(record.path)  # noqa: PTH100
        for place in self._names(os.path.join(folder, os.path.basename(source))):  # noqa: PTH118, PTH119
            try:
                self._put(source, place)
            except FileExistsError:
                if self._is_ours(source, place):
                    return place
                continue
            self._resuming = self._always
            return place
        raise AssertionError("names do not end")

    def release(self, records: Iterable[Tagged]) -> None:
        """Remove the old names of pictures that have moved; what is no longer that picture is left alone."""
        if self.link:
            return
        for record in records:
            if record.sorted_to and _same(record.path, record.sorted_to):
                os.unlink(record.path)  # noqa: PTH108

    def _names(self, wanted: str) -> Iterator[str]:
        """`wanted`, then with -2, -3, … before its suffix. Where many share a name, the search goes on, not over."""
        stem, suffix = os.path.splitext(wanted)  # noqa: PTH122
        for number in itertools.count(self._hints.get(wanted, 1)):
            if number > 1:
                if len(self._hints) >= _MOST_HINTS:
                    self._hints.clear()
                self._hints[wanted] = number
            yield wanted if number == 1 else f"{stem}-{number}{suffix}"

    def _put(self, source: str, place: str) -> None:
        if self.link:
            os.stat(source)  # noqa: PTH116 - a link to nothing is no use
            os.symlink(source, place)  # noqa: PTH211
            return
        try:
            # A link is moved as what it leads to: a relative one would lead elsewhere from there.
            if os.path.islink(source):  # noqa: PTH114
                os.symlink(os.path.realpath(source, strict=True), place)  # noqa: PTH211
            else:
                os.link(source, place)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            _copy(source, place)

    def _is_ours(self, source: str, place: str) -> bool:
        if self.link:
            return os.path.islink(place) and os.readlink(place) == source  # noqa: PTH114, PTH115
        return self._resuming and _same(source, place)


def folder_name(label: str) -> str:
    """A label as the name of one folder: no separators, no control characters, not hidden, not too long.

    >>> folder_name("../x"), folder_name("t-shirt"), folder_name("")
    ('_x', 't-shirt', '_')
    """
    name = "".join("_" if sign in "/\\" or not sign.isprintable() else sign for sign in label).strip().lstrip(".")
    name = name.encode("utf-8", "replace")[:_LONGEST_NAME].decode("utf-8", "ignore")
    return name or "_"


def copy_beside(source: str, folder: str) -> str | None:
    """Copy a picture into a folder under its own name, with a suffix if that is taken.

    Returns:
      The copy's path, or None if the same content is there under that name or a suffixed one already.
    """
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    wanted = os.path.join(folder, os.path.basename(source))  # noqa: PTH118, PTH119
    stem, suffix = os.path.splitext(wanted)  # noqa: PTH122
    for number in itertools.count(1):
        place = wanted if number == 1 else f"{stem}-{number}{suffix}"
        try:
            _copy(source, place)
        except FileExistsError:
            if _same(source, place):
                return None
            continue
        return place
    raise AssertionError("names do not end")


def _copy(source: str, place: str) -> None:
    """Copy, so that `place` is whole or not there.

    Raises:
      FileExistsError: something is there.
    """
    if os.path.lexists(place):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place)
    handle, aside = tempfile.mkstemp(prefix=".edgenn-", dir=os.path.dirname(place))  # noqa: PTH120
    try:
        with open(handle, "wb") as target, open(source, "rb") as file:
            shutil.copyfileobj(file, target)
            target.flush()
            os.fsync(target.fileno())
        shutil.copystat(source, aside)
        try:
            os.link(aside, place)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            # Without hard links: claim the name, which fails if it is taken, then fill it.
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(aside, place)  # noqa: PTH105
    finally:
        if os.path.lexists(aside):
            os.unlink(aside)  # noqa: PTH108


def _same(one: str, other: str) -> bool:
    """Whether two names are one file, or two of the same content."""
    try:
        return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)  # noqa: PTH121
    except OSError:
        return False
