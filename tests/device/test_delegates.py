"""Delegates found, named and refused: with a stand-in for libedgetpu compiled on the spot, and made-up /sys and /dev.

There is no Edge TPU in any of this. The stand-in is a real external delegate that real runtimes load.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stand_in_library import build, compiler

from edgenn_device import delegates, golden
from edgenn_device.errors import EdgennError
from edgenn_device.interpreter import Interpreter, _refusal
from edgenn_device.model_file import ModelFile, load

GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"
LITERT = {"runtime": "litert", "version": "2.3.0"}


@pytest.fixture(scope="module")
def model() -> ModelFile:
    return load(GARMENTS)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An external delegate."""
    return build(tmp_path_factory.mktemp("delegate") / "stand_in.so", "-DNO_EDGE_TPU")


@pytest.fixture(scope="module")
def libedgetpu(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """libedgetpu(n): path of a library with libedgetpu's interface that lists n devices: USB, PCIe, USB."""
    folder = tmp_path_factory.mktemp("edgetpu")

    def made(count: int) -> str:
        return str(build(folder / f"libedgetpu{count}.so", f"-DDEVICES={count}"))

    return made


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """tree({path: text}): a root with these files below it."""

    def made(files: dict[str, str]) -> Path:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return root

    return made


def usb(vendor: str, product: str) -> dict[str, str]:
    device = "sys/bus/usb/devices/1-2"
    return {
        f"{device}/idVendor": f"{vendor}\n",
        f"{device}/idProduct": f"{product}\n",
        f"{device}/busnum": "1\n",
        f"{device}/devnum": "7\n",
        "dev/bus/usb/001/007": "",
    }


READY, FRESH, MOUSE = usb("18d1", "9302"), usb("1a6e", "089a"), usb("046d", "082d")
APEX = {"dev/apex_0": ""}
CARD = {"sys/bus/pci/devices/0000:01:00.0/vendor": "0x1ac1\n", "sys/bus/pci/devices/0000:01:00.0/device": "0x089a\n"}
PHONE = usb("18d1", "4ee1")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("usb", True),
        ("pci", True),
        ("usb:1", True),
        (":0", True),
        (":12", True),
        ("", False),
        ("cpu", False),
        ("usb:", False),
        ("usb2", False),
        ("/usr/lib/usb", False),
        ("libvx_delegate.so", False),
        (":123", False),
    ],
)
def test_what_asks_for_an_edge_tpu(spec: str, expected: bool) -> None:
    assert delegates.is_edge_tpu(spec) is expected


def test_cpu_is_no_delegate() -> None:
    assert delegates.find("cpu", **LITERT) is None


@pytest.mark.parametrize(
    ("spec", "count", "option", "device"),
    [
        ("usb", 3, "usb", "/sys/bus/usb/devices/1-2"),
        ("usb:1", 3, "usb:1", "/sys/bus/usb/devices/2-1"),
        ("pci", 3, "pci", "/dev/apex_0"),
        (":2", 3, ":2", "/sys/bus/usb/devices/2-1"),
        (":0", 1, ":0", "/sys/bus/usb/devices/1-2"),
    ],
)
def test_an_edge_tpu_is_found_and_named(
    libedgetpu: Callable[[int], str], tmp_path: Path, spec: str, count: int, option: str, device: str
) -> None:
    found = delegates.find(spec, library=libedgetpu(count), root=tmp_path, **LITERT)
    assert found is not None
    assert found.name == f"Edge TPU {spec}"
    assert found.options == {"device": option}
    assert found.detail == f"{device}, libedgetpu runtime 14"


@pytest.mark.parametrize(
    ("spec", "count", "said"),
    [
        (":3", 3, "asks for Edge TPU number 3 and there are 3, counted from 0: /sys/bus/usb/devices/1-2"),
        ("usb:2", 3, "number 2 and there are 2"),
        # One there is, but not of this kind.
        ("pci", 1, "there is no Edge TPU on PCIe"),
        ("usb", 0, "there is no Edge TPU on USB: lsusb"),
        (":0", 0, "there is no Edge TPU attached"),
    ],
)
def test_an_edge_tpu_that_is_not_there(
    libedgetpu: Callable[[int], str], tmp_path: Path, spec: str, count: int, said: str
) -> None:
    with pytest.raises(EdgennError, match=said):
        delegates.find(spec, library=libedgetpu(count), root=tmp_path, **LITERT)


