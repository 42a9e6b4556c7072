"""Which pictures: files, folders, globs, URLs and lists on stdin, one after the other and never all in memory.

Names only; nothing is opened. A folder gives what has a picture's suffix, with all folders in it, sorted by name,
those of forms that are not read too: their rows say why they have no label. A file or a line of a list is taken as it
is, because whoever names it means it. Refuses a path that names nothing.
"""

# ruff: noqa: PTH112, PTH119, PTH122, PTH207 - a hundred million names: an object for each would cost more than they do

from __future__ import annotations

import heapq
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from glob import escape, has_magic, iglob
from typing import IO, Any, TypeAlias

from edgenn.data.folders import SUFFIXES, UNREAD_SUFFIXES
from edgenn_device.errors import EdgennError

from .reading import file_system, is_remote

# Endings that a folder's pictures have.
_TAKEN = SUFFIXES | UNREAD_SUFFIXES
# Names of one folder that are sorted in memory (60 MB); a larger folder is sorted in runs on disk.
_RUN = 500_000
_PIECE = 1 << 16

# What becomes of a folder that cannot be listed: it is passed over if this returns.
Failed: TypeAlias = Callable[[str, OSError], None]


def pictures(paths: Iterable[str], stdin: IO[bytes] | None = None) -> Iterator[str]:
    """The pictures that `paths` name, in their order.

    Args:
      paths: files, folders, globs (also **), URLs, or "-" for a list on `stdin`.
      stdin: a binary stream of paths and URLs, one a line, or each ended by a null character (`find -print0`).

    Raises:
      EdgennError: a path names nothing, or a folder holds no picture.
    """
    for path in paths:
        found: Iterator[str]
        if path == "-" and stdin is not None:
            found = lines(stdin)
        elif is_remote(path):
            found = _remote(path)
        elif os.path.isdir(path):
            found = folder(path)
        elif os.path.lexists(path):
            found = iter((path,))
        elif has_magic(path):
            found = _glob(path)
        else:
            raise EdgennError(f"{path} does not exist: give a picture, a folder, a glob, a URL, or - for a list")
        first = next(found, None)
        if first is None:
            raise EdgennError(f"{path}: no picture ({', '.join(sorted(SUFFIXES))})")
        yield first
        yield from found


def is_picture(name: str) -> bool:
    """Whether a folder's entry is taken: a picture's suffix, and not hidden."""
    return os.path.splitext(name)[1].lower() in _TAKEN and not os.path.basename(name).startswith(".")


def lines(stream: IO[bytes]) -> Iterator[str]:
    """The entries of a list, ended by null characters if there are any in its first 64 KB, else by line feeds."""
    piece = stream.read(_PIECE)
    end = b"\0" if b"\0" in piece else b"\n"
    rest = b""
    while piece:
        *whole, rest = (rest + piece).split(end)
        yield from _entries(whole, end)
        piece = stream.read(_PIECE)
    yield from _entries([rest], end)


def _entries(entries: list[bytes], end: bytes) -> Iterator[str]:
    for entry in entries:
        if end == b"\n":
            entry = entry.rstrip(b"\r")
        if entry:
            yield os.fsdecode(entry)


def _refuse(path: str, error: OSError) -> None:
    """What a listing does with a folder that cannot be listed, unless it is told to do something else.

    Raises:
      EdgennError: always.
    """
    raise EdgennError(f"{path} cannot be listed ({error.strerror}): check its permissions") from None


def folder(root: str, failed: Failed = _refuse) -> Iterator[str]:
    """Pictures of a folder, then those of its folders; hidden ones are passed over, links to folders not followed."""
    for here in _folders(root, failed):
        try:
            yield from _sorted(entry.path for entry in _scanned(here) if is_picture(entry.name) and _is_file(entry))
        except OSError as error:
            failed(here, error)


