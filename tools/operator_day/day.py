"""The device of the day, and how a happening is played: caused, told, mended, well again, judged.

Nothing here waits for a fixed time: each step ends when what it waits for is there, or when its patience is over.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgenn.deployment.deploy import Deployed, deploy
from edgenn.deployment.hosts import Host
from tools.arm_device import Device

from .broker import Broker
from .camera import Camera
from .seen import LOGS, METRICS, MQTT, PAGE, STATUS, SYSTEMD, Sight, figures

# A pattern that what is read at a place must match, or a judge of the metrics before and now.
Expected = str | Callable[[dict[str, float], dict[str, float]], bool]
# What causes, mends, prepares or tidies; what it gives is nobody's business.
Work = Callable[["Day"], object]
# Seconds in which a happening must be told, and be over after it was mended. A camera that is away is tried every 3 s,
# a broker that fell silent is noticed after 30 s, a process that hangs is ended after 40 s and begins anew after 5.
_PATIENCE = 90.0
# How much slower an emulated device is.
_SLOWER = {"amd64": 1.0, "arm64": 5.0}
# What "well" looks like, place by place; all at the same time.
WELL: Mapping[str, str] = {
    STATUS: r"^ok ",
    PAGE: r'"state": "ok"',
    METRICS: r'edgenn_health_state\{state="ok"\} 1\.0',
    SYSTEMD: r'Status: "[^"]* fps, ',
}


@dataclass(frozen=True)
class Happening:
    """One event of the day.

    Attributes:
      name: as the table shows it.
      cause: brings it about.
      told: by place, what must be read there; all of them.
      mend: ends it, where it does not end by itself.
      never: by place, what must not be read there.
      prepare, tidy: before and after it, not timed; well again after each.
      only: the architectures on which it is played.
    """

    name: str
    cause: Work
    told: Mapping[str, Expected]
    mend: Work | None = None
    never: Mapping[str, str] = field(default_factory=dict)
    prepare: Work | None = None
    tidy: Work | None = None
    only: tuple[str, ...] = ("amd64", "arm64")


@dataclass(frozen=True)
class Row:
    """What became of a happening: seconds until each place told, None where none did; until well; what was wrong."""

    name: str
    told: Mapping[str, float | None]
    read: Mapping[str, str]
    well: float | None
    wrong: str

    def to_dict(self) -> dict[str, Any]:
        return {"event": self.name, "told_s": self.told, "read": self.read, "well_s": self.well, "wrong": self.wrong}


@dataclass
class Day:
    """Everything that happenings work with."""

    device: Device
    host: Host
    camera: Camera
    broker: Broker
    sight: Sight
    folder: Path
    models: list[Path]
    options: Path
    # Of a deploy that runs beside a happening.
    running: threading.Thread | None = None

    @property
    def patience(self) -> float:
        return _PATIENCE * _SLOWER[self.device.arch]

    def run(self, command: str, **more: Any) -> str:
        return str(self.device.run(command, **more).stdout)

    def deploy(
        self, model: Path, *, options: Path | None = None, told: Callable[[str], None] | None = None
    ) -> Deployed:
        [done] = deploy(
            model,
            [self.host],
            config=options or self.options,
            within=60 * _SLOWER[self.device.arch],
            told=lambda _, step: told(step) if told is not None else None,
        )
        return done

    def must_deploy(self, model: Path) -> None:
        done = self.deploy(model)
        if not done.ok:
            raise AssertionError(f"the deploy does not work: {done.reason}")

    def must_not_deploy(self, model: Path, options: Path | None = None) -> None:
        if self.deploy(model, options=options).ok:
            raise AssertionError("the deploy was to be refused")

    def until(self, what: str, true: Callable[[], bool], times: float = 1.0) -> None:
        """Wait for it, `times` as long as for other things. Raises AssertionError when it is not so in time."""
        if not self._comes(true, times):
            raise AssertionError(f"in vain: {what}")

    def _comes(self, true: Callable[[], bool], times: float = 1.0) -> bool:
        deadline = time.monotonic() + self.patience * times
        while not true():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def well(self, since: float) -> bool:
        """Whether all places say so, and said it after `since`; to Home Assistant too."""
        for place, pattern in WELL.items():
            seen = self.sight.seen[place]
            if seen.looked < since or not re.search(pattern, seen.latest):
                return False
        heard = [text for _, text in self.sight.seen[MQTT].notes]
        states = [text for at, text in self.sight.seen[MQTT].since(since) if text.startswith("state ")]
        present = [text for text in heard if text.startswith("availability ")]
        return present[-1:] == ["availability online"] and bool(states) and '"health": "ok"' in states[-1]

    def play(self, happening: Happening) -> Row:
        try:
            if happening.prepare is not None:
                self._and_well(happening.prepare)
            row = self._played(happening)
            if happening.tidy is not None:
                self._and_well(happening.tidy)
            return row
        except AssertionError as error:
            return Row(happening.name, {}, {}, None, str(error))

    def _and_well(self, work: Work) -> None:
        work(self)
        began = time.monotonic()
        self.until("it is well", lambda: self.well(began))

    def _played(self, happening: Happening) -> Row:
        metrics = figures(self.sight.seen[METRICS].latest)
        began = time.monotonic()
        happening.cause(self)
        told: dict[str, float | None] = dict.fromkeys(happening.told)
        read: dict[str, str] = {}

        def look() -> bool:
            for place in [place for place, at in told.items() if at is None]:
                found = self._found(place, happening.told[place], metrics, began)
                if found is not None:
                    told[place], read[place] = round(found[0] - began, 1), found[1]
            return None not in told.values()

        self._comes(look)
        mended = time.monotonic()
        if happening.mend is not None:
            happening.mend(self)
        # What ended by itself was over at some time after it was told.
        well = None
        if self._comes(lambda: self.well(mended)):
            well = round(time.monotonic() - mended, 1)
        if self.running is not None:
            self.running.join()
            self.running = None
        wrong = [f"not told: {place}" for place, at in told.items() if at is None]
        for place, pattern in happening.never.items():
            wrong += [
                f"{place} says {text[:200]}"
                for _, text in self.sight.seen[place].since(began)
                if re.search(pattern, text)
            ]
        if well is None:
            wrong.append(f"not well again: {self.sight.seen[STATUS].latest[:200]}")
        return Row(happening.name, told, read, well, "; ".join(wrong))

    def _found(
        self, place: str, expected: Expected, metrics: dict[str, float], began: float
    ) -> tuple[float, str] | None:
        for at, text in self.sight.seen[place].since(began):
            if callable(expected):
                now = figures(text)
                if now and expected(metrics, now):
                    return at, _risen(metrics, now)
            elif match := re.search(expected, text, re.MULTILINE):
                return at, text if place in (LOGS, MQTT, STATUS) else match[0]
        return None


def _risen(before: dict[str, float], now: dict[str, float]) -> str:
    names = [name for name, value in now.items() if value > before.get(name, 0.0)]
    return ", ".join(name for name in names if "bucket" not in name)[:200]


def rose(name: str) -> Callable[[dict[str, float], dict[str, float]], bool]:
    """A judge of metrics: the sum of all that begin with `name` is larger than before."""

    def judge(before: dict[str, float], now: dict[str, float]) -> bool:
        sums = [sum(value for key, value in one.items() if key.startswith(name)) for one in (before, now)]
        return sums[1] > sums[0]

    return judge
