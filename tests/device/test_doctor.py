"""Each check on machines that are not here: made-up trees, versions, imports, and a libedgetpu compiled on the spot."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenn_device import doctor
from edgenn_device.doctor import Check, Machine, checks

GOOD_VERSIONS = {"numpy": "2.4.6", "opencv-python-headless": "4.12.0", "ai-edge-litert": "2.3.0"}
PI = {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}
MEMINFO = {"proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 600000 kB\n"}
NOW = 1_790_000_000.0  # September 2026


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Machine]:
    """machine(files, versions=…, broken={module: reason}, …): one where all is well but for what is said."""

    def make(
        files: dict[str, str] | None = None,
        versions: dict[str, str] | None = None,
        broken: dict[str, str] | None = None,
        **changes: object,
    ) -> Machine:
        known = GOOD_VERSIONS if versions is None else versions
        reasons = {"picamera2": "ModuleNotFoundError: No module named 'picamera2'", **(broken or {})}
        defaults: dict[str, object] = {
            "root": tree(tmp_path / "root", {**MEMINFO, **(files or {})}),
            "folder": tmp_path,
            "python": (3, 11, 2),
            "architecture": "aarch64",
            "version": known.get,
            "importing": reasons.get,
            "edgetpu": str(tmp_path / "no-such-libedgetpu.so"),
            "run": lambda command: None,
            "now": NOW,
            "environment": None,
        }
        return Machine(**{**defaults, **changes})  # type: ignore[arg-type]

    return make


def one(name: str, machine: Machine) -> Check:
    return next(check for check in checks(machine) if check.name == name)


def test_a_good_machine_has_nothing_to_mend(machine: Callable[..., Machine]) -> None:
    found = checks(machine())
    assert [check.name for check in found if check.ok is False] == []
    assert all("\n" not in check.mend for check in found)
    # What is needed is answered with a yes; what is optional is absent here.
    assert {check.name for check in found if check.ok} == {
        "Python",
        "NumPy",
        "OpenCV",
        "runtime litert",
        "memory",
        "disk",
        "clock",
    }


def test_this_machine_is_examined_without_a_fault() -> None:
    found = {check.name: check for check in checks()}
    assert found["Python"].ok
    assert found["NumPy"].ok
    assert found["OpenCV"].ok


@pytest.mark.parametrize(
    ("version", "ok"),
    [((3, 10, 9), False), ((3, 11, 0), True), ((3, 13, 5), True), ((3, 14, 0), False)],
)
def test_python(machine: Callable[..., Machine], version: tuple[int, int, int], ok: bool) -> None:
    check = one("Python", machine(python=version))
    assert check.ok is ok
    assert bool(check.mend) is not ok


LIBGL = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("versions", "broken", "ok", "mend"),
    [
        ({"opencv-python-headless": "4.12.0"}, {}, True, ""),
        ({"opencv-python": "4.12.0"}, {}, True, ""),  # the desktop's wheel on a desktop
        ({}, {}, True, ""),  # from apt: no distribution of pip's
        (
            {"opencv-python": "4.12.0"},
            {"cv2": LIBGL},
            False,
            "pip uninstall -y opencv-python && pip install opencv-python-headless",
        ),
        ({}, {"cv2": "ModuleNotFoundError: No module named 'cv2'"}, False, "pip install opencv-python-headless"),
        (
            {"opencv-python": "4.12.0", "opencv-python-headless": "4.11.0"},
            {},
            None,  # works, until one of them is upgraded
            "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless",
        ),
    ],
)
def test_opencv(
    machine: Callable[..., Machine], versions: dict[str, str], broken: dict[str, str], ok: bool | None, mend: str
) -> None:
    check = one("OpenCV", machine(versions={"numpy": "2.0", **versions}, broken=broken))
    assert (check.ok, check.mend) == (ok, mend)


TFLITE_NUMPY_2 = {"tflite_runtime.interpreter": "AttributeError: _ARRAY_API not found"}


@pytest.mark.parametrize(
    ("versions", "broken", "answers", "mend"),
    [
        # NumPy 2 with a runtime built against NumPy 1, and nothing else to fall back on.
        (
            {"numpy": "2.1.0", "tflite-runtime": "2.14.0"},
            TFLITE_NUMPY_2,
            {"litert": None, "tflite-runtime": False, "tensorflow": None},
            "pip install 'numpy<2' 'opencv-python-headless<4.12'",
        ),
        # The same beside a runtime that works: the broken one goes.
        (
            {"numpy": "2.1.0", "tflite-runtime": "2.14.0", "ai-edge-litert": "2.3.0"},
            TFLITE_NUMPY_2,
            {"litert": True, "tflite-runtime": False, "tensorflow": None},
            "pip uninstall -y tflite-runtime",
        ),
        (
            {"numpy": "1.26.4", "tflite-runtime": "2.14.0"},
            {},
            {"litert": None, "tflite-runtime": True, "tensorflow": None},
            "",
        ),
        (
            {"numpy": "2.1.0", "ai-edge-litert": "2.3.0"},
            {"ai_edge_litert.interpreter": "ImportError: libc.so.6: version `GLIBC_2.38' not found"},
            {"litert": False, "tflite-runtime": None, "tensorflow": None},
            "pip install --force-reinstall ai-edge-litert",
        ),
        # TensorFlow runs models too.
        (
            {"numpy": "2.1.0", "tensorflow": "2.21.0"},
            {},
            {"litert": None, "tflite-runtime": None, "tensorflow": True},
            "",
        ),
    ],
)
def test_runtimes(
    machine: Callable[..., Machine],
    versions: dict[str, str],
    broken: dict[str, str],
    answers: dict[str, bool | None],
    mend: str,
) -> None:
    found = {check.name: check for check in checks(machine(versions=versions, broken=broken))}
    assert {name: found[f"runtime {name}"].ok for name in answers} == answers
    assert (
        next((check.mend for check in found.values() if check.name.startswith("runtime ") and check.mend), "") == mend
    )
    assert ("runtime" in found) is not any(answers.values())


@pytest.mark.parametrize(
    ("architecture", "mend"),
    [("aarch64", "pip install ai-edge-litert"), ("armv7l", "pip install tflite-runtime 'numpy<2'")],
)
def test_no_runtime_at_all(machine: Callable[..., Machine], architecture: str, mend: str) -> None:
    check = one("runtime", machine(versions={"numpy": "1.26.4"}, architecture=architecture))
    assert (check.ok, check.mend) == (False, mend)


def test_training_is_only_suggested_where_it_belongs(machine: Callable[..., Machine]) -> None:
    workstation = one("training", machine())
    assert (workstation.ok, workstation.mend) == (None, "pip install 'edgenn[train]'")
    pi = one("training", machine(PI))
    assert (pi.ok, pi.mend) == (None, "")
    versions = {**GOOD_VERSIONS, "tensorflow": "2.21.0", "keras": "3.15.1", "matplotlib": "3.9", "jinja2": "3.1"}
    assert one("training", machine(versions=versions)).ok is True
    del versions["matplotlib"]
    assert "no matplotlib" in one("training", machine(versions=versions)).detail


@pytest.mark.parametrize(
    ("files", "refused", "ok", "words"),
    [
        ({}, [], None, "--source synthetic"),
        ({"dev/video0": ""}, [], True, "/dev/video0"),
        ({"dev/video0": "", "sys/class/video4linux/video0/name": "C920\n"}, [], True, "/dev/video0 (C920)"),
        # Codecs and the raw sensor of a Pi are no cameras.
        (
            {
                "dev/video0": "",
                "sys/class/video4linux/video0/name": "unicam-image",
                "dev/video10": "",
                "sys/class/video4linux/video10/name": "bcm2835-codec-decode",
            },
            [],
            None,
            "no /dev/video*",
        ),
        ({"dev/video0": "", "dev/video2": ""}, ["video2"], False, "/dev/video2: no permission"),
    ],
)
def test_cameras(
    machine: Callable[..., Machine],
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    refused: list[str],
    ok: bool | None,
    words: str,
) -> None:
    # Root may read everything, so the refusal is the operating system's answer, made up.
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: Path(path).name not in refused)
    check = one("camera", machine(files))
    assert check.ok is ok
    assert words in check.detail
    assert ("usermod -aG video" in check.mend) is (ok is False)


PICAMERA = {"usr/lib/python3/dist-packages/picamera2/__init__.py": ""}


@pytest.mark.parametrize(
    ("files", "broken", "environment", "ok", "mend"),
    [
        ({}, {}, None, None, "sudo apt install -y python3-picamera2"),
        (PICAMERA, {}, Path("/home/pi/.venv"), None, "python3 -m venv --system-site-packages /home/pi/.venv"),
        (PICAMERA, {"picamera2": None}, Path("/home/pi/.venv"), True, ""),
        (
            PICAMERA,
            {"picamera2": "ValueError: numpy.dtype size changed, may indicate binary incompatibility"},
            Path("/home/pi/.venv"),
            None,
            "pip install 'numpy<2'",
        ),
    ],
)
def test_picamera(
    machine: Callable[..., Machine],
    files: dict[str, str],
    broken: dict[str, str],
    environment: Path | None,
    ok: bool | None,
    mend: str,
) -> None:
    check = one("Pi camera", machine({**PI, **files}, broken=broken, environment=environment))
    assert (check.ok, check.mend) == (ok, mend)


def test_picamera_is_no_question_elsewhere(machine: Callable[..., Machine]) -> None:
    assert "Pi camera" not in {check.name for check in checks(machine())}


# Lists Edge TPUs without one: tests/device/stand_in_delegate.c.
STAND_IN = Path(__file__).parent / "stand_in_delegate.c"


@pytest.fixture
def libedgetpu(tmp_path: Path) -> Callable[[int], str]:
    """libedgetpu(n): path of a library with libedgetpu's interface that sees n devices."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to build a stand-in for libedgetpu")

    def build(count: int) -> str:
        library = tmp_path / f"libedgetpu{count}.so"
        command = [compiler, "-shared", "-fPIC", f"-DDEVICES={count}", "-o", str(library), str(STAND_IN)]
        subprocess.run(command, check=True)
        return str(library)

    return build


CORAL_USB = {"sys/bus/usb/devices/1-2/idVendor": "18d1\n", "sys/bus/usb/devices/1-2/idProduct": "9302\n"}
CORAL_USB_FRESH = {"sys/bus/usb/devices/1-2/idVendor": "1a6e\n", "sys/bus/usb/devices/1-2/idProduct": "089a\n"}
GOOGLES = {"var/lib/dpkg/status": "Package: libedgetpu1-std\nStatus: install ok installed\nVersion: 16.0\n"}
OTHER_USB = {"sys/bus/usb/devices/1-2/idVendor": "046d\n", "sys/bus/usb/devices/1-2/idProduct": "082d\n"}


@pytest.mark.parametrize(
    ("files", "count", "ok", "detail", "mend"),
    [
        (CORAL_USB, 1, True, "/sys/bus/usb/devices/1-2; BuildLabel(stand-in)", ""),
        ({}, 2, True, "/sys/bus/usb/devices/1-2, /dev/apex_0", ""),
        (OTHER_USB, 0, None, "none attached; BuildLabel(stand-in)", ""),
        (CORAL_USB_FRESH, 0, False, "(1a6e:089a) is there, but it may not be opened", 'echo \'SUBSYSTEM=="usb"'),
        ({"dev/apex_0": ""}, 0, False, "another program uses it", "end that program"),
        # A build of libedgetpu that is known to end the process.
        (GOOGLES, 1, False, "libedgetpu 16.0 was built against TensorFlow 2.5", "install one that was built against"),
    ],
)
def test_coral_with_its_library(
    machine: Callable[..., Machine],
    libedgetpu: Callable[[int], str],
    files: dict[str, str],
    count: int,
    ok: bool | None,
    detail: str,
    mend: str,
) -> None:
    check = one("Coral Edge TPU", machine(files, edgetpu=libedgetpu(count)))
    assert check.ok is ok
    assert detail in check.detail
    assert check.mend.startswith(mend)
    assert bool(check.mend) is bool(mend)


