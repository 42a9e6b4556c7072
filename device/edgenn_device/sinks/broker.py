"""Where an MQTT broker is and who we are to it: what `mqtt://…` and `mqtts://…` say, the password, the certificates.

A password is never part of the address, because command lines are read by everybody on the machine, and it shows in no
message and no `repr`. Connects to nothing.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from ..addresses import cut_short
from ..errors import EdgennError
from ..home import expanded
from .secret import secret

# The registered ports (IANA: mqtt, secure-mqtt).
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_PREFIX = "edgenn"
PASSWORD = "EDGENN_MQTT_PASSWORD"


@dataclass(frozen=True)
class Broker:
    """A broker's address.

    Attributes:
      host, port: where it listens.
      prefix: the first level or levels of our topics, without a slash at either end.
      user, password: None where it asks for none.
      context: how TLS verifies its certificate; None without TLS.
    """

    host: str
    port: int
    prefix: str
    user: str | None
    password: str | None = field(repr=False)
    context: ssl.SSLContext | None = field(repr=False)

    @property
    def name(self) -> str:
        """The address for a person, and for a log."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.context else 'mqtt'}://{host}:{self.port}/{self.prefix}"


def read_broker(spec: str) -> Broker:
    """What `mqtt[s]://[USER@]HOST[:PORT][/PREFIX][?ca=PATH]` says, and the password that belongs to it.

    Raises:
      EdgennError: it says something else, holds a password, or names a file that cannot be read. The message never
        repeats the address, which may hold a secret.
    """
    misplaced = (
        f"a password does not belong into the address, where others can read it: put it into ${PASSWORD}, "
        f"or into a file that ${PASSWORD}_FILE names"
    )
    # Else its beginning would be a port, and the rest a prefix that is shown.
    if cut_short(spec):
        raise EdgennError(f"{misplaced}; an @ of the prefix is written %40")
    try:
        parts = urlsplit(spec)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise EdgennError("an MQTT address is mqtt://[USER@]HOST[:PORT][/PREFIX], or mqtts:// for TLS") from None
    if parts.password is not None:
        raise EdgennError(misplaced)
    if not parts.hostname:
        raise EdgennError("the MQTT address names no host: mqtt://[USER@]HOST[:PORT][/PREFIX]")
    prefix = unquote(parts.path).strip("/") or _PREFIX
    if re.search(r"[+#\x00-\x1f\x7f]|//", prefix) or prefix.startswith("$"):
        raise EdgennError(f"the topic prefix {prefix!r} cannot be: no +, # or empty level, and no $ in front")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if options.keys() - {"ca"}:
        raise EdgennError("an MQTT address has no options but ?ca=PATH, the certificates to trust")
    if "ca" in options and parts.scheme != "mqtts":
        raise EdgennError("a CA is for mqtts:// only: mqtt:// is not encrypted")
    user = unquote(parts.username) if parts.username else None
    return Broker(
        host=parts.hostname,
        port=port,
        prefix=prefix,
        user=user,
        password=None if user is None else secret(PASSWORD),
        context=_context(options.get("ca")) if parts.scheme == "mqtts" else None,
    )


def _context(ca: str | None) -> ssl.SSLContext:
    """Certificate and host name are verified, against `ca` alone where it is given, else against the system's CAs."""
    try:
        return ssl.create_default_context(cafile=None if ca is None else expanded(ca))
    except ssl.SSLError:
        raise EdgennError(f"{ca} holds no certificate in PEM form") from None
    except OSError as error:
        raise EdgennError(f"the CA file {ca} cannot be read: {error.strerror or error}") from None
