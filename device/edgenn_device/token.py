"""The token that opens what listens beyond this machine: kept in a file that only its owner can read.

Nowhere else: no command line, log, answer or page holds it. The live page and `edgenn serve` share this.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
import tempfile
from pathlib import Path

from .errors import EdgennError

# Below this a token can be guessed over a network; `secrets.token_urlsafe(32)` gives 43.
LEAST_CHARACTERS = 16
_MOST_BYTES = 4096


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`, an address or a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def stored_token(path: Path) -> str:
    """The token in a file; a new one is made and stored there (mode 0600) if the file does not exist.

    Raises:
      EdgennError: others can read the file, it holds no usable token, or it cannot be read or written.
    """
    if os.path.lexists(path):
        return _read_token(path)
    made = secrets.token_urlsafe(32)
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of mode 0600 from the beginning.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        aside = Path(name)
        with os.fdopen(handle, "w") as file:
            file.write(made + "\n")
            file.flush()
            os.fsync(handle)
        # Whole or not at all, and never in another's place: of two that start together, one stores and the other reads.
        os.link(aside, path)
    except FileExistsError:
        return _read_token(path)
    except OSError as error:
        raise EdgennError(f"the token cannot be stored in {path}: {error.strerror or error}") from None
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)
    return made


def _read_token(path: Path) -> str:
    try:
        # Before it is opened: a pipe that nobody writes to would never let go of the start.
        if not stat.S_ISREG(path.stat().st_mode):
            raise EdgennError(f"{path} is not a regular file: a token is kept in one")
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise EdgennError(f"the token file {path} cannot be read: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise EdgennError(f"others can read the token in {path}: chmod 600 {path}")
    try:
        found = text.decode("ascii").strip()
    except UnicodeDecodeError:
        found = ""
    if len(found) < LEAST_CHARACTERS or len(text) > _MOST_BYTES or not all("!" <= sign <= "~" for sign in found):
        raise EdgennError(
            f"{path} holds no token (one line of {LEAST_CHARACTERS} or more characters without spaces): "
            "remove the file and one is made"
        )
    return found