@pytest.mark.parametrize(
    ("kind", "files", "refused", "reason", "mend"),
    [
        (None, {}, [], "there is no Edge TPU attached", "lsusb -d 18d1:9302"),
        # Google's vendor id alone, or another device, is no Edge TPU.
        ("usb", {**MOUSE, **PHONE}, [], "there is no Edge TPU on USB", "lsusb"),
        ("pci", READY, [], "there is no Edge TPU on PCIe", "lsusb"),
        # Its device file belongs to somebody else: the udev rule of the package is missing.
        ("usb", READY, ["007"], "dev/bus/usb/001/007 may not be opened", 'echo \'SUBSYSTEM=="usb"'),
        ("usb", FRESH, ["007"], "(1a6e:089a) is there", "sudo tee /etc/udev/rules.d/60-edgetpu.rules"),
        ("usb", FRESH, [], "has not got its firmware", "unplug it"),
        ("usb", READY, [], "another program uses it or it is locked up", "end that program, or unplug it"),
        ("pci", CARD, [], "has no driver (no /dev/apex_0)", "sudo apt install -y gasket-dkms"),
        ("pci", {**CARD, **APEX}, ["apex_0"], "apex_0 may not be opened", 'GROUP="apex"'),
        (None, APEX, [], "another program uses it", "end that program"),
    ],
)
def test_why_an_edge_tpu_that_is_attached_cannot_be_used(
    tree: Callable[[dict[str, str]], Path],
    monkeypatch: pytest.MonkeyPatch,
    kind: str | None,
    files: dict[str, str],
    refused: list[str],
    reason: str,
    mend: str,
) -> None:
    # Root may open everything, so the refusal is the operating system's answer, made up.
    monkeypatch.setattr(delegates.os, "access", lambda path, mode: Path(path).name not in refused)
    said, typed = delegates.unusable(kind, tree(files))
    assert reason in said
    assert mend in typed
    assert "\n" not in said + typed


@pytest.mark.parametrize(
    ("spec", "files", "expected"),
    [
        ("usb", READY, True),
        # It gets its firmware when it is opened.
        ("usb", FRESH, True),
        ("usb", APEX, False),
        ("pci", APEX, True),
        # A card that no driver drives cannot be opened.
        ("pci", CARD, False),
        (":0", {**READY, **APEX}, True),
        (":0", MOUSE, False),
        ("/no/such/delegate.so?a=b", READY, False),
    ],
)
def test_whether_a_try_is_worth_it(
    tree: Callable[[dict[str, str]], Path], spec: str, files: dict[str, str], expected: bool
) -> None:
    assert delegates.present(spec, tree(files)) is expected


PACKAGE = (
    "Package: zlib1g\nStatus: install ok installed\nVersion: 1\n\nPackage: libedgetpu1-{}\nStatus: {}\nVersion: {}\n"
)
INSTALLED = "install ok installed"


