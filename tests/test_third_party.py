"""A package from outside adds a camera and a sink: built, installed and run as its user would; and its types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from edgenn_device.files import write_atomically
from edgenn_device.garments import draw

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data_files"
MODEL = ROOT / "models" / "garments" / "garments.tflite"
EDGENN = str(Path(sys.executable).with_name("edgenn"))
SOON = 120


def pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, "--no-deps", "--no-build-isolation"],
        capture_output=True,
        text=True,
        timeout=SOON,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(made_once: Callable[[str, Callable[[Path], None]], Path]) -> dict[str, str]:
    """The environment of a process that has the package installed."""

    def make(folder: Path) -> None:
        shutil.copytree(DATA / "third_party", folder / "source")
        pip("install", "--quiet", "--no-index", "--target", str(folder / "site"), str(folder / "source"))

    return {**os.environ, "PYTHONPATH": str(made_once("third_party", make) / "site")}


def test_its_camera_and_its_sink_are_used(installed: dict[str, str], tmp_path: Path) -> None:
    picture, tally, done = tmp_path / "latest.jpg", tmp_path / "tally.json", threading.Event()

    def write() -> None:
        """As a webcam's own program does: the same name, again and again."""
        number = 0
        while True:
            _, data = cv2.imencode(".jpg", draw("shirt", number % 5, (96, 128)))
            write_atomically(picture, data.tobytes())
            number += 1
            if done.wait(0.02):
                return

    writer = threading.Thread(target=write)
    writer.start()
    command = [EDGENN, "run", str(MODEL), "--source", f"latest://{picture}", "--sink", f"tally:{tally}"]
    command += ["--limit", "8", "--no-motion-gate", "--json", "--name", "shelf"]
    try:
        ran = subprocess.run(command, env=installed, capture_output=True, text=True, timeout=SOON, check=False)
    finally:
        done.set()
        writer.join()
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert lines[-1]["summary"]["frames"] == 8
    told = json.loads(tally.read_text())
    assert told["device"] == "shelf"
    assert sum(told["frames"].values()) == 8


@pytest.mark.parametrize(
    ("source", "sink", "line"),
    [
        # The package's own words reach the person, whichever part of it cannot work.
        ("latest:///nowhere/latest.jpg", "tally:tally.json", "there is no /nowhere/latest.jpg: start the program"),
        ("synthetic", "tally:/nowhere/tally.json", "there is no folder /nowhere: make it first"),
        # What no package adds.
        ("earliest://x", "tally:tally.json", "earliest:// is no source"),
        ("synthetic", "count:x", "there is no sink 'count'"),
    ],
)
def test_what_it_refuses_is_one_line(
    installed: dict[str, str], tmp_path: Path, source: str, sink: str, line: str
) -> None:
    command = [EDGENN, "run", str(MODEL), "--source", source, "--sink", sink, "--limit", "1"]
    ran = subprocess.run(
        command, env=installed, cwd=tmp_path, capture_output=True, text=True, timeout=SOON, check=False
    )
    assert ran.returncode == 2
    assert line in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_without_the_package_there_is_no_such_source(tmp_path: Path) -> None:
    command = [EDGENN, "run", str(MODEL), "--source", f"latest://{tmp_path}/x.jpg"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=SOON, check=False)
    assert ran.returncode == 2
    assert "latest:// is no source" in ran.stderr


def test_the_wheel_holds_what_the_packages_need(tmp_path: Path) -> None:
    pip("wheel", "--quiet", "--no-index", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("edgenn-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"edgenn/py.typed", "edgenn_device/py.typed"} <= names
    # Whatever else than Python lies in the packages is there for a reason.
    for package in (ROOT / "edgenn", ROOT / "device" / "edgenn_device"):
        for path in package.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                assert str(path.relative_to(package.parent)) in names
    assert not [name for name in names if name.startswith(("tests/", "tools/", "docs/"))]


def test_a_program_from_outside_is_checked_against_the_public_api(tmp_path: Path) -> None:
    """By mypy --strict, from a folder of its own. The program also holds mistakes that have to be found: a public name
    that is Any would let them pass, and mypy then calls their `type: ignore` unused."""
    shutil.copy(DATA / "public_api.py", tmp_path)
    shutil.copytree(DATA / "third_party" / "edgenn_example", tmp_path / "edgenn_example")
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", sys.executable]
    done = subprocess.run(
        [*command, "public_api.py", "edgenn_example"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout
