"""What edgenn weighs: the wheel, the base install by package, imports, and `edgenn --help` in time and memory.

    python -m tools.measure_weight                    everything, as Markdown
    python -m tools.measure_weight --only start       no package index is asked

Installs are those that pip would choose for each architecture and Python, fetched as wheels and not installed: the
sizes are of the files in them, without the .pyc that Python writes beside (about as much again as the .py). Times are
medians over fresh processes, files in the page cache; *first* is without any .pyc, as right after an install.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What Raspberry Pi OS and Debian from Bookworm on can load.
GLIBC = ("2_34", "2_31", "2_28", "2_27", "2_17")
MACHINES = {"x86-64": "x86_64", "aarch64": "aarch64"}
PYTHONS = ("3.11", "3.13")
STARTS = {
    "python -c pass": ["-c", "pass"],
    "import edgenn_device": ["-c", "import edgenn_device"],
    "from edgenn_device import Classifier": ["-c", "from edgenn_device import Classifier"],
    "import edgenn": ["-c", "import edgenn"],
    "edgenn --help": ["-c", "from edgenn.cli import main; main()", "--help"],
    "edgenn run --help": ["-c", "from edgenn.cli import main; main()", "run", "--help"],
    "edgenn inspect MODEL": ["-c", "from edgenn.cli import main; main()", "inspect", "models/garments/garments.tflite"],
}


def pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"pip {words[0]}: {done.stderr.strip()}")


def wheel(folder: Path) -> Path:
    """edgenn's own, built from this checkout."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    return next(folder.glob("edgenn-*.whl"))


def unpacked(path: Path) -> int:
    """Bytes of the files in a wheel."""
    return sum(info.file_size for info in zipfile.ZipFile(path).infolist())


def base_install(own: Path, folder: Path, machine: str, python: str) -> dict[str, tuple[int, int]]:
    """{distribution: (bytes of the wheel, bytes unpacked)} of what `pip install edgenn` brings there."""
    # Markers go by the machine that pip runs on: of this one and the others here they say the same.
    tags = [*(f"manylinux_{glibc}" for glibc in GLIBC), "manylinux2014"]
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{MACHINES[machine]}")]
    number = python.replace(".", "")
    abis = [word for abi in (f"cp{number}", "abi3", "none") for word in ("--abi", abi)]
    choice = ["--only-binary=:all:", *platforms, "--python-version", python, "--implementation", "cp", *abis]
    pip("download", "--dest", str(folder), *choice, str(own))
    return {
        path.name.partition("-")[0].replace("_", "-"): (path.stat().st_size, unpacked(path))
        for path in sorted(folder.glob("*.whl"))
    }


def install_table(folder: Path) -> Iterator[str]:
    own = wheel(folder)
    sizes = {
        (machine, python): base_install(own, folder / f"{machine}-{python}", machine, python)
        for machine in MACHINES
        for python in PYTHONS
    }
    yield f"The wheel: {own.stat().st_size / 1e3:,.0f} kB, unpacked {unpacked(own) / 1e6:.1f} MB."
    yield ""
    yield "Unpacked MB (wheel MB) of the base install:"
    yield ""
    yield "| package | " + " | ".join(f"{machine}, Python {python}" for machine, python in sizes) + " |"
    yield "|---|" + "---|" * len(sizes)
    names = sorted(
        {name for found in sizes.values() for name in found},
        key=lambda name: -max(found.get(name, (0, 0))[1] for found in sizes.values()),
    )
    for name in names:
        cells = (found.get(name) for found in sizes.values())
        yield (
            f"| {name} | " + " | ".join(f"{it[1] / 1e6:.1f} ({it[0] / 1e6:.1f})" if it else "–" for it in cells) + " |"
        )
    totals = ([sum(column) for column in zip(*found.values(), strict=True)] for found in sizes.values())
    yield "| **all** | " + " | ".join(f"**{whole / 1e6:.0f}** ({packed / 1e6:.0f})" for packed, whole in totals) + " |"


def seconds_of(words: list[str], environment: dict[str, str]) -> float:
    """From a process's start to its end."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"python {' '.join(words)} ended with status {done.returncode}")
    return seconds


def resident(words: list[str], environment: dict[str, str]) -> int:
    """Most resident bytes. The process says it itself: what `wait4` says of a child is never less than its parent's."""
    dash_c, code, *rest = words
    told = "import atexit, sys; atexit.register(lambda: sys.stderr.write(open('/proc/self/status').read())); "
    done = subprocess.run(
        [sys.executable, dash_c, told + code, *rest], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", done.stderr, re.MULTILINE)[-1]) * 1024


def loaded(words: list[str]) -> int:
    """How many modules are loaded beyond those of Python's own start."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return len(re.findall(r"^import time:\s+\d", done.stderr, re.MULTILINE))


def start_table(rounds: int) -> Iterator[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'device'}"}
    yield "| process | ms | first, ms | resident MB | modules |"
    yield "|---|---|---|---|---|"
    bare = loaded(STARTS["python -c pass"])
    for name, words in STARTS.items():
        seconds_of(words, environment)
        warm = [seconds_of(words, environment) for _ in range(rounds)]
        cold = []
        for _ in range(max(3, rounds // 3)):
            with tempfile.TemporaryDirectory() as nothing:
                cold.append(seconds_of(["-X", f"pycache_prefix={nothing}", *words], environment))
        memory = statistics.median(resident(words, environment) for _ in range(3))
        yield (
            f"| `{name}` | {statistics.median(warm) * 1e3:.0f} | {statistics.median(cold) * 1e3:.0f} | "
            f"{memory / 1e6:.1f} | {loaded(words) - bare} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=["install", "start"])
    parser.add_argument("--rounds", type=int, default=15, help="processes for each row")
    given = parser.parse_args()
    if given.only != "start":
        with tempfile.TemporaryDirectory() as folder:
            print("\n".join(install_table(Path(folder))), end="\n\n")
    if given.only != "install":
        for line in start_table(given.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
