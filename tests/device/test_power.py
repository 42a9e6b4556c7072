"""Sensors of fake trees and a fake vcgencmd with a Pi 5's answer, and joules from readings that are known."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from edgenn_device.profiler import power
from edgenn_device.profiler.power import Meter

# `vcgencmd pmic_read_adc` on a Raspberry Pi 5.
PMIC = """\
 3V7_WL_SW_A current(0)=0.10247270A
   3V3_SYS_A current(1)=0.10832820A
   1V8_SYS_A current(2)=0.15712470A
  DDR_VDD2_A current(3)=0.00585558A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.24105470A
    0V8_SW_A current(6)=0.31424950A
  VDD_CORE_A current(7)=1.42880000A
   3V3_DAC_A current(17)=0.00000000A
   3V3_ADC_A current(18)=0.00006105A
   0V8_AON_A current(16)=0.00354090A
      HDMI_A current(22)=0.02002440A
 3V7_WL_SW_V volt(8)=3.71091200V
   3V3_SYS_V volt(9)=3.30910500V
   1V8_SYS_V volt(10)=1.80073100V
  DDR_VDD2_V volt(11)=1.10439400V
  DDR_VDDQ_V volt(12)=0.60439500V
   1V1_SYS_V volt(13)=1.10805800V
    0V8_SW_V volt(14)=0.80402850V
  VDD_CORE_V volt(15)=0.90659250V
   3V3_DAC_V volt(20)=3.31135200V
   3V3_ADC_V volt(21)=3.31867800V
   0V8_AON_V volt(19)=0.79882700V
      HDMI_V volt(23)=5.07860000V
     EXT5V_V volt(24)=5.05716000V
      BATT_V volt(25)=0.00000000V
"""


def nobody(command: Sequence[str]) -> str | None:
    return None


def chip(root: Path, number: int, name: str, **files: object) -> None:
    folder = root / f"sys/class/hwmon/hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    for file, value in files.items():
        (folder / file).write_text(f"{value}\n")


def test_a_pis_rails_are_added_up() -> None:
    # 3.711*.1025 + 3.309*.1083 + 1.801*.1571 + 1.104*.0059 + 1.108*.2411 + .804*.3142 + .9066*1.4288 + .7988*.0035 +
    # 5.0786*.02, without EXT5V.
    assert power.parse_pmic(PMIC) == pytest.approx(2.948, abs=0.001)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        # A Pi 4: its firmware knows the word and has no such chip.
        'error=1 error_msg="Command not registered"',
        # Voltages alone are no power.
        "     EXT5V_V volt(24)=5.05716000V\n      BATT_V volt(25)=0.00000000V\n",
        "  VDD_CORE_A current(7)=1.4288\n",  # a line cut off before its unit, and its voltage missing
        "  VDD_CORE_A current(7)=1.2.3A\n  VDD_CORE_V volt(15)=0.9V\n",
    ],
)
def test_answers_without_power(answer: str) -> None:
    assert power.parse_pmic(answer) is None
    assert power.find_meter("/nowhere", lambda command: answer or None) is None


def test_the_pmic_is_found_and_asked(tmp_path: Path) -> None:
    asked = []

    def vcgencmd(command: Sequence[str]) -> str | None:
        asked.append(tuple(command))
        return PMIC

    meter = power.find_meter(tmp_path, vcgencmd)
    assert meter is not None
    assert meter.watts() == pytest.approx(2.948, abs=0.001)
    assert set(asked) == {("vcgencmd", "pmic_read_adc")}
    assert "PMIC" in meter.name
    assert "without" in meter.covers


@pytest.mark.parametrize(
    ("chips", "watts", "name"),
    [
        # ina2xx: its own power in microwatts.
        ([("ina219", {"in1_input": 5080, "curr1_input": 600, "power1_input": 3_560_000})], 3.56, "ina219"),
        # No power register: millivolts times milliamperes.
        ([("ina226", {"in1_input": 5000, "curr1_input": 800})], 4.0, "ina226"),
        # INA3221, three channels: the one labelled as the input, although another reads more.
        (
            [
                (
                    "ina3221",
                    {
                        "in1_input": 5000, "curr1_input": 1000, "in1_label": "VDD_IN",
                        "in2_input": 5000, "curr2_input": 2000, "in2_label": "VDD_CPU",
                    },
                )
            ],
            5.0,
            "VDD_IN",
        ),
        # Without labels: the larger one, which must feed the other.
        ([("ina226", {"in1_input": 1000, "curr1_input": 900}), ("ina260", {"power1_input": 6_000_000})], 6.0, "ina260"),
        # Other sensors of the kernel's are no power meters, nor is an INA that does not answer.
        ([("rp1_adc", {"in1_input": 1500}), ("ina219", {"power1_input": "?"})], None, ""),
        ([("cpu_thermal", {"power1_input": 1_000_000})], None, ""),
    ],
)  # fmt: skip
def test_ina_sensors(
    tmp_path: Path, chips: list[tuple[str, dict[str, object]]], watts: float | None, name: str
) -> None:
    for number, (kind, files) in enumerate(chips):
        chip(tmp_path, number, kind, **files)
    meter = power.find_meter(tmp_path, nobody)
    if watts is None:
        assert meter is None
    else:
        assert meter is not None
        assert meter.watts() == pytest.approx(watts)
        assert name in meter.name


def test_a_sensor_in_the_supply_comes_before_the_pmic(tmp_path: Path) -> None:
    chip(tmp_path, 0, "ina219", power1_input=3_000_000)
    meter = power.find_meter(tmp_path, lambda command: PMIC)
    assert meter is not None
    assert "ina219" in meter.name


def test_joules_are_watts_times_seconds_over_inferences() -> None:
    # The first thread that reads sees the board at rest, the second one sees it work.
    threads: list[threading.Thread] = []

    def watts() -> float:
        if threading.current_thread() not in threads:
            threads.append(threading.current_thread())
        return 2.0 if len(threads) == 1 else 5.0

    found = power.measure(lambda: None, Meter("fake", "All.", watts), seconds=0.0, rest_seconds=0.0, interval=0.0)
    assert (found.rest, found.watts, found.spread) == pytest.approx((2.0, 5.0, 0.0))
    assert found.samples >= 5
    assert found.runs > 0
    assert not found.reason
    assert found.joules == pytest.approx(5.0 * found.seconds / found.runs)
    assert found.joules_above_rest == pytest.approx(3.0 * found.seconds / found.runs)
    assert (found.meter, found.covers) == ("fake", "All.")


def test_without_a_sensor_nothing_runs_and_a_sentence_says_so() -> None:
    calls = count()
    found = power.measure(lambda: next(calls), None, seconds=1.0)
    assert next(calls) == 0
    assert found.joules is None
    assert "no power sensor" in found.reason


@pytest.mark.parametrize("readings", [0, 3, 8])
@pytest.mark.parametrize("failure", [None, OSError("bus")])
def test_a_sensor_that_stops_answering_is_no_figure(readings: int, failure: OSError | None) -> None:
    left = iter([2.0] * readings)

    def watts() -> float | None:
        value = next(left, None)
        if value is None and failure is not None:
            raise failure
        return value

    # At rest (0, 3 readings) or during the run (8): either way the measurement ends and says why.
    found = power.measure(lambda: None, Meter("fake", "", watts), seconds=0.0, rest_seconds=0.0, interval=0.0)
    assert found.joules is None
    assert "stopped answering" in found.reason
