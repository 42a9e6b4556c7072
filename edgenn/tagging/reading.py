"""The bytes of one picture, from a local path or a URL, with a reason in one line when they cannot be had.

Refuses what is not a regular file (a pipe's read would never end) and what is too large to be a picture. Decodes
nothing.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from edgenn_device.errors import EdgennError

from .optional import optional

# The largest picture that is decoded has 128 million pixels, 400 MB uncompressed (picture_header.MAXIMUM_PIXELS).
MOST_BYTES = 512 << 20


def is_remote(path: str) -> bool:
    """Whether `path` is a URL that fsspec opens (s3://, gs://, https://, …)."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme.isalnum()


def picture_bytes(path: str) -> bytes:
    """The content of a picture file.

    Raises:
      EdgennError: it cannot be read; the message does not name the path.
    """
    return _remote(path) if is_remote(path) else _local(path)


def _local(path: str) -> bytes:
    try:
        # Not blocking: opening a pipe would wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise EdgennError("not a file: a picture is needed")
            if found.st_size > MOST_BYTES:
                raise _too_large()
            return file.read()
    except FileNotFoundError:
        raise EdgennError("does not exist: check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise EdgennError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _remote(url: str) -> bytes:
    fsspec = optional("fsspec", "tag", f"a picture at {url.partition('://')[0]}://")
    try:
        system, path = fsspec.core.url_to_fs(url)
        if "http" in system.protocol:
            return _streamed(system, path)
        data = _beginning(system, path)
    except EdgennError:
        raise
    except FileNotFoundError:
        raise EdgennError("does not exist: check the URL") from None
    except Exception as error:  # every file system has its own; each is one picture's reason, never the run's end
        raise EdgennError(f"cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    if len(data) > MOST_BYTES:
        raise _too_large()
    return data


def _beginning(system: Any, path: str) -> bytes:
    try:
        found: bytes = system.cat_file(path, end=MOST_BYTES + 1)
        return found
    except OSError:
        if system.size(path) == 0:  # of nothing, an object store has no range to give
            return b""
        raise


def _streamed(system: Any, path: str) -> bytes:
    """Over HTTP a range may be ignored by the server, so the answer is cut off where it grows too large."""
    data = bytearray()
    with system.open(path, "rb", block_size=0) as stream:
        while piece := stream.read(1 << 20):
            data += piece
            if len(data) > MOST_BYTES:
                raise _too_large()
    return bytes(data)


def _too_large() -> EdgennError:
    return EdgennError(f"larger than {MOST_BYTES >> 20} MB: no picture of a size that is decoded")
