"""The machine's state at one moment: clock, temperature, throttling, and how busy it is with other programs' work.

Two states, one before a run and one after, tell whether the run can be believed; `disturbances` says so in sentences.
Sources are named where they are read. Values are None where the machine cannot tell.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# `vcgencmd get_throttled`, documented at raspberrypi.com/documentation/computers/os.html#get_throttled:
# bits 0 to 3 are so now, bits 16 to 19 have been so since the board was started.
THROTTLE_BITS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_START = 16
# Types of thermal zones that belong to the CPU; without one of them the first zone is taken.
_CPU_ZONES = ("cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "x86_pkg_temp", "cpu0-thermal")
# A share of all cores' time above which a p99 is no longer the model's own. Kernel housekeeping and an idle desktop
# stay below 2% on the machines this was tried on.
BUSY_LIMIT = 0.05
# A median that moves more than this between the first and the last quarter of a run has drifted.
DRIFT_LIMIT = 0.05
# A clock that falls by more than this while the CPU has work was taken down: by heat, by power or by a governor.
CLOCK_LIMIT = 0.1
# Seconds from one look at the state to the next while a run goes on. A look costs about a millisecond.
_LOOK = 0.5

Runner = Callable[[Sequence[str]], "str | None"]


@dataclass(frozen=True)
class State:
    """One moment.

    Attributes:
      clock_mhz: fastest core's clock.
      temperature: degrees Celsius of the CPU.
      throttled, throttled_before: words of THROTTLE_BITS that hold now, and that have held since the board started;
        None where the board cannot tell.
      load_average: runnable processes, averaged over the last minute.
      busy, total: CPU time of all cores since the machine started, working and altogether, in clock ticks.
      own: CPU time of this process and its finished children, in clock ticks.
    """

    clock_mhz: float | None
    temperature: float | None
    throttled: tuple[str, ...] | None
    throttled_before: tuple[str, ...] | None
    load_average: float | None
    busy: float | None
    total: float | None
    own: float

    def to_dict(self) -> dict[str, Any]:
        """What a reader of a report wants; the running totals only make sense as differences."""
        values = asdict(self)
        return {key: value for key, value in values.items() if key not in ("busy", "total", "own")}


class Watch:
    """Looks at the state every half second while a measurement goes on: `between` of `steady.in_turns`."""

    def __init__(self, root: str | Path = "/", runner: Runner | None = None, every: float = _LOOK) -> None:
        self.states: list[State] = []
        self._root = root
        self._runner = runner or run
        self._every = every
        self._due = 0.0

    def __call__(self) -> bool:
        """Look, if it is time. Whether it was."""
        now = time.monotonic()
        if now < self._due:
            return False
        self.states.append(state(self._root, self._runner))
        self._due = time.monotonic() + self._every
        return True


def during(states: Sequence[State]) -> dict[str, Any]:
    """What the states in the course of a run say together: looks, lowest and highest clock and temperature, throttling.

    None for what was never known.
    """
    clocks = [one.clock_mhz for one in states if one.clock_mhz is not None]
    degrees = [one.temperature for one in states if one.temperature is not None]
    flags = [one.throttled for one in states if one.throttled is not None]
    return {
        "looks": len(states),
        "clock_mhz": [min(clocks), max(clocks)] if clocks else None,
        "temperature": [min(degrees), max(degrees)] if degrees else None,
        "throttled": sorted({word for words in flags for word in words}) if flags else None,
    }


def run(command: Sequence[str]) -> str | None:
    """Standard output of a command, None when it is not there, fails or takes more than two seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def state(root: str | Path = "/", runner: Runner = run) -> State:
    """Read the state now. Costs about a millisecond, on a Pi without /sys/…/get_throttled one process more."""
    base = Path(root)
    now, before = throttling(base, runner)
    busy, total = cpu_time(base)
    return State(_clock(base), temperature(base), now, before, _load(base), busy, total, _own_time())


def busy_by_others(before: State, after: State) -> float | None:
    """Share (0..1) of all cores' time between two states that neither this process nor idling took.

    Time that a hypervisor gave to other guests (`steal`) counts as taken by others.
    """
    if before.busy is None or after.busy is None or before.total is None or after.total is None:
        return None
    total = after.total - before.total
    if total <= 0:
        return None
    others = (after.busy - before.busy) - (after.own - before.own)
    return min(1.0, max(0.0, others / total))


