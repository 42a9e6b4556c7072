"""Addresses in which a name and a password may stand: whether they can be read, and how they may be shown.

A password is for whom it is meant. No text made here holds one, nor does an error. Opens nothing.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from .errors import EdgennError

# What some cameras take in place of a login: http://camera/stream?usr=NAME&pwd=PASSWORD.
_SECRET = re.compile(r"(?i)(\w*(?:pas|pw|psw|key|token|auth|secret|cred|sess)\w*=)[^&;]*")


def check(address: str) -> None:
    """Refuse an address that names no host, or whose password would be taken for the host's port, path or query.

    Raises:
      EdgennError: in words that hold no part of the address but its scheme.

    >>> check("rtsp://anna:pass#word@camera/1")
    Traceback (most recent call last):
    edgenn_device.errors.EdgennError: in this rtsp:// address something before the last @ ends the host too soon: in \
name and password write # as %23, / as %2F, ? as %3F, [ as %5B, ] as %5D, and behind the host @ as %40
    """
    scheme = address.partition("://")[0]
    if cut_short(address):
        raise EdgennError(
            f"in this {scheme}:// address something before the last @ ends the host too soon: in name and password "
            "write # as %23, / as %2F, ? as %3F, [ as %5B, ] as %5D, and behind the host @ as %40"
        )
    try:
        parts = urlsplit(address)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise EdgennError(f"this is no {scheme}:// address: {scheme}://[NAME:PASSWORD@]HOST[:PORT]/PATH")


def cut_short(address: str) -> bool:
    """Whether a login seems to stand in `address` with one of the signs in it that end the host (RFC 3986, 3.2)."""
    login = address.partition("://")[2].rpartition("@")[0]
    return ":" in login and bool(re.search(r"[/?#\[\]]", login))


def account(address: str) -> tuple[str, str] | None:
    """The name and the password in it; None without a name."""
    parts = urlsplit(address)
    return (unquote(parts.username), unquote(parts.password or "")) if parts.username else None


def without_account(address: str) -> str:
    """The address as it is asked for."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def shown(address: str) -> str:
    """The address for a person, and for a log.

    >>> shown("http://anna:secret@camera/film?size=2&pwd=secret")
    'http://camera/film?size=2&pwd=…'
    """
    return _SECRET.sub(r"\1…", without_account(address))


def hidden(text: str) -> str:
    """`text`, whatever it is, without what may be a name and a password: all before the last @, if a colon is there.

    >>> hidden("http//anna:secret@camera")
    '…@camera'
    """
    before, _, after = text.rpartition("@")
    return f"…@{after}" if ":" in before else text
