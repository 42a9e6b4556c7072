"""Delegates: what runs a network instead of the CPU, found, named and version-checked before a runtime loads it.

An Edge TPU is asked for as `usb`, `pci` or `:N`, any other delegate by the path of its library; `cpu` is none. When one
cannot be had, the reason is one line with what to type, because the runtimes themselves say only "Failed to load
delegate". Loads a delegate into this very process, as a runtime does: one that hangs or crashes takes the process with
it. `standby` therefore does all of this in a child.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

from .errors import EdgennError

CPU = "cpu"
LIBEDGETPU = "libedgetpu.so.1"

# usb, pci, usb:1, pci:0, :0. What libedgetpu's own "device" option takes (coral.ai, PyCoral's make_interpreter).
_EDGE_TPU = re.compile(r"(?P<kind>usb|pci)?(?::(?P<number>\d{1,2}))?")
# Coral's USB Accelerator announces itself as the first until libedgetpu has sent it its firmware, then as the second.
_USB_FRESH, _USB_READY = "1a6e:089a", "18d1:9302"
_PCI = ("0x1ac1", "0x089a")
# enum edgetpu_device_type of edgetpu_c.h.
_KINDS: tuple[Literal["pci", "usb"], ...] = ("pci", "usb")
# libedgetpu reaches into TensorFlow Lite's own structures. One built against TensorFlow 2.11 or older ends the process
# in runtimes of 2.12 and newer; rebuilt against 2.13 it worked with 2.13 to 2.15 (google-coral/edgetpu issue 812).
_BROKE_AT = (2, 12)
# Google's own packages, 16.0 and older, were built against this one (google-coral/libedgetpu, workspace.bzl).
_GOOGLES = (2, 5)
_REBUILT = "https://github.com/feranick/libedgetpu/releases"
# e_machine of an ELF header (System V ABI; elf.h).
_TRUNCATED = "truncated"
_MACHINES = {3: "i386", 40: "armhf", 62: "x86-64", 183: "aarch64", 243: "riscv64"}
_UDEV = (
    """echo 'SUBSYSTEM=="usb", ATTRS{idVendor}=="1a6e|18d1", ATTRS{idProduct}=="089a|9302", GROUP="plugdev"' """
    "| sudo tee /etc/udev/rules.d/60-edgetpu.rules && sudo udevadm control --reload && sudo udevadm trigger "
    "&& sudo usermod -aG plugdev $USER"
)
_UDEV_PCI = (
    """echo 'SUBSYSTEM=="apex", MODE="0660", GROUP="apex"' | sudo tee /etc/udev/rules.d/65-apex.rules """
    "&& sudo groupadd -f apex && sudo udevadm trigger && sudo usermod -aG apex $USER"
)


@dataclass(frozen=True)
class Delegate:
    """A delegate that was found here and may be loaded.

    Attributes:
      name: for a person: "Edge TPU usb", or the library's file name.
      library: what the dynamic loader is given.
      options: as the delegate takes them.
      detail: which device and version; "" when the library does not say.
    """

    name: str
    library: str
    options: dict[str, str]
    detail: str = ""


@dataclass(frozen=True)
class EdgeTpu:
    """An Edge TPU that libedgetpu may open: "usb" or "pci", and its path in /sys or /dev."""

    kind: Literal["usb", "pci"]
    path: str


@dataclass(frozen=True)
class Attached:
    """An Edge TPU that the kernel sees, whether or not it can be used.

    Attributes:
      kind: "usb" or "pci".
      name: for a person.
      node: what must be opened to use it; None while no driver made one.
      ready: False for a USB Accelerator that has not got its firmware yet.
    """

    kind: Literal["usb", "pci"]
    name: str
    node: Path | None
    ready: bool = True


def is_edge_tpu(spec: str) -> bool:
    """Whether `spec` asks for an Edge TPU (usb, pci, :N) rather than for a library."""
    return bool(spec) and _EDGE_TPU.fullmatch(spec) is not None


def kind_of(spec: str) -> str | None:
    """ "usb" or "pci" where `spec` asks for an Edge TPU there; None where either will do."""
    return _parts(spec)[0]


def attached(root: Path = Path("/")) -> list[Attached]:
    """Edge TPUs by what /sys and /dev say. Takes a fraction of a millisecond and loads no library."""
    found = []
    for device in sorted((root / "sys/bus/usb/devices").glob("*")):
        identity = f"{_read(device / 'idVendor')}:{_read(device / 'idProduct')}"
        if identity in (_USB_FRESH, _USB_READY):
            bus, number = _read(device / "busnum"), _read(device / "devnum")
            node = root / f"dev/bus/usb/{int(bus):03}/{int(number):03}" if bus.isdigit() and number.isdigit() else None
            found.append(Attached("usb", f"USB Accelerator ({identity})", node, identity == _USB_READY))
    nodes = sorted((root / "dev").glob("apex_[0-9]*"))
    found += [Attached("pci", f"/dev/{node.name}", node) for node in nodes]
    if not nodes:
        for device in sorted((root / "sys/bus/pci/devices").glob("*")):
            if (_read(device / "vendor"), _read(device / "device")) == _PCI:
                found.append(Attached("pci", f"PCIe Accelerator ({device.name})", None))
    return found


def present(spec: str, root: Path = Path("/")) -> bool:
    """Whether it is worth trying to load `spec`: its device is attached, or its library is there. Cheap."""
    if not is_edge_tpu(spec):
        return _where(spec.partition("?")[0]) is not None
    kind = _parts(spec)[0]
    return any(one.node is not None and kind in (None, one.kind) for one in attached(root))


def find(
    spec: str, *, runtime: str, version: str, library: str = LIBEDGETPU, root: Path = Path("/")
) -> Delegate | None:
    """Find a delegate, and check as far as can be told beforehand that it will load.

    Args:
      spec: "cpu", "usb", "pci", ":N", "usb:N", "pci:N", or PATH?key=value&key=value of another delegate's library.
      runtime, version: of the runtime that is to load it, as in `Interpreter`.
      library: name or path of Coral's library.
      root: what /sys, /dev and /var are read below.

    Returns:
      The delegate, or None for "cpu".

    Raises:
      EdgennError: it is not there or cannot work here; one line on why, and what to type.
    """
    if spec == CPU:
        return None
    if is_edge_tpu(spec):
        return _find_edge_tpu(spec, runtime, version, library, root)
    path, _, query = spec.partition("?")
    _open(path, ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate"))
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise EdgennError(f"the options of --delegate {spec!r} are written PATH?key=value&key=value") from None
    return Delegate(Path(path).name, path, options)


def load(delegate: Delegate, module: Any) -> Any:
    """Load a delegate by a runtime's own `load_delegate`; hold the result as long as the interpreter that uses it.

    Args:
      delegate: what `find` gave: with a library that opens and has the two functions, the runtime's wrapper has no
        half-built object left whose finalizer would print "Exception ignored in Delegate.__del__".
      module: the runtime's interpreter module.

    Raises:
      EdgennError: the delegate refuses; its own reason is in the line, if it gave one.
    """
    try:
        return module.load_delegate(delegate.library, delegate.options)
    except (ValueError, OSError) as error:
        # "Failed to load delegate from LIBRARY\nREASON"; libedgetpu gives no reason.
        reason = " ".join(str(error).partition("\n")[2].split())
    if delegate.library == LIBEDGETPU or "Edge TPU" in delegate.name:
        reason = reason or "another program uses it, or it is locked up: end that program, or plug it in again"
        raise EdgennError(f"{delegate.name} ({delegate.detail}) cannot be opened: {reason}")
    raise EdgennError(f"delegate {delegate.library} refuses: {reason or 'it gives no reason'}")


def list_edge_tpus(library: str = LIBEDGETPU) -> tuple[str, list[EdgeTpu]]:
    """(version of the library, each Edge TPU that it may open), without claiming any of them.

    Source: edgetpu_c.h of libedgetpu: edgetpu_version, edgetpu_list_devices, edgetpu_free_devices.

    Raises:
      EdgennError: the library is absent, made for another architecture, or no libedgetpu.
    """
    native = _open(library, ("edgetpu_version", "edgetpu_list_devices", "edgetpu_free_devices"))
    native.edgetpu_version.restype = ctypes.c_char_p
    native.edgetpu_list_devices.restype = ctypes.POINTER(_Device)
    native.edgetpu_list_devices.argtypes = [ctypes.POINTER(ctypes.c_size_t)]
    native.edgetpu_free_devices.restype = None
    native.edgetpu_free_devices.argtypes = [ctypes.POINTER(_Device)]
    version = (native.edgetpu_version() or b"").decode(errors="replace")
    count = ctypes.c_size_t()
    devices = native.edgetpu_list_devices(ctypes.byref(count))
    found = []
    for index in range(count.value):
        kind = "usb" if devices[index].type == _KINDS.index("usb") else "pci"
        found.append(EdgeTpu(kind, (devices[index].path or b"").decode(errors="replace")))  # type: ignore[arg-type]
    if devices:
        native.edgetpu_free_devices(devices)
    return version, found


def mismatch(runtime: str, version: str, root: Path = Path("/")) -> str | None:
    """Why the installed libedgetpu does not go with a runtime, or None when it does or nobody can tell.

    Debian's list of packages says which TensorFlow it was built against: "16.0tf2.17.1-1", and Google's own without.
    """
    package = _package(root)
    if package is None:
        return None
    told = re.search(r"tf(\d+)\.(\d+)", package, re.IGNORECASE)
    built = (int(told[1]), int(told[2])) if told else _GOOGLES
    if built >= _BROKE_AT or (runtime != "litert" and _release(version) < _BROKE_AT):
        return None
    return (
        f"libedgetpu {package} was built against TensorFlow {built[0]}.{built[1]} and ends the process of "
        f"{runtime} {version}: install one that was built against 2.13 or newer from {_REBUILT}"
    )


def unusable(kind: str | None, root: Path = Path("/")) -> tuple[str, str]:
    """(why libedgetpu lists no Edge TPU, the line to type).

    Args:
      kind: "usb", "pci" or None for either.
    """
    seen = [one for one in attached(root) if kind in (None, one.kind)]
    if not seen:
        where = {"usb": "on USB", "pci": "on PCIe", None: "attached"}[kind]
        return f"there is no Edge TPU {where}", "lsusb -d 18d1:9302; lsusb -d 1a6e:089a; ls /dev/apex_0"
    one = seen[0]
    if one.kind == "pci" and one.node is None:
        return f"{one.name} has no driver (no /dev/apex_0)", "sudo apt install -y gasket-dkms"
    if one.node is None or not os.access(one.node, os.R_OK | os.W_OK):
        node = f" and {one.node}" if one.node else ", but it"
        return f"{one.name} is there{node} may not be opened", _UDEV if one.kind == "usb" else _UDEV_PCI
    if not one.ready:
        return f"{one.name} has not got its firmware and libedgetpu does not find it", "unplug it and plug it in again"
    return (
        f"{one.name} is there and libedgetpu does not find it: another program uses it or it is locked up",
        "end that program, or unplug it and plug it in again",
    )


def _find_edge_tpu(spec: str, runtime: str, version: str, library: str, root: Path) -> Delegate:
    kind, number = _parts(spec)
    wrong = mismatch(runtime, version, root)
    if wrong:
        raise EdgennError(wrong)
    about, devices = list_edge_tpus(library)
    devices = [one for one in devices if kind in (None, one.kind)]
    if not devices:
        reason, mend = unusable(kind, root)
        raise EdgennError(f"{reason}: {mend}")
    if number >= len(devices):
        raise EdgennError(
            f"--delegate {spec} asks for Edge TPU number {number} and there are {len(devices)}, counted from 0: "
            f"{', '.join(one.path for one in devices)}"
        )
    told = re.search(r"RuntimeVersion\((\d+)\)", about)
    detail = f"{devices[number].path}, libedgetpu runtime {told[1]}" if told else devices[number].path
    return Delegate(f"Edge TPU {spec}", library, {"device": spec}, detail)


def _parts(spec: str) -> tuple[str | None, int]:
    match = _EDGE_TPU.fullmatch(spec)
    return (match["kind"], int(match["number"] or 0)) if match else (None, 0)


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("path", ctypes.c_char_p))


def _open(library: str, functions: Iterable[str]) -> Any:
    """The library, opened as ctypes does, with all of `functions` in it."""
    edge_tpu = "edgetpu" in Path(library).name
    mend = "sudo apt install -y libedgetpu1-std" if edge_tpu else "check the path of --delegate"
    place = _where(library)
    if place is None:
        hint = "" if edge_tpu else f" (usb, pci, :N, {CPU} or the path of a library)"
        raise EdgennError(f"there is no {library} on this machine{hint}: {mend}")
    made_for, here = _architecture(place), _architecture(Path(sys.executable))
    if made_for is None:
        raise EdgennError(f"{place} is not a shared library: {mend}")
    if made_for == _TRUNCATED:
        # The dynamic loader would end the process (SIGBUS).
        raise EdgennError(f"{place} is truncated: copy or install it again")
    if here is not None and made_for != here:
        raise EdgennError(f"{place} was built for {made_for} and this is {here}: install the one for {here}")
    try:
        native = ctypes.CDLL(library)
    except OSError as error:
        raise EdgennError(f"{place} cannot be loaded: {' '.join(str(error).split())}") from None
    for function in functions:
        if not hasattr(native, function):
            what = "libedgetpu" if edge_tpu else "TFLite delegate"
            raise EdgennError(f"{place} is no {what}: it lacks {function}: {mend}")
    return native


def _where(library: str) -> Path | None:
    """Where the dynamic loader would find `library`; also one of another architecture, which it calls missing."""
    if "/" in library:
        path = Path(library)
        return path if path.is_file() else None
    folders = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    for parent in (Path("/usr/local/lib"), Path("/usr/lib"), Path("/lib")):
        folders += [parent, *sorted(parent.glob("*-linux-gnu*"))]
    found = [folder / library for folder in folders if (folder / library).is_file()]
    here = _architecture(Path(sys.executable))
    return next((path for path in found if _architecture(path) == here), found[0] if found else None)


def _architecture(path: Path) -> str | None:
    """What an ELF file was built for, None when it is none. Source: e_machine and e_shoff of its header, elf(5)."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return None
    if head[:4] != b"\x7fELF":
        return None
    if len(head) < 64:
        return _TRUNCATED
    order = "<" if head[5] == 1 else ">"
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    # The table of sections is a linker's last word: what ends before it was cut off.
    wide = head[4] == 2
    (sections,) = struct.unpack_from(f"{order}{'Q' if wide else 'L'}", head, 40 if wide else 32)
    each, count = struct.unpack_from(f"{order}HH", head, 58 if wide else 46)
    return _TRUNCATED if sections + each * count > size else _MACHINES.get(machine, f"machine {machine}")


def _package(root: Path) -> str | None:
    """Version of the installed libedgetpu package. Source: /var/lib/dpkg/status, deb-control(5)."""
    try:
        status = (root / "var/lib/dpkg/status").read_text(errors="replace")
    except OSError:
        return None
    for block in status.split("\n\n"):
        if re.match(r"Package: libedgetpu1-(std|max)\n", block) and "\nStatus: install ok installed" in block:
            version = re.search(r"^Version: (.+)$", block, re.MULTILINE)
            return version[1].strip() if version else None
    return None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
