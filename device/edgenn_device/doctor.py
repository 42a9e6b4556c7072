"""What this machine can and cannot do, and for whatever is missing the one line to type.

Looks only: it installs, changes and opens nothing (a camera in use stays undisturbed). Imports neither NumPy nor
OpenCV nor a runtime itself, since a broken one is what it is asked to find; those are tried in a process of their own.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import delegates
from .errors import EdgennError
from .profiler import environment, memory, state

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
# OpenCV, a runtime and a model of MobileNetV2's size together stay below 150 MB (resident, measured with LiteRT 2.3).
LEAST_MEMORY = 200 * 10**6
# A virtual environment of the base install takes 400 MB, and a release is unpacked beside the one it replaces.
LEAST_DISK = 10**9
# A clock before this project's first release is not set; certificates then look as if not yet valid.
_FIRST_YEAR = 2025
# Distributions and the module that shows whether they work. As in `interpreter`, which needs NumPy to be imported.
_RUNTIMES = {
    "litert": ("ai-edge-litert", "ai_edge_litert.interpreter"),
    "tflite-runtime": ("tflite-runtime", "tflite_runtime.interpreter"),
}
_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-aarch64")
_OPENCV_WITH_WINDOWS = ("opencv-python", "opencv-contrib-python")
_OPENCV_HEADLESS = ("opencv-python-headless", "opencv-contrib-python-headless")
# Video devices of a Raspberry Pi that are no cameras (codecs, the image processor, the decoder) or raw sensors that
# only libcamera can drive; names from /sys/class/video4linux/*/name.
_NOT_A_CAMERA = ("bcm2835-codec", "bcm2835-isp", "pispbe", "rpivid", "rpi-hevc", "unicam", "rp1-cfe")


@dataclass(frozen=True)
class Check:
    """One answer.

    Attributes:
      name: what was looked at.
      ok: True, False, or None for what is optional or does not apply here.
      detail: what was found.
      mend: the line to type, or "" where there is nothing to mend.
    """

    name: str
    ok: bool | None
    detail: str
    mend: str = ""


def try_import(module: str) -> str | None:
    """Import a module in a process of its own; None when that works, else the reason in one line."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"import {module}"], capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__} while importing {module}"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    # NumPy announces the true cause before the traceback ends in something vaguer.
    cause = next((line for line in lines if "_ARRAY_API not found" in line), None)
    return cause or (lines[-1] if lines else f"import {module} ended with status {done.returncode}")


@dataclass(frozen=True)
class Machine:
    """Where the checks look. The defaults are this machine; a test brings its own.

    Attributes:
      root: what /proc, /sys, /dev and /usr are read below.
      folder: whose disk must have room.
      python, architecture: of the interpreter.
      version: version of an installed distribution, None when it is not installed.
      importing: `try_import`, or what stands in for it.
      edgetpu: name or path of Coral's library.
      run: runs a command and returns what it prints, None when that fails.
      now: seconds since 1970.
      environment: the virtual environment that Python runs in, None outside of one.
    """

    root: Path = Path("/")
    folder: Path = Path()
    python: tuple[int, int, int] = sys.version_info[:3]
    architecture: str = field(default_factory=platform.machine)
    version: Callable[[str], str | None] = environment.version
    importing: Callable[[str], str | None] = try_import
    edgetpu: str = "libedgetpu.so.1"
    run: state.Runner = state.run
    now: float = field(default_factory=time.time)
    environment: Path | None = Path(sys.prefix) if sys.prefix != sys.base_prefix else None

    @property
    def is_pi(self) -> bool:
        return (environment.board(self.root) or "").startswith("Raspberry Pi")


def checks(machine: Machine | None = None) -> list[Check]:
    """Look at everything, in the order of the road. Takes a second or two: three modules are imported in processes."""
    machine = machine or Machine()
    return [
        _python(machine),
        _numpy(machine),
        _opencv(machine),
        *_runtimes(machine),
        _training(machine),
        _video(machine),
        *_picamera(machine),
        _coral(machine),
        _memory(machine),
        _disk(machine),
        *_heat_and_power(machine),
        _clock(machine),
    ]


def _python(machine: Machine) -> Check:
    ok = OLDEST_PYTHON <= machine.python[:2] <= NEWEST_PYTHON
    detail = ".".join(map(str, machine.python)) + f" on {machine.architecture}"
    if ok:
        return Check("Python", True, detail)
    return Check(
        "Python",
        False,
        f"{detail}; edgenn runs on 3.11 to 3.13",
        "python3.11 -m venv .venv && .venv/bin/pip install edgenn",
    )


