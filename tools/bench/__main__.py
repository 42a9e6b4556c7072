"""Reruns what BENCHMARKS.md says and writes what came of it beside what it has recorded.

    python -m tools.bench --list
    python -m tools.bench --photos CLOTHING --weights WEIGHTS --coral CORAL
    python -m tools.bench --only calibrate profiler --coral CORAL

One after the other, never two at once; what fails does not stop the rest, and what is missing is a row that says what
to give. After each, bench/BENCH.md is written anew: it has the newest result of every benchmark, so that all of them
(nine hours on two cores) can be run in parts. All output goes to bench/output/NAME.log; trained runs are kept in
bench/runs for the benchmarks that take them. Exit status 1 if one failed or a figure was not reproduced.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from edgenn_device.files import write_atomically

from . import table
from .benchmark import Benchmark, Page
from .deployment import DEPLOYMENT
from .int8 import INT8
from .measure import Result, Row, measured
from .mutations import MUTATED
from .networks import NETWORKS
from .places import ROOT, Places
from .runner import RUNNING
from .serving import SERVING, TAGGING
from .training import TRAINING
from .weight import WEIGHT

# Networks first: later ones take their runs.
BENCHMARKS: tuple[Benchmark, ...] = (
    *NETWORKS,
    *TRAINING,
    *INT8,
    *RUNNING,
    *DEPLOYMENT,
    *TAGGING,
    *SERVING,
    *MUTATED,
    *WEIGHT,
)
# Commands of the page that are not run here, and why.
LEFT_OUT = {
    "pytest tests/device/test_interpreter.py": "`make test` runs it",
    "pytest tests/device/test_flatbuffer.py": "`make test` runs it",
    "pytest -m slow tests/tagging/test_ray_engine.py": "`make test-slow` runs it",
    "edgenn profile tests/data_files/tiny_int8.tflite --seconds 1 --source none --threads 2": (
        "it is typed on an emulated device, and what it shows is a sentence and no figure"
    ),
    **dict.fromkeys(
        ("python -c pass", "edgenn run --help", "edgenn inspect MODEL"), "`python -m tools.measure_weight` starts it"
    ),
}


# Share of the processors' time that others may take before times are doubted.
BUSY = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="CLOTHING: the clothing dataset, train/ and validation/")
    parser.add_argument("--weights", type=Path, help="WEIGHTS: the folder of .weights.h5")
    parser.add_argument("--coral", type=Path, help="CORAL: the folder of google-coral/edgetpu's models")
    parser.add_argument("--runs", type=Path, help="trained runs to use where bench/runs has none")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--under", type=float, default=60, metavar="MINUTES", help="leave out longer ones (default 60)")
    parser.add_argument("--out", type=Path, default=ROOT / "bench", help="(default: bench)")
    parser.add_argument("--list", action="store_true", help="names, minutes, and what cannot be run and why")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.only or ()) - {one.name for one in BENCHMARKS}):
        parser.error(f"there is no benchmark {unknown[0]!r}: --list shows them")
    folders = (options.photos, options.weights, options.coral, options.runs)
    for folder in folders:
        if folder is not None and not folder.is_dir():
            parser.error(f"there is no folder {folder}")
    photos, weights, coral, runs = (folder and folder.resolve() for folder in folders)
    out = options.out.resolve()
    places = Places(out / "runs", photos, weights, coral, runs)
    chosen = [one for one in BENCHMARKS if not options.only or one.name in options.only]
    if options.list:
        listed(chosen, places)
        return 0
    # What runs is ended before this is. SIGINT as well: what a shell starts in the background ignores it, and so would
    # all that is started from here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    text = (ROOT / "BENCHMARKS.md").read_text()
    return 0 if all(one.good for one in run(chosen, Page(text), places, out, options.under)) else 1


def listed(chosen: Sequence[Benchmark], places: Places) -> None:
    """Each with its minutes and what it lacks, as if they were run in this order; and what is left out."""
    coming: set[str] = set()
    for one in chosen:
        missing = places.missing(one, coming)
        print(f"{one.name:<18} {one.minutes:>3g} min  {missing}".rstrip())
        if not missing:
            coming |= places.makes(one)
    print(f"together {sum(one.minutes for one in chosen) / 60:.1f} hours")
    for command, why in LEFT_OUT.items():
        print(f"left out: {command}: {why}")


def run(chosen: Sequence[Benchmark], page: Page, places: Places, out: Path, under: float) -> list[Result]:
    """All of them, one after the other; BENCH.md is there after each."""
    out.mkdir(parents=True, exist_ok=True)
    # Those of BENCHMARKS first, in their order, whatever was chosen.
    names = list(dict.fromkeys(one.name for one in (*BENCHMARKS, *chosen)))
    machine = table.machine()
    results: list[Result] = []
    for turn, one in enumerate(chosen, 1):
        say(f"[{turn}/{len(chosen)}] {one.name}, about {one.minutes:g} min: tail -f {out / 'output' / one.name}.log")
        try:
            result = measured(one, page, places, out, under)
        except KeyboardInterrupt:
            say(f"stopped after {len(results)} of {len(chosen)}")
            sys.exit(130)
        results.append(result)
        if result.busy is not None and result.busy > BUSY:
            say(f"    others took {result.busy:.0%} of the processors when it began: its times are not its own")
        table.keep(result, out)
        write_atomically(out / "BENCH.md", table.page(table.kept(names, out), machine))
        for row in result.rows:
            say(f"    {told(row)}")
        if result.why:
            say(f"    {result.why}")
    say(f"written to {out / 'BENCH.md'}")
    return results


def told(row: Row) -> str:
    if row.recorded is None or row.now is None:
        return f"{row.name}: {row.why}"
    same = "" if row.reproduced else ", not reproduced"
    return f"{row.name}: {table.spelt(row.now)} {row.unit}".rstrip() + f" (recorded {row.recorded.text}{same})"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
