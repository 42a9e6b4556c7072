"""Watts and joules per inference, on a board that can tell: a Raspberry Pi 5's PMIC, or an INA sensor of the kernel's.

Reads what sensors say and adds up nothing that they do not measure. A Pi 5 reports its rails, so the losses of the
regulators, the fan and what hangs on USB are missing; a sensor in the supply has them all. Power at rest is measured
first and told beside the whole, because a joule above rest and a joule from the battery are two figures. Where no
sensor is, a sentence says so.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from .state import Runner, read, run

# A reading costs a process of a few milliseconds on a Pi; ten a second leave the cores to the model, and the PMIC
# itself averages over a shorter time.
_INTERVAL = 0.1
_REST_SECONDS = 3.0
_FEWEST_SAMPLES = 5
_PMIC = ("vcgencmd", "pmic_read_adc")
# "  VDD_CORE_A current(7)=1.42880000A" and "  VDD_CORE_V volt(15)=0.90659250V" (raspberrypi.com/documentation,
# computers/os.html#vcgencmd). Rails with a voltage alone (EXT5V, BATT) are not measured.
_READING = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)[AV]\s*$", re.MULTILINE)
# Chips of the kernel's drivers ina2xx, ina238 and ina3221 (docs.kernel.org/hwmon).
_INA = re.compile(r"ina\d{3}\w?")
# Labels of a channel that measures the whole board, as Jetson carriers have them.
_SUPPLY = re.compile(r"(^|_)(VDD_|5V_)?IN$|^VIN|supply", re.IGNORECASE)


@dataclass(frozen=True)
class Meter:
    """A way to read watts now.

    Attributes:
      name: of the sensor.
      covers: what its figure holds and what not, in a sentence.
      watts: reads; None where the sensor did not answer.
    """

    name: str
    covers: str
    watts: Callable[[], float | None]


@dataclass(frozen=True)
class Energy:
    """Energy of a run.

    Attributes:
      meter, covers: of the sensor; "" without one.
      rest: watts before the run.
      watts: mean during the run, None where nothing was measured.
      spread: standard deviation of the readings during the run, watts.
      joules: per inference, with what the board takes at rest.
      joules_above_rest: per inference, the excess over rest alone; below 0 means that it drowned in the noise.
      samples, seconds, runs: readings, duration and inferences of the run.
      reason: why there is no figure; "" where there is one.
    """

    meter: str = ""
    covers: str = ""
    rest: float | None = None
    watts: float | None = None
    spread: float | None = None
    joules: float | None = None
    joules_above_rest: float | None = None
    samples: int = 0
    seconds: float = 0.0
    runs: int = 0
    reason: str = ""


def find_meter(root: str | Path = "/", runner: Runner = run) -> Meter | None:
    """The sensor to ask: one in the supply before the PMIC's rails, None where there is neither."""
    base = Path(root)
    found = _ina(base)
    if found is not None:
        return found
    answer = runner(_PMIC)
    if answer is None or parse_pmic(answer) is None:
        return None

    def watts() -> float | None:
        text = runner(_PMIC)
        return parse_pmic(text) if text else None

    return Meter(
        "PMIC (vcgencmd pmic_read_adc)",
        "The sum over the PMIC's rails: without the regulators' losses, the fan and what hangs on USB.",
        watts,
    )


def parse_pmic(text: str) -> float | None:
    """Watts in the answer of `vcgencmd pmic_read_adc`: volts times amperes of every rail that has both.

    None for an answer without such a rail (an error, a board without this PMIC).
    """
    values: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for rail, unit, number in _READING.findall(text):
        try:
            values[unit][rail] = float(number)
        except ValueError:
            continue
    rails = values["A"].keys() & values["V"].keys()
    return sum(values["A"][rail] * values["V"][rail] for rail in rails) if rails else None


