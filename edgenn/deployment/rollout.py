"""In which order a release reaches many devices, and when it stops: a few canaries, then the rest in waves.

Pure: it calls what deploys one wave and reads its verdicts, and connects to nothing itself. A device that could not be
reached says nothing about the release, so it never stops the others and another canary takes its place; one that took
the release back does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from edgenn_device.errors import EdgennError

Verdict = Literal["ok", "failed", "unreachable"]
H = TypeVar("H")
R = TypeVar("R")

# Devices deployed to at the same time. Also how many can fail before the first verdict of a wave is heard.
AT_ONCE = 20


@dataclass(frozen=True)
class Rolled(Generic[H, R]):
    """How far a release got.

    Attributes:
      done: what each device that was tried said, in the order in which they were tried.
      left: devices that were never tried.
      stopped: why these were left, in one line; "" if every device was tried.
    """

    done: tuple[R, ...]
    left: tuple[H, ...]
    stopped: str


def share(text: str | int, total: int, *, at_least: int = 0) -> int:
    """How many of `total` a person means by "5%" or "3".

    A percentage is rounded up where at least one is wanted, otherwise down: "5%" of 10 devices is one canary, and no
    failure that is put up with.

    Raises:
      EdgennError: it is neither a whole number nor a percentage.

    >>> share("5%", 30, at_least=1), share("5%", 30), share("3", 2)
    (2, 1, 2)
    """
    number = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", str(text).strip())
    if number is None or (not number[2] and "." in number[1]) or (number[2] and float(number[1]) > 100):
        raise EdgennError(f"{text!r} is neither a number of devices nor a share of them: such as 2 or 5%")
    if not number[2]:
        return min(int(number[1]), total)
    part = round(float(number[1]) * total / 100, 9)
    return min(max(math.ceil(part) if at_least else math.floor(part), at_least), total)


def roll_out(
    hosts: Sequence[H],
    deploy: Callable[[Sequence[H]], Sequence[R]],
    verdict: Callable[[R], Verdict],
    *,
    canary: str | int = 0,
    max_failures: str | int = 0,
    at_once: int = AT_ONCE,
) -> Rolled[H, R]:
    """Deploy to `hosts` wave by wave.

    Args:
      hosts: all devices; the first ones are the canaries.
      deploy: deploys to some devices at the same time and answers for each, in their order.
      verdict: of one answer.
      canary: how many devices must hold the release before others get it ("5%" or a number); 0 for none. One canary
        that fails stops everything, whatever `max_failures` says.
      max_failures: go on while no more than so many have failed.
      at_once: devices in a wave.

    Raises:
      EdgennError: `canary` or `max_failures` cannot be read.
    """
    wanted = 0 if str(canary).strip() in ("0", "0%") else share(canary, len(hosts), at_least=1)
    allowed = share(max_failures, len(hosts))
    done: list[R] = []
    held = failed = at = 0
    while at < len(hosts):
        proving = held < wanted
        wave = hosts[at : at + min(at_once, wanted - held if proving else at_once)]
        answers = deploy(wave)
        if len(answers) != len(wave):
            raise ValueError(f"{len(wave)} devices and {len(answers)} answers")
        done.extend(answers)
        at += len(wave)
        verdicts = [verdict(answer) for answer in answers]
        held += verdicts.count("ok")
        failed += verdicts.count("failed")
        if at < len(hosts) and failed and (proving or failed > allowed):
            why = "a canary" if proving and failed == 1 else f"{failed} {'canaries' if proving else 'devices'}"
            return Rolled(
                tuple(done), tuple(hosts[at:]), f"{why} did not hold the release: {len(hosts) - at} left alone"
            )
    return Rolled(tuple(done), (), "")
