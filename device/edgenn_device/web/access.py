"""Who may look: everybody on this machine, and elsewhere who has the token. And nobody through another site's page.

The token lives in a file that only its owner can read; it is compared in constant time and never written to a log or a
page. A browser shows it once, in the address or in a form, and gets a cookie for it. Other sites' pages are kept out
threefold: the Host header must name this machine (DNS rebinding), what a browser marks as coming from another site is
refused, and whatever changes something must carry a header that no other site can set. There are no users and no
rights.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..errors import EdgennError
from ..token import LEAST_CHARACTERS, is_loopback

# A page may send it only to the site it came from, unless that site agrees (Fetch Standard, CORS-safelisted headers).
OURS = "x-edgenn"


class Stranger(Exception):
    """A request that is refused: the status, and one line that gives nothing away."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Door:
    """Decides on requests.

    Args:
      host: the address or name that is listened on.
      token: what must be shown; None: nothing, which only this machine itself may be allowed.

    Raises:
      EdgennError: others can connect to `host` and there is no token, or one that can be guessed.
    """

    def __init__(self, host: str, token: str | None) -> None:
        if token is None and not is_loopback(host):
            raise EdgennError(f"whoever reaches {host} could watch the camera: listen on 127.0.0.1, or set a token")
        if token is not None and len(token) < LEAST_CHARACTERS:
            raise EdgennError(f"a token of {len(token)} characters can be guessed: take {LEAST_CHARACTERS} or more")
        self._token = token
        self._names = {"localhost", host.lower()}
        if not is_loopback(host):
            name = socket.gethostname().lower()
            self._names |= {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
        # What a browser keeps is not the token itself: it opens this page and nothing else that may share the token.
        self._pass = hmac.new((token or "").encode(), b"edgenn live page", hashlib.sha256).hexdigest()

    def check_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """Keep out what comes by way of another site's page.

        Args:
          method: of the request.
          headers: of the request, names in lower case.

        Raises:
          Stranger: with the status to answer.
        """
        host = headers.get("host", "")
        if not self._is_here(_hostname(host)):
            raise Stranger(421, "this machine is not called that: use its address or its own name")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not (
            # A link on another page may lead here: what it opens is seen by nobody else.
            method == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        ):
            raise Stranger(403, "this is not for the pages of other sites")
        if method not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and origin.partition("://")[2].lower() != host.lower():
                raise Stranger(403, "this is not for the pages of other sites")

    def admits(self, headers: Mapping[str, str], cookie: str | None) -> bool:
        """Whether a request shows the token, as a bearer (RFC 6750, section 2.1) or by the cookie for it."""
        if self._token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        bearer = scheme.lower() == "bearer" and self.knows(given.strip())
        return bearer or (cookie is not None and hmac.compare_digest(cookie.encode(), self._pass.encode()))

    def knows(self, given: str) -> bool:
        """Whether `given` is the token; False where none is needed."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    @property
    def cookie(self) -> str:
        """What the cookie holds that stands for the token."""
        return self._pass

    def _is_here(self, name: str) -> bool:
        """A name that another's DNS server can point at us is none of ours; an address cannot be pointed elsewhere."""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True


def _hostname(host: str) -> str:
    """The name or address in a Host header, in lower case; "" if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
