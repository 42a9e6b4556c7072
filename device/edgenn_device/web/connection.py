"""One browser's connection: uvicorn's pure Python protocol, and the bounds that it leaves to others.

A client that sends half a request, or does not read its answers, is cut off; what waits in memory for it until then is
one answer. A sweep over all connections ends what is overdue: no timer per request. It knows nothing of what is asked.
"""

from __future__ import annotations

import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# Open at the same time. A browser opens up to six for a page.
MOST_CONNECTIONS = 48
# Seconds from a request's first byte to its last, and for a reader that takes nothing.
PATIENCE = 10.0


class Connection(H11Protocol):
    """As uvicorn's, with a bound on everything that the client decides."""

    # Since when, by time.monotonic(), the client has owed us something: the rest of a request, or reading.
    _owing: float | None = None
    _unread: float | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._owing = time.monotonic()
        # Whole answers are handed over; what exceeds this waits for the reader before the next one is made.
        transport.set_write_buffer_limits(high=16 << 10)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._owing is None:
            self._owing = time.monotonic()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._owing = None

    def on_response_complete(self) -> None:
        if self.cycle is not None and not self.cycle.more_body:
            self._owing = None
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._unread = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread = None
        super().resume_writing()

    def sweep(self, now: float) -> None:
        """Cut the connection if its client is overdue at `now` (time.monotonic())."""
        if self.transport.is_closing() and self._unread is None:
            self._unread = now
        for since in (self._owing, self._unread):
            if since is not None and now - since > PATIENCE:
                self.transport.abort()
                return
