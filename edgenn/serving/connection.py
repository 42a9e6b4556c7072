"""One client's connection: uvicorn's protocol, and the bounds that it leaves to others.

uvicorn hands the application requests whose headers are complete, and waits for those, for bodies and for slow readers
as long as a client likes. Here every phase has its time, what is not body has its size, and the number of connections
its most. A sweep over all connections ends what is overdue: no timer per request. It knows nothing of pictures; all
that the application and it have to say to each other are `BACK_OFF` and `GONE`.
"""

from __future__ import annotations

import json
import math
import time
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .limits import Limits
from .metrics import Metrics

# The ASGI extension by which the application asks that a refused client's next request waits a moment.
BACK_OFF = "edgenn.back_off"
# The one that tells, from any thread, whether the client has gone and nobody waits for the answer.
GONE = "edgenn.gone"
# Requests that one connection may send ahead; HTTP libraries send none.
_MOST_AHEAD = 32


class Connection(HttpToolsProtocol):
    """As uvicorn's, with `limits` kept and what it answers by itself counted in `metrics`."""

    def __init__(self, *arguments: Any, limits: Limits, metrics: Metrics, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._metrics = metrics
        self._read_by = math.inf  # time.monotonic() at which the client must have sent what is expected of it
        self._written_by = math.inf
        self._framing = 0
        self._message_ended = False
        self._back_off = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._read_by = time.monotonic() + self._limits.header_time
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "too many connections: try again in a second", b"retry-after: 1\r\n")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._read_by == math.inf and (self.cycle is None or self.cycle.response_complete):
            # Bytes that begin no request, such as empty lines, start the clock too.
            self._read_by = time.monotonic() + self._limits.header_time
        self._framing += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        if self._framing > self._limits.framing:
            self._refuse_framing()

    def on_message_begin(self) -> None:
        self._framing = 0
        self._message_ended = False
        self._read_by = time.monotonic() + self._limits.header_time
        super().on_message_begin()
        extensions: Any = {BACK_OFF: self._hold, GONE: self.transport.is_closing}
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        self._read_by = time.monotonic() + self._limits.body_time
        # The bytes that came together with the request's first are in no other count.
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self._limits.framing:
            self._refuse_framing()
            raise ValueError("too many headers")
        if len(self.pipeline) >= _MOST_AHEAD:
            raise ValueError("too many requests sent ahead")  # the parser's caller answers 400
        if not self._upgrades:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing = max(0, self._framing - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrades:
            return
        self._read_by = math.inf
        self._message_ended = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or (self._answered and not self._message_ended):
            self._read_by = min(self._read_by, time.monotonic() + self._limits.linger)
        if self._back_off and not self.transport.is_closing():
            self._back_off = False
            self.flow.pause_reading()
            self.loop.call_later(self._limits.back_off, self._resume)

    def pause_writing(self) -> None:
        self._written_by = time.monotonic() + self._limits.write_time
        super().pause_writing()

    def resume_writing(self) -> None:
        self._written_by = math.inf
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        # What is unread after so long a silence will not be read.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not HTTP that can be understood")

    def sweep(self, now: float) -> None:
        """End the connection if its client is overdue at `now` (time.monotonic())."""
        if now <= min(self._read_by, self._written_by):
            return
        if now > self._written_by or self.transport.is_closing():
            self.transport.abort()
        elif self._answered:
            self.transport.close()
        else:
            self._refuse(408, "the request was not complete in time")

    @property
    def _answered(self) -> bool:
        """Whether the answer to the request that is being received has begun."""
        return self.cycle is not None and self.cycle.scope is self.scope and self.cycle.response_started

    @property
    def _upgrades(self) -> bool:
        """Whether the request that is being received asks for another protocol, such as h2c, to be spoken after it."""
        return bool(self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT")

    def _parse(self, data: bytes) -> None:
        """Feed the parser; who asks for another protocol is answered in this one (RFC 9110, 7.8)."""
        while True:
            try:
                return self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._upgrades:
                    return
                # The parser takes what follows the headers for the other protocol's. Another one gets the headers again
                # without the wish.
                version = self.parser.get_http_version().encode()
                first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)
                headers = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
                data = b"\r\n".join([first, *headers, b"", data[upgrade.args[0] :]])
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's

    def _hold(self) -> None:
        self._back_off = True

    def _resume(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.flow.resume_reading()

    def _refuse_framing(self) -> None:
        self._refuse(431, f"more than {self._limits.framing} bytes of headers and framing")

    def _refuse(self, status: int, reason: str, header: bytes = b"") -> None:
        """Answer without the application, and close."""
        if self.transport.is_closing():  # refused already
            return
        self._metrics.requests.labels("connection", status).inc()
        body = json.dumps({"error": reason}).encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
            % (status, HTTPStatus(status).phrase.encode(), len(body), header, body)
        )
        self._read_by = time.monotonic() + self._limits.linger
        self.transport.close()
