"""The machine a figure was measured on, so that another person can reproduce it.

What changes while a run goes on (clock, temperature, throttling, load) comes from `state` and is of this moment. Every
value is None where the machine cannot tell; nothing is guessed. All files are read below `root`, so that a test can
bring its own /proc and /sys.
"""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import memory
from .state import Runner, clock_limits, power_source, read, run, state

if TYPE_CHECKING:
    from ..interpreter import Interpreter
    from ..model_file import ModelFile

# Linux, arch/arm64/include/asm/cputype.h and arch/arm/include/asm/cputype.h: implementer 0x41 is Arm itself.
_ARM_PARTS = {
    "0xb76": "ARM1176",
    "0xc07": "Cortex-A7",
    "0xc08": "Cortex-A8",
    "0xc09": "Cortex-A9",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd41": "Cortex-A78",
}
_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")


def environment(
    model: ModelFile | None = None,
    interpreter: Interpreter | None = None,
    root: str | Path = "/",
    runner: Runner = run,
) -> dict[str, Any]:
    """What a latency depends on, as plain values for JSON.

    Returns:
      board, cpu, cores (that this process may use), architecture, governor, power_source, clock_max_mhz, kernel, os,
      emulated, virtual, python, numpy, opencv, edgenn, runtime, runtime_version, kernels (XNNPACK or built-in),
      delegate, threads, memory_total and memory_available (bytes), model_sha256 (of the flatbuffer, as on the card);
      and of this moment clock_mhz, temperature (degrees Celsius), throttled, throttled_before, load_average. None
      where unknown.
    """
    base = Path(root)
    total, free = memory.available(base)
    governor, fastest = clock_limits(base)
    return {
        "board": board(base),
        "cpu": cpu_model(base),
        "cores": cores(),
        "architecture": platform.machine(),
        "governor": governor,
        "power_source": power_source(base),
        "clock_max_mhz": fastest,
        "kernel": platform.release(),
        "os": _operating_system(base),
        "emulated": emulator(base),
        "virtual": _virtual(base),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "opencv": next((found for name in _OPENCV if (found := version(name))), None),
        "edgenn": version("edgenn"),
        "runtime": interpreter.runtime if interpreter else None,
        "runtime_version": interpreter.version if interpreter else None,
        "kernels": interpreter.kernels if interpreter else None,
        "delegate": "XNNPACK" if interpreter and interpreter.kernels == "xnnpack" else None,
        "threads": interpreter.threads if interpreter else None,
        "memory_total": total,
        "memory_available": free,
        "model_sha256": hashlib.sha256(model.content).hexdigest() if model else None,
        **state(base, runner).to_dict(),
    }


def board(root: Path = Path("/")) -> str | None:
    """The board's name. Source: the device tree's `model` on ARM boards, the DMI product name on PCs."""
    tree = read(root / "proc/device-tree/model")
    if tree:
        return tree.rstrip("\0 \n")
    vendor = read(root / "sys/devices/virtual/dmi/id/sys_vendor")
    product = read(root / "sys/devices/virtual/dmi/id/product_name")
    return " ".join(filter(None, (vendor, product))) or None


def cpu_model(root: Path = Path("/")) -> str | None:
    """The CPU's name. Source: /proc/cpuinfo, "model name" on x86, "CPU part" decoded on ARM."""
    fields: dict[str, str] = {}
    for line in (read(root / "proc/cpuinfo") or "").splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value.strip())
    # First the part: 32-bit ARM kernels have a "model name" too, but only of the architecture ("ARMv7 Processor").
    implementer, part = fields.get("CPU implementer"), fields.get("CPU part")
    if implementer == "0x41" and part:
        return _ARM_PARTS.get(part.lower(), f"Arm part {part}")
    if implementer and part:
        return f"implementer {implementer} part {part}"
    return fields.get("model name") or None


def cores() -> int:
    """CPU cores that this process may run on, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0))


def emulator(root: Path = Path("/"), machine: str | None = None) -> str | None:
    """Name of the emulator that runs this process ("qemu-aarch64", or "an emulator"); None where nothing shows one.

    qemu's user emulation answers /proc/self itself, as if there were no emulator; it does not answer
    /proc/thread-self (linux-user/syscall.c, `is_proc_myself`), where the kernel's own answer shows: the file that
    runs is qemu. The second sign is a CPU of another family than the machine that Python was told of, in
    /sys/devices/system/cpu/modalias ("cpu:type:x86,…", "cpu:type:aarch64:…"). A whole emulated machine (qemu-system)
    is not found here; its kernel knows no better.
    """
    try:
        name = (root / "proc/thread-self/exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        name = ""
    if name.startswith("qemu-"):
        return name
    alias = read(root / "sys/devices/system/cpu/modalias") or ""
    real = _family(alias.removeprefix("cpu:type:").partition(",")[0].partition(":")[0])
    claimed = _family(machine or platform.machine())
    return "an emulator" if real and claimed and real != claimed else None


def version(distribution: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _family(name: str) -> str | None:
    """The family of instruction sets that a name from uname or the kernel's ELF_PLATFORM belongs to.

    A 64-bit ARM kernel runs 32-bit programs on the CPU itself, and x86 likewise: within a family nothing is emulated.
    """
    if name == "x86" or name == "x86_64" or (name.startswith("i") and name.endswith("86")):
        return "x86"
    return "arm" if name.startswith(("aarch64", "arm", "v6", "v7", "v8")) else None


def _operating_system(root: Path) -> str | None:
    for line in (read(root / "etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return None


def _virtual(root: Path) -> bool | None:
    """Whether a hypervisor lies below. Source: the `hypervisor` CPU flag, which only x86 has; None elsewhere."""
    for line in (read(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith("flags"):
            return "hypervisor" in line.split()
    return None
