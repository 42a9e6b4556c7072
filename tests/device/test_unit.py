"""The systemd unit: what systemd itself says of it, and that it fits what edgenn does. Nothing is started."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from edgenn_device.option_notes import NOTES
from edgenn_device.options import Options
from edgenn_device.service import ENDING

SYSTEMD = Path(__file__).parents[2] / "device/systemd"
UNIT = SYSTEMD / "edgenn.service"
# Exposure, of 10: what issue and documentation promise.
MOST = 2.0


@pytest.fixture(scope="module")
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("NOT TESTED: no systemd-analyze here (apt install systemd)")
    return found


def values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_finds_nothing_wrong(analyze: str, tmp_path: Path) -> None:
    # The release that it starts is not installed here.
    (tmp_path / "edgenn").write_text("#!/bin/sh\n")
    (tmp_path / "edgenn").chmod(0o755)
    text, count = re.subn(r"^ExecStart=\S+", f"ExecStart={tmp_path}/edgenn", UNIT.read_text(), flags=re.MULTILINE)
    assert count == 1
    (tmp_path / "edgenn.service").write_text(text)
    done = subprocess.run([analyze, "verify", str(tmp_path / "edgenn.service")], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_a_mistake(analyze: str, tmp_path: Path) -> None:
    # So that the test above means something.
    (tmp_path / "edgenn.service").write_text(UNIT.read_text().replace("ProtectClock=yes", "ProtectClok=yes"))
    done = subprocess.run([analyze, "verify", str(tmp_path / "edgenn.service")], capture_output=True, text=True)
    assert "ProtectClok" in done.stderr


def test_exposure(analyze: str) -> None:
    command = [analyze, "security", "--offline=true", "--no-pager", f"--threshold={int(MOST * 10)}", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Overall exposure level for edgenn.service: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= MOST
    assert done.returncode == 0


def test_it_fits_what_edgenn_does() -> None:
    assert values("Type") == ["notify"]
    assert values("ExecReload") == ["/bin/kill -HUP $MAINPID"]
    assert values("RuntimeDirectory") == values("StateDirectory") == ["edgenn"]
    # It ends by itself before systemd ends it.
    assert float(values("TimeoutStopSec")[0]) > ENDING
    # The runtime needs them: other tests run it with executable memory refused, and profiles read /proc/stat.
    assert values("MemoryDenyWriteExecute") == ["yes"]
    assert values("ProcSubset") == []
    allowed = {value.split()[0] for value in values("DeviceAllow")}
    assert allowed == {"char-video4linux", "char-media", "char-dma_heap", "char-apex", "char-usb_device"}


def test_every_option_of_the_units_says_what_it_is_for() -> None:
    """`systemctl cat` is the documentation that a device has: no option stands there without a remark above it."""
    for unit in (UNIT, SYSTEMD / "edgenn-releases.service"):
        section, remarked = "", False
        for line in unit.read_text().splitlines():
            if line.startswith("["):
                section, remarked = line, False
            elif line.startswith("#"):
                remarked = True
            elif not line:
                remarked = False
            elif section == "[Service]":
                assert remarked, f"{unit.name}: no remark above {line}"
    # `systemctl status` and `systemctl help` name the options of the run, which are remarked in their own file.
    assert values("Documentation")[0] == "file:/opt/edgenn/current/run.toml"


def test_every_option_of_the_run_is_documented() -> None:
    """In the file that a deploy puts on the device, and in docs/service.md."""
    fields = {field.name for field in dataclasses.fields(Options)}
    assert set(NOTES) == fields
    page = (SYSTEMD.parents[1] / "docs/service.md").read_text()
    missing = {name for name in fields if f"`{name.replace('_', '-')}`" not in page}
    assert missing == set()


@pytest.mark.parametrize("name", sorted(NOTES))
def test_an_example_of_an_option_can_be_taken_as_it_is(name: str) -> None:
    value = tomllib.loads(f"value = {NOTES[name][1]}")["value"]
    Options.of({"model": "model.tflite", "source": "0", name.replace("_", "-"): value})


def test_the_user_is_made_with_its_groups(tmp_path: Path) -> None:
    sysusers = shutil.which("systemd-sysusers")
    if sysusers is None:
        pytest.skip("NOT TESTED: no systemd-sysusers here (apt install systemd)")
    # An empty root, where none of the groups exists.
    (tmp_path / "etc").mkdir()
    command = [sysusers, f"--root={tmp_path}", "-"]
    subprocess.run(command, input=(SYSTEMD / "edgenn.sysusers.conf").read_text(), text=True, check=True)
    groups = dict(line.split(":x:", 1) for line in (tmp_path / "etc/group").read_text().splitlines())
    assert {name for name, members in groups.items() if members.endswith(":edgenn")} == {"video", "plugdev", "apex"}
    assert values("User") == ["edgenn"]
    assert "edgenn:" in (tmp_path / "etc/passwd").read_text()


def test_nothing_of_it_writes_code_at_run_time() -> None:
    """With the kernel refusing memory that is both written and executed, as MemoryDenyWriteExecute= does."""
    import sys

    program = f"""
import ctypes, mmap, sys
# PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: Linux 6.3.
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
    sys.exit(42)
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    sys.exit("not refused at all")
except PermissionError:
    pass
import numpy as np
from edgenn_device import Classifier
for kernels in ("default", "builtin"):
    classifier = Classifier({str(SYSTEMD.parents[1] / "models/garments/garments.tflite")!r}, kernels=kernels)
    assert classifier.verify()
    classifier.classify(np.zeros((480, 640, 3), np.uint8))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    if done.returncode == 42:
        pytest.skip("NOT TESTED: this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert done.returncode == 0, done.stderr
