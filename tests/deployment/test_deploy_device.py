"""Deploys to a device with real SSH, systemd, Python and inference (tools/arm_device). `make test-arm` runs them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenn.deployment.connection import ENVIRONMENT
from edgenn.deployment.deploy import Deployed, deploy
from edgenn.deployment.hosts import Host
from edgenn.deployment.releases import releases, rollback, undeploy
from tools.arm_device import Device
from tools.model_variants import another, lying

pytestmark = pytest.mark.arm
GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"
# Every frame with its time, by which the gap of an exchange is measured.
FRAMES = "/var/lib/edgenn/frames.jsonl"
OPTIONS = 'source = "synthetic"\nsink = ["jsonl:frames.jsonl"]\nweb = "0.0.0.0:8477"\n'


class Deployer:
    """Deploys to one device as a person would, from a copy of their ssh configuration."""

    def __init__(self, device: Device, folder: Path) -> None:
        self.device = device
        self.host = Host(device.name, device.name)
        self.options = folder / "run.toml"
        self.options.write_text(OPTIONS)
        self.other = another(GARMENTS, folder / "other.tflite")
        self.third = another(GARMENTS, folder / "third.tflite", 2)
        self.lying = lying(GARMENTS, folder / "lying.tflite")

    def deploy(self, model: Path, **more: Any) -> Deployed:
        [done] = deploy(model, [self.host], **{"within": 120, **more})
        return done

    def run(self, command: str, check: bool = True) -> str:
        return str(self.device.run(command, check=check).stdout)

    @property
    def listed(self) -> list[dict[str, Any]]:
        [answer] = releases([self.host])
        return list(answer.said["releases"])

    @property
    def health(self) -> dict[str, Any]:
        ask = "import socket; s = socket.socket(1); s.connect('/run/edgenn/health.sock'); print(s.makefile().read())"
        return dict(json.loads(self.run(f"sudo python3 -c {shlex.quote(ask)}")))


@pytest.fixture(scope="module")
def pi(device: Device, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployer]:
    """With a release that works, of which every test may change the model and the options."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, f"ssh -F {device.ssh_config}")
        made = Deployer(device, tmp_path_factory.mktemp("deploy"))
        first = made.deploy(GARMENTS, config=made.options)
        assert first.ok, first
        assert (first.changed, first.restored) == ("release", None)
        assert {"environment", "golden vectors", "first frames"} <= set(first.steps)
        yield made
        undeploy([made.host])


@pytest.fixture(autouse=True)
def _works(pi: Deployer) -> None:
    """Each begins with garments, deployed and well."""
    done = pi.deploy(GARMENTS, config=pi.options)
    assert done.ok, done


def test_a_second_deploy_does_nothing_and_says_so(pi: Deployer) -> None:
    look = "systemctl show edgenn -p MainPID; ls /opt/edgenn/releases"
    before = pi.run(look)
    done = pi.deploy(GARMENTS)
    assert (done.ok, done.changed, done.sent) == (True, "nothing", 0)
    assert done.health is not None
    assert done.health["state"] == "ok"
    assert (
        pi.run(f"systemctl show edgenn -p MainPID; stat -c %Y {FRAMES} >/dev/null; ls /opt/edgenn/releases") == before
    )


def test_a_new_model_alone_is_sent_alone_and_taken_without_a_restart(pi: Deployer) -> None:
    process = pi.run("systemctl show edgenn -p MainPID")
    lines = int(pi.run(f"sudo cat {FRAMES} | wc -l"))
    done = pi.deploy(pi.other)
    assert (done.ok, done.changed) == (True, "model")
    assert pi.other.stat().st_size <= done.sent < pi.other.stat().st_size + 20_000
    assert pi.run("systemctl show edgenn -p MainPID") == process
    # The same process goes on counting: no frame is answered twice, none out of order.
    frames = [json.loads(line) for line in pi.run(f"sudo tail -n +{lines + 1} {FRAMES}").splitlines()]
    numbers = [frame["frame"] for frame in frames if "frame" in frame]
    assert len(numbers) > 1
    assert numbers == sorted(set(numbers))
    assert [one["model"] for one in pi.listed if one["current"]] == ["other.tflite"]


