"""How long deploys take: a fresh device to its first classified frame, nothing changed, and a model alone with its gap.

    python -m tools.bench_deploy --arch arm64 [--suite bookworm] [--repeat 3]

The gap is the longest time between two frames in the service's own record (a JSON Lines sink) around the exchange,
beside the longest in the ten seconds before it. The wheels are in the workstation's cache (`--cold` fetches them anew);
the device is a fresh copy of its system each time it is started.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgenn.deployment.connection import ENVIRONMENT, Connection
from edgenn.deployment.deploy import Deployed, deploy
from edgenn.deployment.hosts import Host
from tools.arm_device import device, or_reason
from tools.model_variants import another

GARMENTS = Path(__file__).parents[1] / "models/garments/garments.tflite"
FRAMES = "/var/lib/edgenn/frames.jsonl"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=("amd64", "arm64"), default="arm64")
    parser.add_argument("--suite", choices=("bookworm", "trixie"), default="bookworm")
    parser.add_argument("--repeat", type=int, default=3, help="of the deploys that are no fresh ones")
    parser.add_argument("--cold", action="store_true", help="fetch the wheels anew")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results: dict[str, Any] = {"arch": given.arch, "suite": given.suite}
    with tempfile.TemporaryDirectory() as folder:
        if given.cold:
            os.environ["XDG_CACHE_HOME"] = folder
        options = Path(folder) / "run.toml"
        options.write_text('source = "synthetic"\nsink = ["jsonl:frames.jsonl"]\n')
        models = (GARMENTS, another(GARMENTS, Path(folder) / "other.tflite"))
        began = time.monotonic()
        with device(suite=given.suite, arch=given.arch) as one:
            results["boot_s"] = round(time.monotonic() - began, 2)
            os.environ[ENVIRONMENT] = f"ssh -F {one.ssh_config}"
            host = Host(one.name, one.name)
            told: list[tuple[str, float]] = []
            began = time.monotonic()
            first = _deploy(models[0], host, options, lambda step: told.append((step, time.monotonic() - began)))
            results["fresh"] = {
                "seconds": first.seconds,
                "sent_mb": round(first.sent / 1e6, 1),
                "on_device": dict(first.steps),
                "reached_after_s": {step: round(at, 2) for step, at in told},
            }
            results["nothing"] = [_deploy(models[0], host, options).seconds for _ in range(given.repeat)]
            results["model"] = [_model_alone(models[(i + 1) % 2], host, options) for i in range(given.repeat)]
    print(json.dumps(results, indent=1) if given.json else _text(results))
    return 0


def _deploy(model: Path, host: Host, options: Path, told: Any = None) -> Deployed:
    [done] = deploy(
        model, [host], config=options, within=300, told=lambda name, step: told(step) if told is not None else None
    )
    if not done.ok:
        raise SystemExit(f"it does not work: {done.reason}")
    return done


def _model_alone(model: Path, host: Host, options: Path) -> dict[str, Any]:
    # So that there is a record before the exchange to compare with.
    time.sleep(10)
    done = _deploy(model, host, options)
    with Connection(host) as connection:
        time.sleep(2)
        lines = connection.run(["tail", "-n", "2000", FRAMES], sudo=True).stdout.splitlines()
        switched = json.loads(connection.run(["cat", "/opt/edgenn/current/proved.json"], sudo=True).stdout)["at"]
    frames = [json.loads(line) for line in lines]
    times = [frame["time"] for frame in frames if "frame" in frame]
    around = [b - a for a, b in pairwise(times) if switched - 15 < b]
    before = [b - a for a, b in pairwise(times) if switched - 40 < b < switched - 15]
    return {
        "seconds": done.seconds,
        "changed": done.changed,
        "sent_kb": round(done.sent / 1e3),
        "on_device": dict(done.steps),
        "gap_s": round(max(around), 3),
        "gap_before_s": round(max(before, default=0.0), 3),
        "missing_frames": _missing([frame["frame"] for frame in frames if "frame" in frame]),
    }


def _missing(numbers: list[int]) -> int:
    return numbers[-1] - numbers[0] + 1 - len(set(numbers))


def _text(results: dict[str, Any]) -> str:
    fresh = results["fresh"]
    lines = [f"{results['arch']} {results['suite']}, booted in {results['boot_s']} s"]
    lines.append(f"fresh          {fresh['seconds']:7.1f} s, {fresh['sent_mb']} MB sent")
    lines += [f"  after {at:7.1f} s  {step}" for step, at in fresh["reached_after_s"].items()]
    lines += [f"nothing changed {seconds:6.1f} s" for seconds in results["nothing"]]
    for one in results["model"]:
        steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in one["on_device"].items())
        lines.append(
            f"{one['changed']} alone     {one['seconds']:6.1f} s, {one['sent_kb']} kB sent ({steps}); longest between "
            f"two frames {one['gap_s']} s ({one['gap_before_s']} s before it), {one['missing_frames']} frames dropped"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(or_reason(main))
