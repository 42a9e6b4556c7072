"""Who may ask: everybody on this machine, and elsewhere who has the token.

The token lives in a file that only its owner can read, and nowhere else: it is compared in constant time and never
written to a log, an answer or the command line. There are no users and no rights; a proxy in front has those.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import stat
from pathlib import Path

from edgenn_device.errors import EdgennError

# Below this a token can be guessed over a network; `secrets.token_urlsafe(32)` gives 43.
_LEAST_CHARACTERS = 16
_MOST_BYTES = 4096


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`, an address or a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_token_file() -> Path:
    """Where the token is kept when nobody says otherwise (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgenn" / "serve-token"


def token(path: Path) -> str:
    """The token in a file; a new one is made and stored there (mode 0600) if the file does not exist.

    Raises:
      EdgennError: others can read the file, it holds no usable token, or it cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_EXCL: of two servers that start together, one writes and the other reads.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _stored(path)
    except OSError as error:
        raise EdgennError(f"the token cannot be stored in {path} ({error.strerror}): give --token-file") from None
    made = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w") as file:
        file.write(made + "\n")
    return made


def allows(authorization: str | None, expected: str) -> bool:
    """Whether a request's Authorization header carries the token (RFC 6750, section 2.1)."""
    scheme, _, given = (authorization or "").partition(" ")
    return hmac.compare_digest(given.strip().encode(), expected.encode()) and scheme.lower() == "bearer"


def _stored(path: Path) -> str:
    try:
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
    if len(found) < _LEAST_CHARACTERS or len(text) > _MOST_BYTES or not all("!" <= c <= "~" for c in found):
        raise EdgennError(
            f"{path} holds no token (one line of {_LEAST_CHARACTERS} or more characters without spaces): "
            "remove the file and one is made"
        )
    return found