def _numpy(machine: Machine) -> Check:
    version = machine.version("numpy")
    if version is None:
        return Check("NumPy", False, "not installed", "pip install numpy")
    reason = machine.importing("numpy")
    if reason:
        return Check("NumPy", False, f"{version}, which does not load: {reason}", "pip install --force-reinstall numpy")
    return Check("NumPy", True, version)


def _opencv(machine: Machine) -> Check:
    windows = [name for name in _OPENCV_WITH_WINDOWS if machine.version(name)]
    headless = [name for name in _OPENCV_HEADLESS if machine.version(name)]
    found = [*windows, *headless]
    reason = machine.importing("cv2")
    if reason:
        remove = f"pip uninstall -y {' '.join(found)} && " if found else ""
        mend = f"{remove}pip install opencv-python-headless"
        if "libGL" in reason or "libgthread" in reason:
            return Check("OpenCV", False, f"{found[0] if found else 'cv2'} needs a desktop's libraries: {reason}", mend)
        if not found:
            return Check("OpenCV", False, "not installed", mend)
        return Check("OpenCV", False, f"{found[0]} does not load: {reason}", mend)
    detail = ", ".join(f"{name} {machine.version(name)}" for name in found) or "installed by the system"
    if len(found) > 1:
        mend = f"pip uninstall -y {' '.join(found)} && pip install {(headless or windows)[0]}"
        return Check("OpenCV", None, f"{detail}: they overwrite each other's files", mend)
    return Check("OpenCV", True, detail)


def _runtimes(machine: Machine) -> list[Check]:
    """One check each, and one more when none of them can run a model."""
    found: list[Check] = []
    for name, (distribution, module) in _RUNTIMES.items():
        version = machine.version(distribution)
        if version is None:
            found.append(Check(f"runtime {name}", None, "not installed"))
            continue
        reason = machine.importing(module)
        numpy = machine.version("numpy") or ""
        if reason is None:
            found.append(Check(f"runtime {name}", True, f"{distribution} {version}"))
        elif name == "tflite-runtime" and numpy.partition(".")[0].isdigit() and int(numpy.partition(".")[0]) >= 2:
            # Its extension was built against NumPy 1 and its metadata does not say so.
            other = any(check.ok for check in found)
            mend = (
                f"pip uninstall -y {distribution}" if other else "pip install 'numpy<2' 'opencv-python-headless<4.12'"
            )
            detail = f"{distribution} {version} needs NumPy 1 and finds {numpy} ({reason})"
            found.append(Check(f"runtime {name}", False, detail, mend))
        else:
            detail = f"{distribution} {version} does not load: {reason}"
            found.append(Check(f"runtime {name}", False, detail, f"pip install --force-reinstall {distribution}"))
    tensorflow = next((version for name in _TENSORFLOW if (version := machine.version(name))), None)
    detail = f"tensorflow {tensorflow}" if tensorflow else "not installed"
    found.append(Check("runtime tensorflow", True if tensorflow else None, detail))
    if not any(check.ok for check in found):
        small = machine.architecture.startswith("armv")
        mend = "pip install tflite-runtime 'numpy<2'" if small else "pip install ai-edge-litert"
        found.append(Check("runtime", False, "none that works: no model can be run here", mend))
    return found


def _training(machine: Machine) -> Check:
    tensorflow = next((version for name in _TENSORFLOW if (version := machine.version(name))), None)
    missing = [name for name in ("keras", "matplotlib", "jinja2") if not machine.version(name)]
    if tensorflow and not missing:
        return Check("training", True, f"tensorflow {tensorflow}, keras {machine.version('keras')}")
    detail = "no TensorFlow" if not tensorflow else f"no {', '.join(missing)}"
    if machine.is_pi:
        return Check("training", None, f"{detail}; train on a workstation and bring the .tflite here")
    return Check("training", None, f"{detail}; only needed to train and convert", "pip install 'edgenn[train]'")


def _video(machine: Machine) -> Check:
    cameras = []
    for device in sorted((machine.root / "dev").glob("video[0-9]*"), key=lambda path: (len(path.name), path.name)):
        name = state.read(machine.root / "sys/class/video4linux" / device.name / "name") or ""
        if not name.startswith(_NOT_A_CAMERA):
            cameras.append((device, f"/dev/{device.name}{f' ({name})' if name else ''}"))
    if not cameras:
        return Check("camera", None, "no /dev/video*; a file, a folder, a URL or --source synthetic works instead")
    refused = [text for device, text in cameras if not os.access(device, os.R_OK | os.W_OK)]
    if refused:
        mend = "sudo usermod -aG video $USER && exec su - $USER"
        return Check("camera", False, f"{', '.join(refused)}: no permission to read", mend)
    return Check("camera", True, ", ".join(text for _, text in cameras))


