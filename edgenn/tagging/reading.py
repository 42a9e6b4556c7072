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
# For a web server to take a connection, and to send anything on it: one that is silent must not hold up a catalogue,
# one that is slow may take as long as it likes.
_CONNECT, _ANSWER = 10, 30


def is_remote(path: str) -> bool:
    """Whether `path` is a URL that fsspec opens (s3://, gs://, https://, …)."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme.isalnum()


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL (or of a local path), and the path in it.

    URLs are not chained: `::` is part of a name, as object stores allow it. Errors are those of the file system.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower() if is_remote(url) else "file"
    fsspec = optional("fsspec", "tag", f"{scheme}://")
    kind = fsspec.get_filesystem_class(scheme)
    if is_remote(url):
        url = f"{scheme}://{rest}"
    # What others write meanwhile must be seen.
    system = kind(use_listings_cache=False, **kind._get_kwargs_from_urls(url))
    return system, system._strip_protocol(url)


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
    try:
        system, path = file_system(url)
        if "http" in system.protocol:
            return _streamed(system, path)
        data = _beginning(system, path)
    except EdgennError:
        raise
    except FileNotFoundError:
        raise EdgennError("does not exist: check the URL") from None
    except Exception as error:  # every file system has its own; each is one picture's reason, never the run's end
        raise EdgennError(f"cannot be read: {type(error).__name__}: {_line(error)}") from None
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
    aiohttp = optional("aiohttp", "tag", "http://")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_ANSWER)
    data = bytearray()
    try:
        # With a size, whichever, fsspec does not ask for it first: of that request any failure is "not found" to it.
        with system.open(path, "rb", block_size=0, size=1, timeout=timeout) as stream:
            while piece := stream.read(1 << 20):
                data += piece
                if len(data) > MOST_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise EdgennError(f"did not answer within {_ANSWER} s") from None
    except aiohttp.TooManyRedirects:
        raise EdgennError("redirects without end: check the URL") from None
    except aiohttp.ClientResponseError as error:
        raise EdgennError(f"the server answered {error.status} ({_line(error.message)})") from None
    except aiohttp.ClientConnectorError as error:
        why = error.os_error
        reason = "refused" if isinstance(why, ConnectionRefusedError) else why.strerror or why
        raise EdgennError(f"no connection to {error.host}:{error.port} ({_line(reason)})") from None
    return bytes(data)


def _line(reason: object) -> str:
    return " ".join(str(reason).split())[:200]


def _too_large() -> EdgennError:
    return EdgennError(f"larger than {MOST_BYTES >> 20} MB: no picture of a size that is decoded")
