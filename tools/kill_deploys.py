"""Cut the power of a device at random moments of a deploy, and see that it works afterwards: 50 times.

    python -m tools.kill_deploys --kills 50 --arch arm64

A deploy that alternates between two models (and, every third time, changes the options too, which is a restart instead
of an exchange) runs while all processes of the test device are ended by SIGKILL at once; then it boots again from the
same disk. After each boot: health ok within 60 s, `current` is one of the two releases, whole (SHA-256) and proved,
and the model that answers is its own. SIGKILL ends processes, not the disk's cache: what fsync is for is not tried.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgenn.deployment.connection import ENVIRONMENT, Connection
from edgenn.deployment.hosts import Host
from tools.arm_device import Device, device, or_reason
from tools.model_variants import another

GARMENTS = Path(__file__).parents[1] / "models/garments/garments.tflite"
# Seconds after the boot in which health has to be ok.
WELL = 60.0
# In a process of its own, which loses its connection when the device dies. Says each step as it is done.
DEPLOY = """
import sys
from edgenn.deployment.deploy import deploy
from edgenn.deployment.hosts import Host
model, name, options = sys.argv[1:]
print("begun", flush=True)
[done] = deploy(model, [Host(name, name)], config=options, told=lambda host, step: print(step, flush=True))
if not done.ok:
    sys.exit(done.reason)
print("done after", done.seconds, sum(done.steps.values()))
"""
# Run on the device as root: what `current` leads to, whether it is whole, and what health says.
LOOK = """
import hashlib, json, pathlib, sys
sys.path.insert(0, "/opt/edgenn/releases.pyz")
from edgenn_device.releases import Releases
from edgenn_device.release_health import ask
r = Releases()
current = r.current
about = r.about(current) if current else {}
whole = bool(current) and all(
    hashlib.sha256((r.folder(current) / name).read_bytes()).hexdigest() == digest
    for name, digest in about["files"].items()
) and (r.folder(current) / "environment/complete").exists()
print(json.dumps({
    "current": current, "name": about.get("model"), "model": about.get("sha256"), "proved": r.proved(current),
    "whole": whole, "states": [r.about(id)["state"] for id in r.ids()], "intent": r.places.intent.exists(),
    "health": ask(r.places.socket),
}))
"""


@dataclass(frozen=True)
class Killed:
    """One kill: when it came, in which step, what was found afterwards, and "" or what was wrong."""

    after: float
    step: str
    kept: str
    seconds: float
    wrong: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--arch", choices=("amd64", "arm64"), default="arm64")
    parser.add_argument("--suite", choices=("bookworm", "trixie"), default="bookworm")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder, device(suite=given.suite, arch=given.arch) as victim:
        os.environ[ENVIRONMENT] = f"ssh -F {victim.ssh_config}"
        models = (GARMENTS, another(GARMENTS, Path(folder) / "other.tflite"))
        took = [_deploy(victim, models[i % 2], folder, restart=i == 2) for i in range(3)]
        seconds = ", ".join(f"{what} {took[i][0]:.1f} s" for i, what in enumerate(("first", "model", "options")))
        print(f"{given.arch} {given.suite}: {seconds}", flush=True)
        print(f"{'#':>3}  {'after s':>7}  {'step':<16}  {'kept':<4}  {'well after s':>12}  wrong")
        results = []
        for number in range(given.kills):
            restart = number % 3 == 2
            # Two of three within what the device does by itself, where the links and marks are. A little longer than it
            # takes, so that the last steps are hit as well.
            there = number % 3 != 0
            after = chance.uniform(0.0, 1.2 * took[2 if restart else 1][there])
            killed = _kill(victim, models, folder, after, "carried over" if there else "begun", restart)
            results.append(killed)
            print(
                f"{number + 1:>3}  {killed.after:>7.2f}  {killed.step:<16}  {killed.kept:<4}  {killed.seconds:>12.1f}  "
                f"{killed.wrong}",
                flush=True,
            )
        # What the interrupted ones left behind goes with the next that is not.
        _deploy(victim, another(GARMENTS, Path(folder) / "last.tflite", 2), folder)
        with Connection(Host(victim.name, victim.name)) as connection:
            states = list(_look(connection)["states"])  # type: ignore[call-overload]
        print(f"releases after one more deploy: {', '.join(states)}")
    well = sum(not killed.wrong for killed in results)
    kept = Counter(killed.kept for killed in results)
    print(
        f"\n{well} of {len(results)} work after it: {kept['old']} with the old release, {kept['new']} with the new one"
    )
    return 0 if well == len(results) else 1


def _argv(victim: Device, model: Path, folder: str, restart: bool) -> list[str]:
    options = Path(folder) / "run.toml"
    name = f"device {time.time_ns()}" if restart else "device"
    options.write_text(f'source = "synthetic"\nname = "{name}"\n')
    return [sys.executable, "-c", DEPLOY, str(model), victim.name, str(options)]


def _deploy(victim: Device, model: Path, folder: str, *, restart: bool = False) -> tuple[float, float]:
    done = subprocess.run(_argv(victim, model, folder, restart), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the deploy itself does not work: {done.stdout}{done.stderr}")
    whole, there = done.stdout.split()[-2:]
    return float(whole), float(there)


def _kill(victim: Device, models: tuple[Path, Path], folder: str, after: float, begin: str, restart: bool) -> Killed:
    with Connection(Host(victim.name, victim.name)) as connection:
        found = _look(connection)
    before = found["current"]
    # The other one than it has.
    model = models[found["name"] == models[0].name]
    deploying = subprocess.Popen(
        _argv(victim, model, folder, restart),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what is read here must not swallow lines that are wanted later
        start_new_session=True,
    )
    assert deploying.stdout is not None
    while deploying.stdout.readline().decode().strip() not in (begin, ""):
        pass
    try:
        deploying.wait(after)
    except subprocess.TimeoutExpired:
        pass
    victim.kill()
    if deploying.poll() is None:
        os.killpg(deploying.pid, signal.SIGKILL)
    said = deploying.communicate()[0].decode().split("\n")
    step = ([line for line in said if line and ": " not in line] or [begin])[-1]
    victim.boot()
    booted = time.monotonic()
    wrong = "it does not answer"
    while time.monotonic() - booted < WELL:
        with Connection(Host(victim.name, victim.name)) as connection:
            found = _look(connection)
        wrong = _wrong(found)
        if not wrong:
            break
        time.sleep(0.2)
    kept = "old" if found.get("current") == before else "new"
    return Killed(after, step, kept, time.monotonic() - booted, wrong)


def _look(connection: Connection) -> dict[str, object]:
    done = connection.run(["python3", "-I", "-c", LOOK], sudo=True)
    return dict(json.loads(done.stdout)) if done.status == 0 else {"error": done.stderr[-300:]}


def _wrong(found: dict[str, object]) -> str:
    if "error" in found:
        return str(found["error"])
    if not found["proved"] or not found["whole"] or found["intent"]:
        return f"current {found['current']}: proved {found['proved']}, whole {found['whole']}, intent {found['intent']}"
    health = found["health"]
    if not isinstance(health, dict) or health["state"] != "ok":
        return f"health: {health and (health['state'], health['reasons'])}"
    if health["model"]["sha256"] != found["model"]:
        return "it runs another model than its release has"
    return ""


if __name__ == "__main__":
    sys.exit(or_reason(main))