def test_a_model_that_computes_something_else_is_taken_back(pi: Deployer) -> None:
    before = pi.health["uptime_s"]
    done = pi.deploy(pi.lying)
    assert done.ok is False
    assert "golden vectors do not match" in done.reason
    assert [one["model"] for one in pi.listed if one["current"]] == ["garments.tflite"]
    # It was never let near the service.
    assert pi.health["uptime_s"] > before


@pytest.mark.parametrize(
    ("options", "within", "reason"),
    [
        # A camera that is not there is waited for as long as it is allowed to.
        ('source = "rtsp://127.0.0.1:1/nothing"', 25, "does not open: check address"),
        # What ends while it starts is seen as soon as it has, however slow the device is.
        ('source = "nowhere.mp4"', 150, "it ended: "),
        ('source = "synthetic"\nsink = ["sqlite:/proc/nowhere/events.db"]', 150, "/proc/nowhere"),
    ],
)
def test_a_service_that_does_not_get_ready_is_taken_back(
    pi: Deployer, tmp_path: Path, options: str, within: float, reason: str
) -> None:
    (tmp_path / "run.toml").write_text(options)
    done = pi.deploy(pi.other, config=tmp_path / "run.toml", within=within)
    assert done.ok is False
    assert reason in done.reason
    assert done.restored is True
    assert pi.health["state"] == "ok"
    assert pi.run("systemctl is-active edgenn").strip() == "active"


def test_a_model_that_crashes_the_runtime_never_reaches_the_service(pi: Deployer) -> None:
    """The environment's Python is made to crash as a runtime does, since no model at hand does it."""
    crash = "import os\nif '-m' in __import__('sys').orig_argv: os.abort()\n"
    python = pi.run("sudo readlink -f /opt/edgenn/current/environment").strip()
    place = pi.run(f"ls -d {python}/lib/python3*/site-packages").strip() + "/crash.pth"
    pi.device.run(f"sudo tee {place}", input=f"import os; exec({crash!r})\n")
    try:
        done = pi.deploy(pi.other)
    finally:
        pi.run(f"sudo rm {place}")
    assert done.ok is False
    assert "ends the process that loads it (signal 6)" in done.reason
    assert pi.health["state"] == "ok"


def test_going_back_and_what_is_kept(pi: Deployer) -> None:
    assert pi.deploy(pi.other).ok
    current = pi.listed[0]["id"]
    [back] = rollback([pi.host])
    assert back.ok, back
    assert (back.said["from"], back.said["changed"]) == (current, "model")
    assert [one["model"] for one in pi.listed if one["current"]] == ["garments.tflite"]
    for model in (pi.third, pi.lying, pi.lying, pi.lying):
        pi.deploy(model)
    kept = pi.listed
    assert len(kept) <= 5
    # Three that failed did not push out the last that worked.
    assert sum(one["state"] == "proved" for one in kept) >= 2
    assert rollback([pi.host])[0].ok


