"""The releases that devices have: listed, gone back to, removed. Each device does it by itself; here they are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from edgenn_device.errors import EdgennError
from edgenn_device.releases import WITHIN

from .connection import Connection, Unreachable
from .hosts import Host
from .rollout import AT_ONCE
from .tool import INSTALLED, asked, read


@dataclass(frozen=True)
class Answer:
    """What one device said.

    Attributes:
      host: its name.
      said: the document of its release tool; {} where there is none.
      reason: why there is none, or why the answer is no; "" otherwise.
      reached: False when it did not answer.
    """

    host: str
    said: Mapping[str, Any] = field(default_factory=dict, hash=False)
    reason: str = ""
    reached: bool = True

    @property
    def ok(self) -> bool:
        return not self.reason


def releases(hosts: Sequence[Host]) -> list[Answer]:
    """{"current", "releases": [{"id", "created", "state", "reason", "model", "edgenn", "by", "current"}…]} of each."""
    return _each(hosts, lambda connection: read(connection, INSTALLED, "list"))


def rollback(
    hosts: Sequence[Host],
    to: str | None = None,
    *,
    within: float = WITHIN,
    told: Callable[[str, str], None] = lambda name, step: None,
) -> list[Answer]:
    """Go back to the newest release before the current one that worked, or to `to`; it has to prove itself again."""

    def back(connection: Connection) -> dict[str, Any]:
        words = ["rollback", *([to] if to else [])]
        return asked(connection, INSTALLED, words, within=within, told=lambda step: told(connection.host.name, step))

    return _each(hosts, back)


def undeploy(hosts: Sequence[Host]) -> list[Answer]:
    """Stop the service and remove the releases; what the service has written itself stays."""
    return _each(hosts, lambda connection: asked(connection, INSTALLED, ["remove"]))


def _each(hosts: Sequence[Host], ask: Callable[[Connection], Mapping[str, Any]]) -> list[Answer]:
    """Of all devices at the same time, in their order."""

    def one(host: Host) -> Answer:
        try:
            with Connection(host) as connection:
                said = ask(connection)
        except Unreachable as error:
            return Answer(host.name, reason=str(error), reached=False)
        except EdgennError as error:
            return Answer(host.name, reason=host.bare(error))
        return Answer(host.name, said, "" if said.get("ok", True) else str(said.get("reason") or "it did not work"))

    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(hosts)))) as pool:
        return list(pool.map(one, hosts))
