"""How fast this machine's kernels can be, measured once, and how near each operator of a model comes to it.

The roof has two sides (S. Williams, A. Waterman, D. Patterson, "Roofline", Communications of the ACM 52(4), 2009): the
rate of arithmetic, and the rate of memory times the operations done with each byte. Both are what a program reaches
here, not what a data sheet promises: the peak is the fastest that this runtime's kernel library ran a convolution made
to suit it, with as many threads; the memory rate is NumPy copying an array that no cache of a small board holds. It
judges no kernel: an operator below the roof may be too small, or limited by a cache rather than by memory.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import flatbuffer
from ..card import InputSpec
from ..errors import EdgennError
from ..files import write_atomically
from ..graph import Graph
from ..model_file import ModelFile
from . import environment, state
from .operators import Layer
from .probe_model import WINDOW, Dtype, Kind, convolutions

if TYPE_CHECKING:
    from ..interpreter import Kernels

SCHEMA = 1
OPERATIONS_PER_MAC = 2  # a multiplication and an addition, as peak figures (TOPS) count them
# The probe: activations of 200 kB and weights of 64 kB stay within the level 2 cache of every board named in `devices`
# (512 kB at least), and 256 channels fill the kernels' tiles. Four in a row outweigh what calling the runtime costs.
_SIDE, _CHANNELS, _COUNT = 28, 256, 4
_SECONDS = 0.4
# A slow board makes this many runs, but does not take longer than so many times the seconds for them.
_FEWEST = 5
_MOST_TIMES = 4
# Copied from and to, in bytes: 16 times the largest last-level cache of those boards, and little beside 512 MB.
_ARRAY = 1 << 25


@dataclass(frozen=True)
class Machine:
    """What was reached on this machine.

    Attributes:
      int8, int8_depthwise, float32: multiply-adds a second of all threads; 1x1 and 3x3 depthwise convolutions.
      memory: bytes a second, read and written added up, of all threads copying at once (as STREAM counts).
      runtime, kernels, threads: what it was reached with.
      cpu: name of the CPU.
    """

    int8: float
    int8_depthwise: float
    float32: float
    memory: float
    runtime: str
    kernels: str
    threads: int
    cpu: str

    @property
    def description(self) -> str:
        """What the figures mean, in one line."""
        return (
            f"peak {self.int8 * OPERATIONS_PER_MAC / 1e9:.0f} int8 GOPS, {self.float32 * OPERATIONS_PER_MAC / 1e9:.0f} "
            f"float32 GOPS, reached by {self.runtime}'s {self.kernels} kernels on a convolution that suits them with "
            f"{self.threads} thread{'s' if self.threads > 1 else ''}; memory {self.memory / 1e9:.1f} GB/s, read and "
            "write, of a copy"
        )


@dataclass(frozen=True)
class Point:
    """An operator under the roof.

    Attributes:
      index, name, layer: as in `operators.Layer`.
      gops: billions of operations a second that it achieved, two for each multiply-add; None where it was not timed.
      gigabytes: a second, of inputs, weights and outputs, each counted once; None likewise.
      intensity: operations for each byte.
      roof: billions of operations a second that the roof allows at that intensity.
      bound: which side of the roof lies above it: "compute" or "memory". Operators without multiply-adds: "memory".
      share: of what the bounding side allows, 0..1 (a little above 1 where caches beat memory); None likewise.
    """

    index: int | None
    name: str
    layer: str
    gops: float | None
    gigabytes: float | None
    intensity: float
    roof: float
    bound: Literal["compute", "memory"]
    share: float | None


# LiteRT cuts an operator's time off at a whole µs: below ten of them that may be a tenth of it and more, and a rate
# made of it lie above the roof.
_LEAST_MICROSECONDS = 10


def points(timed: Sequence[Layer], machine: Machine, graph: Graph | None = None) -> tuple[Point, ...]:
    """Where each layer stands, in the order given; layers without bytes (kernels of no operator) are left out.

    Args:
      timed: of `operators.timed` or `prefixes.timed`; layers untimed, or of less than 10 µs, get a roof and no share.
      graph: of the model; with it, layers that compute in float32 are held against that peak. Without it all are int8.
    """
    return tuple(_point(layer, machine, _dtype(layer, graph)) for layer in timed if layer.bytes)


def _point(layer: Layer, machine: Machine, dtype: str) -> Point:
    peak = machine.float32 if dtype == "float32" else machine.int8
    operations = OPERATIONS_PER_MAC * layer.macs
    intensity = operations / layer.bytes
    side: Literal["compute", "memory"] = (
        "compute" if intensity * machine.memory >= OPERATIONS_PER_MAC * peak else "memory"
    )
    roof = min(OPERATIONS_PER_MAC * peak, intensity * machine.memory)
    gops = gigabytes = share = None
    if layer.microseconds and layer.microseconds >= _LEAST_MICROSECONDS:
        seconds = layer.microseconds / 1e6
        gops, gigabytes = operations / seconds / 1e9, layer.bytes / seconds / 1e9
        share = operations / seconds / roof if side == "compute" else layer.bytes / seconds / machine.memory
    return Point(layer.index, layer.name, layer.layer, gops, gigabytes, intensity, roof / 1e9, side, share)


def _dtype(layer: Layer, graph: Graph | None) -> str:
    if graph is None or layer.index is None:
        return "int8"
    outputs = graph.operators[layer.index].outputs
    return graph.tensors[outputs[0]].dtype if outputs else "int8"


def machine(
    *,
    runtime: str,
    version: str,
    threads: int,
    kernels: str,
    cache: Path | None = None,
    root: str | Path = "/",
    probe: Callable[[], Machine] | None = None,
) -> Machine:
    """The machine's roof, from the cache where it was measured before; measuring takes about three seconds.

    Args:
      runtime, version, threads, kernels: of the interpreter whose operators are to be held against it.
      cache: the file; None: edgenn/roofline.json in $XDG_CACHE_HOME or ~/.cache. One that cannot be read is measured
        anew, one that cannot be written is done without.
      root: where /proc and /sys are, for the key under which it is kept.
      probe: measures; None: `measure`.

    Raises:
      EdgennError: the runtime does not run the probe, or the machine is an emulator, which has no roof to speak of.
    """
    base = Path(root)
    if (emulator := environment.emulator(base)) is not None:
        raise EdgennError(f"{emulator} has no roofline: measure on the device itself")
    _, fastest = state.clock_limits(base)
    cpu = environment.cpu_model(base) or "unknown CPU"
    facts = (environment.board(base), cpu, fastest, environment.cores(), runtime, version, kernels, threads)
    key = " ".join(map(str, facts))
    cache = cache or _cache_file()
    kept = _read(cache)
    if key in kept:
        try:
            return Machine(**kept[key])
        except TypeError:  # written by another version
            pass
    found = (probe or (lambda: measure(runtime=runtime, threads=threads, kernels=kernels, cpu=cpu)))()
    try:
        write_atomically(cache, json.dumps({"schema": SCHEMA, "machines": {**kept, key: asdict(found)}}, indent=1))
    except EdgennError:  # a read-only system: measured again next time
        pass
    return found


def measure(*, runtime: str, threads: int, kernels: str, cpu: str = "") -> Machine:
    """Measure the roof now."""

    def rate(kind: Kind, dtype: Dtype) -> float:
        return _convolution_rate(kind, dtype, runtime, threads, kernels)

    return Machine(
        int8=rate("CONV_2D", "int8"),
        int8_depthwise=rate("DEPTHWISE_CONV_2D", "int8"),
        float32=rate("CONV_2D", "float32"),
        memory=copy_rate(threads),
        runtime=runtime,
        kernels=kernels,
        threads=threads,
        cpu=cpu or environment.cpu_model() or "unknown CPU",
    )


def operator_seconds(*, runtime: str, threads: int, kernels: str) -> float:
    """Seconds to start one operator: the time of one with next to nothing to compute."""
    side, channels, count = 2, 8, 64
    return _probe_seconds("CONV_2D", "int8", side, channels, count, runtime, threads, kernels) / count


def _convolution_rate(kind: Kind, dtype: Dtype, runtime: str, threads: int, kernels: str) -> float:
    """Multiply-adds a second."""
    window = _CHANNELS if kind == "CONV_2D" else WINDOW * WINDOW
    macs = _COUNT * _SIDE * _SIDE * _CHANNELS * window
    return macs / _probe_seconds(kind, dtype, _SIDE, _CHANNELS, _COUNT, runtime, threads, kernels)


def _probe_seconds(
    kind: Kind, dtype: Dtype, side: int, channels: int, count: int, runtime: str, threads: int, kernels: str
) -> float:
    from ..interpreter import Interpreter

    content = convolutions(kind, dtype, side, channels, count)
    # It takes no picture, and an interpreter does not ask for one: the input is only named so.
    named = InputSpec(side, side)
    model = ModelFile(Path(f"{kind} probe"), content, flatbuffer.parse(content), None, (), named, ())
    choice: Kernels = "builtin" if kernels == "builtin" else "default"
    interpreter = Interpreter(model, runtime=runtime, threads=threads, kernels=choice)
    random = np.random.default_rng(0)
    shape = interpreter.input.shape
    values = random.integers(-20, 21, shape) if dtype == "int8" else random.normal(0, 1, shape)
    interpreter.invoke_raw(values.astype(interpreter.input.dtype))
    return _best(interpreter._native.invoke, _SECONDS)


def copy_rate(threads: int, size: int = _ARRAY, seconds: float = _SECONDS) -> float:
    """Bytes a second that `threads` threads read and write together when each copies its part of an array.

    Args:
      size: bytes copied.
      seconds: how long.
    """
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    edges = [size * number // threads for number in range(threads + 1)]
    parts = [(source[low:high], target[low:high]) for low, high in pairwise(edges)]

    def copy() -> None:
        workers = [threading.Thread(target=np.copyto, args=(to, of)) for of, to in parts[1:]]
        for worker in workers:
            worker.start()
        np.copyto(parts[0][1], parts[0][0])
        for worker in workers:
            worker.join()

    return 2 * size / _best(copy, seconds)


def _best(run: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest run: a peak is what can be reached, and a neighbour only ever slows."""
    best, runs = float("inf"), 0
    began = time.perf_counter()
    spent = 0.0
    while spent < seconds or (runs < _FEWEST and spent < _MOST_TIMES * seconds) or not runs:
        begin = time.perf_counter_ns()
        run()
        best = min(best, time.perf_counter_ns() - begin)
        runs += 1
        spent = time.perf_counter() - began
    return best / 1e9


def _cache_file() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "edgenn" / "roofline.json"


def _read(cache: Path) -> dict[str, Any]:
    try:
        document = json.loads(cache.read_bytes())
        return dict(document["machines"]) if document["schema"] == SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
