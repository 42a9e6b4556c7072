"""The test device itself: what tests of deployment rely on, above all that its death is a death and its disk stays."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.arm_device import DeviceUnavailable, container, emulation, or_reason, roots, unavailable

# Fails at its first start and not at its second; the mark is where a restart of the machine takes it away.
UNIT = """[Service]
ExecStart=/bin/sh -c 'test -e /run/tried || { touch /run/tried; echo first-try; exit 3; }; exec sleep infinity'
Restart=on-failure
RestartSec=0.1
[Install]
WantedBy=multi-user.target
"""
arm = pytest.mark.arm


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("user", "needs root"),
        ("command", "apt-get install .*systemd-container"),
        ("keyring", "apt-get install .*debian-archive-keyring"),
    ],
)
def test_a_machine_that_cannot_is_told_what_it_lacks(monkeypatch, broken, said):
    monkeypatch.setattr(os, "geteuid", lambda: 1000 if broken == "user" else 0)
    if broken == "command":
        monkeypatch.setattr(shutil, "which", lambda command: None if command == "systemd-nspawn" else f"/bin/{command}")
    if broken == "keyring":
        monkeypatch.setattr(shutil, "which", lambda command: f"/bin/{command}")
        monkeypatch.setattr(unavailable, "KEYRING", Path("/no/such/keyring"))
    with pytest.raises(DeviceUnavailable, match=said):
        unavailable.require_machine()


def test_a_tool_ends_with_what_the_machine_lacks_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert or_reason(unavailable.require_machine) == 2
    assert capsys.readouterr().err.splitlines() == [
        "Error: the test device needs root: mounts, a container and binfmt_misc"
    ]


def test_this_machines_own_architecture_needs_no_emulator():
    assert emulation.hold(emulation.NATIVE) == []


@arm
def test_it_is_the_machine_that_was_asked_for(device):
    words = device.run("uname -m; python3 -c 'import sys; print(*sys.version_info[:2])'; id -un; sudo -n id -un")
    machine = {"arm64": "aarch64", "amd64": "x86_64"}[device.arch]
    python = {"bookworm": "3 11", "trixie": "3 13"}[device.suite]
    assert words.stdout.split("\n")[:4] == [machine, python, "pi", "root"]
    assert device.run("systemctl is-system-running --wait", check=False).stdout.strip() == "running"


@arm
@pytest.mark.parametrize("how", ["", "sudo -n", "sudo -n systemd-run --quiet --wait --pipe"])
def test_an_emulated_processor_is_a_raspberry_pis(device, how):
    if device.arch == emulation.NATIVE:
        pytest.skip("not emulated")
    features = device.run(f"{how} grep -m1 Features /proc/cpuinfo").stdout.split()
    assert "asimd" in features
    assert not {"asimddp", "i8mm", "sve"} & set(features)


@arm
def test_it_is_not_entered_with_another_host_key(device, tmp_path):
    stranger = tmp_path / "known_hosts"
    stranger.write_text(device.known_hosts.read_text().replace(" AAAA", " AAAB"))
    done = subprocess.run(
        [*device.ssh("-o", f"UserKnownHostsFile={stranger}"), "true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


@arm
def test_a_service_lives_dies_and_is_back_after_a_loss_of_power(start_devices):
    (one,) = start_devices()
    one.run("sudo tee /etc/systemd/system/tried.service", input=UNIT)
    one.run("sudo systemctl daemon-reload && sudo systemctl enable --now tried.service", check=False)
    one.run("until systemctl is-active --quiet tried.service; do :; done", timeout=60)
    assert "first-try" in one.run("sudo journalctl --unit tried.service --output cat").stdout
    one.run("echo kept > kept && sync && sudo touch /run/gone")

    one.kill()
    assert not one.running
    assert subprocess.run([*one.ssh(), "true"], capture_output=True, check=False).returncode == 255

    one.boot()
    assert one.run("cat kept; test -e /run/gone || echo gone").stdout.split() == ["kept", "gone"]
    one.run("until systemctl is-active --quiet tried.service; do :; done", timeout=60)
    assert one.run("sudo journalctl --unit tried.service --output cat").stdout.count("first-try") == 2


@arm
def test_clones_share_a_root_and_leave_nothing_behind(start_devices):
    mounts = Path("/proc/self/mounts").read_text()
    first, second = start_devices(2)
    first.run("sudo touch /etc/changed")
    assert second.run("ls /etc/changed", check=False).returncode
    assert not (roots.root(first.suite, first.arch) / "etc/changed").exists()
    hosts, machines = (
        {one.run(command).stdout.strip() for one in (first, second)} for command in ("hostname", "cat /etc/machine-id")
    )
    assert hosts == {first.name, second.name}
    assert len(machines) == 2

    assert Path("/proc/self/mounts").read_text() == mounts
    assert all(group.exists() for group in first._groups())
    for one in (first, second):
        one.stop()
    assert not any(path.exists() for path in [*first._groups(), first.folder, first.folder.parent])
    assert not {first.name, second.name} & {one.name for one in container.started()}


@arm
@pytest.mark.skipif(platform.machine() == "aarch64", reason="arm64 is this machine's own")
def test_the_emulator_is_registered_for_as_long_as_it_is_used(start_devices):
    (one,) = start_devices(arch="arm64")
    with emulation.emulated("arm64"):
        pass
    # Used by the device still: a program that starts only now.
    assert one.run("/bin/uname -m").stdout.strip() == "aarch64"


@arm
def test_a_device_whose_test_run_died_is_stopped_by_the_next(device, start_devices):
    child = subprocess.Popen(["true"])
    child.wait()
    (orphan,) = container.start(suite=device.suite, arch=device.arch, owner=child.pid)
    assert orphan.running
    start_devices()
    assert not orphan.running
    assert not orphan.folder.exists()
    assert device.running
