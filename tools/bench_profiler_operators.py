"""Do the profiler's operators add up to the whole, and are the dearest those that LiteRT's own summary names?

    python tools/bench_profiler_operators.py MODEL [--repetitions 5] [--seconds 2] [--threads 1]

Each repetition is a process of its own, in which LiteRT also writes its summary of all runs. The profiler's table of
all runs must name the same three dearest operators, by their place in the running order; the sums are of the quickest
quarter of the runs, which is what a profile shows. Exit status 1 when a sum is off by more than 5% or the three differ.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "device"))

from edgenn_device.model_file import ModelFile, load
from edgenn_device.profiler import litert_child, operators

GAP = 0.05
DEAREST = 3
# A row of the summary's first table: type, start, first, average ms, share, …, and at the end [Delegate]:7.
_ROW = re.compile(r"^\s*(\S.*?)\s+[\d.]+\s+[\d.]+\s+([\d.]+)\s+[\d.]+%.*\]:\d+\s*$")


def both(
    model: ModelFile, threads: int, seconds: float
) -> tuple[operators.OperatorTimes, operators.OperatorTimes, list[float]]:
    """The profiler's times of the quickest runs and of all, and the ms of LiteRT's own summary, in running order."""
    request = json.dumps({"threads": threads, "kernels": "xnnpack", "seconds": seconds, "summary": True})
    command = [sys.executable, litert_child.__file__, request]
    answer = json.loads(subprocess.run(command, input=model.content, capture_output=True, check=True).stdout)
    text = answer["summary"].partition("Top by Computation Time")[0]
    rows = [float(found[2]) for line in text.splitlines() if (found := _ROW.match(line))]
    untimed = operators.layers(model.graph)
    quickest = operators.explain(untimed, answer["runs"])
    with patch.object(operators, "_quickest", lambda runs: runs):
        return quickest, operators.explain(untimed, answer["runs"]), rows


def dearest(times: list[float]) -> set[int]:
    return set(sorted(range(len(times)), key=lambda place: -times[place])[:DEAREST])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--labels")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    model = load(arguments.model, labels=arguments.labels)
    same, added = 0, []
    for _ in range(arguments.repetitions):
        timed, of_all, rows = both(model, arguments.threads, arguments.seconds)
        layers = [layer for layer in of_all.layers if layer.microseconds is not None]
        if len(rows) != len(layers) or timed.sum_microseconds is None or timed.whole_microseconds is None:
            print(f"{len(layers)} layers and {len(rows)} rows of LiteRT's summary: this model cannot be compared so")
            return 1
        ours, theirs = dearest([layer.microseconds or 0.0 for layer in layers]), dearest(rows)
        same += ours == theirs
        added.append(timed.sum_microseconds / timed.whole_microseconds)
        names = ", ".join(f"{layers[place].layer} {layers[place].microseconds:.0f} µs" for place in sorted(ours))
        verdict = (
            "the same" if ours == theirs else f"LiteRT: {', '.join(layers[place].layer for place in sorted(theirs))}"
        )
        print(f"sum {added[-1]:.1%} of {timed.whole_microseconds:.0f} µs; dearest {names}: {verdict}")
    good = all(abs(share - 1) <= GAP for share in added) and same == len(added)
    sums = f"sums {min(added):.1%} to {max(added):.1%} of the whole"
    print(f"{sums}; the three dearest as LiteRT has them in {same} of {len(added)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
