"""`edgenn doctor`: the table, the marks, the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from edgenn.cli import doctor
from edgenn_device.doctor import Check

EDGENN = [sys.executable, "-c", "from edgenn.cli import main; main()", "doctor"]
FINE = Check("Python", True, "3.11.2 on aarch64")
MISSING = Check("camera", None, "no /dev/video*")
BROKEN = Check("runtime tflite-runtime", False, "needs NumPy 1 and finds 2.1", "pip install 'numpy<2'")
# Detail that no line of 80 columns holds.
LONG = Check("OpenCV", False, "ImportError: " + "libGL.so.1 " * 12, "pip install opencv-python-headless")


def test_the_real_doctor_answers_in_json() -> None:
    done = subprocess.run([*EDGENN, "--json"], capture_output=True, text=True)
    found = json.loads(done.stdout)["checks"]
    assert all(set(check) == {"name", "ok", "detail", "mend"} for check in found)
    assert {"Python", "NumPy", "OpenCV", "memory", "disk"} <= {check["name"] for check in found}
    assert done.returncode == int(any(check["ok"] is False for check in found))


def test_the_real_doctor_speaks_ascii_where_it_must() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(EDGENN, capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("ok  Python")
    assert done.stdout.isascii()
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("found", "status"),
    [([FINE], 0), ([FINE, MISSING], 0), ([FINE, BROKEN], 1), ([BROKEN, FINE], 1)],
)
def test_only_a_needed_check_that_fails_is_a_no(
    monkeypatch: pytest.MonkeyPatch, found: list[Check], status: int
) -> None:
    monkeypatch.setattr(doctor, "checks", lambda: found)
    for arguments in ([], ["--json"]):
        assert CliRunner().invoke(doctor.command, arguments).exit_code == status


def test_a_no_ends_the_command_with_status_1() -> None:
    code = (
        "import sys\nfrom edgenn.cli import doctor, main\nfrom edgenn_device.doctor import Check\n"
        "doctor.checks = lambda: [Check('memory', False, 'little', 'ps aux')]\n"
        "sys.argv = ['edgenn', 'doctor', '--json']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["checks"][0]["mend"] == "ps aux"


def test_marks_and_mends() -> None:
    text = doctor.table([FINE, MISSING, BROKEN], 100)
    lines = [doctor.click.unstyle(line) for line in text.splitlines()]
    assert lines[0] == "✓  Python                  3.11.2 on aarch64"
    assert lines[1].startswith("–  camera ")
    assert lines[2].startswith("✗  runtime tflite-runtime  needs")
    assert lines[3].strip() == "→ pip install 'numpy<2'"
    # The line to type stands where the details stand.
    assert lines[3].index("→") == lines[2].index("needs")


def test_long_details_wrap_and_mends_do_not() -> None:
    lines = [doctor.click.unstyle(line) for line in doctor.table([LONG], 80).splitlines()]
    assert len(lines) > 2
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].endswith("→ pip install opencv-python-headless")


def test_ascii() -> None:
    text = doctor.click.unstyle(doctor.table([BROKEN, Check("heat", True, "71 °C")], 100, encodable=False))
    assert text.isascii()
    assert text.startswith("NO  runtime")
    assert "-> pip install" in text
