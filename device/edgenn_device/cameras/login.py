"""How one logs in at a camera over HTTP: digest (RFC 7616) or basic (RFC 7617), the best that it offers.

The standard library's handlers look at the first offer alone and give up where it is another. Nothing is sent before it
is asked for, and nothing to any other place than that of the address: a camera may redirect to where it likes.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import secrets
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from typing import IO, Any
from urllib.parse import urlsplit

from ..addresses import account, shown
from ..errors import EdgennError

_PORTS = {"http": 80, "https": 443}
_HASHES: dict[str, Callable[[bytes], Any]] = {"md5": hashlib.md5, "sha-256": hashlib.sha256}
# A scheme, or a parameter of the one before: name=token or name="text" (RFC 9110, 11.6.1).
_WORD = re.compile(r"""([\w!#$%&'*+.^`|~-]+)(?:[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^\s,]*))?""")
_QUOTED, _ESCAPED = re.compile(r'["\\]'), r"\\\g<0>"


class Login(urllib.request.BaseHandler):
    """Answers a 401 once with name and password, if it comes from where `url` is.

    Attributes:
      account: the name and the password in `url`, or None.
    """

    def __init__(self, url: str) -> None:
        self.account = account(url)
        self._place = _place(url)

    def is_for(self, url: str) -> bool:
        """Whether `url` is at the scheme, host and port that the login belongs to."""
        return _place(url) == self._place

    def http_error_401(
        self, request: urllib.request.Request, response: IO[bytes], code: int, reason: str, headers: Message
    ) -> http.client.HTTPResponse | None:
        offers = list(_offers(headers))
        # MD5 before SHA-256: cameras have known it longest. Basic is the last, because it shows the password.
        known = sorted((each for each in offers if _is_digest(each)), key=_algorithm)
        known += [each for each in offers if each["scheme"] == "basic"]
        if offers and not known:
            asked = ", ".join(f"{each['scheme']} {each.get('algorithm', '')}".rstrip() for each in offers)
            raise EdgennError(
                f"{shown(request.full_url)} asks for a login that edgenn does not know ({asked[:100]!r}): choose "
                "basic, or digest by MD5 or SHA-256, in the camera's settings"
            )
        again = request.has_header("Authorization")
        if not known or self.account is None or again or not self.is_for(request.full_url):
            return None
        response.close()
        request.add_unredirected_header("Authorization", _answer(known[0], *self.account, request))
        opened: http.client.HTTPResponse = self.parent.open(request, timeout=request.timeout)
        return opened


def _place(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _offers(headers: Message) -> Iterator[dict[str, str]]:
    """The challenges, each with its parameters and its "scheme"; several may stand in one line."""
    for line in headers.get_all("WWW-Authenticate", []):
        offer: dict[str, str] | None = None
        for word in _WORD.finditer(line):
            name, value = word[1].lower(), word[2]
            if value is None:
                if offer is not None:
                    yield offer
                offer = {"scheme": name}
            elif offer is not None:
                offer[name] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        if offer is not None:
            yield offer


def _algorithm(offer: Mapping[str, str]) -> str:
    return offer.get("algorithm", "md5").lower()


def _is_digest(offer: Mapping[str, str]) -> bool:
    """Whether it is one that `_answer` can compute."""
    return (
        offer["scheme"] == "digest"
        and {"realm", "nonce"} <= offer.keys()
        and _algorithm(offer) in _HASHES
        and "auth" in re.split(r"[\s,]+", offer.get("qop", "auth").lower())
    )


def _answer(offer: Mapping[str, str], name: str, password: str, request: urllib.request.Request) -> str:
    """What proves to who made `offer` that we know the password."""
    # http.client reads and writes headers as Latin-1; so the bytes of UTF-8 stay what they are.
    name, password = (text.encode().decode("latin-1") for text in (name, password))
    if offer["scheme"] == "basic":
        return "Basic " + base64.b64encode(f"{name}:{password}".encode("latin-1")).decode()

    def hashed(*parts: str) -> str:
        return str(_HASHES[_algorithm(offer)](":".join(parts).encode("latin-1")).hexdigest())

    quoted = {"username": name, "uri": request.selector}
    quoted |= {key: offer[key] for key in ("realm", "nonce", "opaque") if key in offer}
    plain = {key: offer[key] for key in ("algorithm",) if key in offer}
    proof = [hashed(name, offer["realm"], password), offer["nonce"]]
    if "qop" in offer:
        quoted["cnonce"] = secrets.token_hex(8)
        plain |= {"nc": "00000001", "qop": "auth"}
        proof += [plain["nc"], quoted["cnonce"], plain["qop"]]
    quoted["response"] = hashed(*proof, hashed(request.get_method(), request.selector))
    said = [f'{key}="{_QUOTED.sub(_ESCAPED, value)}"' for key, value in quoted.items()]
    return "Digest " + ", ".join([*said, *(f"{key}={value}" for key, value in plain.items())])
