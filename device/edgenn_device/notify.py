"""systemd's notification protocol: one datagram per message to the socket that NOTIFY_SOCKET names.

Says what it is told and nothing by itself; when the watchdog is fed is `service`'s business. Never blocks and never
fails: outside systemd, or while systemd is busy, a message is lost and the run goes on.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Speaks to the service manager, if there is one.

    Args:
      environment: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are taken from it.

    Attributes:
      watchdog: seconds within which systemd wants to hear WATCHDOG=1, or None when it does not wait for it.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte of an abstract address. Anything else (vsock) is for virtual machines.
        self._address = "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else ""
        self._socket: socket.socket | None = None
        self.watchdog: float | None = None
        microseconds = environment.get("WATCHDOG_USEC", "")
        if microseconds.isdigit() and environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self.watchdog = int(microseconds) / 1e6 or None

    def send(self, *assignments: str) -> bool:
        """Send VARIABLE=value lines as one message; whether they went out.

        >>> Notifier({}).send("READY=1", "STATUS=shirt")
        False
        """
        if not self._address:
            return False
        text = "\n".join(" ".join(assignment.split("\n")) for assignment in assignments)
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            return False
        return True

    def reloading(self, status: str) -> bool:
        """Say that a reload begins; READY=1 ends it. Systemd tells reloads apart by the time on its own clock."""
        return self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", status)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
