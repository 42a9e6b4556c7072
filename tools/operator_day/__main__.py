"""A day of a device in fast forward: some twenty faults one after the other, and what its operator reads of each.

    python -m tools.operator_day [--arch amd64] [--only REGEX] [--out FOLDER]

A Debian device with systemd and sshd (tools/arm_device), a camera over HTTP, mosquitto and a listener in Home
Assistant's place; garments.tflite is deployed with MQTT, Prometheus, live page, events, a record of frames and kept
frames on. Each fault is caused, must be told where its row says so, is mended, and everything must be well again:
status `ok`, page, metrics and systemd too, `online` and `ok` to Home Assistant. Exit status 1 if one was not told or
not recovered from. Seconds are from the cause; those of deploys hold the workstation's own share.

What is accelerated: the time between faults (none), and the month after which events are removed (the service's clock
is set, by libfaketime, on amd64 alone: apt install faketime). What is driven through by hand: rotation of the journal
and of the record of frames, releases beyond the three that are kept. What is not: every wait of the device itself
(back-off, MQTT's keep-alive, the watchdog's 30 s) takes as long as it takes; kept frames do not reach their 500 MB, nor
events their 512 MB; no leak shows in a few minutes (tools/soak.py is for that). "Killed" is SIGKILL to the process, not
the kernel's own choice when memory runs out. Home Assistant itself does not run: its topics are read.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from edgenn.deployment.connection import ENVIRONMENT
from edgenn.deployment.hosts import Host
from tools.arm_device import device, or_reason
from tools.model_variants import another, lying

from .broker import Broker, free_port
from .camera import Camera
from .day import Day, Row
from .happenings import schedule, usable_clock
from .seen import PLACES, Sight

GARMENTS = Path(__file__).parents[2] / "models/garments/garments.tflite"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arch", choices=("amd64", "arm64"), default="amd64")
    parser.add_argument("--suite", choices=("bookworm", "trixie"), default="bookworm")
    parser.add_argument("--only", default="", metavar="REGEX", help="events whose name matches")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep here what was seen, and the rows as JSON")
    given = parser.parse_args()
    chosen = [one for one in schedule() if re.search(given.only, one.name) and given.arch in one.only]
    if not usable_clock():
        left = [one.name for one in chosen if one.only == ("amd64",)]
        chosen = [one for one in chosen if one.name not in left]
        print(f"left out without libfaketime (apt install faketime): {', '.join(left)}", file=sys.stderr)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place, device(suite=given.suite, arch=given.arch) as one:
        folder = Path(place)
        os.environ[ENVIRONMENT] = f"ssh -F {one.ssh_config}"
        camera, page, metrics = Camera(), free_port(), free_port()
        sight: Sight
        with Broker(folder, lambda topic, text: sight.hear(topic, text)) as broker:
            options = folder / "run.toml"
            options.write_text(
                f'source = "{camera.url}"\nname = "porch"\nweb = "127.0.0.1:{page}"\nkeep-uncertain = "unsure"\n'
                f'sink = ["sqlite:events.db", "jsonl:frames.jsonl", "mqtt://127.0.0.1:{broker.line.port}", '
                f'"prometheus:{metrics}"]\n'
            )
            models = [
                GARMENTS,
                another(GARMENTS, folder / "other.tflite"),
                another(GARMENTS, folder / "third.tflite", 2),
            ]
            models.append(lying(GARMENTS, folder / "lying.tflite"))
            host = Host(one.name, one.name)
            sight = Sight(one, host, f"http://127.0.0.1:{page}", f"http://127.0.0.1:{metrics}")
            day = Day(one, host, camera, broker, sight, folder, models, options)
            began = time.monotonic()
            day.must_deploy(GARMENTS)
            with sight:
                day.until("it is well in the morning", lambda: day.well(began))
                print(
                    f"{given.arch} {given.suite}: well {time.monotonic() - began:.0f} s after the deploy began",
                    flush=True,
                )
                print(_line("event", "seen where (s until told)", "well after s", "verdict"), flush=True)
                for happening in chosen:
                    rows.append(day.play(happening))
                    print(_row(rows[-1]), flush=True)
            if given.out is not None:
                _keep(given.out, rows, sight, began)
    bad = [row for row in rows if row.wrong]
    print(f"\n{len(rows) - len(bad)} of {len(rows)} told and recovered from")
    return 1 if bad else 0


def _row(row: Row) -> str:
    seen = ", ".join(f"{place} {'–' if at is None else at}" for place, at in row.told.items())
    return _line(row.name, seen, "–" if row.well is None else f"{row.well:.1f}", row.wrong or "ok")


def _line(event: str, seen: str, well: str, verdict: str) -> str:
    return f"{event:<42}  {seen:<72}  {well:>12}  {verdict}"


def _keep(folder: Path, rows: list[Row], sight: Sight, began: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.json").write_text(json.dumps([row.to_dict() for row in rows], indent=1))
    for place in PLACES:
        lines = [f"{at - began:8.1f}  {text}" for at, text in sight.seen[place].notes]
        (folder / f"{place}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(or_reason(main))
