"""How long the int8 file takes on this machine, by the profiler's own loop and statistics.

A trial is timed as soon as it is converted, which guides the search; the finalists are timed once more, in turns, when
nothing of ours trains any more, which decides. Both say what disturbed them.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from edgenn_device.model_file import load
from edgenn_device.profiler import environment, state, sweep
from edgenn_device.profiler.steady import FEWEST_RUNS, WIDTH

from .outcome import Latency

# Seconds for each model at most; a median that is known to 1% ends it sooner. A model of 100 ms has 50 runs in it.
SECONDS = 5.0


def machine() -> str:
    """This machine in one line: host, board, CPU and how many cores we may use."""
    parts = [socket.gethostname(), environment.board(), environment.cpu_model()]
    return ", ".join([*(part for part in parts if part), f"{environment.cores()} cores"])


def timed(models: Mapping[int, Path], seconds: float | None = None) -> dict[int, Latency]:
    """Time .tflite files in turns.

    Args:
      models: number of the trial -> path.
      seconds: for each; SECONDS if None.

    Raises:
      EdgennError: a model cannot be read or run.
    """
    if not models:
        return {}
    numbers = list(models)
    chosen = [sweep.subjects([load(models[number])])[0] for number in numbers]
    before, watch = state.state(), state.Watch()
    variants = sweep.measure(
        chosen, runs=None, seconds=seconds or SECONDS, fewest=FEWEST_RUNS, width=WIDTH, between=watch
    )
    after, here, emulator = state.state(), machine(), environment.emulator()
    found = {}
    for number, variant in zip(numbers, variants, strict=True):
        steady = variant.steady
        middle = steady.latencies.percentile(50)
        low, high = steady.interval or (steady.latencies.min, steady.latencies.max)
        told = state.disturbances(before, after, emulator, steady.drift, watch.states)
        found[number] = Latency(middle, low, high, steady.latencies.count, here, variant.description, tuple(told))
    return found
