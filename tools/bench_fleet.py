"""Many devices at once: a deploy to all, a look at all, a canary that fails, and one that is away.

    python -m tools.bench_fleet --devices 20 --arch amd64

The devices are containers that share one root (tools/arm_device), so they share this machine's cores as well: what is
shown is the order in which things happen and what is left alone, and the times of a fleet that waits for itself. Prints
a table; exit status 1 if anything was not as it must be. --json FILE writes the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgenn.deployment.connection import ENVIRONMENT
from edgenn.deployment.deploy import Deployed, deploy
from edgenn.deployment.hosts import Host, inventory
from edgenn.deployment.status import Status, status
from tools.arm_device import Device, devices, or_reason
from tools.model_variants import another, lying

GARMENTS = Path(__file__).parents[1] / "models/garments/garments.tflite"
# Seconds for a release to prove itself while as many others do so on the same cores.
WITHIN = 600.0


@dataclass(frozen=True)
class Step:
    """One row of the table: what was done, in seconds, what came of it, and what was not as it must be."""

    name: str
    seconds: float
    outcome: str
    wrong: tuple[str, ...]


class Bench:
    def __init__(self, fleet: Sequence[Device], folder: Path) -> None:
        self.fleet, self.folder = fleet, folder
        (folder / "ssh_config").write_text("".join(f"Include {one.ssh_config}\n" for one in fleet))
        os.environ[ENVIRONMENT] = f"ssh -F {folder / 'ssh_config'}"
        (folder / "pis.toml").write_text(
            '[defaults]\nsource = "synthetic"\n[hosts]\n' + "".join(f'{one.name} = "{one.name}"\n' for one in fleet)
        )
        self.hosts: list[Host] = inventory(folder / "pis.toml")
        self.steps: list[Step] = []

    def step(self, name: str, do: Callable[[], tuple[str, dict[str, bool]]]) -> None:
        """Do something that answers with its outcome and with what must hold."""
        began = time.monotonic()
        outcome, must = do()
        wrong = tuple(what for what, holds in must.items() if not holds)
        self.steps.append(Step(name, round(time.monotonic() - began, 1), outcome, wrong))
        print(f"{name:<44} {self.steps[-1].seconds:>7.1f} s  {outcome}", *wrong, sep="\n  WRONG: " if wrong else "")
        sys.stdout.flush()

    def deploy(self, model: Path, canary: str = "0") -> list[Deployed]:
        return deploy(model, self.hosts, canary=canary, within=WITHIN)

    def all_well(self) -> list[Status]:
        """Every device that can be reached is asked until it is well, or time is up."""
        deadline = time.monotonic() + WITHIN
        while True:
            rows = status(self.hosts)
            if all(row.state in ("ok", "unreachable") for row in rows) or time.monotonic() > deadline:
                return rows

    def run(self) -> None:
        number = len(self.hosts)
        models = [another(GARMENTS, self.folder / f"{index}.tflite", index) for index in (1, 2, 3)]
        bad = lying(GARMENTS, self.folder / "bad.tflite")

        def fresh() -> tuple[str, dict[str, bool]]:
            done = self.deploy(models[0])
            return _told(done), {"every device has the release": all(one.ok for one in done)}

        def look() -> tuple[str, dict[str, bool]]:
            rows = status(self.hosts)
            return _states(rows), {"every device answers": all(row.state != "unreachable" for row in rows)}

        def again() -> tuple[str, dict[str, bool]]:
            done = self.deploy(models[0])
            must = {
                "nothing changed": all(one.changed == "nothing" and one.sent == 0 for one in done),
                "all are well": all(one.ok for one in done),
            }
            return _told(done), must

        def model_alone() -> tuple[str, dict[str, bool]]:
            done = self.deploy(models[1], canary="5%")
            return _told(done), {"a model alone was exchanged": all(one.ok and one.changed == "model" for one in done)}

        def bad_canary() -> tuple[str, dict[str, bool]]:
            before = {row.host: row.release for row in self.all_well()}
            done = self.deploy(bad, canary="5%")
            tried = [one for one in done if not one.reason.startswith("not tried")]
            canaries = -(-number // 20)
            after = {row.host: (row.release, row.state) for row in self.all_well()}
            must = {
                f"{canaries} tried, and said why": len(tried) == canaries and all(one.reason for one in tried),
                "the rest was left alone": sum(one.seconds >= 0 and not one.ok for one in done) == number,
                "all run what they ran before": after == {host: (id, "ok") for host, id in before.items()},
            }
            return f"{_told(done)}; {tried[0].reason}", must

        def one_away() -> tuple[str, dict[str, bool]]:
            away = self.fleet[number // 2]
            away.kill()
            done = self.deploy(models[2], canary="5%")
            failed = [one.host for one in done if not one.ok]
            rows = self.all_well()
            must = {
                "one could not be reached": failed == [away.name],
                "it is a row of the status": [r.host for r in rows if r.state == "unreachable"] == [away.name],
                "the others have the release": sum(row.state == "ok" for row in rows) == number - 1,
            }
            return f"{_told(done)}; {_states(rows)}", must

        self.step(f"fresh deploy to {number}", fresh)
        self.all_well()
        self.step(f"status of {number}", look)
        self.step(f"the same again to {number}", again)
        self.step(f"another model to {number}, --canary 5%", model_alone)
        self.step("a model that computes another thing, --canary 5%", bad_canary)
        self.step("another model, one device switched off", one_away)


def _told(done: Sequence[Deployed]) -> str:
    """How many were changed in which way, left alone, or failed."""

    def word(one: Deployed) -> str:
        if one.ok:
            return f"{one.changed} changed" if one.changed != "nothing" else "unchanged"
        if not one.reached:
            return "unreachable"
        return "not tried" if one.reason.startswith("not tried") else "taken back"

    return ", ".join(f"{number} {text}" for text, number in Counter(map(word, done)).most_common())


def _states(rows: Sequence[Status]) -> str:
    return ", ".join(f"{number} {state}" for state, number in Counter(row.state for row in rows).most_common())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--arch", default="amd64", choices=("amd64", "arm64"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with devices(given.devices, suite=given.suite, arch=given.arch) as fleet, tempfile.TemporaryDirectory() as folder:
        bench = Bench(fleet, Path(folder))
        bench.run()
    wrong = sum(len(step.wrong) for step in bench.steps)
    print(
        f"{given.devices} devices, {given.suite} {given.arch}: {'all as it must be' if not wrong else f'{wrong} WRONG'}"
    )
    if given.json is not None:
        given.json.write_text(json.dumps({**vars(given), "json": None, "steps": [asdict(s) for s in bench.steps]}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(or_reason(main))
