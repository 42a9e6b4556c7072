"""Files are written beside their place and renamed into it, so that no reader sees half of one; TOML is read here."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import EdgennError


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write `data` to `path`, whole or not at all.

    Raises:
      EdgennError: the disk is full or the folder cannot be written; what stood at `path` still stands there.
    """
    with written_aside(path) as aside:
        aside.write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(path)


@contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it there when the block ends well, remove it when it does not."""
    target = Path(path)
    aside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        aside = Path(name)
        yield aside
        aside.chmod(0o666 & ~_umask())
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(target)
    except OSError as error:
        raise EdgennError(_explain(error, target)) from None
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)


@contextmanager
def folder_written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder beside `path`; put it in `path`'s place when the block ends well.

    What stood at `path` is there until then, and again if the last step fails.

    Raises:
      EdgennError: the disk is full or the place cannot be written.
    """
    target = Path(path)
    aside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        new, earlier = aside / "new", aside / "earlier"
        new.mkdir()
        yield new
        if target.exists():
            target.replace(earlier)
        try:
            new.replace(target)
        except OSError:
            if earlier.exists():
                earlier.replace(target)
            raise
    except OSError as error:
        raise EdgennError(_explain(error, target)) from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _explain(error: OSError, target: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no room left on the disk while writing {target}: free some and run the command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{target} cannot be written ({error.strerror}): choose another place"
    return f"{target} cannot be written: {error.strerror or error}"


def read_toml(path: str | os.PathLike[str], what: str = "") -> dict[str, Any]:
    """A TOML file; `what` says in front of its name what it is, where that does not go without saying.

    Raises:
      EdgennError: it cannot be read, or is not TOML.
    """
    import tomllib

    name = f"{what} {path}".lstrip()
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgennError(f"{name} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of TOML and of UTF-8
        raise EdgennError(f"{name} is not TOML: {error}") from None
