"""A model to its devices: facts, preflight, what is missing, the switch; wave by wave, and an answer for every device.

Nothing is changed anywhere before every device that answers has passed the preflight. Each device switches, proves
itself and goes back on its own; here it is only told what to, and believed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgenn_device.errors import EdgennError
from edgenn_device.files import read_toml
from edgenn_device.releases import WITHIN

from . import rollout
from .connection import Connection
from .hosts import Host
from .packages import Packages, Platform, packages
from .plan import SIGNATURE, Plan, Wanted, plan
from .preflight import obstacles, platform_of

if TYPE_CHECKING:
    from .engine import Failure

Changed = Literal["nothing", "model", "release"]
# Seconds between two questions to devices that are starting: each is a process there.
_ASK_AGAIN = 1.0


@dataclass(frozen=True)
class Deployed:
    """What became of one device.

    Attributes:
      host: its name.
      release: the id of what it runs now; None where that is not known, or nothing.
      changed: what is another now.
      seconds: it took.
      ok: it runs what was asked for.
      reason: why not, in one line that says what to do.
      reached: False when it did not answer.
      restored: after a release was taken back, whether the one before answers again; None where there was none.
      sent: bytes.
      steps: seconds of each step on the device.
      health: of what it runs, where nothing had to be changed.
    """

    host: str
    release: str | None
    changed: Changed
    seconds: float
    ok: bool
    reason: str = ""
    reached: bool = True
    restored: bool | None = None
    sent: int = 0
    steps: Mapping[str, float] = field(default_factory=dict, hash=False)
    health: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def verdict(self) -> rollout.Verdict:
        return "ok" if self.ok else "failed" if self.reached else "unreachable"


def deploy(
    model: str | os.PathLike[str],
    hosts: Sequence[Host],
    *,
    config: str | os.PathLike[str] | None = None,
    source: str | None = None,
    sign: str | os.PathLike[str] | None = None,
    offline: bool = False,
    canary: str | int = 0,
    max_failures: str | int = 0,
    within: float = WITHIN,
    told: Callable[[str, str], None] = lambda name, step: None,
) -> list[Deployed]:
    """Bring a model, and what runs it, to devices.

    Args:
      model: a .tflite; beside an X_edgetpu.tflite its twin X.tflite goes too, and X.tflite.sig if there is one.
      hosts: the devices.
      config: a run.toml for all; None leaves each device its own. What the inventory says of a host holds against it.
      source: holds against both.
      sign: a key to sign the model with.
      offline: no device is made to reach out.
      canary, max_failures: as for `rollout.roll_out`. A device that cannot be deployed to at all counts as failed.
      within: seconds in which the release has to prove itself on the device.
      told: is given (host, step) as it goes on, from any thread.

    Returns:
      One for each host, in their order.

    Raises:
      EdgennError: the request is wrong, before anything is connected to.
    """
    wanted = _wanted(Path(model), config, source, sign, within, offline)
    allowed = rollout.share(max_failures, len(hosts))
    rollout.share(canary, len(hosts))
    from .engine import Engine, Failure

    began = time.monotonic()
    with ExitStack() as opened:
        connections = {host.name: opened.enter_context(Connection(host)) for host in hosts}
        facts: dict[str, dict[str, Any]] = {}
        failures: dict[str, Failure] = {}
        for batch in _batches(hosts):
            with Engine({host.name: connections[host.name] for host in batch}, told) as engine:
                facts.update(engine.facts())
                failures.update(engine.failures)
            if len(hosts) > rollout.AT_ONCE:
                # Every open connection is a process here; those of a large fleet are opened again for their wave.
                for host in batch:
                    connections[host.name].close()
        plans: dict[str, Plan] = {}
        ready = _Packages(offline, told)
        for host in hosts:
            if host.name in facts:
                try:
                    plans[host.name] = _planned(host, wanted, facts[host.name], ready)
                except EdgennError as error:
                    failures[host.name] = Failure(str(error), reached=True)

        def finished(host: Host, **said: Any) -> Deployed:
            current = (facts.get(host.name, {}).get("current") or {}).get("id")
            known = {"release": current, "changed": "nothing", "ok": False, **said}
            return Deployed(host.name, seconds=round(time.monotonic() - began, 3), **known)

        stopped = _in_the_way(hosts, failures, allowed)
        if stopped:
            return [
                finished(host, reason=failures[host.name].reason, reached=failures[host.name].reached)
                if host.name in failures
                else finished(host, reason=stopped)
                for host in hosts
            ]

        def wave(some: Sequence[Host]) -> list[Deployed]:
            todo = {h.name: plans[h.name] for h in some if h.name not in failures and plans[h.name].changed}
            with Engine({name: connections[name] for name in todo}, told) as engine:
                if todo:
                    engine.apply(todo)
                failures.update(engine.failures)
                answers = dict(engine.answers)
            same = {h.name: connections[h.name] for h in some if h.name not in failures and h.name not in todo}
            failures.update(_wait_for_start(same, facts, within, told))
            results = []
            for host in some:
                if host.name in failures:
                    failure = failures[host.name]
                    results.append(finished(host, reason=failure.reason, reached=failure.reached))
                elif host.name in todo:
                    answer = answers[host.name]
                    results.append(finished(host, sent=todo[host.name].bytes, **_said(answer)))
                else:
                    results.append(_unchanged(finished, host, facts[host.name]))
                if len(hosts) > rollout.AT_ONCE:
                    connections[host.name].close()
            return results

        rolled = rollout.roll_out(hosts, wave, lambda one: one.verdict, canary=canary, max_failures=max_failures)
        left = [finished(host, reason=f"not tried: {rolled.stopped}") for host in rolled.left]
        return [*rolled.done, *left]


class _Packages:
    """The wheels for each kind of device, chosen once for all devices of that kind."""

    def __init__(self, offline: bool, told: Callable[[str, str], None]) -> None:
        self._known: dict[tuple[Platform, bool], Packages] = {}
        self._told = told

    def __call__(self, platform: Platform, signed: bool) -> Packages:
        if (platform, signed) not in self._known:
            self._told("", f"wheels for {platform}")
            # The workstation may reach out for a device that may not: --offline is about the devices.
            self._known[platform, signed] = packages(platform, signed=signed)
        return self._known[platform, signed]


def _planned(host: Host, wanted: Wanted, facts: Mapping[str, Any], ready: _Packages) -> Plan:
    """The plan for a device, or everything that stands in its way in one line."""
    platform = platform_of(facts)
    before = obstacles(host, facts, wanted)
    if before or isinstance(platform, str):
        raise EdgennError("; ".join(before))
    made = plan(host, wanted, facts, ready(platform, facts["signed_only"]))
    found = obstacles(host, facts, wanted, made)
    if found:
        raise EdgennError("; ".join(found))
    return made


def _in_the_way(hosts: Sequence[Host], failures: Mapping[str, Failure], allowed: int) -> str:
    """Why nothing is changed anywhere; "" when the deploy goes on."""
    blocked = [host.name for host in hosts if host.name in failures and failures[host.name].reached]
    if len(blocked) <= allowed:
        return ""
    return f"nothing was changed, because of {', '.join(blocked[:5])}{' …' if len(blocked) > 5 else ''}"


def _said(answer: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("release", "changed", "ok", "reason", "restored", "steps")
    return {key: answer[key] for key in keys if key in answer}


def _wait_for_start(
    connections: Mapping[str, Connection],
    facts: dict[str, dict[str, Any]],
    within: float,
    told: Callable[[str, str], None],
) -> dict[str, Failure]:
    """Ask devices that have all of it and are only starting again, as long as a new release would have.

    Returns:
      Why those do not answer any more that do not; `facts` has what the others say now.
    """
    from .engine import Engine

    failures: dict[str, Failure] = {}
    until = time.monotonic() + within
    known: set[str] = set()
    while True:
        waiting = {name: connections[name] for name in connections if name not in failures and _starts(facts[name])}
        if not waiting or time.monotonic() >= until:
            return failures
        for name in waiting.keys() - known:
            told(name, "it is starting")
        known |= waiting.keys()
        time.sleep(_ASK_AGAIN)
        with Engine(waiting) as engine:
            facts.update(engine.facts())
            failures.update(engine.failures)


def _starts(facts: Mapping[str, Any]) -> bool:
    health = facts["health"]
    return bool(facts["starting"] if health is None else health["state"] == "starting")


def _unchanged(finished: Callable[..., Deployed], host: Host, facts: Mapping[str, Any]) -> Deployed:
    """It has all of it. Whether it is well is told too: a deploy that changes nothing must not hide a sick device."""
    health = facts["health"]
    if health is None:
        reason = "the release is there and its service does not answer: edgenn logs " + host.name
    elif health["state"] != "ok":
        first = "no frame was classified yet" if health["state"] == "starting" else f"it is {health['state']}"
        reason = "; ".join(health["reasons"]) or first
    else:
        return finished(host, ok=True, health=health)
    return finished(host, ok=False, reason=reason, health=health)


def _wanted(
    model: Path,
    config: str | os.PathLike[str] | None,
    source: str | None,
    sign: str | os.PathLike[str] | None,
    within: float,
    offline: bool,
) -> Wanted:
    from edgenn_device import model_file
    from edgenn_device.standby import twin_of

    options = None if config is None else read_toml(config)
    # What is damaged here is not carried anywhere. A compiled file may have left its labels to its twin.
    twin = twin_of(model)
    model_file.load(twin if twin.exists() else model)
    if not model.exists():
        raise EdgennError(f"there is no model {model}: check the path")
    wanted = Wanted(model, options, source, within=within, offline=offline)
    signatures: dict[str, bytes] = {}
    for name, path in wanted.models.items():
        beside = path.with_name(path.name + SIGNATURE)
        if sign is not None:
            from .signing import signature

            signatures[name + SIGNATURE] = signature(path.read_bytes(), path.name, sign).encode()
        elif beside.is_file():
            signatures[name + SIGNATURE] = beside.read_bytes()
    return Wanted(model, options, source, signatures, within, offline)


def _batches(hosts: Sequence[Host]) -> list[Sequence[Host]]:
    return [hosts[at : at + rollout.AT_ONCE] for at in range(0, len(hosts), rollout.AT_ONCE)]
