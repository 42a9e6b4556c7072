"""Which wheels a device needs, fetched here for its processor, its Python and its C library.

The workstation fetches and the device installs from what was carried over, so that a device without a way to the
internet is deployed to like any other. A set that was chosen once stays chosen until edgenn's own requirements change:
two devices of a kind get the same, and so does one that is deployed to twice. It installs nothing, and builds nothing
but edgenn's own wheel.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from functools import cached_property
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically

from .. import __version__

# What an edgenn on a device is installed with: MQTT, Prometheus and the live page, all of it pure Python.
EXTRA = "device"
# glibc 2.17 is manylinux2014, the oldest that NumPy, OpenCV and LiteRT are built for (PEP 600).
_OLDEST_GLIBC = 17
# machine → as wheels and pip call it.
ARCHITECTURES = {"aarch64": "aarch64", "armv7l": "armv7l", "x86_64": "x86_64"}
# On 32-bit ARM there are no wheels of these (PyPI); Raspberry Pi OS has them as packages.
FROM_APT = {"armv7l": {"numpy": "python3-numpy", "opencv-python-headless": "python3-opencv"}}
# tflite-runtime, the runtime on 32-bit ARM, has its last wheel there.
_LAST_32_BIT_PYTHON = (3, 11)
# Wheels and chosen sets are kept for this many devices' kinds; the least recently used goes first.
_KEPT_BYTES = 2 << 30
# Wheels of edgenn itself, one for each state of a checkout that was deployed.
_KEPT_OWN = 8
# How often requirements that only the device has are added before something must be wrong.
_ROUNDS = 8


@dataclass(frozen=True)
class Platform:
    """What a wheel has to fit.

    Attributes:
      machine: of the programs, not of the kernel: "aarch64", "armv7l" or "x86_64".
      python: (3, 11).
      glibc: (2, 36).
    """

    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.machine}, Python {self.python[0]}.{self.python[1]}, glibc {self.glibc[0]}.{self.glibc[1]}"

    @property
    def tags(self) -> list[str]:
        """Platform tags of PEP 600, newest first, and the older names of the same."""
        newest = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc[1], _OLDEST_GLIBC - 1, -1)]
        return [*newest, f"manylinux2014_{self.machine}", f"linux_{self.machine}"]

    @property
    def pip_options(self) -> list[str]:
        version = f"{self.python[0]}{self.python[1]}"
        options = [part for tag in self.tags for part in ("--platform", tag)]
        abis = [part for abi in (f"cp{version}", "abi3", "none") for part in ("--abi", abi)]
        return [*options, "--python-version", f"{self.python[0]}.{self.python[1]}", "--implementation", "cp", *abis]

    @property
    def markers(self) -> dict[str, str]:
        """Environment of PEP 508 markers: pip takes these of the machine that it runs on, whatever it downloads for."""
        version = f"{self.python[0]}.{self.python[1]}"
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{version}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{version}.0",
            "python_version": version,
            "sys_platform": "linux",
            "extra": "",
        }


@dataclass(frozen=True)
class Wheel:
    """A wheel of the cache."""

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def size(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def unpacked(self) -> int:
        """Bytes that it takes once it is installed, with the byte code of what is used."""
        with zipfile.ZipFile(self.path) as archive:
            return sum(info.file_size for info in archive.infolist())


@dataclass(frozen=True)
class Packages:
    """What an environment is made of.

    Attributes:
      platform: that it is for.
      wheels: edgenn's own, what it requires there, and pip, which installs them.
      system: packages of the distribution that must be there as well.
    """

    platform: Platform
    wheels: tuple[Wheel, ...]
    system: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of the environment: a digest of all that decides what is in it."""
        said = [str(self.platform.python), self.platform.machine, *sorted(f"{w.name} {w.sha256}" for w in self.wheels)]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def packages(platform: Platform, *, signed: bool = False, offline: bool = False, cache: Path | None = None) -> Packages:
    """What an edgenn on such a device is made of, fetched where it is not in the cache.

    Args:
      platform: of the device.
      signed: it accepts signed models alone, and has to verify them.
      offline: nothing is fetched; what is not in the cache is an error.
      cache: folder of wheels; None takes the user's.

    Raises:
      EdgennError: there is no wheel for it, or no way to fetch one.
    """
    if platform.machine not in ARCHITECTURES:
        raise EdgennError(f"there are no wheels for {platform.machine}: edgenn runs on {', '.join(ARCHITECTURES)}")
    if platform.machine == "armv7l" and platform.python > _LAST_32_BIT_PYTHON:
        raise EdgennError(
            f"there is no TFLite runtime for 32-bit ARM and Python {platform.python[0]}.{platform.python[1]}: "
            "write the card anew with the 64-bit Raspberry Pi OS, or with Bookworm"
        )
    place = cache or cache_folder()
    place.mkdir(parents=True, exist_ok=True)
    own = own_wheel(place)
    system = FROM_APT.get(platform.machine, {})
    wanted = [
        requirement for requirement in _requirements(own, {EXTRA}, platform) if _canonical(requirement) not in system
    ]
    if signed:
        wanted.append("cryptography>=42")
    digest = hashlib.sha256(json.dumps([str(platform), sorted(wanted)]).encode()).hexdigest()[:16]
    chosen = place / f"{digest}.json"
    names = _chosen_before(chosen, place)
    if names is None:
        if offline:
            raise EdgennError(
                f"the wheels for {platform} are not in {place}: deploy to a device of that kind while this machine "
                "reaches the package index"
            )
        names = _choose(wanted, platform, place, set(system))
        write_atomically(chosen, json.dumps(names, indent=1) + "\n")
    os.utime(chosen)
    wheels = [_wheel(own), *(_wheel(place / name) for name in names)]
    _make_room(place, keep={wheel.path for wheel in wheels})
    return Packages(platform, tuple(wheels), tuple(sorted(system.values())))