@pytest.mark.parametrize(
    ("files", "ok", "mend"),
    [({}, None, ""), (CORAL_USB, False, "sudo apt install -y libedgetpu1-std"), (OTHER_USB, None, "")],
)
def test_coral_without_its_library(
    machine: Callable[..., Machine], files: dict[str, str], ok: bool | None, mend: str
) -> None:
    check = one("Coral Edge TPU", machine(files))
    assert (check.ok, check.mend) == (ok, mend)


def test_a_library_that_is_no_libedgetpu(machine: Callable[..., Machine]) -> None:
    assert one("Coral Edge TPU", machine(edgetpu="libc.so.6")).ok is False


@pytest.mark.parametrize(
    ("kilobytes", "ok"),
    [(600_000, True), (100_000, False)],
)
def test_memory(machine: Callable[..., Machine], kilobytes: int, ok: bool) -> None:
    files = {"proc/meminfo": f"MemTotal: 1000000 kB\nMemAvailable: {kilobytes} kB\n"}
    assert one("memory", machine(files)).ok is ok


@pytest.mark.parametrize(("free", "ok"), [(5 * 10**9, True), (3 * 10**8, False)])
def test_disk(machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch, free: int, ok: bool) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    check = one("disk", machine())
    assert check.ok is ok
    assert bool(check.mend) is not ok