@pytest.mark.parametrize(
    ("package", "runtime", "version", "wrong"),
    [
        # Google's build of 2021, in a runtime that it ends, and in one that it was made for.
        (("std", INSTALLED, "16.0"), "litert", "2.3.0", "libedgetpu 16.0 was built against TensorFlow 2.5"),
        (("max", INSTALLED, "16.0"), "tflite-runtime", "2.14.0", "ends the process of tflite-runtime 2.14.0"),
        (("std", INSTALLED, "16.0"), "tflite-runtime", "2.5.0.post1", None),
        (("std", INSTALLED, "15.0"), "tflite-runtime", "2.11.0", None),
        # Rebuilt against a newer TensorFlow, which its version says.
        (("std", INSTALLED, "16.0tf2.17.1-1.bookworm"), "litert", "2.3.0", None),
        (("max", INSTALLED, "16.0TF2.13.1-1"), "tflite-runtime", "2.14.0", None),
        (("std", INSTALLED, "16.0tf2.11.0-1"), "litert", "2.3.0", "against TensorFlow 2.11"),
        # Removed, but not purged: some other build may lie in /usr/local/lib, and nobody can tell which.
        (("std", "deinstall ok config-files", "16.0"), "litert", "2.3.0", None),
        (None, "litert", "2.3.0", None),
    ],
)
def test_a_libedgetpu_that_would_end_the_process_is_refused_beforehand(
    tree: Callable[[dict[str, str]], Path],
    libedgetpu: Callable[[int], str],
    package: tuple[str, str, str] | None,
    runtime: str,
    version: str,
    wrong: str | None,
) -> None:
    root = tree({"var/lib/dpkg/status": PACKAGE.format(*package)} if package else {})
    if wrong is None:
        assert delegates.find("usb", library=libedgetpu(1), root=root, runtime=runtime, version=version) is not None
        return
    with pytest.raises(EdgennError, match=wrong) as error:
        delegates.find("usb", library=libedgetpu(1), root=root, runtime=runtime, version=version)
    assert "https://github.com/feranick/libedgetpu/releases" in str(error.value)


def test_a_library_that_is_not_there() -> None:
    with pytest.raises(EdgennError, match=r"no libedgetpu.so.9 on this machine: sudo apt install -y libedgetpu1-std"):
        delegates.find("usb", library="libedgetpu.so.9", **LITERT)
    with pytest.raises(EdgennError, match=r"no /no/delegate.so on this machine \(usb, pci, :N, cpu or the path"):
        delegates.find("/no/delegate.so", **LITERT)


def test_a_library_of_another_architecture_is_not_called_missing(tmp_path: Path, stand_in: Path) -> None:
    other = bytearray(stand_in.read_bytes())
    own = other[18]
    other[18] = 183 if own != 183 else 62
    (tmp_path / "libedgetpu.so.1").write_bytes(other)
    with pytest.raises(EdgennError, match=r"was built for (aarch64|x86-64) and this is .*: install the one for"):
        delegates.find("usb", library=str(tmp_path / "libedgetpu.so.1"), **LITERT)