def cache_folder() -> Path:
    """XDG Base Directory Specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgenn" / "wheels"


def own_wheel(cache: Path) -> Path:
    """edgenn's own wheel: built from the checkout that this is run from, or the published one of this version."""
    checkout = Path(__file__).parents[2]
    if not (checkout / "pyproject.toml").is_file():
        return _published(cache)
    sources = sorted(
        path
        for folder in ("edgenn", "device")
        for path in (checkout / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    digest = hashlib.sha256()
    for path in (checkout / "pyproject.toml", checkout / "README.md", *sources):
        digest.update(f"{path.relative_to(checkout)}\0{path.stat().st_mode & 0o111:o}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    place = cache / "own" / digest.hexdigest()[:16]
    found = list(place.glob("edgenn-*.whl"))
    if found:
        os.utime(place)
        return found[0]
    with tempfile.TemporaryDirectory(prefix=".own-", dir=cache) as aside:
        # The date makes the same sources the same wheel, wherever and whenever it is built.
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1577836800"}
        done = subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", aside],
            **{"cwd": checkout, "env": environment, "capture_output": True, "text": True},  # type: ignore[call-overload]
        )
        built = list(Path(aside).glob("edgenn-*.whl"))
        if done.returncode or not built:
            if "No module named hatchling" in done.stderr:
                raise EdgennError("hatchling is missing, which builds edgenn's wheel: pip install 'edgenn[deploy]'")
            raise EdgennError(f"edgenn's wheel cannot be built from {checkout}: {_last(done.stderr)}")
        place.mkdir(parents=True, exist_ok=True)
        return built[0].replace(place / built[0].name)


def _published(cache: Path) -> Path:
    name = f"edgenn-{__version__}-py3-none-any.whl"
    if not (cache / name).exists():
        _pip(["--no-deps", f"edgenn=={__version__}"], cache, f"edgenn {__version__}")
    return cache / name


def _choose(wanted: Sequence[str], platform: Platform, cache: Path, system: set[str]) -> list[str]:
    """Names of the wheels that pip chooses, and that are complete by the device's own markers."""
    wanted = list(wanted)
    for _ in range(_ROUNDS):
        with tempfile.TemporaryDirectory(prefix=".chosen-", dir=cache) as aside:
            without_system = [] if not system else ["--no-deps"]
            _pip([*platform.pip_options, *without_system, "pip>=23", *wanted], Path(aside), str(platform), cache)
            found = sorted(Path(aside).glob("*.whl"))
            needed, missing = _needed(found, ["pip", *wanted], platform, system)
            if not missing:
                for wheel in needed:
                    wheel.replace(cache / wheel.name)
                return [wheel.name for wheel in needed]
        wanted += missing
    raise EdgennError(f"what edgenn requires for {platform} does not come to an end: {', '.join(missing)}")


def _needed(
    found: Sequence[Path], wanted: Sequence[str], platform: Platform, system: set[str]
) -> tuple[list[Path], list[str]]:
    """The wheels that `wanted` leads to by the device's markers, and requirements on the way that none fulfils."""
    from packaging.utils import parse_wheel_filename

    wheels = {str(parse_wheel_filename(path.name)[0]): path for path in found}
    needed: dict[str, Path] = {}
    missing: list[str] = []
    asked = list(wanted)
    while asked:
        text = asked.pop()
        name = _canonical(text)
        if name in needed or name in system:
            continue
        if name not in wheels:
            missing.append(text)
            continue
        needed[name] = wheels[name]
        asked += _requirements(wheels[name], set(_requirement(text).extras), platform)
    return sorted(needed.values()), sorted(set(missing))


def _requirements(wheel: Path, extras: set[str], platform: Platform) -> list[str]:
    """What a wheel requires on `platform`, without the markers."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    found = []
    for text in metadata.get_all("Requires-Dist") or []:
        requirement = _requirement(text)
        environments = [{**platform.markers, "extra": extra} for extra in ("", *sorted(extras))]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            requirement.marker = None
            found.append(str(requirement))
    return sorted(set(found))


def _requirement(text: str) -> Any:
    from packaging.requirements import Requirement

    return Requirement(text)


def _canonical(requirement: str) -> str:
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(_requirement(requirement).name))


def _pip(arguments: Sequence[str], folder: Path, what: str, links: Path | None = None) -> None:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    # What is in the cache need not be fetched again.
    argv += ["--only-binary=:all:", *(("--find-links", str(links)) if links else ()), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode == 0:
        return
    said = done.stderr
    if "No matching distribution found for" in said:
        name = said.rsplit("No matching distribution found for ", 1)[1].split()[0]
        if "from versions: none" in said and any(word in said for word in ("NewConnectionError", "retries exceeded")):
            raise EdgennError(f"{name} cannot be fetched: this machine does not reach the package index")
        raise EdgennError(f"there is no wheel of {name} for {what}")
    raise EdgennError(f"the wheels for {what} cannot be fetched: {_last(said)}")


def _chosen_before(chosen: Path, cache: Path) -> list[str] | None:
    try:
        names = json.loads(chosen.read_text())
    except (OSError, ValueError):
        return None
    return names if isinstance(names, list) and all((cache / str(name)).is_file() for name in names) else None


def _wheel(path: Path) -> Wheel:
    """With its digest, which is kept beside it: reading 80 MB for every deploy takes half a second."""
    kept = path.with_suffix(".sha256")
    stamp = f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    try:
        known, _, digest = kept.read_text().rpartition(" ")
        if known == stamp:
            return Wheel(path, digest)
    except OSError:
        pass
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomically(kept, f"{stamp} {digest}")
    return Wheel(path, digest)


def _make_room(cache: Path, keep: set[Path]) -> None:
    """Forget the sets that were used longest ago, with the wheels that no other has, while there is too much."""
    size = sum(path.stat().st_size for path in cache.rglob("*.whl"))
    for chosen in sorted(cache.glob("*.json"), key=lambda path: path.stat().st_mtime):
        if size <= _KEPT_BYTES:
            break
        names = set(json.loads(chosen.read_text()))
        for other in cache.glob("*.json"):
            if other != chosen:
                names -= set(json.loads(other.read_text()))
        for path in {cache / name for name in names} - keep:
            if path.exists():
                size -= path.stat().st_size
                path.unlink()
                path.with_suffix(".sha256").unlink(missing_ok=True)
        if not any((cache / name) in keep for name in json.loads(chosen.read_text())):
            chosen.unlink()
    own = sorted((cache / "own").glob("*"), key=lambda path: path.stat().st_mtime)
    for folder in own[:-_KEPT_OWN]:
        if not any(wheel.parent == folder for wheel in keep):
            shutil.rmtree(folder, ignore_errors=True)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it says nothing"