def measure(
    invoke: Callable[[], object],
    meter: Meter | None,
    *,
    seconds: float,
    rest_seconds: float = _REST_SECONDS,
    interval: float = _INTERVAL,
) -> Energy:
    """Read the meter at rest, then while `invoke` runs again and again.

    The caller's thread runs `invoke`; a second one reads the meter. Both phases go on until the meter was read five
    times, however long that takes it.

    Args:
      meter: of `find_meter`; None gives an Energy with a reason.
      seconds, rest_seconds: how long each phase lasts at least.
      interval: seconds from one reading to the next.
    """
    if meter is None:
        return Energy(reason="This board has no power sensor that edgenn can read (a Pi 5's PMIC, an INA chip).")
    resting = _Sampler(meter, interval)
    with resting:
        resting.wait(rest_seconds)
    sampler = _Sampler(meter, interval)
    runs = 0
    began = time.perf_counter()
    with sampler:
        while not runs or time.perf_counter() - began < seconds or not sampler.enough.is_set():
            invoke()
            runs += 1
            if sampler.failed.is_set():
                break
        spent = time.perf_counter() - began
    if resting.failed.is_set() or sampler.failed.is_set():
        return Energy(meter.name, meter.covers, reason=f"The power sensor stopped answering: {meter.name}.")
    rest, watts = fmean(resting.values), fmean(sampler.values)
    return Energy(
        meter=meter.name,
        covers=meter.covers,
        rest=rest,
        watts=watts,
        spread=stdev(sampler.values),
        joules=watts * spent / runs,
        joules_above_rest=(watts - rest) * spent / runs,
        samples=len(sampler.values),
        seconds=spent,
        runs=runs,
    )


class _Sampler:
    """A thread that reads a meter. `values` is its own until the block ends."""

    def __init__(self, meter: Meter, interval: float) -> None:
        self.values: list[float] = []
        self.enough = threading.Event()
        self.failed = threading.Event()
        self._meter, self._interval = meter, interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power meter", daemon=True)

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def wait(self, seconds: float) -> None:
        """Until `seconds` have passed and there are readings enough, or the meter failed."""
        self._done.wait(seconds)
        self.enough.wait()

    def _run(self) -> None:
        try:
            while not self._done.is_set():
                value = self._meter.watts()
                if value is None:
                    self.failed.set()
                    return
                self.values.append(value)
                if len(self.values) >= _FEWEST_SAMPLES:
                    self.enough.set()
                self._done.wait(self._interval)
        except OSError:
            self.failed.set()
        finally:
            # Whoever waits for readings must not wait for ever.
            self.enough.set()


def _ina(root: Path) -> Meter | None:
    """The INA channel in the supply; where none is labelled so, the one with the most power, which feeds the others."""
    channels = []
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = read(chip / "name") or ""
        if not _INA.fullmatch(name):
            continue
        for number in range(1, 4):
            watts = _channel(chip, number)
            if watts is not None and (value := watts()) is not None:
                label = read(chip / f"in{number}_label") or read(chip / f"power{number}_label") or ""
                channels.append((bool(_SUPPLY.search(label)), value, f"{name} {chip.name} {label}".strip(), watts))
    if not channels:
        return None
    _, _, name, watts = max(channels, key=lambda channel: channel[:2])
    return Meter(name, "What flows through the sensor: the whole board where it sits in the supply.", watts)


def _channel(chip: Path, number: int) -> Callable[[], float | None] | None:
    """Power of a channel: the chip's own figure (microwatts), else millivolts times milliamperes."""

    def of(name: str) -> float | None:
        text = read(chip / name)
        try:
            return float(text) if text else None
        except ValueError:
            return None

    def direct() -> float | None:
        value = of(f"power{number}_input")
        return value / 1e6 if value is not None else None

    def product() -> float | None:
        volts, amperes = of(f"in{number}_input"), of(f"curr{number}_input")
        return volts * amperes / 1e6 if volts is not None and amperes is not None else None

    return next((way for way in (direct, product) if way() is not None), None)