def test_a_lost_connection_changes_nothing(pi: Deployer) -> None:
    """What connects is ended as soon as the switch has begun; the device goes on alone."""
    import signal
    import subprocess
    import sys

    program = (
        "import sys\nfrom edgenn.deployment.deploy import deploy\nfrom edgenn.deployment.hosts import Host\n"
        "deploy(sys.argv[1], [Host(sys.argv[2], sys.argv[2])], told=lambda h, s: print(s, flush=True))"
    )
    argv = [sys.executable, "-c", program, str(pi.other), pi.host.name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as deploying:
        assert deploying.stdout is not None
        assert any("verified" in line for line in deploying.stdout)
        os.killpg(deploying.pid, signal.SIGKILL)
    # The lock is free once the switch has ended.
    pi.run("sudo flock /opt/edgenn/.lock true")
    assert pi.run("systemctl list-units --failed --no-legend 'edgenn*'") == ""
    assert [one["model"] for one in pi.listed if one["current"]] == ["other.tflite"]
    assert pi.health["state"] == "ok"


def test_secrets_are_for_the_service_alone(pi: Deployer) -> None:
    """Options may hold who one is to a broker, and the page's token was made there."""
    readable = pi.run(
        "find /opt/edgenn/releases /opt/edgenn/incoming /var/lib/edgenn -readable -not -path /opt/edgenn/releases "
        "-not -type l 2>/dev/null; true"
    )
    assert [line for line in readable.splitlines() if line.count("/") > 4] == []
    assert "Permission denied" in pi.device.run("cat /opt/edgenn/current/run.toml", check=False).stderr
    assert pi.run("sudo stat -c '%a %U' /var/lib/edgenn/web-token").split() == ["600", "edgenn"]
    token = pi.run("sudo cat /var/lib/edgenn/web-token").strip()
    assert token not in pi.run("sudo journalctl -u edgenn -u 'edgenn-switch*' -o cat --no-pager")
    assert pi.run("ps -o user= -p $(systemctl show edgenn -p MainPID --value)").strip() == "edgenn"


def test_power_lost_in_the_middle(pi: Deployer, start_devices: Callable[..., list[Device]]) -> None:
    """One loss at the worst moment: the new release is current and not yet proved. tools/kill_deploys.py does many."""
    folder = pi.run("readlink -f /opt/edgenn/current").strip()
    name = folder.rsplit("/", 1)[-1]
    newer = name.replace(name[:8], "29991231")
    pi.run(
        f"sudo cp -a {folder} /opt/edgenn/releases/{newer} && sudo rm /opt/edgenn/releases/{newer}/proved.json && "
        f'echo \'{{"from": "{name}", "to": "{newer}"}}\' | sudo tee /opt/edgenn/switching.json && '
        f"sudo ln -sfn releases/{newer} /opt/edgenn/current"
    )
    pi.device.kill()
    pi.device.boot()
    assert pi.run("readlink /opt/edgenn/current").strip() == f"releases/{name}"
    by_id = {one["id"]: one for one in pi.listed}
    assert "interrupted before it was proved" in by_id[newer]["reason"]
    assert pi.run("test -e /opt/edgenn/switching.json || echo gone").strip() == "gone"
    pi.run(f"sudo rm -r /opt/edgenn/releases/{newer}")
    pi.run("sudo systemctl start edgenn")  # returns when it is ready, that is with the first frame
    assert pi.health["state"] == "ok"


@pytest.mark.parametrize(
    ("wrong", "mend", "said"),
    [
        # The service's user was made by hand, without its groups.
        ("sudo gpasswd -d edgenn video", "sudo usermod -aG video edgenn", "sudo usermod -aG video edgenn"),
        # sudo asks for a password.
        (
            "sudo mv /etc/sudoers.d /etc/sudoers.away",
            "su -c 'mv /etc/sudoers.away /etc/sudoers.d'",
            "NOPASSWD: ALL",
        ),
    ],
)
def test_what_cannot_work_is_found_before_anything_is_changed(pi: Deployer, wrong: str, mend: str, said: str) -> None:
    if "sudoers" in wrong and "/etc/sudoers.d" not in pi.run("sudo ls -d /etc/sudoers.d/*"):
        pytest.skip("sudo is configured otherwise on this device")
    before = pi.run("ls -l /opt/edgenn/releases 2>&1; sudo ls /opt/edgenn/incoming")
    if "sudoers" in wrong:
        # Put back by itself: nobody else there may.
        pi.run(f"sudo systemd-run --quiet --on-active=6 sh -c 'mv /etc/sudoers.away /etc/sudoers.d' && {wrong}")
    else:
        pi.run(wrong)
    try:
        done = pi.deploy(pi.other, source="/dev/video0")
    finally:
        if "sudoers" in wrong:
            pi.run("while ! sudo -n true 2>/dev/null; do sleep 0.2; done")
        else:
            pi.run(mend)
    assert done.ok is False
    assert said in done.reason
    assert pi.run("ls -l /opt/edgenn/releases 2>&1; sudo ls /opt/edgenn/incoming") == before


def test_nothing_is_left_after_undeploy_but_what_was_recorded(pi: Deployer) -> None:
    [gone] = undeploy([pi.host])
    assert gone.ok, gone
    assert gone.said["kept"] == "/var/lib/edgenn"
    assert pi.run("ls -d /opt/edgenn /etc/systemd/system/edgenn* 2>/dev/null; true") == ""
    assert pi.run("systemctl is-active edgenn; true").strip() == "inactive"
    assert "web-token" in pi.run("sudo ls /var/lib/edgenn")
    [nothing] = releases([pi.host])
    assert "nothing was deployed there yet" in nothing.reason
