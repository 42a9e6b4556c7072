"""Which wheels a device gets. The index is a folder of wheels made here; pip itself runs for real."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgenn.deployment import packages as module
from edgenn.deployment.packages import Packages, Platform, Wheel, own_wheel, packages
from edgenn_device.errors import EdgennError

PI = Platform("aarch64", (3, 11), (2, 36))
TRIXIE = Platform("aarch64", (3, 13), (2, 41))
PI_32 = Platform("armv7l", (3, 11), (2, 36))


def wheel(
    folder: Path, name: str, tags: str = "py3-none-any", requires: tuple[str, ...] = (), version: str = "9"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-{version}-{tags}.whl"
    python, abi, platforms = tags.split("-")
    with zipfile.ZipFile(place, "w") as archive:
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
        each = "".join(f"Tag: {python}-{abi}-{platform}\n" for platform in platforms.split("."))
        archive.writestr(f"{name}-{version}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n{each}")
        archive.writestr(f"{name}-{version}.dist-info/RECORD", "")
        archive.writestr(f"{name}.py", "x = 1\n" * 100)
    return place


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of a folder; and an edgenn of few requirements."""
    folder = tmp_path / "index"
    wheel(folder, "pip", version="24.0")
    wheel(folder, "click", version="8.1")
    wheel(folder, "numpy", "cp311-cp311-manylinux_2_27_aarch64", version="2.0")
    wheel(folder, "numpy", "cp313-cp313-manylinux_2_27_aarch64", version="2.0")
    wheel(folder, "runtime", "cp311-abi3-manylinux_2_28_aarch64.manylinux_2_34_aarch64", ("numpy",))
    wheel(folder, "runtime32", "cp311-cp311-manylinux2014_armv7l", ("numpy",))
    # Only older Pythons need it; pip itself would judge that by the Python that it runs in.
    wheel(folder, "page", requires=("backport; python_version < '3.13'", "never; sys_platform == 'win32'"))
    wheel(folder, "backport", requires=("deeper",))
    wheel(folder, "deeper")
    own = wheel(
        tmp_path / "own",
        "edgenn",
        requires=(
            "click>=8.1",
            "numpy; platform_machine != 'armv7l'",
            "numpy<2; platform_machine == 'armv7l'",
            "opencv-python-headless; platform_machine == 'armv7l'",
            "runtime; platform_machine != 'armv7l'",
            "runtime32; platform_machine == 'armv7l'",
            "page; extra == 'device'",
            "tensorflow; extra == 'train'",
        ),
    )
    monkeypatch.setattr(module, "own_wheel", lambda cache: own)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return folder


def names(found: Packages) -> set[str]:
    return {wheel.name.split("-")[0] for wheel in found.wheels}


def test_a_device_gets_what_its_own_markers_ask_for(index: Path, tmp_path: Path) -> None:
    on_311 = packages(PI, cache=tmp_path / "cache")
    assert names(on_311) == {"edgenn", "pip", "click", "numpy", "runtime", "page", "backport", "deeper"}
    assert [w.name for w in on_311.wheels if w.name.startswith("numpy")] == [
        "numpy-2.0-cp311-cp311-manylinux_2_27_aarch64.whl"
    ]
    on_313 = packages(TRIXIE, cache=tmp_path / "cache")
    assert names(on_313) == {"edgenn", "pip", "click", "numpy", "runtime", "page"}
    assert on_311.key != on_313.key
    assert all(wheel.unpacked > 600 for wheel in on_311.wheels)


def test_32_bit_takes_from_apt_what_has_no_wheels(index: Path, tmp_path: Path) -> None:
    found = packages(PI_32, cache=tmp_path / "cache")
    assert names(found) == {"edgenn", "pip", "click", "runtime32", "page", "backport", "deeper"}
    assert found.system == ("python3-numpy", "python3-opencv")


def test_a_set_once_chosen_stays_and_needs_no_index(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = packages(PI, cache=tmp_path / "cache")
    wheel(index, "click", version="8.9")
    monkeypatch.setattr(module, "_pip", lambda *given: pytest.fail("pip was asked"))
    assert packages(PI, cache=tmp_path / "cache").key == first.key
    assert packages(PI, cache=tmp_path / "cache", offline=True).wheels == first.wheels
    with pytest.raises(EdgennError, match="are not in"):
        packages(TRIXIE, cache=tmp_path / "cache", offline=True)


def test_a_wheel_that_went_missing_is_fetched_again(index: Path, tmp_path: Path) -> None:
    first = packages(PI, cache=tmp_path / "cache")
    (tmp_path / "cache/click-8.1-py3-none-any.whl").unlink()
    assert packages(PI, cache=tmp_path / "cache") == first


def test_who_verifies_signatures_gets_the_library_for_it(index: Path, tmp_path: Path) -> None:
    wheel(index, "cryptography", version="45.0")
    assert "cryptography" in names(packages(PI, signed=True, cache=tmp_path / "cache"))


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        (Platform("armv6l", (3, 11), (2, 36)), "no wheels for armv6l"),  # a Pi Zero, the first one
        (Platform("armv7l", (3, 13), (2, 41)), "32-bit ARM and Python 3.13"),  # Trixie, 32 bit
        (Platform("aarch64", (3, 12), (2, 36)), "no wheel of numpy"),  # a Python that a package is not built for
        (Platform("aarch64", (3, 11), (2, 26)), "no wheel of"),  # a C library that is too old
    ],
)
def test_what_cannot_run_edgenn_is_one_line(index: Path, tmp_path: Path, platform: Platform, said: str) -> None:
    with pytest.raises(EdgennError, match=said):
        packages(platform, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.json")) if (tmp_path / "cache").exists() else True


def test_the_key_is_of_everything_that_is_in_an_environment(tmp_path: Path) -> None:
    one, two = (Wheel(tmp_path / name, digit * 64) for name, digit in (("a.whl", "1"), ("b.whl", "2")))
    key = Packages(PI, (one, two), ()).key
    assert Packages(PI, (two, one), ()).key == key
    assert Packages(PI, (one,), ()).key != key
    assert Packages(TRIXIE, (one, two), ()).key != key
    assert Packages(PI, (one, Wheel(tmp_path / "b.whl", "3" * 64)), ()).key != key


def test_the_cache_is_bounded_and_keeps_what_is_in_use(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(TRIXIE, cache=tmp_path / "cache")
    monkeypatch.setattr(module, "_KEPT_BYTES", 1)
    found = packages(PI, cache=tmp_path / "cache")
    assert all(wheel.path.exists() for wheel in found.wheels)
    assert not (tmp_path / "cache/numpy-2.0-cp313-cp313-manylinux_2_27_aarch64.whl").exists()


def test_edgenns_own_wheel_is_built_once_from_the_checkout(tmp_path: Path) -> None:
    built = own_wheel(tmp_path)
    with zipfile.ZipFile(built) as archive:
        assert {"edgenn/cli/run.py", "edgenn_device/releases.py"} <= set(archive.namelist())
    stamp = built.stat().st_mtime_ns
    assert own_wheel(tmp_path) == built
    assert built.stat().st_mtime_ns == stamp
    # The same sources make the same wheel, so that a device is not given it again.
    again = own_wheel(tmp_path / "elsewhere") if (tmp_path / "elsewhere").mkdir() is None else built
    assert again.read_bytes() == built.read_bytes()
