"""How every device is: its release, its health and what it sees now, asked over SSH, worst first.

A device that cannot be reached is a row like any other. What a device says is taken for a stranger's word: wrong types
are left out, and nothing of it reaches a terminal before signs that steer one are gone.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from edgenn_device.errors import EdgennError

from .hosts import Host
from .remote import ask

# Worst first. "empty": nothing is deployed; the others are the words of the health document.
STATES = ("failed", "unreachable", "empty", "degraded", "starting", "ok")
# Connections at the same time; each is a process or a thread that mostly waits.
_AT_ONCE = 32
# Seconds for a device to answer: a Pi Zero 2 under full load takes three to start Python.
_PATIENCE = 30.0
# Seconds for which an end of the service that is over by now is told: who looks each morning sees each.
_RECENT = 86400.0
# Degrees. A Raspberry Pi slows down from 80 on (documentation, "Frequency management and thermal control").
HOT = 80.0


@dataclass(frozen=True)
class Status:
    """One device.

    Attributes:
      host: its name.
      state: one of `STATES`.
      reasons: one line each for what is not well; and, also where all is, what has happened meanwhile: a release that
        was not taken, a service that ended and was started again within the last day.
      release: id of what is deployed.
      model: SHA-256 of the model that answers.
      label, confidence: of the latest frame.
      fps: frames a second.
      p90_ms: latency.
      temperature_c: of the CPU.
      uptime_s: of the service.
      version: of edgenn.
      restarts: how often systemd has started it again by itself since it was last told to.
    """

    host: str
    state: str
    reasons: tuple[str, ...] = ()
    release: str | None = None
    model: str | None = None
    label: str | None = None
    confidence: float | None = None
    fps: float | None = None
    p90_ms: float | None = None
    temperature_c: float | None = None
    uptime_s: float | None = None
    version: str | None = None
    restarts: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def status(hosts: Sequence[Host], asking: Callable[[Host], Any] | None = None) -> list[Status]:
    """Ask all devices at the same time.

    Args:
      hosts: as many as there are.
      asking: gives the document of `probe` for a host, or raises EdgennError; None asks over SSH.

    Returns:
      One row for each host, the worst first, and those alike in the order of `hosts`.
    """
    with ThreadPoolExecutor(max(1, min(_AT_ONCE, len(hosts)))) as pool:
        rows = list(pool.map(lambda one: _one(one, asking or _ask), hosts))
    return sorted(rows, key=lambda row: STATES.index(row.state))


def summary(rows: Sequence[Status]) -> str:
    """One line: how many are how, and which releases they have if these differ.

    >>> summary([Status("porch", "ok", release="a"), Status("gate", "failed", release="b")])
    '2 devices: 1 failed, 1 ok; releases: a on 1, b on 1'
    """
    states = Counter(row.state for row in rows)
    releases = Counter(row.release for row in rows if row.release)
    line = f"{len(rows)} device{'s' if len(rows) != 1 else ''}: "
    line += ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    if len(releases) > 1:
        line += "; releases: " + ", ".join(f"{release} on {number}" for release, number in releases.most_common(5))
    return line


def judged(host: str, said: Any) -> Status:
    """The row of a device that answered with the document of `probe`."""
    if not isinstance(said, dict):
        return Status(host, "failed", ("it answers something that is no status: deploy again",))
    release, unit, health = _text(said.get("release")), said.get("unit"), said.get("health")
    unit = {key: _text(value) or "" for key, value in unit.items()} if isinstance(unit, dict) else {}
    # A first release that was taken back leaves the unit, and nothing that it could start.
    if release is None and (unit.get("LoadState") != "loaded" or unit.get("ActiveState") in ("inactive", "failed")):
        return Status(host, "empty", (f"nothing is deployed: edgenn deploy MODEL {host}",))
    restarts = int(unit["NRestarts"]) if re.fullmatch(r"\d{1,9}", unit.get("NRestarts", ""), re.ASCII) else None
    happened = _happened(restarts, said)
    if not isinstance(health, dict):
        word, why = _without_health(unit, said.get("last"))
        return Status(host, word, (*why, *happened), release=release, restarts=restarts)
    state = health.get("state")
    reasons = [text for text in map(_text, _list(health.get("reasons"))) if text]
    if state not in ("ok", "degraded", "failed", "starting"):
        state, reasons = "failed", ["its health has no state: deploy again"]
    if release is not None and said.get("proved") is not True:
        reasons.append("this release has not proved itself: a deploy is under way, or was cut off")
        state = "degraded" if state == "ok" else state
    if state == "starting":
        reasons.append("no frame yet")
    latency, model = health.get("latency_ms"), health.get("model")
    return Status(
        host,
        state,
        (*reasons, *happened),
        release=release,
        model=_text(model.get("sha256")) if isinstance(model, dict) else None,
        label=_text(health.get("label")),
        confidence=_number(health.get("confidence")),
        fps=_number(health.get("fps")),
        p90_ms=_number(latency.get("p90")) if isinstance(latency, dict) else None,
        temperature_c=_number(health.get("temperature_c")),
        uptime_s=_number(health.get("uptime_s")),
        version=_text(health.get("version")),
        restarts=restarts,
    )


def _happened(restarts: int | None, said: dict[str, Any]) -> list[str]:
    """What an operator would otherwise never hear of, because by now it is over."""
    lines = []
    refused, ended = said.get("refused"), said.get("ended")
    if isinstance(refused, dict):
        reason = _text(refused.get("reason")) or "no reason is known"
        lines.append(f"release {_text(refused.get('id'))} was not taken: {reason}")
    if isinstance(ended, dict):
        ago, at = _number(ended.get("ago")), _number(ended.get("at"))
        if restarts and ago is not None and at is not None and 0 <= ago < _RECENT and at > 0:
            times = "once" if restarts == 1 else f"{restarts} times"
            how = ", ".join(filter(None, (_text(ended.get("how")), _text(ended.get("result")))))
            moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
            lines.append(f"it was restarted {times} by itself, last at {moment}: {how or 'edgenn logs tells more'}")
    return lines


def _without_health(unit: dict[str, str], last: Any) -> tuple[str, tuple[str, ...]]:
    """State and reasons of a service that does not answer."""
    active = unit.get("ActiveState", "")
    lines = [text for text in map(_text, _list(last)) if text]
    # What edgenn itself said is worth more than systemd's remarks around it.
    own = [line for line in lines if line.startswith("edgenn: ")]
    reason = (own or [line for line in lines if "edgenn.service" not in line] or [""])[-1]
    if active in ("activating", "reloading"):
        return "starting", (unit.get("StatusText") or reason or "the service is being started",)
    if active == "deactivating":
        return "starting", ("the service is being stopped, or started again",)
    if active == "active":
        return "failed", ("the service runs and does not answer: its health socket is silent",)
    word = "is not running" if active in ("", "inactive") else f"has {active}"
    why = unit.get("Result", "")
    told = f"the service {word}" + (f" ({why})" if why not in ("", "success") else "")
    if word == "is not running" and why in ("", "success"):
        # Somebody has stopped it, or it has never been started: the last line is a run's summary, and explains nothing.
        reason = ""
    return "failed", (f"{told}: {reason}" if reason else f"{told}: sudo systemctl start edgenn",)


def _one(host: Host, asking: Callable[[Host], Any]) -> Status:
    try:
        return judged(host.name, asking(host))
    except EdgennError as error:
        return Status(host.name, "unreachable", (_text(host.bare(error)) or "",))


def _ask(host: Host) -> Any:
    from . import probe
    from .connection import Connection

    with Connection(host) as connection:
        return ask(connection, probe, timeout=_PATIENCE)


def _text(value: Any) -> str | None:
    """A stranger's text as one line for a terminal."""
    if not isinstance(value, str):
        return None
    return " ".join("".join(sign if sign.isprintable() else " " for sign in value[:500]).split()) or None


def _number(value: Any) -> float | None:
    return (
        float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12 else None
    )


def _list(value: Any) -> list[Any]:
    return value[:20] if isinstance(value, list) else []


def to_json(rows: Sequence[Status]) -> str:
    """One document: `devices`, in the order of `rows`."""
    return json.dumps({"devices": [row.to_dict() for row in rows]})
