"""Every bound of the service, and the answer a request gets that is beyond one.

The bounds are values only; each is enforced where its thing is handled (`connection`, `app`, `pool`).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgenn_device.errors import EdgennError
from edgenn_device.picture_header import MAXIMUM_PIXELS

_MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a client may ask for. Sizes are in bytes, times in seconds.

    Attributes:
      body: size of one request's body. Photos of telephones have 3 to 12 MB.
      bodies: size of all bodies together that are being received or wait. It bounds the memory of slow uploads, which
        hold no place in the queue.
      pixels: of one picture, checked in its header before it is decoded. 50 million are 150 MB as 8-bit colour, once
        per interpreter.
      queue: requests that wait for an interpreter. Two cores answer some 400 a second with MobileNetV2: 32 are a
        tenth of a second, and what comes beyond is better sent to another server than kept.
      queue_time: the longest a request waits there before it is refused, for models that take seconds.
      connections: open at the same time. Each costs some 10 kB.
      framing: bytes of a request that are not its body: request line, headers, chunk sizes, trailers.
      header_time: from a request's first byte to the end of its headers.
      body_time: from there to the end of its body.
      write_time: how long a client may leave its answers unread once the socket's buffer is full.
      linger: for a client that still sends or does not read when its connection is being closed.
      idle_time: between two requests on one connection.
      drain_time: from SIGTERM to the end of the process.
      back_off: how long a connection that got 503 is not read again. Clients that do not heed Retry-After would
        otherwise spend in refusals the processor time that the accepted requests need.

    Raises:
      EdgennError: a bound that is not above 0, or `pixels` beyond what is ever decoded.
    """

    body: int = 16 * _MB
    bodies: int = 256 * _MB
    pixels: int = 50_000_000
    queue: int = 32
    queue_time: float = 10.0
    connections: int = 1024
    framing: int = 128 << 10
    header_time: float = 10.0
    body_time: float = 30.0
    write_time: float = 10.0
    linger: float = 5.0
    idle_time: float = 30.0
    drain_time: float = 20.0
    back_off: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise EdgennError(f"the limit {name} is {value} and must be above 0")
        if self.pixels > MAXIMUM_PIXELS:
            raise EdgennError(f"{self.pixels} pixels are never decoded: at most {MAXIMUM_PIXELS}")
        if self.bodies < self.body:
            raise EdgennError(f"all bodies together ({self.bodies} bytes) must hold at least one ({self.body} bytes)")


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
      status: 4xx or 503.
      reason: one line for the client.
      headers: further headers of the answer.
    """

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or {}


def busy(reason: str) -> Refusal:
    """503 for a request that another moment or another server can answer."""
    return Refusal(503, reason, {"Retry-After": "1"})