def _folders(root: str, failed: Failed) -> Iterator[str]:
    """A folder and all folders in it, each before those in it."""
    waiting: list[Iterator[str]] = [iter((root,))]
    while waiting:
        here = next(waiting[-1], None)
        if here is None:
            waiting.pop()
            continue
        try:
            below = _sorted(
                entry.path
                for entry in _scanned(here)
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
        except OSError as error:
            failed(here, error)
            continue
        yield here
        waiting.append(below)


def _scanned(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from entries


def _is_file(entry: os.DirEntry[str]) -> bool:
    """A file, or a link that leads to one or nowhere: a link that is broken is to be told, not passed over."""
    # Of a link that leads to itself entry.is_file() raises.
    return not os.path.isdir(entry.path) if entry.is_symlink() else entry.is_file()


def _sorted(names: Iterator[str]) -> Iterator[str]:
    """`names` in order, in bounded memory."""
    run = sorted(itertools.islice(names, _RUN))
    if len(run) < _RUN:
        return iter(run)
    return _merged(run, names)


def _merged(run: list[str], names: Iterator[str]) -> Iterator[str]:
    runs: list[Iterator[str]] = []
    while run:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - gone with its last reader
        file.writelines(os.fsencode(name) + b"\0" for name in run)
        file.seek(0)
        runs.append(_terminated(file))
        run = sorted(itertools.islice(names, _RUN))
    yield from heapq.merge(*runs)


def _terminated(file: IO[bytes]) -> Iterator[str]:
    rest = b""
    while piece := file.read(_PIECE):
        *whole, rest = (rest + piece).split(b"\0")
        yield from map(os.fsdecode, whole)


def _glob(pattern: str) -> Iterator[str]:
    # glob goes through each folder in the order of the file system; sorting makes the order that of every machine.
    found = _sorted(name for name in _matches(pattern) if not os.path.isdir(name))
    return (name for name, _ in itertools.groupby(found))  # several ** find a name more than once


def _matches(pattern: str) -> Iterator[str]:
    """What a glob names. Its ** goes where `folder` goes; that of iglob follows links, also those that make a loop."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from iglob(pattern)
        return
    at = parts.index("**")
    base, rest = "/".join(parts[:at]) or ("/" if at else ""), parts[at + 1 :] or ["*"]
    for root in iglob(base) if base else ("",):
        for below in _folders(root or os.curdir, lambda path, error: None):
            here = below if root else below[2:]  # ./a is a
            yield from _matches(os.path.join(escape(here), *rest))  # noqa: PTH118


def _remote(url: str) -> Iterator[str]:
    """What a URL names: itself, a glob's matches, or all pictures below a prefix (one prefix's names at a time)."""
    if url.lower().startswith(("http://", "https://")):
        yield url  # the web has no folders
        return
    try:
        system, path = file_system(url)
        if system.isfile(path):
            names: Iterable[str] = [path]
        elif has_magic(path):
            names = sorted(system.glob(path))
        else:
            names = (name for name in _below(system, path) if is_picture(name))
        yield from map(system.unstrip_protocol, names)
    except EdgennError:
        raise
    except Exception as error:  # each file system has its own errors
        # fsspec's own words on what to install come with "Install s3fs to access S3".
        reason = " ".join(str(error).split())[:200] or "no reason given"
        hint = "pip install 'edgenn[tag]'" if isinstance(error, ImportError) else "check the URL and your credentials"
        raise EdgennError(f"{url} cannot be listed ({type(error).__name__}: {reason}): {hint}") from None


def _below(system: Any, root: str) -> Iterator[str]:
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        entries = sorted(system.ls(folder, detail=True), key=lambda entry: entry["name"])
        yield from (entry["name"] for entry in entries if entry["type"] == "file")
        waiting += [
            entry["name"]
            for entry in reversed(entries)
            if entry["type"] == "directory" and entry["name"].rstrip("/") != folder.rstrip("/")
        ]
