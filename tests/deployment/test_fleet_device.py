"""The fleet's verbs against a device: real SSH, systemd, Python and inference."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner

from edgenn.cli.collect import command as collect_verb
from edgenn.cli.logs import command as logs_verb
from edgenn.cli.profile import command as profile_verb
from edgenn.cli.status import command as status_verb
from edgenn.deployment import image
from edgenn.deployment.connection import ENVIRONMENT, Connection
from edgenn.deployment.deploy import deploy
from edgenn.deployment.hosts import Host, host
from edgenn.deployment.image import Card, Settings
from edgenn.deployment.packages import Platform, packages
from edgenn.deployment.plan import Wanted
from edgenn.deployment.remote import journal
from edgenn.deployment.signing import new_key
from edgenn.deployment.status import status
from edgenn_device.errors import EdgennError
from tools.arm_device import Device

pytestmark = pytest.mark.arm

MODEL = Path(__file__).parents[2] / "models/garments/garments.tflite"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIJO+dphpZNXYPtUgKT0LlmTsfEoWTbkJxwk+CLVCXfe me@here"
# Seconds for an emulated board to do what takes a real one a tenth of it.
PATIENCE = 900.0


@pytest.fixture
def porch(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """A device with a release that keeps what it is unsure of."""
    monkeypatch.setenv(ENVIRONMENT, f"ssh -F {device.ssh_config}")
    porch = host(device.name)
    config = tmp_path / "run.toml"
    config.write_text('source = "synthetic"\nkeep-uncertain = "unsure"\n')
    deployed = deploy(MODEL, [porch], config=config, within=PATIENCE)[0]
    assert deployed.ok, deployed.reason
    return porch


def until(what: str, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_status_tells_the_truth(device: Device, porch: Host) -> None:
    until("it is well", lambda: status([porch])[0].state == "ok")
    row = status([porch])[0]
    assert row.release == device.run("sudo readlink /opt/edgenn/current").stdout.strip().rpartition("/")[2]
    assert row.fps
    assert row.p90_ms
    assert row.label
    assert row.model
    away = host("pi@127.0.0.1:1")
    done = CliRunner().invoke(status_verb, [porch.name, away.name])
    lines = done.output.splitlines()
    assert lines[1].split()[:2] == [away.name, "unreachable"]
    assert lines[3].split()[:3] == [porch.name, "ok", row.release]
    assert str(done.exception) == "1 of 2 devices is not well"

    device.run("sudo systemctl stop edgenn")
    try:
        assert status([porch])[0].reasons[0].startswith("the service is not running")
    finally:
        device.run("sudo systemctl start edgenn")
    until("it is well again", lambda: status([porch])[0].state == "ok")


def test_logs_are_followed(device: Device, porch: Host) -> None:
    past = CliRunner().invoke(logs_verb, [porch.name, "-n", "50"], catch_exceptions=False).output
    assert "Started edgenn.service" in past
    following = journal([porch], lines=1, follow=True)
    next(following)  # it is connected
    device.run("sudo systemctl restart edgenn")
    assert any("Stopping edgenn.service" in entry.text for entry in following)
    following.close()
    # Nobody reads on there either.
    until("journalctl ends", lambda: device.run("ps -eo args | grep '[j]ournalctl.*follow'", check=False).stdout == "")


def test_a_profile_comes_home(porch: Host, tmp_path: Path) -> None:
    out = [tmp_path / "report.json", tmp_path / "report.html"]
    arguments = [str(MODEL), "--on", porch.name, "--runs", "5", "--source", "none"]
    arguments += [word for path in out for word in ("--out", str(path))]
    done = CliRunner().invoke(profile_verb, arguments, catch_exceptions=False)
    assert "invoke" in done.output
    assert json.loads(out[0].read_text())["runs"] == 5
    assert out[1].read_text().lstrip().lower().startswith("<!doctype html>")
    refused = CliRunner().invoke(profile_verb, [*arguments[:5], "--source", "none", "--fail-over", "p50=0.0001ms"])
    assert "above 0.0001 ms" in str(refused.exception)
    wrong = CliRunner().invoke(profile_verb, [str(out[0]), "--on", porch.name])
    assert isinstance(wrong.exception, EdgennError)
    assert "report.json is not a TFLite model" in str(wrong.exception)


def test_frames_come_home(device: Device, porch: Host, tmp_path: Path) -> None:
    kept = "sudo sh -c 'ls /var/lib/edgenn/unsure/unlabelled/ 2>/dev/null | grep -c jpg'"
    until("two frames are kept", lambda: int(device.run(kept, check=False).stdout or 0) > 1)
    arguments = ["--from", porch.name, "--out", str(tmp_path / "out")]
    first = json.loads(CliRunner().invoke(collect_verb, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert first["devices"][0]["frames"] > 1
    pictures = list((tmp_path / "out/unlabelled").glob("*.jpg"))
    assert len(pictures) == first["devices"][0]["frames"]
    assert all(cv2.imread(str(picture)) is not None for picture in pictures)
    again = json.loads(
        CliRunner().invoke(collect_verb, [*arguments, "--remove", "--json"], catch_exceptions=False).stdout
    )
    assert again["devices"][0]["known"] == first["devices"][0]["frames"]
    assert again["devices"][0]["removed"] >= first["devices"][0]["frames"]


def test_a_card_becomes_a_device(
    start_devices: Callable[..., list[Device]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `edgenn image` writes, in /boot/firmware of a device that has nothing; and the boots that follow."""
    device = start_devices()[0]
    machine = device.run("uname -m").stdout.strip()
    major, minor, glibc = device.run(
        'python3 -c \'import sys, os; print(*sys.version_info[:2], os.confstr("CS_GNU_LIBC_VERSION").split(".")[1])\''
    ).stdout.split()
    boot = tmp_path / "bootfs"
    boot.mkdir()
    (boot / "cmdline.txt").write_text("console=tty1 rootwait init=/usr/lib/raspberrypi-sys-mods/firstboot\n")
    card = Card(boot, "bookworm", Platform(machine, (int(major), int(minor)), (2, int(glibc))))
    settings = Settings("porch", (KEY,))
    made = image.release(card, settings, Wanted(MODEL, source="synthetic"), packages(card.platform))
    image.write(card, settings, made)
    device.run("sudo mkdir -p /boot/firmware && sudo chown pi /boot/firmware")
    monkeypatch.setenv(ENVIRONMENT, f"ssh -F {device.ssh_config}")
    with Connection(host(device.name)) as connection:
        carried = ((str(path.relative_to(boot)), path) for path in boot.rglob("*") if path.is_file())
        connection.put("/boot/firmware", carried, sudo=True)

    # Bookworm's second boot runs this and starts again; cloud-init runs it and then starts the unit.
    device.run("sudo sh /boot/firmware/edgenn/first-boot.sh")
    assert "systemd." not in device.run("sudo cat /boot/firmware/cmdline.txt").stdout
    device.kill()
    device.boot()
    until("the card's release runs", lambda: status([host(device.name)])[0].state == "ok")
    row = status([host(device.name)])[0]
    assert row.release == made.id
    until("it has cleared up", lambda: device.run("test -e /boot/firmware/edgenn", check=False).returncode != 0)
    assert "disabled" in device.run("systemctl is-enabled edgenn-first-boot 2>&1 || echo disabled", check=False).stdout
    device.kill()
    device.boot()
    until("it runs after the next boot", lambda: status([host(device.name)])[0].state == "ok")


def test_a_device_that_accepts_signed_models_alone(device: Device, porch: Host, tmp_path: Path) -> None:
    mine, theirs = new_key(tmp_path / "mine"), new_key(tmp_path / "theirs")
    device.run(f"sudo mkdir -p /etc/edgenn && echo {mine.line()} | sudo tee /etc/edgenn/accept.pub")
    before = status([porch])[0].release
    try:
        refused = deploy(MODEL, [porch])[0]
        assert "it accepts signed models alone: give --sign KEY" in refused.reason
        refused = deploy(MODEL, [porch], sign=tmp_path / "theirs", within=PATIENCE)[0]
        assert f"was signed by key {theirs.name}, which this device does not accept" in refused.reason
        assert status([porch])[0].release == before
        accepted = deploy(MODEL, [porch], sign=tmp_path / "mine", within=PATIENCE)[0]
        assert accepted.ok, accepted.reason
    finally:
        device.run("sudo rm -f /etc/edgenn/accept.pub")
