"""Webhook: each event is posted as JSON to an HTTP address, once when it begins and once when it has ended.

What is to be sent waits in a file until the receiver has answered with 2xx, through restarts and SIGKILL. Should the
answer be lost it is sent once more with the same Idempotency-Key, by which the receiver knows it again. Certificates
are verified, redirects are not followed, and the address, which often is itself the secret, is shown only by its host.
Sends no frames.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from ..addresses import check, cut_short
from ..errors import EdgennError
from ..events import Event
from ..pipeline import Result
from .base import About, Sink
from .jsonl import event_document
from .queued import back_off
from .secret import secret
from .spool import Spool, state_folder

# Seconds for connecting and for each piece of the answer.
_TIMEOUT = 10.0
# Seconds for all of that together: with a byte every now and then an answer would never run into the one above.
_WHOLE = 30.0
# Seconds. A receiver that asks for more patience (Retry-After) than this is asked again all the same.
_LONGEST_REST = 600.0
# Answers that say that this very message is wrong: another attempt would get the same one.
_REFUSED = frozenset({400, 413, 415, 422})
# Seconds that the end waits for what is being sent and for what waits behind it.
_PATIENCE = 0.8
TOKEN = "EDGENN_WEBHOOK_TOKEN"

_log = logging.getLogger(__name__)


class Webhook(Sink):
    """Posts events to `address`.

    `event` puts them into a file; one thread of its own sends what is in the file, in order.

    Args:
      address: http:// or https://, with user:password@ if the receiver wants that.
      about: its device, model, source and version stand in every message.
      folder: where the file is; None takes $STATE_DIRECTORY or ~/.local/state/edgenn. It is named for a hash of the
        device's name and the address, so that a restart finds it, and two devices on one machine do not share it.

    Raises:
      EdgennError: `address` is none, or the token in the environment is unusable.
    """

    def __init__(self, address: str, about: About, *, folder: Path | None = None) -> None:
        parts = _split(address)
        self.name = f"webhook:{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"edgenn/{about.version}",
            **_authorization(parts),
        }
        self._address = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        self._about = about
        folder = folder or state_folder()
        self._path = folder / _file_name(f"{about.device}\n{address}")
        self._former_path = folder / _file_name(address)
        self._opener = urllib.request.build_opener(_NoRedirects, _InTime)
        self._spool: Spool | None = None
        self._thread: threading.Thread | None = None
        self._news = threading.Event()
        self._ending = threading.Event()
        self._deadline: float | None = None
        self._error: str | None = None
        self._sent = self._refused = 0

    def open(self) -> None:
        self._adopt()
        self._spool = Spool(self._path)
        self._ending.clear()
        self._deadline = None
        self._thread = threading.Thread(target=self._send_all, args=(self._spool,), name="edgenn-webhook", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        return None

    def event(self, event: Event) -> None:
        if self._spool is None:
            raise RuntimeError("the webhook is not open")
        change = "began" if event.ended is None else "ended"
        message = {
            "event": change,
            **event_document(event),
            **{name: value for name, value in asdict(self._about).items() if name not in ("labels", "runtime")},
            "thumbnail": None if event.thumbnail is None else base64.b64encode(event.thumbnail).decode(),
        }
        # One event is two messages, and each needs a key of its own: by the event's id alone a receiver would take the
        # second for the first sent again.
        self._spool.put(f"{event.id}.{change}", json.dumps(message).encode())
        self._news.set()

    def close(self) -> None:
        if self._spool is None or self._thread is None:
            return
        self._deadline = time.monotonic() + _PATIENCE
        self._ending.set()
        self._news.set()
        self._thread.join(_PATIENCE)
        # Should it raise, `state` still has what was lost.
        self._spool.close()
        self._spool = None

    def state(self) -> dict[str, Any]:
        spool = self._spool
        document: dict[str, Any] = {"sent": self._sent, "refused": self._refused, "error": self._error}
        if spool is not None:
            document["spooled"] = len(spool)
            document["spool_dropped"] = spool.dropped
            document["error"] = self._error or spool.error
        return document

    def _adopt(self) -> None:
        """Earlier versions named the file by the address alone: what waits there is this device's now."""
        # Held by another process, or not to be renamed at present: it is left as it is.
        with suppress(EdgennError, OSError):
            if self._former_path.exists() and not self._path.exists():
                # Takes in SQLite's own log, which would not be found under the new name.
                Spool(self._former_path).close()
                if not self._former_path.with_name(self._former_path.name + "-wal").exists():
                    self._former_path.rename(self._path)

    def _send_all(self, spool: Spool) -> None:
        """Send what is in the file, oldest first, until the end; on a thread of its own."""
        attempt = 0
        while self._deadline is None or time.monotonic() < self._deadline:
            self._news.clear()
            try:
                waiting = spool.pending(1)
                if not waiting:
                    if self._ending.is_set():
                        return
                    self._news.wait()
                    continue
                key, message = waiting[0]
                failed, rest = self._send(key, message)
                self._error = failed
                if failed is None:
                    spool.done(key)
            except Exception as error:
                # Whatever it is, this thread goes on trying. Not its words, which may hold the address or the token.
                self._error = failed = f"cannot be sent ({type(error).__name__})"
                rest = 0.0
            if failed is None:
                if attempt:
                    _log.warning("%s: answers again; %d messages wait", self.name, len(spool))
                attempt = 0
                continue
            if attempt == 0:
                _log.warning("%s: %s; trying again until it works", self.name, failed)
            if self._ending.wait(max(rest, back_off(attempt))):
                return
            attempt += 1

    def _send(self, key: str, message: bytes) -> tuple[str | None, float]:
        """Send one message.

        Returns:
          None when it is dealt with, else what went wrong; and the seconds of rest that the receiver asks for.
        """
        request = urllib.request.Request(
            self._address, message, {**self._headers, "Idempotency-Key": key}, method="POST"
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _REFUSED:
                if not self._refused:
                    _log.warning(
                        "%s: refuses what it is sent (HTTP %d); such events are left out", self.name, error.code
                    )
                self._refused += 1
                return None, 0.0
            if 300 <= error.code < 400:
                return f"HTTP {error.code}: it has moved; give its new address", 0.0
            return f"HTTP {error.code} {error.reason}".rstrip(), _rest(error.headers)
        except (OSError, HTTPException) as error:
            # An URLError holds the reason, and neither holds the address.
            reason = getattr(error, "reason", None) or error
            return str(getattr(reason, "strerror", None) or reason or type(reason).__name__), 0.0
        self._sent += 1
        return None, 0.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected becomes a GET, which no receiver counts as an event."""

    def redirect_request(self, *args: Any) -> None:
        return None


class _InTime(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Gives up a request that has no whole answer within `_WHOLE`, whatever it is that takes so long."""

    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> HTTPResponse:
        connection: Any = None
        over, late = threading.Event(), threading.Event()

        def connect(*args: Any, **named: Any) -> Any:
            nonlocal connection
            connection = http_class(*args, **named)
            return connection

        def watch() -> None:
            if over.wait(_WHOLE):
                return
            late.set()
            while True:
                # Of the plain class: an SSL socket's own `shutdown` takes its state away from the reading thread.
                # Again and again: there is no socket while it connects, and one that TLS takes over is none.
                with suppress(OSError, AttributeError, TypeError):
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
                if over.wait(0.1):
                    return

        watcher = threading.Thread(target=watch, name="edgenn-webhook-watch", daemon=True)
        watcher.start()
        try:
            response = super().do_open(connect, req, **options)
        except (OSError, HTTPException):
            if late.is_set():
                raise TimeoutError("timed out") from None
            raise
        finally:
            over.set()
            watcher.join()
        if late.is_set():
            # Its headers were cut off, which http.client takes for their end.
            response.close()
            raise TimeoutError("timed out")
        return response


def _file_name(what: str) -> str:
    return f"webhook-{hashlib.sha256(what.encode(errors='surrogatepass')).hexdigest()[:12]}.db"


def _split(address: str) -> SplitResult:
    if cut_short(address):
        check(address)  # says how such a login is written
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        port, parts = 0, SplitResult("", "", "", "", "")
    clean = address.isascii() and address.isprintable() and " " not in address
    # Not the address itself, which may hold a secret.
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not clean:
        raise EdgennError("a webhook is http://HOST[:PORT]/PATH or https://…: what was given is not such an address")
    try:
        # As it is looked up.
        unquote(parts.hostname).encode("idna")
    except UnicodeError:
        raise EdgennError(
            "a webhook's host has 1 to 63 letters between two dots: what was given has none there, or more"
        ) from None
    return parts


def _authorization(parts: SplitResult) -> Mapping[str, str]:
    token = secret(TOKEN)
    if token is not None:
        try:
            # As http.client sends it. Not in `secret`: elsewhere a password may hold any letter.
            token.encode("latin-1")
        except UnicodeEncodeError:
            raise EdgennError(
                f"{TOKEN} holds a character that HTTP cannot carry: give the token as the receiver gave it to you"
            ) from None
        return {"Authorization": f"Bearer {token}"}
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _rest(headers: Message) -> float:
    """Seconds that Retry-After asks for (RFC 9110, 10.2.3: a number or a date); 0 without one."""
    asked = (headers.get("Retry-After") or "").strip()
    try:
        seconds = float(asked) if asked.isdecimal() else parsedate_to_datetime(asked).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), _LONGEST_REST)
