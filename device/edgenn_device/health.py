"""How a running device is: one JSON-able document that the Unix socket, the web page and MQTT all show.

Collects what the parts of a run say of themselves and of the frames that came through. Judges by three words only: ok,
degraded (it works, with less than it could have), failed (it does not do its work). Mends nothing, and sends nothing
anywhere.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

if TYPE_CHECKING:
    from .model_file import ModelFile
    from .pipeline import Result

State = Literal["ok", "degraded", "failed"]

# Frames whose latency and pace are told: 17 s of a camera at 30 frames a second.
_LATEST = 512
# Seconds over which frames a second are counted.
_WINDOW = 5.0
# Seconds without a frame after which that is worth a word, whatever the parts say. A camera that was unplugged is back
# within 5 s of being plugged in again; the watchdog of the systemd unit bites at 30.
QUIET = 10.0


class Counts(Protocol):
    """What Health asks a `Pipeline`."""

    @property
    def dropped(self) -> int: ...
    @property
    def bad(self) -> int: ...
    @property
    def trouble(self) -> str: ...


class Reports(Protocol):
    """What Health asks a sink. `state` must answer at once, from any thread."""

    @property
    def name(self) -> str: ...
    def state(self) -> dict[str, Any]: ...


class Health:
    """Thread-safe: each part tells of itself from its own thread, and any thread may take a snapshot.

    Args:
      device: what this device is called; None takes its host name.
      version: of edgenn.
      root: what /sys is read below.

    >>> health = Health("porch")
    >>> health.set("source", "degraded", "camera 0 is gone, trying again")
    >>> health.snapshot()["state"], health.snapshot()["reasons"]
    ('degraded', ['source: camera 0 is gone, trying again'])
    """

    def __init__(self, device: str | None = None, version: str = "", *, root: Path = Path("/")) -> None:
        self.device = device or socket.gethostname()
        self.version = version
        self._root = root
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._parts: dict[str, tuple[State, str]] = {}
        self._model: dict[str, str] = {}
        self._source = self._runtime = ""
        self._delegate = "cpu"
        self._counts: Counts | None = None
        self._sinks: tuple[Reports, ...] = ()
        self._frames = 0
        self._label: str | None = None
        self._confidence: float | None = None
        # Of the latest frames: when each was classified, and its latency.
        self._latest: deque[tuple[float, float]] = deque(maxlen=_LATEST)

    def frame(self, result: Result) -> None:
        """Count a classified frame. Takes about a microsecond: it is called on the thread that invokes."""
        now = time.monotonic()
        with self._lock:
            self._frames += 1
            self._label = result.classification.label
            self._confidence = result.classification.confidence
            self._latest.append((now, result.latency))

    def set(self, part: str, state: State, reason: str = "") -> None:
        """Say how a part is.

        Args:
          part: "source", "delegate", "model" or "sink:NAME".
          state: how it is from now on.
          reason: one line for a person; "" for ok.

        Raises:
          ValueError: `state` is none of the three words.
        """
        if state not in get_args(State):
            raise ValueError(f"a part is ok, degraded or failed, not {state!r}")
        with self._lock:
            self._parts[part] = state, reason

    def describe(
        self,
        *,
        model: ModelFile | None = None,
        source: str | None = None,
        runtime: str | None = None,
        delegate: str | None = None,
        counts: Counts | None = None,
        sinks: Iterable[Reports] | None = None,
    ) -> None:
        """Say what runs; None leaves what was said before.

        Args:
          model: shown by its file's name and the SHA-256 of its flatbuffer (the one in its card).
          source, runtime, delegate: names for a person.
          counts: whoever counts dropped and bad frames and knows what is wrong with the pictures, the `Pipeline`.
          sinks: each is asked for its `state` at every snapshot; one with an "error" in it makes the device degraded.
        """
        described = None
        if model is not None:
            described = {"name": model.path.name, "sha256": hashlib.sha256(model.content).hexdigest()}
        with self._lock:
            self._model = described or self._model
            self._source = self._source if source is None else source
            self._runtime = self._runtime if runtime is None else runtime
            self._delegate = self._delegate if delegate is None else delegate
            self._counts = self._counts if counts is None else counts
            self._sinks = self._sinks if sinks is None else tuple(sinks)

    def part(self, name: str) -> tuple[State, str]:
        """How a part is, and why, by its own word; ("ok", "") when it has said nothing."""
        with self._lock:
            return self._parts.get(name, ("ok", ""))

    @property
    def frames(self) -> int:
        """How many frames have been classified."""
        return self._frames

    def snapshot(self) -> dict[str, Any]:
        """The document: JSON-able, times in seconds except where a name ends in `_ms`.

        `state` is "starting" until the first frame, unless a part has failed or is degraded by then.
        """
        # Only here: a run that nobody asks has no need of it.
        from .profiler import state

        now = time.monotonic()
        with self._lock:
            parts = dict(self._parts)
            latest = tuple(self._latest)
            counts, reporting = self._counts, self._sinks
            document: dict[str, Any] = {
                "device": self.device,
                "version": self.version,
                "uptime_s": round(now - self._began, 1),
                "model": dict(self._model),
                "source": {"name": self._source, "state": parts.get("source", ("ok", ""))[0]},
                "runtime": self._runtime,
                "delegate": self._delegate,
                "label": self._label,
                "confidence": None if self._confidence is None else round(self._confidence, 5),
                "frames": self._frames,
            }
        # A sink may be asked by its own lock: never while ours is held.
        sinks = {sink.name: sink.state() for sink in reporting}
        for name, said in sinks.items():
            if said.get("error"):
                parts.setdefault(f"sink:{name}", ("degraded", str(said["error"])))
        age = now - latest[-1][0] if latest else None
        # What the source says of its connection and what its pictures are like are two things: neither ends the other.
        wrong = counts.trouble if counts else ""
        if not wrong and age is not None and age > QUIET:
            wrong = f"no frame for {age:.0f} s"
        if wrong and parts.get("source", ("ok", ""))[0] == "ok":
            parts["source"] = "degraded", wrong
            document["source"]["state"] = "degraded"
        return {
            "state": _judge(parts, started=bool(latest)),
            "parts": {**dict.fromkeys(("source", "model", *(f"sink:{name}" for name in sinks)), "ok"), **_words(parts)},
            "reasons": [f"{part}: {reason or word}" for part, (word, reason) in sorted(parts.items()) if word != "ok"],
            **document,
            "fps": _fps(latest, now),
            "latency_ms": _percentiles(latest),
            "dropped": counts.dropped if counts else 0,
            "bad": counts.bad if counts else 0,
            "last_frame_age_s": None if age is None else round(age, 3),
            "temperature_c": state.temperature(self._root),
            "sinks": sinks,
        }


def _words(parts: dict[str, tuple[State, str]]) -> dict[str, State]:
    return {part: word for part, (word, _) in parts.items()}


def _judge(parts: dict[str, tuple[State, str]], *, started: bool) -> str:
    words = {word for word, _ in parts.values()}
    if "failed" in words:
        return "failed"
    if "degraded" in words:
        return "degraded"
    return "ok" if started else "starting"


def _fps(latest: tuple[tuple[float, float], ...], now: float) -> float:
    """Up to now, not up to the last frame: a source that stops is seen to slow down.

    The first frame begins the time and is not counted. Of a source with fewer than two frames in a window the last two
    are taken, while it is not long overdue.
    """
    moments = [moment for moment, _ in latest]
    within = [moment for moment in moments if now - moment <= _WINDOW]
    if len(within) < 2 <= len(moments) and now - moments[-1] <= 2 * (moments[-1] - moments[-2]):
        within = moments[-2:]
    return round((len(within) - 1) / (now - within[0]), 2) if within and now > within[0] else 0.0


def _percentiles(latest: tuple[tuple[float, float], ...]) -> dict[str, float | None]:
    """Nearest rank, in milliseconds; None before the first frame."""
    ordered = sorted(latency for _, latency in latest)
    if not ordered:
        return dict.fromkeys(("p50", "p90", "p99"))
    return {f"p{p}": round(ordered[-(-p * len(ordered) // 100) - 1] * 1000, 3) for p in (50, 90, 99)}
