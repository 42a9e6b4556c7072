"""Releases are switched to whole or not at all, whatever interrupts it. systemd and the service are stand-ins here;
tests/deployment/test_deploy_device.py does the same with real ones."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stand_in_systemd import StandInSystemd

from edgenn_device import release_install
from edgenn_device import releases as releases_module
from edgenn_device.errors import EdgennError
from edgenn_device.release_command import journal_line, main
from edgenn_device.release_files import COMPLETE
from edgenn_device.release_install import install
from edgenn_device.release_prune import prune
from edgenn_device.releases import FAILED, UNIT, Places, Releases

SOON = 60.0  # for what ends at once unless the code is broken
A, B, C = "20260101-000000-aaaaaaaa", "20260102-000000-bbbbbbbb", "20260103-000000-cccccccc"
# In place of an environment's Python: what edgenn_device.release_proof would say of the model in the folder.
PYTHON = f"""#!{sys.executable} -ISB
import hashlib, json, os, pathlib, sys
model = pathlib.Path(sys.argv[-1], "model.tflite").read_bytes()
if b"crashes" in model:
    os.abort()
if b"lies" in model:
    print(json.dumps({{"refused": "golden vectors do not match"}})); sys.exit(1)
print(json.dumps({{"sha256": hashlib.sha256(model).hexdigest(), "golden": True, "runtime": "stand-in"}}))
"""


class Device:
    """Releases below a folder, with what a deploy would have put there."""

    def __init__(self, root: Path, systemd: StandInSystemd) -> None:
        self.root = root
        self.systemd = systemd
        self.within = SOON
        self.places = Places(root)
        self.releases = Releases(self.places)
        environment = self.places.environments / "one"
        (environment / "bin").mkdir(parents=True)
        (environment / "bin/python").write_text(PYTHON)
        (environment / "bin/python").chmod(0o755)
        (environment / COMPLETE).touch()
        self.places.units.mkdir(parents=True)

    def add(self, id: str, model: str, unit: str = "unit", options: str = "options") -> str:
        """What `install` leaves, without its work."""
        folder = self.releases.folder(id)
        folder.mkdir(parents=True)
        contents = {"model.tflite": model, UNIT: unit, "run.toml": options}
        for name, text in contents.items():
            (folder / name).write_text(text)
        (folder / "environment").symlink_to("../../environments/one")
        files = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}
        (folder / "release.json").write_text(json.dumps({"files": files, "environment": "one", "created": 1.0}))
        return id

    def working(self, id: str, model: str = "good one", **more: str) -> str:
        """A release that is current and proved."""
        self.add(id, model, **more)
        assert self.releases.switch(id, within=SOON)["ok"]
        return id

    def carry(self, id: str, model: str, wheels: dict[str, bytes] | None = None, environment: str = "one") -> str:
        """What comes in over SSH."""
        incoming = self.places.incoming / id
        (incoming / "wheels").mkdir(parents=True)
        sent: dict[str, bytes] = {"model.tflite": model.encode(), UNIT: b"unit", "run.toml": b"options"}
        files = {name: hashlib.sha256(content).hexdigest() for name, content in sent.items()}
        sent |= {f"wheels/{name}": content for name, content in (wheels or {}).items()}
        for name, content in sent.items():
            (incoming / name).write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in sent.items()}
        manifest = {
            "release": {"files": files, "environment": environment, "created": 1.0},
            "sent": digests,
            "wheels": [[name, digests[f"wheels/{name}"]] for name in wheels or {}],
            "warm": "import sys",
        }
        (incoming / "manifest.json").write_text(json.dumps(manifest))
        return id

    def fill(self) -> None:
        """Leave no room on the disk, which has to be a small one."""
        with (self.root / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096) == 4096:
                pass

    def free(self) -> None:
        (self.root / "fill").unlink()

    def run_until_full(self, point: str, *words: str) -> tuple[int, dict[str, Any]]:
        """The command, on a disk that is full from that point on."""
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.setattr(releases_module, "reached", lambda one: self.fill() if one == point else None)
            status = main(["--root", str(self.root), "--within", str(self.within), *words])
        return status, json.loads(out.getvalue())

    def run(self, *words: str) -> tuple[int, dict[str, Any], list[str]]:
        """The command, its answer, and the points it passed, at each of which it might have been interrupted."""
        points: list[str] = []
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            for module in (release_install, releases_module):
                patch.setattr(module, "reached", points.append)
            status = main(["--root", str(self.root), "--within", str(self.within), *words])
        return status, json.loads(out.getvalue()), points

    def run_until(self, number: int, *words: str) -> None:
        """The same in a child that SIGKILL ends at the point of that number, counted from 1."""
        pid = os.fork()
        if pid == 0:
            left = iter(range(number - 1, -1, -1))

            def reached(point: str) -> None:
                if next(left) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            release_install.reached = releases_module.reached = reached  # type: ignore[assignment]
            try:
                main(["--root", str(self.root), "--within", str(self.within), *words])
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    def holds(self) -> str | None:
        """Assert that what `current` leads to is whole, proved and what runs; return it."""
        current = self.releases.current
        assert not self.places.intent.exists()
        leftovers = [*self.places.releases.glob(".*")]
        assert leftovers == []
        if current is None:
            return None
        self.releases._verify(current)
        assert self.releases.proved(current)
        assert not (self.releases.folder(current) / FAILED).exists()
        assert (self.places.units / UNIT).read_bytes() == (self.releases.folder(current) / UNIT).read_bytes()
        return current


@contextlib.contextmanager
def fresh_device(*, small: bool = False) -> Iterator[Device]:
    # Not pytest's own folders: their names are too long for a Unix socket.
    root = Path(tempfile.mkdtemp(prefix="edgenn-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(root)]
    if small and (os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode):
        root.rmdir()
        pytest.skip("mounting a small file system takes root")
    try:
        with StandInSystemd(root) as systemd, pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{systemd.bin}:{os.environ['PATH']}")
            patch.setattr(releases_module, "_BACK", SOON)
            yield Device(root, systemd)
    finally:
        if small:
            subprocess.run(["umount", "-l", str(root)], check=True)
        shutil.rmtree(root)


@pytest.fixture
def device() -> Iterator[Device]:
    with fresh_device() as made:
        yield made


@pytest.fixture
def small_device() -> Iterator[Device]:
    """One whose disk can be filled."""
    with fresh_device(small=True) as made:
        yield made


def test_the_first_release_is_switched_to_and_proved(device: Device) -> None:
    device.add(A, "good one")
    done = device.releases.switch(A, within=SOON)
    assert (done["ok"], done["release"], done["changed"]) == (True, A, "release")
    assert device.holds() == A
    assert ["enable", UNIT] in device.systemd.calls
    assert device.releases.about(A)["golden"] is True


def test_a_new_model_alone_is_taken_without_a_restart(device: Device) -> None:
    device.working(A)
    device.systemd.calls.clear()
    device.add(B, "good other")
    done = device.releases.switch(B, within=SOON)
    assert (done["ok"], done["changed"]) == (True, "model")
    assert [call[0] for call in device.systemd.calls if call[0] != "show"] == ["kill"]
    assert device.holds() == B


@pytest.mark.parametrize(
    "more",
    [
        {"unit": "another"},  # the unit is read by systemd at a restart
        {"options": "other"},  # options are read at the start
        {},  # the same model: nothing to see whether it was taken
    ],
)
def test_everything_else_is_a_restart(device: Device, more: dict[str, str]) -> None:
    device.working(A)
    device.add(B, "good one", **more)
    assert device.releases.switch(B, within=SOON)["changed"] == "release"
    assert device.holds() == B
    assert ("daemon-reload" in [call[0] for call in device.systemd.calls[3:]]) == ("unit" in more)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("good lies", "golden vectors do not match"),  # computes something else
        ("good crashes", "ends the process that loads it (signal 6)"),  # and takes the process with it
        ("silent", "no frame was classified within 3 s"),  # a unit that never gets ready
        ("ends", "it ended: there is no camera picamera"),  # the last line of edgenn's own in the journal
        ("blind", "source: camera 0 is gone"),  # a camera that was there before
    ],
)
@pytest.mark.parametrize("reload", [True, False])
def test_a_release_that_does_not_prove_itself_is_taken_back(
    device: Device, model: str, said: str, reload: bool
) -> None:
    device.working(A)
    device.add(B, model, options="options" if reload else "others")
    done = device.releases.switch(B, within=3)
    assert done["ok"] is False
    assert said in done["reason"]
    assert done["release"] == device.holds() == A
    assert done.get("restored", True)
    assert device.systemd.running == b"good one"
    assert said in device.releases.about(B)["reason"]
    assert device.releases.about(B)["state"] == "failed"


def test_a_first_release_that_fails_leaves_nothing_running(device: Device) -> None:
    device.add(A, "silent")
    done = device.releases.switch(A, within=3)
    assert (done["ok"], done["release"], done["restored"]) == (False, None, None)
    assert device.releases.current is None
    assert device.systemd.running is None


def test_a_service_that_keeps_its_model_is_told(device: Device) -> None:
    device.working(A, "stubborn")
    device.add(B, "good other")
    done = device.releases.switch(B, within=3)
    assert "still classifies with another model" in done["reason"]
    assert device.holds() == A


def test_a_camera_that_was_away_before_is_not_held_against_it(device: Device) -> None:
    device.working(A)
    device.systemd.running = b"blind one"
    device.add(B, "blind two")
    assert device.releases.switch(B, within=SOON)["ok"]
    assert device.holds() == B


def test_a_complaint_that_was_there_before_does_not_count_and_a_new_one_does(device: Device) -> None:
    device.systemd.reasons = []
    device.working(A)
    device.systemd.reasons = ["sink:mqtt://broker: no connection since 12 s"]
    device.add(B, "good other")
    assert device.releases.switch(B, within=SOON)["ok"]
    device.add(C, "good third", options="others")
    before = device.systemd.start

    def start_with_another() -> None:
        before()
        if device.systemd.running == b"good third":
            device.systemd.reasons.append("sink:sqlite:events.db: the disk is full")

    device.systemd.start = start_with_another  # type: ignore[method-assign]
    assert device.releases.switch(C, within=3)["reason"] == "sink:sqlite:events.db: the disk is full"


def test_a_damaged_release_is_refused_before_anything_is_switched(device: Device) -> None:
    device.working(A)
    device.add(B, "good other")
    (device.releases.folder(B) / "model.tflite").write_text("good othes")
    device.systemd.calls.clear()
    assert "damaged (SHA-256)" in device.releases.switch(B, within=3)["reason"]
    assert device.holds() == A
    assert device.systemd.calls == []


# What is interrupted, at each of its steps, and which releases may be current afterwards.
SCENES = {
    "restart": (["switch", B], {"unit": "another"}, "good other"),
    "reload": (["switch", B], {}, "good other"),
    "taken back": (["switch", B], {"options": "others"}, "silent"),
    "taken back after a reload": (["switch", B], {}, "silent"),
    "deploy": (["deploy", C], {}, "good other"),
    "rollback": (["rollback"], {"unit": "another"}, "good other"),
}


def prepare(device: Device, scene: str) -> list[str]:
    words, more, model = SCENES[scene]
    if model == "silent":
        device.within = 0.5
    device.working(A)
    if scene == "rollback":
        device.working(B, model, **more)
    elif scene == "deploy":
        device.carry(C, model)
    else:
        device.add(B, model, **more)
    return words


@pytest.mark.parametrize("scene", SCENES)
def test_power_lost_at_any_step_leaves_the_old_or_the_new_release(scene: str) -> None:
    with fresh_device() as device:
        words = prepare(device, scene)
        status, _, points = device.run(*words)
        assert status == (1 if "taken" in scene else 0)
        assert len(points) >= 5
    for number in range(1, len(points) + 1):
        with fresh_device() as device:
            prepare(device, scene)
            device.run_until(number, *words)
            device.systemd.boot()
            status, said, _ = device.run("recover")
            assert status == 0
            current = device.holds()
            assert current in (A, B, C), points[number - 1]
            assert said["release"] == current
            device.systemd.start()
            assert device.systemd.running in (b"good one", SCENES[scene][2].encode())
            if number in (1, len(points) // 2, len(points)):
                # And it goes on working: the next deploy finds nothing in its way.
                device.working("20260109-000000-dddddddd", "good last")


def test_recovery_that_is_interrupted_itself_is_taken_up_again(device: Device) -> None:
    device.working(A)
    device.add(B, "good other", options="others")
    points = device.run("switch", B)[2]
    for recovery in (1, 2):
        device.releases.switch(A, within=SOON)
        device.run_until(points.index("link swapped") + 1, "switch", B)
        assert device.releases.current == B
        device.systemd.boot()
        device.run_until(recovery, "recover")
        assert device.run("recover")[0] == 0
        assert device.holds() == A
        device.systemd.start()


def test_a_first_deploy_that_was_interrupted_leaves_nothing_to_start(device: Device) -> None:
    device.add(A, "good one")
    with fresh_device() as other:
        other.add(A, "good one")
        points = other.run("switch", A)[2]
    device.run_until(points.index("link swapped") + 1, "switch", A)
    assert device.releases.current == A
    device.systemd.boot()
    assert device.run("recover")[1]["release"] is None
    assert device.holds() is None
    assert "interrupted before it was proved" in device.releases.about(A)["reason"]


def test_what_worked_once_has_to_prove_itself_again(device: Device) -> None:
    device.working(A)
    device.working(B, "good other", options="others")
    with fresh_device() as other:
        other.working(A)
        other.working(B, "good other", options="others")
        points = other.run("rollback")[2]
    # It may no longer work: broker, camera and system are others than they were.
    device.run_until(points.index("link swapped") + 1, "rollback")
    device.systemd.boot()
    assert device.run("recover")[1]["release"] == device.holds() == B


def test_power_lost_during_a_rollback_leads_back_to_where_it_began(device: Device) -> None:
    def three(one: Device) -> None:
        one.working(A)
        one.working(B, "good other", options="others")
        one.working(C, "good third")

    three(device)
    with fresh_device() as other:
        three(other)
        points = other.run("rollback")[2]
    device.run_until(points.index("link swapped") + 1, "rollback")
    assert device.releases.current == B
    device.systemd.boot()
    # And not to A, the newest that worked before B.
    assert device.run("recover")[1]["release"] == device.holds() == C


def test_a_switch_that_was_ended_while_the_device_went_on_is_mended_by_the_next_command(device: Device) -> None:
    device.working(A)
    device.add(B, "good other", options="others")
    points = device.run("switch", B)[2]
    device.releases.switch(A, within=SOON)
    device.run_until(points.index("enabled") + 1, "switch", B)
    assert device.releases.current == B
    status, said, passed = device.run("switch", B)
    assert (status, said["ok"]) == (0, True)
    assert "recovered link" in passed
    assert device.holds() == B


def test_power_lost_before_a_failure_is_written_down_starts_the_proved_one_and_writes_it(device: Device) -> None:
    device.working(A)
    device.add(B, "silent", options="others")
    device.within = 0.5
    points = device.run("switch", B)[2]
    device.add(C, "silent", options="others")
    device.run_until(points.index("link swapped back") + 1, "switch", C)
    assert (device.releases.current, device.releases.about(C)["state"]) == (A, "new")
    device.systemd.boot()
    assert device.run("recover")[0] == 0
    assert device.holds() == A
    assert device.releases.about(C)["state"] == "failed"
    # What is known better stays.
    assert "no frame was classified" in device.releases.about(B)["reason"]


@pytest.mark.parametrize(
    ("full_from", "model", "said"),
    [
        ("link swapped", "good other", "the device cannot complete the switch: No space left on device"),  # the unit
        ("well", "good other", "the device cannot complete the switch: No space left on device"),  # the proof
        ("refused", "silent", "no frame was classified"),  # the failure's mark, and the earlier unit
    ],
)
def test_a_full_disk_does_not_stop_the_way_back(small_device: Device, full_from: str, model: str, said: str) -> None:
    device = small_device
    device.working(A)
    device.add(B, model, unit="another")
    device.within = 0.5 if model == "silent" else SOON
    status, done = device.run_until_full(full_from, "switch", B)
    assert (status, done["ok"], done["restored"]) == (1, False, True)
    assert done["release"] == device.releases.current == A
    assert device.systemd.running == b"good one"
    assert done["reason"].startswith(said)
    assert f"the mark of {B} could not be written: No space left on device" in done["reason"]
    assert (f"the unit of {A} could not be written" in done["reason"]) == (full_from != "link swapped")
    assert not device.releases.proved(B)
    device.free()
    assert device.run("recover")[0] == 0
    assert device.holds() == A


def test_a_full_disk_does_not_stop_the_recovery(small_device: Device) -> None:
    device = small_device
    device.working(A)
    device.add(B, "silent", unit="another")
    device.within = 0.5
    points = device.run("switch", B)[2]
    device.run_until(points.index("enabled") + 1, "switch", B)
    assert device.releases.current == B
    device.systemd.boot()
    device.fill()
    status, said, _ = device.run("recover")
    assert (status, said["release"], said["from"], device.releases.current) == (0, A, B, A)
    assert "interrupted before it was proved" in said["reason"]
    assert f"the mark of {B} could not be written: No space left on device" in said["reason"]
    # Said at every boot, until there is room.
    device.fill()
    assert device.run("recover")[1]["reason"] == f"the unit of {A} could not be written: No space left on device"
    device.free()
    assert device.run("recover")[1]["reason"] == ""
    assert device.holds() == A


def test_a_full_disk_takes_no_proof_away(small_device: Device) -> None:
    device = small_device
    device.working(A)
    device.working(B, "good other", options="others")
    device.fill()
    assert device.run("rollback")[0] == 2
    assert device.holds() == B
    assert device.releases.proved(A)


def test_what_is_found_damaged_on_a_full_disk_is_proved_no_longer(small_device: Device) -> None:
    device = small_device
    device.working(A)
    device.working(B, "good other", options="others")
    (device.releases.folder(A) / "model.tflite").write_text("good onf")
    device.fill()
    status, said, _ = device.run("rollback")
    assert (status, device.holds()) == (1, B)
    assert "damaged (SHA-256)" in said["reason"]
    # Its proof makes room for the mark.
    assert device.releases.about(A)["state"] == "failed"


def test_rollback_goes_to_the_newest_that_worked_before(device: Device) -> None:
    for id, model in ((A, "good one"), (B, "silent"), (C, "good three")):
        device.add(id, model)
        device.releases.switch(id, within=3)
    done = device.releases.rollback(within=SOON)
    assert (done["ok"], done["from"], done["release"]) == (True, C, A)
    assert device.holds() == A
    # There is none before the first: the other one that works.
    assert device.releases.rollback(within=SOON)["release"] == C
    with pytest.raises(EdgennError, match="current release already"):
        device.releases.rollback(C)
    with pytest.raises(EdgennError, match="there is no release"):
        device.releases.rollback("20260104-000000-eeeeeeee")


def test_rollback_without_another_release_says_so(device: Device) -> None:
    device.working(A)
    with pytest.raises(EdgennError, match="no earlier release that worked"):
        device.releases.rollback()


def test_old_releases_make_room_and_the_last_good_one_stays(device: Device) -> None:
    device.working(A)
    device.working(B, "good two")
    failing = [f"2026010{day}-000000-{day}{day}{day}{day}{day}{day}{day}{day}" for day in range(3, 9)]
    for id in failing:
        device.add(id, f"silent {id}")
        device.releases._mark(id, FAILED, reason="silent")
    (device.places.environments / "unused").mkdir()
    (device.places.wheels / "abc").mkdir(parents=True)
    assert prune(device.releases) == failing[:-3]
    assert device.releases.ids() == [A, B, *failing[-3:]]
    assert [entry.name for entry in device.places.environments.iterdir()] == ["one"]
    assert list(device.places.wheels.iterdir()) == []
    assert device.holds() == B


def test_two_deploys_at_once_are_one_and_a_refusal(device: Device) -> None:
    device.working(A)
    with device.releases.changing():
        status, said, _ = device.run("switch", A)
    assert status == 2
    assert "another deploy is at work" in said["error"]


def test_what_was_damaged_on_its_way_is_refused(device: Device) -> None:
    device.carry(B, "good two")
    (device.places.incoming / B / "model.tflite").write_text("good twO")
    with pytest.raises(EdgennError, match=r"model\.tflite was damaged on its way"):
        install(device.releases, B)
    assert device.releases.ids() == []


def test_what_another_release_has_need_not_be_sent(device: Device) -> None:
    device.working(A)
    device.carry(B, "good one")
    manifest = json.loads((device.places.incoming / B / "manifest.json").read_text())
    (device.places.incoming / B / "model.tflite").unlink()
    del manifest["sent"]["model.tflite"]
    (device.places.incoming / B / "manifest.json").write_text(json.dumps(manifest))
    install(device.releases, B)
    assert (device.releases.folder(B) / "model.tflite").read_text() == "good one"
    shutil.rmtree(device.releases.folder(A))
    device.releases._verify(B)


def wheels() -> dict[str, bytes]:
    """A package of one module, and what stands in for pip: it unpacks wheels, as pip is called."""
    made = {}
    for name, content in {
        "pip-1-py3-none-any.whl": {
            "pip/__main__.py": "import sys, sysconfig, zipfile\nfor a in sys.argv:\n"
            "    if a.endswith('.whl'):\n        zipfile.ZipFile(a).extractall(sysconfig.get_path('purelib'))\n"
        },
        "it-1-py3-none-any.whl": {"it.py": "print('it')\n"},
    }.items():
        place = Path(tempfile.mkdtemp()) / name
        with zipfile.ZipFile(place, "w") as archive:
            for member, text in content.items():
                archive.writestr(member, text)
        made[name] = place.read_bytes()
        shutil.rmtree(place.parent)
    return made


def test_an_environment_is_made_once_and_counts_once_it_is_whole(device: Device) -> None:
    device.carry(A, "good one", wheels(), environment="two")
    status, said, points = device.run("deploy", A)
    # What stands in for pip has brought no runtime, of which the release is to be proved.
    assert (status, said["ok"]) == (1, False)
    folder = device.places.environments / "two"
    ran = subprocess.run([folder / "bin/python", "-m", "it"], capture_output=True, text=True)
    assert ran.stdout == "it\n"
    made = [point for point in points if point.startswith(("environment", "packages"))]
    assert made == ["environment begun", "packages installed", "environment synced"]
    device.carry(B, "good two", wheels(), environment="two")
    assert not [point for point in device.run("deploy", B)[2] if point in made]
    # Ended within it: what is there does not count, and the next attempt makes it anew.
    for point in made:
        shutil.rmtree(folder)
        device.carry(C, "good three", wheels(), environment="two")
        device.run_until(points.index(point) + 1, "deploy", C)
        assert not (folder / COMPLETE).exists()
        device.run("recover")
        device.carry(C, "good three", wheels(), environment="two")
        device.run("deploy", C)
        assert (folder / COMPLETE).exists()
        shutil.rmtree(device.releases.folder(C))


@pytest.mark.skipif(os.geteuid() != 0, reason="who else may not read is seen as another user")
def test_no_stranger_reads_a_release(device: Device) -> None:
    device.carry(A, "good one")
    os.umask(0o022)
    install(device.releases, A)
    folder = device.releases.folder(A)
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if not path.is_symlink()} == {0o640}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["list"], 0),
        (["switch", "nowhere"], 2),  # no id
        (["switch", A], 2),  # no release
        (["rollback"], 2),  # nothing to go back to
        (["recover"], 0),  # nothing to mend
        (["deploy", A], 2),  # nothing came in
    ],
)
def test_every_command_answers_with_one_document(
    device: Device, words: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(device.root), *words]) == status
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert ("error" in said) == (status == 2)


def test_undeploy_leaves_what_the_service_has_written(device: Device) -> None:
    device.working(A)
    (device.root / "var/lib/edgenn").mkdir(parents=True)
    assert main(["--root", str(device.root), "remove"]) == 0
    assert not device.places.base.exists()
    assert not (device.places.units / UNIT).exists()
    assert (device.root / "var/lib/edgenn").exists()
    assert ["disable", "--now", UNIT] in device.systemd.calls


@pytest.mark.parametrize(
    ("verb", "said", "line"),
    [
        # Where nothing is changed nothing is written.
        ("facts", {}, ""),
        ("list", {"current": A, "releases": []}, ""),
        ("prune", {"removed": [A]}, ""),
        ("recover", {"release": A, "from": None, "reason": ""}, ""),
        # But what could not be is told.
        ("recover", {"release": A, "from": None, "reason": "the unit could not be"}, "the unit could not be"),
        # What is changed, and what was to be.
        ("deploy", {"ok": True, "release": B, "changed": "model"}, f"release {B} runs now, after {A} (model changed)"),
        ("rollback", {"ok": True, "release": B, "changed": "release"}, f"gone back to release {B} from {A}"),
        (
            "deploy",  # refused before it came near the service
            {"ok": False, "release": A, "reason": "golden vectors do not match"},
            f"release {B} was not taken: golden vectors do not match; {A} goes on",
        ),
        (
            "deploy",  # taken back
            {"ok": False, "release": A, "reason": "no camera", "restored": True},
            f"release {B} was not taken: no camera; {A} is back",
        ),
        (
            "switch",
            {"ok": False, "release": A, "reason": "no camera", "restored": False},
            f"release {B} was not taken: no camera; {A} is back, and not well either",
        ),
        ("deploy", {"ok": False, "error": "pip does not work"}, "deploy was refused: pip does not work"),
        (
            "recover",
            {"release": A, "from": B, "reason": "interrupted before it was proved"},
            f"release {B} was not taken: interrupted before it was proved; {A} runs",
        ),
        ("remove", {"ok": True, "kept": None}, "removed: service and releases"),
    ],
)
def test_what_becomes_of_releases_stands_in_the_journal(verb: str, said: dict[str, Any], line: str) -> None:
    assert journal_line(verb, B, A, said) == line
