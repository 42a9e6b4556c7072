"""Who may ask: everybody on this machine, and elsewhere who has the token.

The token is kept by `edgenn_device.token` and compared in constant time. There are no users and no rights; a proxy in
front has those.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path


def default_token_file() -> Path:
    """Where the token is kept when nobody says otherwise (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgenn" / "serve-token"


def allows(authorization: str | None, expected: str) -> bool:
    """Whether a request's Authorization header carries the token (RFC 6750, section 2.1)."""
    scheme, _, given = (authorization or "").partition(" ")
    return hmac.compare_digest(given.strip().encode(), expected.encode()) and scheme.lower() == "bearer"
