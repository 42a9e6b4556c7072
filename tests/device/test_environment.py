"""The environment and the machine's state, read from made-up /proc and /sys trees of boards that are not here."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgenn_device.profiler import memory, state
from edgenn_device.profiler.environment import board, cpu_model, emulator, environment

PI_4 = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nModel\t: Pi\n",
    "proc/meminfo": "MemTotal:        3884000 kB\nMemFree:          100000 kB\nMemAvailable:    3000000 kB\n",
    "proc/loadavg": "0.52 0.40 0.30 1/200 4321\n",
    "proc/stat": "cpu  1000 0 500 8000 100 0 50 0 0 0\ncpu0 1 2 3\n",
    "proc/self/status": "Name:\tpython\nVmHWM:\t   90000 kB\nVmRSS:\t   80000 kB\n",
    "sys/devices/system/cpu/modalias": "cpu:type:aarch64:feature:,0000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1500000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "40000\n",
    "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "61835\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def absent(command: Sequence[str]) -> str | None:
    """A runner on a machine without vcgencmd."""
    return None


def test_a_raspberry_pi(tmp_path: Path) -> None:
    facts = environment(root=tree(tmp_path, PI_4), runner=absent)
    assert facts["board"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert facts["cpu"] == "Cortex-A72"
    assert facts["governor"] == "ondemand"
    assert facts["clock_max_mhz"] == 1800
    assert facts["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert facts["memory_total"] == 3884000 * 1024
    assert facts["memory_available"] == 3000000 * 1024
    assert facts["temperature"] == 61.835
    assert facts["throttled"] == ("under-voltage", "throttled")


def test_a_raspberry_pis_state(tmp_path: Path) -> None:
    now = state.state(tree(tmp_path, PI_4), absent)
    assert now.clock_mhz == 1500  # of the fastest core
    assert now.temperature == 61.835  # of the CPU's zone, not of the first
    assert now.throttled == ("under-voltage", "throttled")
    assert now.throttled_before == ("under-voltage", "throttled")
    assert now.load_average == 0.52
    assert (now.busy, now.total) == (1550, 9650)
    assert set(now.to_dict()) == {"clock_mhz", "temperature", "throttled", "throttled_before", "load_average"}


def test_where_nothing_can_be_read_nothing_is_guessed(tmp_path: Path) -> None:
    facts = environment(root=tmp_path, runner=absent)
    unknown = {"board", "cpu", "governor", "clock_max_mhz", "os", "emulated", "virtual", "memory_total", "runtime"}
    assert all(facts[name] is None for name in unknown | {"memory_available", "threads", "model_sha256", "temperature"})
    assert facts["architecture"] == platform.machine()
    now = state.state(tmp_path, absent)
    assert set(now.to_dict().values()) == {None}
    assert memory.resident(tmp_path) == {"resident": None, "resident_peak": None}
    assert state.busy_by_others(now, now) is None


def test_this_machine_is_read_without_a_fault() -> None:
    facts = environment()
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["memory_available"] < facts["memory_total"]
    own = memory.resident()
    assert 0 < (own["resident"] or 0) <= (own["resident_peak"] or 0)
    now = state.state()
    assert 0 < (now.busy or 0) < (now.total or 0)


def test_model_and_interpreter_are_named() -> None:
    model = SimpleNamespace(content=b"bytes")
    interpreter = SimpleNamespace(runtime="litert", version="2.3.0", kernels="xnnpack", threads=3)
    facts = environment(model, interpreter)  # type: ignore[arg-type]
    assert facts["model_sha256"] == hashlib.sha256(b"bytes").hexdigest()
    assert (facts["runtime"], facts["runtime_version"]) == ("litert", "2.3.0")
    assert (facts["kernels"], facts["threads"]) == ("xnnpack", 3)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name\t: Intel(R) Xeon(R) Processor\nflags\t: fpu hypervisor\n", "Intel(R) Xeon(R) Processor"),
        # A 32-bit kernel's model name says less than the part.
        ("model name\t: ARMv7 Processor rev 3 (v7l)\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n", "Cortex-A53"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xfff\n", "Arm part 0xfff"),  # newer than the table
        ("CPU implementer\t: 0x61\nCPU part\t: 0x022\n", "implementer 0x61 part 0x022"),  # not Arm's own design
        ("", None),
    ],
)
def test_cpu_models(tmp_path: Path, cpuinfo: str, expected: str | None) -> None:
    assert cpu_model(tree(tmp_path, {"proc/cpuinfo": cpuinfo})) == expected


def test_a_pcs_board_comes_from_its_firmware(tmp_path: Path) -> None:
    files = {
        "sys/devices/virtual/dmi/id/sys_vendor": "LENOVO\n",
        "sys/devices/virtual/dmi/id/product_name": "20XW\n",
    }
    assert board(tree(tmp_path, files)) == "LENOVO 20XW"


@pytest.mark.parametrize(
    ("executable", "modalias", "machine", "expected"),
    [
        ("/usr/bin/python3.11", "cpu:type:x86,ven0000", "x86_64", None),
        ("/usr/bin/python3.11", "cpu:type:aarch64:feature:,0000", "aarch64", None),
        ("/usr/bin/python3.11", "cpu:type:aarch64:feature:,0000", "armv7l", None),  # 32-bit programs on a 64-bit Pi
        ("/usr/bin/python3.11", "cpu:type:x86,ven0000", "i686", None),  # 32-bit programs on a PC
        ("/usr/bin/qemu-aarch64", "cpu:type:x86,ven0000", "aarch64", "qemu-aarch64"),  # /proc is the kernel's
        ("/usr/bin/qemu-arm-static (deleted)", "", "armv7l", "qemu-arm-static"),  # copied into a root, then removed
        ("", "cpu:type:x86,ven0000", "aarch64", "an emulator"),  # no /proc in the root, /sys tells
        ("", "cpu:type:riscv", "aarch64", None),  # a CPU nobody listed: no sign either way
        ("", "", "aarch64", None),
    ],
)
def test_emulators(tmp_path: Path, executable: str, modalias: str, machine: str, expected: str | None) -> None:
    root = tree(tmp_path, {"sys/devices/system/cpu/modalias": modalias})
    if executable:
        (root / "proc/thread-self").mkdir(parents=True)
        (root / "proc/thread-self/exe").symlink_to(executable)
    assert emulator(root, machine) == expected


@pytest.mark.parametrize(
    ("answer", "now", "before"),
    [
        ("throttled=0x0", (), ()),
        ("throttled=0x50000", (), ("under-voltage", "throttled")),
        ("throttled=0x80008", ("soft temperature limit",), ("soft temperature limit",)),
        ("throttled=0x2", ("clock capped",), ()),
        ("VCHI initialization failed", None, None),  # a user outside the group video
        (None, None, None),  # no Pi
    ],
)
def test_vcgencmd(
    tmp_path: Path, answer: str | None, now: tuple[str, ...] | None, before: tuple[str, ...] | None
) -> None:
    assert state.throttling(tmp_path, lambda command: answer) == (now, before)


def test_a_command_that_is_not_there_says_nothing() -> None:
    assert state.run(["edgenn-has-no-such-command"]) is None
    assert state.run(["false"]) is None
    assert state.run(["echo", "throttled=0x0"]) == "throttled=0x0"


QUIET = state.State(1500.0, 50.0, (), (), 0.1, busy=1000.0, total=10000.0, own=100.0)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({"busy": 1500.0, "total": 11000.0, "own": 600.0}, 0.0),  # 500 ticks worked, all of them ours
        ({"busy": 1500.0, "total": 11000.0, "own": 350.0}, 0.25),  # half of them a neighbour's
        ({"busy": 1500.0, "total": 11000.0, "own": 900.0}, 0.0),  # clocks of different grain: never negative
        ({}, None),  # no time has passed
    ],
)
def test_the_share_of_others(after: dict[str, float], expected: float | None) -> None:
    assert state.busy_by_others(QUIET, replace(QUIET, **after)) == expected


@pytest.mark.parametrize(
    ("before", "after", "emulated", "drift", "words"),
    [
        ({}, {"busy": 1500.0, "total": 11000.0, "own": 580.0}, None, None, []),  # 2% of others: quiet
        ({}, {"busy": 1500.0, "total": 11000.0, "own": 400.0}, None, None, ["20% of the CPU"]),
        ({}, {"throttled": ("under-voltage",)}, None, None, ["under-voltage): use the board's own power supply"]),
        ({"throttled": ("throttled",)}, {}, None, None, ["throttled): cool the board"]),  # until the run began
        # It passed between the two looks, and left its mark.
        ({}, {"throttled_before": ("clock capped",)}, None, None, ["clock capped"]),
        # Long before the run: no concern of this one.
        ({"throttled_before": ("throttled",)}, {"throttled_before": ("throttled",)}, None, None, []),
        ({}, {}, "qemu-aarch64", None, ["of qemu-aarch64, not of a device"]),
        ({}, {}, None, 0.08, ["8% slower"]),
        ({}, {}, None, -0.3, ["30% faster"]),
        ({}, {}, None, 0.04, []),
    ],
)
def test_what_disturbed_a_run(
    before: dict[str, object], after: dict[str, object], emulated: str | None, drift: float | None, words: list[str]
) -> None:
    first, last = replace(QUIET, **before), replace(QUIET, **after)  # type: ignore[arg-type]
    sentences = state.disturbances(first, last, emulated, drift)
    assert len(sentences) == len(words)
    assert all(word in sentence for word, sentence in zip(words, sentences, strict=True))


def test_work_of_another_process_is_seen_as_others(tmp_path: Path) -> None:
    """Real /proc/stat lines and our own clock: a tick counted nowhere as ours belongs to others."""
    before = state.state(tree(tmp_path, {"proc/stat": "cpu  100 0 0 900 0 0 0 0 0 0\n"}), absent)
    after = state.state(tree(tmp_path, {"proc/stat": "cpu  10000100 0 0 10000900 0 0 0 50 0 0\n"}), absent)
    share = state.busy_by_others(before, after)
    assert share == pytest.approx(0.5, abs=0.01)