def disturbances(
    before: State,
    after: State,
    emulator: str | None = None,
    drift: float | None = None,
    between: Sequence[State] = (),
) -> list[str]:
    """Why the figures between two states are not the model's own, one sentence each; empty for a quiet run.

    Args:
      before, after: around the run.
      emulator: what emulates this machine, or None.
      drift: median of the run's last quarter over that of its first, minus 1.
      between: looks at the state in the course of the run.
    """
    sentences = []
    if emulator:
        sentences.append(f"The figures are of {emulator}, not of a device.")
    throttled = sorted({word for one in (before, *between, after) for word in one.throttled or ()})
    # A bit that was clear at the start and set at the end: it happened, and passed, during the run.
    passed = set(after.throttled_before or ()) - set(before.throttled_before or ()) - set(throttled)
    if throttled or passed:
        mend = "use the board's own power supply" if "under-voltage" in {*throttled, *passed} else "cool the board"
        sentences.append(f"The board slowed itself down ({', '.join([*throttled, *sorted(passed)])}): {mend}.")
    clocks = [one.clock_mhz for one in between if one.clock_mhz]
    if clocks and min(clocks) < max(clocks) * (1 - CLOCK_LIMIT):
        sentences.append(
            f"The CPU's clock varied between {min(clocks):.0f} and {max(clocks):.0f} MHz during the run: cool the "
            "board, or set the governor to performance, and measure again."
        )
    busy = busy_by_others(before, after)
    if busy is not None and busy > BUSY_LIMIT:
        sentences.append(f"Other programs took {busy:.0%} of the CPU during the run: end them and measure again.")
    if drift is not None and abs(drift) > DRIFT_LIMIT:
        way = "slower" if drift > 0 else "faster"
        sentences.append(f"The run ended {abs(drift):.0%} {way} than it began (heat, clock or load).")
    return sentences


def read(path: Path) -> str | None:
    """Text of a small file of the kernel's, stripped of blanks; None when it is absent, unreadable or empty."""
    try:
        return path.read_bytes().decode(errors="replace").strip() or None
    except OSError:
        return None


def throttling(root: Path, runner: Runner = run) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """(now, since start) of a Raspberry Pi's throttling flags, (None, None) elsewhere.

    Source: the firmware's `get_throttled`, from /sys where the kernel offers it, else by `vcgencmd`.
    """
    text = read(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if text is None:
        answer = runner(["vcgencmd", "get_throttled"])
        text = answer.partition("=")[2] if answer else None
    try:
        flags = int(text, 16) if text else None
    except ValueError:
        flags = None
    if flags is None:
        return None, None
    now = tuple(word for bit, word in THROTTLE_BITS.items() if flags >> bit & 1)
    before = tuple(word for bit, word in THROTTLE_BITS.items() if flags >> (bit + _SINCE_START) & 1)
    return now, before


def temperature(root: Path) -> float | None:
    """CPU temperature in degrees Celsius. Source: /sys/class/thermal/thermal_zone*/temp, in thousandths."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    zones.sort(key=lambda zone: read(zone / "type") not in _CPU_ZONES)
    for zone in zones:
        value = _number(zone / "temp")
        if value is not None:
            return value / 1000
    return None


def power_source(root: Path) -> str | None:
    """ "mains", "battery" (with charge and state) or None. Source: /sys/class/power_supply (sysfs-class-power).

    A board without either (a Pi) shows a weak supply by its throttling flags.
    """
    battery: str | None = None
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        kind = read(supply / "type")
        if kind in ("Mains", "USB") and read(supply / "online") == "1":
            return "mains"
        # A mouse has a battery too, of scope "Device".
        if kind == "Battery" and read(supply / "scope") != "Device" and battery is None:
            charge, status = read(supply / "capacity"), read(supply / "status")
            battery = ", ".join(filter(None, ("battery", f"{charge}%" if charge else None, (status or "").lower())))
    return battery


def clock_limits(root: Path) -> tuple[str | None, float | None]:
    """(governor, highest clock in MHz). Source: /sys/devices/system/cpu/cpu*/cpufreq; the fastest core's."""
    governor = read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return governor, _fastest(root, "cpuinfo_max_freq")


def _clock(root: Path) -> float | None:
    """Clock now in MHz. Source: cpufreq, else "cpu MHz" of /proc/cpuinfo (x86; a virtual one is told by its host)."""
    now = _fastest(root, "scaling_cur_freq")
    if now is not None:
        return now
    clocks = []
    for line in (read(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "cpu MHz":
            try:
                clocks.append(float(value))
            except ValueError:
                continue
    return max(clocks, default=None)


def _fastest(root: Path, name: str) -> float | None:
    paths = (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}")
    clocks = [kilohertz for path in paths if (kilohertz := _number(path)) is not None]
    return max(clocks) / 1000 if clocks else None


def _load(root: Path) -> float | None:
    text = read(root / "proc/loadavg")
    try:
        return float(text.split()[0]) if text else None
    except ValueError:
        return None


def cpu_time(root: Path) -> tuple[float | None, float | None]:
    """(working, altogether) in ticks. Source: first line of /proc/stat, proc_stat(5).

    Fields: user nice system idle iowait irq softirq steal guest guest_nice; guest time is already within user.
    """
    words = (read(root / "proc/stat") or "").partition("\n")[0].split()
    if len(words) < 6 or words[0] != "cpu" or not all(word.isdigit() for word in words[1:]):
        return None, None
    ticks = [float(word) for word in words[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _own_time() -> float:
    times = os.times()
    seconds = times.user + times.system + times.children_user + times.children_system
    return seconds * os.sysconf("SC_CLK_TCK")


def _number(path: Path) -> float | None:
    text = read(path)
    try:
        return float(text) if text else None
    except ValueError:
        return None
