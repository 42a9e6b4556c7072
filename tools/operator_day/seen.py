"""All that an operator can look at, looked at all the time.

That is status, logs, the page, the topics that Home Assistant reads, metrics and systemd's own word. Each has a thread
that notes what it saw and when. It judges nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from edgenn.deployment import probe, status
from edgenn.deployment.connection import Connection
from edgenn.deployment.hosts import Host
from edgenn.deployment.remote import ask, journal
from edgenn_device.errors import EdgennError
from tools.arm_device import Device

STATUS, LOGS, PAGE, MQTT, METRICS, SYSTEMD = "status", "logs", "page", "mqtt", "metrics", "systemd"
PLACES = (STATUS, LOGS, PAGE, MQTT, METRICS, SYSTEMD)
# Seconds between two looks at a place.
_EVERY = 0.5
# Lines of the journal at each look; those that were seen already are left out.
_LINES = 200


@dataclass
class Seen:
    """One place: (time.monotonic(), what was to be read there) for each change. Of status and metrics the latest holds;
    logs and MQTT are lines."""

    notes: list[tuple[float, str]] = field(default_factory=list)
    # When the last look that is noted began: what stands there may be older, and still so.
    looked: float = 0.0

    def note(self, text: str) -> None:
        if not self.notes or self.notes[-1][1] != text:
            self.notes.append((time.monotonic(), text))

    @property
    def latest(self) -> str:
        return self.notes[-1][1] if self.notes else ""

    def since(self, moment: float) -> list[tuple[float, str]]:
        return [(at, text) for at, text in list(self.notes) if at >= moment]


class Sight:
    """Entered: looking. `seen` holds each of `PLACES`."""

    def __init__(self, device: Device, host: Host, page: str, metrics: str) -> None:
        self.seen = {place: Seen() for place in PLACES}
        self._device, self._host = device, host
        self._ended = threading.Event()
        self._known: set[tuple[str, str]] = set()
        looks: dict[str, Callable[[], str]] = {
            STATUS: self._status,
            PAGE: lambda: _fetched(f"{page}/state.json"),
            METRICS: lambda: _fetched(f"{metrics}/metrics"),
            SYSTEMD: self._systemd,
        }
        self._connection: Connection | None = None
        self._threads = [threading.Thread(target=self._look, args=pair, daemon=True) for pair in looks.items()]
        self._threads.append(threading.Thread(target=self._logs, daemon=True))

    def __enter__(self) -> Sight:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(10)
        if self._connection is not None:
            self._connection.close()

    def hear(self, topic: str, text: str) -> None:
        """For the broker's listener; of a topic the last word is noted."""
        self.seen[MQTT].notes.append((time.monotonic(), f"{topic.rpartition('/')[2]} {text}"))

    def _look(self, place: str, look: Callable[[], str]) -> None:
        while not self._ended.wait(_EVERY):
            began = time.monotonic()
            self.seen[place].note(look())
            self.seen[place].looked = began

    def _status(self) -> str:
        """As `edgenn status` judges and words it, over a connection that is kept."""
        try:
            if self._connection is None:
                self._connection = Connection(self._host)
                self._connection.open()
            row = status.judged(self._host.name, ask(self._connection, probe, timeout=60))
        except EdgennError as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            return f"unreachable: {error}"
        fps = "" if row.fps is None else f" {row.fps:.1f} fps"
        return f"{row.state} {row.release or '–'}{fps}: {'; '.join(row.reasons)}"

    def _systemd(self) -> str:
        try:
            done = self._device.run("sudo systemctl status edgenn --no-pager --lines=0", check=False, timeout=60)
        except subprocess.TimeoutExpired:
            return "no answer"
        return done.stdout.strip() or done.stderr.strip()

    def _logs(self) -> None:
        """As `edgenn logs`, again and again. `-f` begun at the moment of a boot may miss the lines before it, which
        journald has not yet moved from memory to the disk."""
        while not self._ended.wait(_EVERY):
            with suppress(EdgennError, OSError):
                for entry in journal([self._host], lines=_LINES):
                    if entry.time and (entry.time, entry.text) not in self._known:
                        self._known.add((entry.time, entry.text))
                        self.seen[LOGS].notes.append((time.monotonic(), entry.text))


def figures(exposition: str) -> dict[str, float]:
    """Prometheus' text as {name with labels: value}."""
    found = {}
    for name, value in re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", exposition, re.MULTILINE):
        found[name] = float(value)
    return found


def _fetched(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            text: str = answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return f"answers {error.code}"
    except OSError as error:
        return f"does not answer: {getattr(error, 'reason', error)}"
    if not address.endswith(".json"):
        return text
    # Only what is told of the device's state: the rest is another at every frame.
    said = json.loads(text)
    health = said["health"]
    return json.dumps({key: health[key] for key in ("state", "reasons", "label", "fps", "bad", "dropped", "uptime_s")})
