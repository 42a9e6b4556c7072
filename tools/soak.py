"""A long run watched from outside: does its memory grow, does it lose threads or file descriptors?

Starts `edgenn run` as a process, looks at /proc every few seconds, and at the end compares the second half of the run
with itself: resident memory at its end and at its beginning (medians of a tenth of the run each), threads and
descriptors at the most and at the least. The frames are counted by the run's own health document.

frames  a million frames of `synthetic --fast` with a small model, into SQLite and CSV
stream  half an hour of 1080p MJPEG with the live page looked at, MQTT and SQLite

    python tools/soak.py frames|stream --out FOLDER [--model MODEL.tflite] [--frames N] [--minutes M] [--mqtt HOST:PORT]

FOLDER holds samples.csv, samples.png, the summary as summary.json and what the run itself wrote.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mjpeg_server import running

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "garments" / "garments.tflite"
FIELDS = ("seconds", "rss_mib", "threads", "descriptors", "cpu_seconds", "frames")
# Seconds between two looks at the live page: as a browser that shows it.
GLANCE = 0.2
# Growth in the second half that is allowed, MiB.
MOST_GROWTH = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("frames", "stream"))
    parser.add_argument("--out", type=Path, required=True, help="folder, made anew")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--labels", type=Path, help="labels file of a model that carries none")
    parser.add_argument("--frames", type=int, default=1_000_000, help="of `frames` (default 1000000)")
    parser.add_argument("--minutes", type=float, default=30.0, help="of `stream` (default 30)")
    parser.add_argument("--fps", type=float, default=30.0, help="pace of the stream (default 30)")
    parser.add_argument("--mqtt", help="HOST:PORT of a broker; without it mosquitto is started")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks (default 5)")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    with ExitStack() as around:
        samples = watch(*prepared(options, around), options)
    summary = judged(samples, options)
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    draw(samples, options.out / "samples.png")
    print(json.dumps(summary, indent=1))
    sys.exit(0 if summary["passed"] else 1)


def prepared(options: argparse.Namespace, around: ExitStack) -> tuple[list[str], float | None]:
    """The command, and after how many seconds to end it."""
    out = options.out.resolve()
    command = [sys.executable, "-c", "from edgenn.cli import main; main()", "run", str(options.model)]
    if options.labels:
        command += ["--labels", str(options.labels)]
    command += ["--sink", f"sqlite:{out}/events.db"]
    if options.what == "frames":
        command += ["--source", "synthetic", "--fast", "--limit", str(options.frames), "--sink", f"csv:{out}/out.csv"]
        return command, None
    broker = options.mqtt or around.enter_context(mosquitto(out))
    url = around.enter_context(running(options.fps))
    port = free_port()
    options.answers = around.enter_context(looked_at(port))
    return [*command, "--source", url, "--sink", f"mqtt://{broker}", "--web", str(port)], options.minutes * 60


def watch(command: list[str], seconds: float | None, options: argparse.Namespace) -> list[dict[str, float]]:
    # As the unit has it.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "RUNTIME_DIRECTORY": str(options.out.resolve())}
    with (options.out / "output.txt").open("w") as output, (options.out / "samples.csv").open("w") as file:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        samples: list[dict[str, float]] = []
        began = time.monotonic()
        try:
            while process.poll() is None:
                try:
                    process.wait(options.every)
                except subprocess.TimeoutExpired:
                    pass
                elapsed = time.monotonic() - began
                sample = look(process.pid, options.out / "health.sock", elapsed)
                if sample is not None:
                    samples.append(sample)
                    writer.writerow(sample)
                    file.flush()
                if seconds is not None and elapsed >= seconds:
                    process.send_signal(signal.SIGTERM)
                    break
            status = process.wait(60)
        finally:
            process.kill()
            process.wait()
    if status:
        sys.exit(f"soak: the run ended with status {status}: see {options.out / 'output.txt'}")
    return samples


def look(pid: int, health: Path, elapsed: float) -> dict[str, float] | None:
    """One sample; None when the process has gone, or not yet classified a frame."""
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        rss = int(status["VmRSS"].split()[0]) / 1024
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(health))
            document = json.loads(client.makefile().read())
    except (OSError, KeyError, ValueError):
        return None
    cpu = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    figures = (elapsed, rss, float(status["Threads"]), descriptors, cpu, document["frames"])
    return {name: round(value, 3) for name, value in zip(FIELDS, figures, strict=True)} if document["frames"] else None


def judged(samples: list[dict[str, float]], options: argparse.Namespace) -> dict[str, Any]:
    if len(samples) < 20:
        sys.exit(f"soak: {len(samples)} samples are too few to judge: a longer run, or a smaller --every")
    half = samples[len(samples) // 2 :]
    tenth = max(1, len(samples) // 10)
    growth = statistics.median(s["rss_mib"] for s in half[-tenth:]) - statistics.median(
        s["rss_mib"] for s in half[:tenth]
    )
    spans = {name: [min(s[name] for s in half), max(s[name] for s in half)] for name in ("threads", "descriptors")}
    # A look at the health socket is a descriptor of the run itself, and a page that is fetched another.
    steady = spans["threads"][0] == spans["threads"][1] and spans["descriptors"][1] - spans["descriptors"][0] <= 3
    return {
        "what": options.what,
        "model": options.model.name,
        "seconds": samples[-1]["seconds"],
        "frames": int(samples[-1]["frames"]),
        "samples": len(samples),
        "answers_of_the_page": len(getattr(options, "answers", ())),
        "rss_mib": {"first": samples[0]["rss_mib"], "half": half[0]["rss_mib"], "last": samples[-1]["rss_mib"]},
        "growth_in_second_half_mib": round(growth, 3),
        "second_half": spans,
        "cores_in_use": round(samples[-1]["cpu_seconds"] / samples[-1]["seconds"], 3),
        "passed": growth <= MOST_GROWTH and steady,
    }


def draw(samples: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(9, 7), layout="constrained")
    minutes = [s["seconds"] / 60 for s in samples]
    for axis, name, label in zip(
        axes, ("rss_mib", "threads", "descriptors"), ("resident memory, MiB", "threads", "descriptors"), strict=True
    ):
        axis.plot(minutes, [s[name] for s in samples], linewidth=1)
        axis.set_ylabel(label)
        axis.axvline(minutes[len(minutes) // 2], color="0.7", linewidth=0.8)
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)


@contextmanager
def mosquitto(folder: Path) -> Iterator[str]:
    if shutil.which("mosquitto") is None and not Path("/usr/sbin/mosquitto").exists():
        sys.exit("soak: no MQTT broker: apt install mosquitto, or give --mqtt HOST:PORT")
    port = free_port()
    configuration = folder / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    command = [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(configuration)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def looked_at(port: int) -> Iterator[list[int]]:
    """Somebody has the page open: fetches the picture and the state as it does. Gives the bytes of each answer."""
    ended = threading.Event()
    answers: list[int] = []

    def glance() -> None:
        while not ended.wait(GLANCE):
            for path in ("picture.jpg", "state.json"):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                        answers.append(len(answer.read()))
                except urllib.error.HTTPError as error:
                    # There is no picture yet, or the page is not what this knows.
                    if error.code != 503:
                        os.write(2, f"soak: /{path} answers {error.code}\n".encode())
                except OSError:
                    # Not there yet, or no more.
                    break

    thread = threading.Thread(target=glance)
    thread.start()
    try:
        yield answers
    finally:
        ended.set()
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


if __name__ == "__main__":
    main()