def _picamera(machine: Machine) -> list[Check]:
    if not machine.is_pi:
        return []
    reason = machine.importing("picamera2")
    if reason is None:
        return [Check("Pi camera", True, "picamera2 loads")]
    installed = (machine.root / "usr/lib/python3/dist-packages/picamera2").is_dir()
    if not installed:
        return [Check("Pi camera", None, "picamera2 is not installed", "sudo apt install -y python3-picamera2")]
    if machine.environment and "No module named 'picamera2'" in reason:
        mend = f"python3 -m venv --system-site-packages {machine.environment}"
        return [Check("Pi camera", None, "this virtual environment does not see the system's picamera2", mend)]
    # The system's extensions were built against the system's NumPy; pip brought another one.
    mend = "pip install 'numpy<2'" if "numpy" in reason.lower() else "sudo apt install -y --reinstall python3-picamera2"
    return [Check("Pi camera", None, f"picamera2 does not load: {reason}", mend)]


def _coral(machine: Machine) -> Check:
    name = "Coral Edge TPU"
    seen = delegates.attached(machine.root)
    try:
        version, devices = delegates.list_edge_tpus(machine.edgetpu)
    except EdgennError as error:
        reason, _, mend = str(error).rpartition(": ")
        if seen:
            return Check(name, False, f"{', '.join(one.name for one in seen)} attached, but {reason}", mend)
        if reason.startswith("there is no"):
            return Check(name, None, "none attached, no libedgetpu; only needed for target coral")
        return Check(name, False, reason, mend)
    if devices:
        detail = f"{', '.join(one.path for one in devices)}; {version}"
        # What `run` takes first: LiteRT, then its predecessor.
        runtime = next(((key, found) for key, (one, _) in _RUNTIMES.items() if (found := machine.version(one))), None)
        wrong = delegates.mismatch(*runtime, machine.root) if runtime else None
        if wrong:
            return Check(name, False, *wrong.rsplit(": ", 1))
        return Check(name, True, detail)
    if seen:
        return Check(name, False, *delegates.unusable(None, machine.root))
    return Check(name, None, f"none attached; {version}")


def _memory(machine: Machine) -> Check:
    total, free = memory.available(machine.root)
    if free is None:
        return Check("memory", None, "the kernel does not say")
    detail = f"{free / 1e6:.0f} MB available" + (f" of {total / 1e6:.0f} MB" if total else "")
    if free < LEAST_MEMORY:
        return Check(
            "memory", False, f"{detail}; a model needs about {LEAST_MEMORY / 1e6:.0f}", "ps aux --sort=-rss | head"
        )
    return Check("memory", True, detail)


def _disk(machine: Machine) -> Check:
    try:
        free = shutil.disk_usage(machine.folder).free
    except OSError as error:
        return Check("disk", None, f"{machine.folder}: {error.strerror}")
    detail = f"{free / 1e9:.1f} GB free"
    if free < LEAST_DISK:
        return Check("disk", False, f"{detail} in {machine.folder.resolve()}", "pip cache purge; sudo apt clean")
    return Check("disk", True, detail)


def _heat_and_power(machine: Machine) -> list[Check]:
    celsius = state.temperature(machine.root)
    warmth = f"{celsius:.0f} °C" if celsius is not None else ""
    now, before = state.throttling(machine.root, machine.run)
    if now is None:
        return [Check("temperature", True, warmth)] if warmth else []
    words = now or before or ()
    if not words:
        return [Check("power and heat", True, f"{warmth or 'fine'}, never throttled since the start")]
    power = "under-voltage" in words
    when = "now" if now else "since the board was started"
    # Not a command: nothing that can be typed mends a supply.
    mend = "use the board's own power supply and a short cable" if power else "add a heat sink or a fan"
    return [Check("power and heat", False if now else None, f"{', '.join(words)} {when}; {warmth}".rstrip("; "), mend)]


def _clock(machine: Machine) -> Check:
    year = time.gmtime(machine.now).tm_year
    text = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(machine.now))
    if year < _FIRST_YEAR:
        return Check("clock", False, f"{text}: not set", "sudo timedatectl set-ntp true")
    return Check("clock", True, text)