def test_a_library_of_another_architecture_on_the_loader_s_path(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bytearray(stand_in.read_bytes())
    other[18] = 40
    (tmp_path / "libedgetpu.so.7").write_bytes(other)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(EdgennError, match="was built for armhf and this is"):
        delegates.find("usb", library="libedgetpu.so.7", **LITERT)


def test_files_that_are_no_delegate(tmp_path: Path, stand_in: Path) -> None:
    (tmp_path / "text.so").write_text("not a library at all, only some text")
    with pytest.raises(EdgennError, match="is not a shared library"):
        delegates.find(str(tmp_path / "text.so"), **LITERT)
    # The dynamic loader itself would end the process with SIGBUS.
    for size in (10, 2000, len(stand_in.read_bytes()) - 1):
        (tmp_path / "half.so").write_bytes(stand_in.read_bytes()[:size])
        with pytest.raises(EdgennError, match=r"half.so is truncated"):
            delegates.find(str(tmp_path / "half.so"), **LITERT)
    # A library that is one, and no delegate.
    empty = tmp_path / "empty.so"
    subprocess.run([compiler(), "-shared", "-x", "c", "/dev/null", "-o", str(empty)], check=True)
    with pytest.raises(EdgennError, match="is no TFLite delegate: it lacks tflite_plugin_create_delegate"):
        delegates.find(str(empty), **LITERT)
    shutil.copy(empty, tmp_path / "libedgetpu.so.1")
    with pytest.raises(EdgennError, match="is no libedgetpu: it lacks edgetpu_version"):
        delegates.find("usb", library=str(tmp_path / "libedgetpu.so.1"), **LITERT)


def test_a_library_that_needs_another_one_names_it(tmp_path: Path) -> None:
    needed, needing = tmp_path / "libneeded.so", tmp_path / "needing.so"
    subprocess.run([compiler(), "-shared", "-x", "c", "/dev/null", "-o", str(needed)], check=True)
    link = ["-Wl,--no-as-needed", "-shared", "-x", "c", "/dev/null", "-x", "none", f"-L{tmp_path}", "-lneeded"]
    subprocess.run([compiler(), *link, "-o", str(needing)], check=True)
    needed.unlink()
    with pytest.raises(EdgennError, match=r"needing.so cannot be loaded: libneeded.so"):
        delegates.find(str(needing), **LITERT)


def test_options_of_an_external_delegate(stand_in: Path) -> None:
    found = delegates.find(f"{stand_in}?device=2&cache=/tmp/a%20b&empty=", **LITERT)
    assert found is not None
    assert found.options == {"device": "2", "cache": "/tmp/a b", "empty": ""}
    assert found.name == "stand_in.so"
    with pytest.raises(EdgennError, match=r"PATH\?key=value&key=value"):
        delegates.find(f"{stand_in}?device", **LITERT)


def test_devices_are_given_back_to_the_library(libedgetpu: Callable[[int], str]) -> None:
    library = libedgetpu(3)
    version, found = delegates.list_edge_tpus(library)
    assert "RuntimeVersion(14)" in version
    assert [one.kind for one in found] == ["usb", "pci", "usb"]
    assert ctypes.CDLL(library).edgetpu_held() == 0


@pytest.mark.parametrize("options", ["", "?idle=1"])
def test_a_real_runtime_runs_a_model_on_a_real_delegate(model: ModelFile, stand_in: Path, options: str) -> None:
    delegated, bare = Interpreter(model, delegate=f"{stand_in}{options}"), Interpreter(model)
    assert "stand_in.so" in delegated.description
    assert delegated.delegate is not None
    assert bare.delegate is None
    for tensor in golden.inputs(model.input):
        np.testing.assert_array_equal(delegated.invoke_raw(tensor), bare.invoke_raw(tensor))


def test_a_delegate_that_refuses(model: ModelFile, stand_in: Path, libedgetpu: Callable[[int], str]) -> None:
    with pytest.raises(EdgennError, match=r"stand_in.so refuses: it gives no reason"):
        Interpreter(model, delegate=f"{stand_in}?refuse=1")
    with pytest.raises(EdgennError, match=r"stand_in.so refuses: no luck today"):
        Interpreter(model, delegate=f"{stand_in}?refuse=1&say=no+luck+today")
    found = delegates.find("usb", library=libedgetpu(1), root=Path("/nowhere"), **LITERT)
    assert found is not None
    from ai_edge_litert import interpreter as module

    found.options["refuse"] = "1"
    with pytest.raises(EdgennError, match=r"Edge TPU usb \(/sys/.*\) cannot be opened: another program uses it, or"):
        delegates.load(found, module)


def test_a_delegate_that_fails_leaves_nothing_on_the_screen(stand_in: Path, tmp_path: Path) -> None:
    (tmp_path / "libnone.so").write_bytes(b"\x7fELF")
    program = f"""
from edgenn_device.interpreter import Interpreter
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import load
model = load({str(GARMENTS)!r})
for spec in ("usb", {f"{stand_in}?refuse=1"!r}, {str(tmp_path / "libnone.so")!r}, "/no/such.so"):
    try:
        Interpreter(model, delegate=spec)
    except EdgennError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert len(done.stdout.splitlines()) == 4, done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("native", "said"),
    [
        (
            "Encountered unresolved custom op: edgetpu-custom-op.\nSee instructions",
            "was compiled for an Edge TPU and this is litert: add --delegate usb",
        ),
        (
            "Failed precondition: Package requires runtime version (14), which is newer than this runtime version (13)",
            "was compiled for libedgetpu 14 and this is 13: .*--min_runtime_version 13",
        ),
        (
            "Internal: Unsupported data type in custom op handler: 0Node number 2 (EdgeTpuDelegateForCustomOp) failed",
            "built against another TensorFlow Lite than litert",
        ),
    ],
)
def test_what_runtimes_say_of_edge_tpu_models_in_words(model: ModelFile, native: str, said: str) -> None:
    import re

    assert re.search(said, _refusal(RuntimeError(native), "litert", model))
