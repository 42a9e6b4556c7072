"""bench/BENCH.md: the machine, its versions, and one table of what was recorded and what is measured now.

Results are kept beside it as JSON, so that hours of benchmarks can be run in parts: the table has the newest of each.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edgenn_device.files import write_atomically
from edgenn_device.profiler.environment import environment

from .benchmark import Recorded
from .measure import Result, Row
from .places import MEDIAPIPE, TFLITE_RUNTIME

_HEAD = "| figure | target | recorded | now | met? | reproduced? | minutes | began (UTC), busy before | command |"
_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy", "opencv-python-headless")
_ASK = (
    "import sys; from importlib.metadata import version; print(*(f'{name} {version(name)}' for name in sys.argv[1:]))"
)


def keep(result: Result, out: Path) -> None:
    """Keep a result in OUT/output; what was not run does not replace what once was."""
    path = out / "output" / f"{result.benchmark}.json"
    if result.why.startswith("not run") and path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(result), indent=1) + "\n")


def kept(names: Sequence[str], out: Path) -> list[Result]:
    """The results that were kept, in the order of `names`, but for those of another edition of this tool."""
    found = []
    for name in names:
        path = out / "output" / f"{name}.json"
        if path.exists():
            values = json.loads(path.read_text())
            rows = [{**row, "recorded": row["recorded"] and Recorded(**row["recorded"])} for row in values.pop("rows")]
            try:
                found.append(Result(**values, rows=tuple(Row(**row) for row in rows)))
            except TypeError:  # a field that there is no more
                continue
    return found


def page(results: Sequence[Result], machine: Sequence[str]) -> str:
    """BENCH.md as text."""
    rows = [row for result in results for row in result.rows]
    ran = sum(not result.why for result in results)
    good = sum(bool(row.reproduced) for row in rows)
    return "\n".join(
        [
            "# What `make bench` measured",
            "",
            *(f"- {line}" for line in machine),
            "",
            f"{ran} of {len(results)} benchmarks ran; {good} of {len(rows)} figures are within their tolerance of what "
            "BENCHMARKS.md has recorded. What each said is in output/NAME.log.",
            "",
            _HEAD,
            "|---" * _HEAD.count(" | ") + "|---|",
            *(line for result in results for line in lines(result)),
            "",
        ]
    )


def lines(result: Result) -> list[str]:
    """The table's lines of one benchmark: one for each figure, or one that says why there is none."""
    minutes = "" if result.seconds is None else f"{result.seconds / 60:.1f}"
    began = result.when + ("" if result.busy is None else f", {result.busy:.0%}")
    end = [minutes, began, "; ".join(f"`{line}`" for line in result.command.splitlines())]
    if not result.rows:
        return [_line([result.benchmark, "", "", result.why, "", "", *end])]
    return [_line([*_cells(result.benchmark, row), *end]) for row in result.rows]


def _cells(name: str, row: Row) -> list[str]:
    if row.recorded is None:
        return [f"{name}: {row.name}", "", "", row.why, "", ""]
    unit = f" {row.unit}" if row.unit else ""
    head = [f"{name}: {row.name}", row.recorded.target, f"{row.recorded.text}{unit}"]
    if row.now is None:
        return [*head, row.why, "", ""]
    met = "" if row.met is None else "met" if row.met else "**missed**"
    if row.met is not None and row.met != row.was_met:
        met += " (recorded: met)" if row.was_met else " (recorded: missed)"
    reproduced = f"yes, {row.tolerance}" if row.reproduced else f"**no**, {row.tolerance}"
    return [*head, f"{spelt(row.now)}{unit}", met, reproduced]


def spelt(value: float) -> str:
    """As the page spells numbers: three digits, or all of a whole number."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}".replace("0.", ".", 1)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def machine() -> list[str]:
    """What the figures depend on, a line each: of now, as is the date."""
    here: dict[str, Any] = environment()
    memory = here["memory_total"]
    versions = [f"Python {here['python']}"]
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{here['cpu']}, {here['cores']} cores"
        + (f", {memory / 1e9:.0f} GB" if memory else "")
        + (", a virtual machine" if here["virtual"] else ""),
        f"{here['os']}, kernel {here['kernel']}",
        ", ".join(versions),
        f"beside it: {_others(TFLITE_RUNTIME, 'tflite-runtime', 'numpy')}; {_others(MEDIAPIPE, 'mediapipe')}",
    ]


@cache
def _others(folder: Path, *names: str) -> str:
    """Versions in an environment of a peer."""
    python = folder / "bin/python"
    done = subprocess.run([python, "-c", _ASK, *names], capture_output=True, text=True) if python.exists() else None
    return done.stdout.strip() if done and not done.returncode else f"no {names[0]} (make {folder.name}/.installed)"
