"""What the profiler costs: the p50 of `invoke` under it against a bare loop, interleaved in one run.

    python tools/bench_profiler.py MODEL [--rounds 100] [--runs 8] [--threads 1]

Short blocks of the two take turns, and every other round begins with the other one, so that heat, clock and
neighbours hit both alike. Exit status 1 when the difference is above 1% and above 2 µs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "device"))

from edgenn_device.classifier import Classifier
from edgenn_device.profiler import state
from edgenn_device.profiler.histogram import Histogram
from edgenn_device.profiler.steady import steady_state

SHARE, MICROSECONDS = 0.01, 2.0
# As many untimed calls as the profiler's warm-up makes before a block.
_WARM_UP = 10


def bare(invoke: Callable[[], object], runs: int) -> list[int]:
    """The loop that anybody would write: nanoseconds of each call, kept in a list."""
    clock = time.perf_counter_ns
    for _ in range(_WARM_UP):
        invoke()
    spent = []
    for _ in range(runs):
        begin = clock()
        invoke()
        spent.append(clock() - begin)
    return spent


def compare(invoke: Callable[[], object], rounds: int, runs: int) -> tuple[Histogram, Histogram]:
    """(latencies under the profiler, latencies of the bare loop)."""
    profiled, plain = Histogram(), Histogram()
    for number in range(rounds):
        for turn in (0, 1):
            if turn == number % 2:
                profiled.merge(steady_state(invoke, runs=runs).latencies)
            else:
                for nanoseconds in bare(invoke, runs):
                    plain.record_ns(nanoseconds)
    return profiled, plain


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--labels")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--runs", type=int, default=8, help="calls in each block")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    classifier = Classifier(arguments.model, labels=arguments.labels, threads=arguments.threads)
    tensor = classifier.preprocess(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    before = state.state()
    profiled, plain = compare(lambda: classifier.interpreter.invoke(tensor), arguments.rounds, arguments.runs)
    for sentence in state.disturbances(before, state.state()):
        print(f"! {sentence}")
    print(f"{Path(arguments.model).name}, {classifier.interpreter.description}, {profiled.count} runs of each")
    for name, latencies in (("under the profiler", profiled), ("bare loop", plain)):
        low, high = latencies.median_interval() or (float("nan"), float("nan"))
        print(
            f"{name:20} p50 {latencies.percentile(50) * 1e6:9.2f} µs   95% interval {low * 1e6:.2f} to {high * 1e6:.2f}"
        )
    difference = profiled.percentile(50) - plain.percentile(50)
    share = difference / plain.percentile(50)
    good = abs(share) <= SHARE or abs(difference) * 1e6 <= MICROSECONDS
    print(f"difference {difference * 1e6:+.2f} µs, {share:+.2%}: {'within' if good else 'beyond'} 1% or 2 µs")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
