"""A text file that only ever grows at its end, by whole lines, through whatever happens to it and to its disk.

A line is written whole or, when the disk fills up in the middle of it, taken back. A file that is renamed or removed
(logrotate) or emptied is noticed at the next line, which goes to a new one with its header. Several may append to one
file, in one process or in many. Never cuts away or rewrites what it did not just write, and does not limit its size:
that is logrotate's business.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import EdgennError

_log = logging.getLogger(__name__)


class AppendedFile:
    """Appends lines to `path`, which is made with the folders above it if it is not there.

    Args:
      path: a file, or a device or pipe, which is written to as it is.
      header: the line that a new file begins with; an existing file must begin with it too.
    """

    def __init__(self, path: str | os.PathLike[str], header: bytes = b"") -> None:
        self.path = Path(path)
        self._header = header
        self._file: int | None = None
        self._identity: tuple[int, int] | None = None

    def append(self, line: bytes) -> None:
        """Append `line`, which ends in a newline.

        Raises:
          OSError: it cannot be written at present; nothing of it stands in the file.
          EdgennError: the file is a folder, or begins with another header.
        """
        try:
            if self._file is None or self._gone():
                self.open()
            assert self._file is not None
            if self._identity is None:
                self._put(self._file, line)
            else:
                with _alone(self._file):
                    self._put(self._file, line)
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(self.path)) from None

    def open(self) -> None:
        """Open the file at `path` now; raises as `append` does."""
        self.close()
        if self.path.is_dir():
            raise EdgennError(f"{self.path} is a folder: name a file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._header and self.path.is_file():
            self._set_blank_aside()
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            found = os.fstat(file)
            if stat.S_ISREG(found.st_mode):
                self._identity = found.st_dev, found.st_ino
                with _alone(file):
                    if size := os.fstat(file).st_size:
                        self._put(file, self._missing(file, size))
            else:
                self._identity = None
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def close(self) -> None:
        """Harmless when nothing is open."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _gone(self) -> bool:
        """Whether another file, or none, stands at `path` by now."""
        if self._identity is None:
            return False
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._identity

    def _set_blank_aside(self) -> None:
        """Zeros in place of a beginning are what some file systems leave of a file that grew while the power went."""
        with self.path.open("rb") as file, _alone(file.fileno()):
            beginning = file.read(len(self._header))
            # Another may have set it aside by now.
            if beginning and not any(beginning) and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                broken = self.path.with_name(self.path.name + ".broken")
                self.path.replace(broken)
                _log.warning("%s begins with nothing but zeros; set aside as %s", self.path, broken.name)

    def _missing(self, file: int, size: int) -> bytes:
        """What a power cut left out at the end of a file of `size` bytes, so that the next line stands by itself."""
        if not self._header.startswith(os.pread(file, len(self._header), 0)):
            raise EdgennError(f"{self.path} holds something else: name a new file")
        if size < len(self._header):
            return self._header[size:]
        return b"" if os.pread(file, 1, size - 1) == b"\n" else b"\n"

    def _put(self, file: int, line: bytes) -> None:
        before = os.fstat(file).st_size if self._identity is not None else None
        if before == 0:
            line = self._header + line
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            written = len(line) - len(rest)
            # Only our own half line, and only while nobody else has appended to it.
            if written and before is not None and os.fstat(file).st_size == before + written:
                os.ftruncate(file, before)
            raise


@contextmanager
def _alone(file: int) -> Iterator[None]:
    """While nobody else who appends is in the middle of a line: the kernel shows a file's size before that is whole."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        pass  # This file system has no locks.
    try:
        yield
    finally:
        try:
            fcntl.flock(file, fcntl.LOCK_UN)
        except OSError:
            pass
