"""A newcomer's road, timed: README's lines in a fresh clone with an empty home, up to a device that classifies.

    python -m tools.newcomer PHOTOS --classes t-shirt,shirt,jacket            # as root, for the emulated device

Nothing of what this machine has kept for edgenn is used: no .venv, no cache, no wheels. The emulated arm64 device is
started beforehand and waits. Exit status 1 where a line failed; `--json` for the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tools.arm_device import device, or_reason

ROOT = Path(__file__).parents[1]
# As README has them, in its order: `tests/test_docs.py` looks.
LINES = (
    "make demo",
    "edgenn run models/garments/garments.tflite --source synthetic --limit 100",
    "edgenn train photos --out runs/first",
    "edgenn convert runs/first",
    "edgenn deploy runs/first/model.tflite garden --source synthetic --within 600",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, help="a folder for each class")
    parser.add_argument("--classes", default="", help="these alone (default: all)")
    parser.add_argument("--json", action="store_true", help="seconds from the clone's beginning, as JSON on stdout")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, device() as pi:
        clone, home = Path(place) / "edgenn", Path(place) / "home"
        home.mkdir()
        environment = {
            "HOME": str(home),
            "PATH": f"{clone}/.venv/bin:{os.environ['PATH']}",
            "EDGENN_SSH": f"ssh -F {pi.ssh_config}",
            "LANG": "C.UTF-8",
            # Where pip finds packages is this machine's business.
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        }
        began, ends = time.time(), {}
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        names = given.classes.split(",") if given.classes else [path.name for path in given.photos.iterdir()]
        for name in names:
            shutil.copytree(given.photos / name, clone / "photos" / name)
        for line in LINES:
            done = subprocess.run(
                ["bash", "-c", line.replace(" garden ", f" {pi.name} ")], cwd=clone, env=environment, stdout=sys.stderr
            )
            if done.returncode:
                print(f"{line}: exit status {done.returncode}", file=sys.stderr)
                return 1
            ends[line] = time.time() - began
            print(f"--- {ends[line]:.0f} s: {line}", file=sys.stderr, flush=True)
        journal = pi.run("sudo journalctl --unit edgenn --output short-iso-precise --no-pager").stdout
        first = re.search(r"^(\S+) .* frame 0 ", journal, re.MULTILINE)
        assert first is not None, journal
        classified = datetime.fromisoformat(first[1]).timestamp() - began
    own = classified - ends[LINES[1]]
    print(
        f"--- {classified:.0f} s: the device's first frame, {own:.0f} s after the first line about these photos",
        file=sys.stderr,
    )
    if given.json:
        print(json.dumps({"ends": ends, "first_frame": classified, "own_photos": own}))
    return 0


if __name__ == "__main__":
    sys.exit(or_reason(main))