@pytest.mark.parametrize(
    ("answer", "ok", "detail", "mend"),
    [
        ("throttled=0x0", True, "never throttled", ""),
        ("throttled=0x50005", False, "under-voltage, throttled now", "power supply"),
        ("throttled=0x50000", None, "under-voltage, throttled since the board was started", "power supply"),
        ("throttled=0x80008", False, "soft temperature limit now", "heat sink"),
    ],
)
def test_power_and_heat(machine: Callable[..., Machine], answer: str, ok: bool | None, detail: str, mend: str) -> None:
    files = {"sys/class/thermal/thermal_zone0/type": "cpu-thermal", "sys/class/thermal/thermal_zone0/temp": "71000"}
    check = one("power and heat", machine({**PI, **files}, run=lambda command: answer))
    assert check.ok is ok
    assert detail in check.detail
    assert "71 °C" in check.detail
    assert mend in check.mend


@pytest.mark.parametrize(("now", "ok"), [(NOW, True), (0.0, False), (1_600_000_000.0, False)])
def test_the_clock(machine: Callable[..., Machine], now: float, ok: bool) -> None:
    assert one("clock", machine(now=now)).ok is ok


def test_modules_are_tried_in_a_process_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fine_here.py").write_text("")
    (tmp_path / "fails_here.py").write_text("raise ImportError('libGL.so.1: cannot open')")
    (tmp_path / "crashes_here.py").write_text("import os; os.abort()")
    # What NumPy prints when an extension of NumPy 1 meets NumPy 2; the last line alone would not tell.
    (tmp_path / "mixed_here.py").write_text(
        "import sys; sys.stderr.write('AttributeError: _ARRAY_API not found\\n')\nraise ImportError('multiarray')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert doctor.try_import("fine_here") is None
    assert doctor.try_import("fails_here") == "ImportError: libGL.so.1: cannot open"
    assert "status" in (doctor.try_import("crashes_here") or "")
    assert doctor.try_import("mixed_here") == "AttributeError: _ARRAY_API not found"
    assert "fine_here" not in sys.modules


def test_a_file_in_the_working_folder_is_not_taken_for_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('not the real one')")
    monkeypatch.chdir(tmp_path)
    assert doctor.try_import("cv2") is None
