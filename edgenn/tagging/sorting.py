"""Pictures into a folder for each label, moved or linked, never over something that is there.

A picture is put in its new place first (a hard link, or a copy where the file system differs), then its row is made
certain, and only then its old name is removed: killed at any moment, the picture is found under at least one of the
two names, and the next run recognises what was done: the same file, or a copy that bears the time of uncertain ones. A
link is moved as the picture that it leads to. A label is somebody's text: it names one folder, never a path.
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
_LONGEST_FILE_NAME = 255  # bytes, on all usual file systems
# A copy has this modification time (1980-01-02, which every file system can hold) until its row is certain, then that
# of its picture: after a kill it is told by that from another picture of the same content.
_UNCERTAIN = 315_619_200
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
        self._uncertain: set[str] = set()  # places that were given and not yet released

    @property
    def root(self) -> Path:
        """The folder that holds all labels' folders."""
        return Path(self.pattern.partition(_PLACEHOLDER)[0] + "_").parent

    def place(self, record: Tagged) -> str:
        """Put a picture in its new place and return that; the old one stays until `release`.

        A picture that is in its label's folder already stays as it is.

        Raises:
          FileNotFoundError: the picture has gone.
          EdgennError: a file is where the folder should be.
        """
        folder = self.pattern.replace(_PLACEHOLDER, folder_name(record.label))
        try:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        except (FileExistsError, NotADirectoryError):
            raise EdgennError(f"{folder}: a file stands where this folder should: move it, or sort elsewhere") from None
        source = os.path.abspath(record.path)  # noqa: PTH100
        wanted = os.path.join(folder, os.path.basename(source))  # noqa: PTH118, PTH119
        if _one_name(record.path, wanted):
            return wanted
        for place in self._names(wanted):
            try:
                self._put(source, place)
                self._resuming = self._always
            except FileExistsError:
                if not self._is_ours(source, place):
                    continue
            self._uncertain.add(place)
            return place
        raise AssertionError("names do not end")

    def release(self, records: Iterable[Tagged]) -> None:
        """Remove the old names of pictures that have moved; what is no longer that picture is left alone."""
        # Links first: what they lead to may be among the others.
        for record in sorted(records, key=lambda record: not os.path.islink(record.path)):  # noqa: PTH114
            path, place = record.path, record.sorted_to
            self._uncertain.discard(place)
            if self.link or not place or not _same(path, place) or _one_name(path, place):
                continue
            if _is_uncertain(place):
                found = os.stat(path)  # noqa: PTH116
                os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))
            os.unlink(path)  # noqa: PTH108

    def _names(self, wanted: str) -> Iterator[str]:
        """`wanted`, then with -2, -3, … before its suffix. Where many share a name, the search goes on, not over."""
        for number in itertools.count(self._hints.get(wanted, 1)):
            if number > 1:
                if len(self._hints) >= _MOST_HINTS:
                    self._hints.clear()
                self._hints[wanted] = number
            yield _numbered(wanted, number)

    def _put(self, source: str, place: str) -> None:
        if self.link:
            os.stat(source)  # noqa: PTH116 - a link to nothing is no use
            os.symlink(source, place)  # noqa: PTH211
            return
        try:
            os.link(os.path.realpath(source, strict=True), place)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            _copy(source, place, certain=False)

    def _is_ours(self, source: str, place: str) -> bool:
        if self.link:
            return os.path.islink(place) and os.readlink(place) == source  # noqa: PTH114, PTH115
        if not self._resuming or place in self._uncertain:
            return False
        return _is_one_file(source, place) or (_same(source, place) and _is_uncertain(place))


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
    for number in itertools.count(1):
        place = _numbered(wanted, number)
        try:
            _copy(source, place)
        except FileExistsError:
            if _same(source, place):
                return None
            continue
        return place
    raise AssertionError("names do not end")


def _numbered(wanted: str, number: int) -> str:
    """The name that is tried in that turn: `wanted`, then with -2, -3, … before its suffix, cut where that is too long.

    >>> _numbered("hat/a.jpg", 1), _numbered("hat/a.jpg", 2)
    ('hat/a.jpg', 'hat/a-2.jpg')
    """
    if number == 1:
        return wanted
    folder, name = os.path.split(wanted)
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    ending = f"-{number}{suffix}"
    while stem and len(os.fsencode(stem + ending)) > _LONGEST_FILE_NAME:
        stem = stem[:-1]
    return os.path.join(folder, stem + ending)  # noqa: PTH118


def _copy(source: str, place: str, certain: bool = True) -> None:
    """Copy, so that `place` is whole or not there; with its times if it is `certain`.

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
        if not certain:
            os.utime(aside, (_UNCERTAIN, _UNCERTAIN))
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


def _one_name(one: str, other: str) -> bool:
    """Whether two paths are one entry of one folder, also where links lead to it: to remove one is to remove both."""
    (folder, name), (folder_, name_) = os.path.split(one), os.path.split(other)
    return name == name_ and os.path.samefile(folder or os.curdir, folder_ or os.curdir)  # noqa: PTH121


def _is_uncertain(place: str) -> bool:
    """Whether a copy's row is not certain yet."""
    return int(os.stat(place).st_mtime) == _UNCERTAIN  # noqa: PTH116


def _is_one_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)  # noqa: PTH121
    except OSError:
        return False


def _same(one: str, other: str) -> bool:
    """Whether two names are one file, or two of the same content."""
    try:
        return _is_one_file(one, other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
