"""How long a model will take on a board that is not at hand, from what the board is described to reach.

Each operator takes the longer of two times, that of its multiply-adds and that of its bytes (a roofline), and a fixed
time to be started; the model takes their sum. Boards are described in `devices/*.toml`, each figure with its source;
efficiencies are calibrated against published latencies by tools/calibrate_devices.py. On the 12 CPU rows held out, all
MobileNets and SSDs built on them, the estimate was off by 9% on average and by 18% at most; against figures of older
runtimes by up to 52% (docs/device-estimates.md has every row). It is good for choosing a board, an input size or a
width, and not for promising a latency: a board that throttles, another runtime or an unusual operator is beyond it,
and it says nothing of p99.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import EdgennError
from ..graph import Graph
from ..model_file import ModelFile
from ..operators import EDGETPU
from . import environment
from .memory import weights
from .operators import layers
from .roofline import Machine, measure, operator_seconds

SCHEMA = 1
DEVICES = Path(__file__).with_name("devices")
# What an interpreter takes by default: see `interpreter`.
_MOST_THREADS = 4
_DEPTHWISE = "DEPTHWISE_CONV_2D"

Bound = Literal["compute", "memory"]


class Step(NamedTuple):
    """An operator as far as its time depends on it: multiply-adds, bytes of activations and of weights."""

    name: str
    macs: int
    activations: int
    weights: int
    dtype: str = "int8"


@dataclass(frozen=True)
class Device:
    """A board, as its TOML file describes it (docs/device-estimates.md has the fields).

    Attributes:
      name, title: short name, and the one for people.
      kind: "cpu" or "edgetpu".
      runtime: whose kernels the figures are of.
      cores: 1 for an Edge TPU.
      peak: multiply-adds a second of one core, by "int8", "int8_depthwise" and "float32".
      efficiency: share of the peak that networks reach, by "int8" and "float32"; "depthwise" is a factor on these.
      memory: bytes a second; of an Edge TPU, of the link to its host.
      cache: bytes of activations that need no memory; of an Edge TPU, bytes of weights that it keeps.
      operator_seconds: to start one operator.
      start_seconds: once an inference.
      error: largest of predicted / published - 1, whatever its sign, on figures held out, by dtype; missing where
        there was none.
      sources: where the figures are from, by section of the file.
    """

    name: str
    title: str
    kind: Literal["cpu", "edgetpu"]
    runtime: str
    cores: int
    peak: Mapping[str, float]
    efficiency: Mapping[str, float]
    memory: float
    cache: int
    operator_seconds: float
    start_seconds: float
    error: Mapping[str, float]
    sources: Mapping[str, str]


@dataclass(frozen=True)
class LayerEstimate:
    """One operator: index and name in the graph, the author's name of the layer, counts, seconds, what bounds it."""

    index: int
    name: str
    layer: str
    macs: int
    bytes: int
    seconds: float
    bound: Bound


@dataclass(frozen=True)
class Estimate:
    """What a model will take.

    Attributes:
      device: the board.
      seconds: of one inference, warmed up, without preprocessing.
      threads: CPU threads.
      error: largest of predicted / published - 1, whatever its sign, on published figures held out; None where there
        was none to hold against it.
      layers: operator by operator; they add up to `seconds` less `beside`.
      beside: seconds that belong to no operator (an Edge TPU's start, input and weights over the link).
      remarks: sentences on what the figure rests on.
    """

    device: Device
    seconds: float
    threads: int
    error: float | None
    layers: tuple[LayerEstimate, ...]
    beside: float
    remarks: tuple[str, ...]

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high) seconds that a measured figure would lie in at that error; None where it is not known."""
        return None if self.error is None else (self.seconds / (1 + self.error), self.seconds / (1 - self.error))


def devices() -> list[str]:
    """Names of the boards that edgenn describes."""
    return sorted(path.stem for path in DEVICES.glob("*.toml"))


def load_device(name: str | Path) -> Device:
    """A board by its name, or by the path of a file that `describe_this_board` wrote.

    Raises:
      EdgennError: there is none, or the file is not such a description.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = DEVICES / f"{name}.toml"
        if str(name) not in devices():
            raise EdgennError(f"no device {str(name)!r}: choose one of {', '.join(devices())}, or give a .toml file")
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EdgennError(f"{path} cannot be read as a device description ({error})") from None
    try:
        return _device(path.stem, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EdgennError(f"{path} is not a device description of schema {SCHEMA} ({error}): save it again") from None


def _device(name: str, document: dict[str, Any]) -> Device:
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}")
    if document["kind"] not in ("cpu", "edgetpu"):
        raise ValueError(f"kind {document['kind']!r}")
    parts = {section: value for section, value in document.items() if isinstance(value, dict)}

    def figures(section: str) -> dict[str, float]:
        return {key: float(value) for key, value in parts.get(section, {}).items() if key != "source"}

    overhead, memory = figures("overhead"), figures("memory")
    device = Device(
        name=name,
        title=str(document["title"]),
        kind=document["kind"],
        runtime=str(document["runtime"]),
        cores=int(parts["cpu"]["cores"]) if document["kind"] == "cpu" else 1,
        peak=figures("peak"),
        efficiency=figures("efficiency"),
        memory=memory["bytes_per_second"],
        cache=int(memory["cache_bytes"]),
        operator_seconds=overhead["operator_seconds"],
        start_seconds=overhead.get("start_seconds", 0.0),
        error=figures("error"),
        sources={section: str(value["source"]) for section, value in parts.items()},
    )
    rates = (*device.peak.values(), *device.efficiency.values(), device.memory, device.cores)
    if not all(0 < rate < math.inf for rate in rates) or not device.peak:
        raise ValueError("a rate is not above 0")
    return device


def steps(graph: Graph) -> list[Step]:
    """The graph's operators, one step each."""
    found = []
    for layer, operator in zip(layers(graph), graph.operators, strict=True):
        constants = sum(
            graph.tensors[index].bytes for index in set(operator.inputs) if index >= 0 and graph.tensors[index].constant
        )
        dtype = graph.tensors[operator.outputs[0]].dtype if operator.outputs else "int8"
        kind = "float32" if dtype.startswith("float") else "int8"
        found.append(Step(operator.name, layer.macs, layer.bytes - constants, constants, kind))
    return found


def step_seconds(device: Device, step: Step, threads: int) -> tuple[float, Bound]:
    """(seconds, what bounds it) of one operator.

    Raises:
      EdgennError: the description has no figure for this kind of arithmetic.
    """
    if device.kind == "edgetpu":
        return step.macs / device.peak["int8"] + device.operator_seconds, "compute"
    kind = f"{step.dtype}_depthwise" if step.name == _DEPTHWISE and step.dtype == "int8" else step.dtype
    if kind not in device.peak or step.dtype not in device.efficiency:
        raise EdgennError(f"{device.title} is described without {step.dtype} figures: convert the model to int8")
    rate = device.peak[kind] * min(threads, device.cores) * device.efficiency[step.dtype]
    if step.name == _DEPTHWISE:
        rate *= device.efficiency["depthwise"]
    # Small activations are still in the cache when the next operator reads them; weights of all layers are not.
    moved = step.weights + (step.activations if step.activations > device.cache else 0)
    compute, memory = step.macs / rate, moved / device.memory
    return max(compute, memory) + device.operator_seconds, "compute" if compute >= memory else "memory"


def model_seconds(device: Device, work: list[Step], threads: int, *, input_bytes: int = 0, weights: int = 0) -> float:
    """Seconds of a whole network given by its steps; `input_bytes` and `weights` count for an Edge TPU alone."""
    beside = _beside(device, input_bytes, weights)
    return beside + sum(step_seconds(device, step, threads)[0] for step in work)


def _beside(device: Device, input_bytes: int, weights: int) -> float:
    if device.kind == "cpu":
        return device.start_seconds
    # Weights that its memory does not hold cross the link again in every inference.
    return device.start_seconds + (input_bytes + max(0, weights - device.cache)) / device.memory


def estimate(model: ModelFile, device: Device | str | Path, *, threads: int | None = None) -> Estimate:
    """Predict the latency of a model on a board.

    Args:
      model: the model file; for an Edge TPU the int8 model that would be compiled for it.
      device: a description, the name of one, or the path of a file.
      threads: CPU threads; None: the board's cores, four at most.

    Raises:
      EdgennError: no such device, a model compiled for an Edge TPU, or float arithmetic on a board without figures.
    """
    if not isinstance(device, Device):
        device = load_device(device)
    if any(operator.name == EDGETPU for operator in model.graph.operators):
        raise EdgennError(
            f"{model.path} was compiled for an Edge TPU, which hides its operators: give the model it was compiled from"
        )
    if threads is not None and threads < 1:
        raise EdgennError(f"{threads} threads cannot run a model: --threads takes 1 or more")
    threads = min(threads or _MOST_THREADS, device.cores)
    work = steps(model.graph)
    kinds = {step.dtype for step in work if step.macs}
    if device.kind == "edgetpu" and "float32" in kinds:
        raise EdgennError("an Edge TPU computes in int8 only: convert the model with --quantization int8")
    rows = []
    for layer, step in zip(layers(model.graph), work, strict=True):
        seconds, bound = step_seconds(device, step, threads)
        rows.append(LayerEstimate(layer.index or 0, layer.name, layer.layer, layer.macs, layer.bytes, seconds, bound))
    tensors = model.graph.tensors
    beside = _beside(device, sum(tensors[index].bytes for index in model.graph.inputs), weights(model.graph))
    dtype = "float32" if "float32" in kinds else "int8"
    return Estimate(
        device=device,
        seconds=beside + sum(row.seconds for row in rows),
        threads=threads,
        error=device.error.get(dtype),
        layers=tuple(rows),
        beside=beside,
        remarks=_remarks(device, dtype, work),
    )


def _remarks(device: Device, dtype: str, work: list[Step]) -> tuple[str, ...]:
    remarks = [f"Not measured: worked out for {device.title} with {device.runtime}."]
    if dtype in device.error:
        remarks.append(
            f"On published figures held out of the calibration it was off by up to {device.error[dtype]:.0%}."
        )
    else:
        remarks.append(f"No published {dtype} figure of this board could be held against it: expect a factor of 1.5.")
    if device.kind == "edgetpu":
        remarks.append("It holds if the compiler maps every operator to the Edge TPU.")
    unknown = sorted({step.name for step in work if not step.macs and step.name not in _LIGHT.split()})
    if unknown:
        remarks.append(f"Only the bytes of {', '.join(unknown)} are counted, not what they compute.")
    return tuple(remarks)


# Operators whose time is that of their bytes.
_LIGHT = """
    ADD AVERAGE_POOL_2D CONCATENATION DEQUANTIZE EXPAND_DIMS HARD_SWISH LOGISTIC MAX_POOL_2D MEAN MUL PAD QUANTIZE RELU
    RELU6 RESHAPE SOFTMAX SQUEEZE STRIDED_SLICE SUB
"""


def calibrated(device: Device, dtype: str, seconds: float, predicted: Callable[[Device], float]) -> Device:
    """The device with the efficiency at which `predicted(device)` gives the measured `seconds`.

    Raises:
      EdgennError: no efficiency does (the measured time is below what memory and starting the operators take).
    """
    low, high = 1e-4, 1e2
    if predicted(_with(device, dtype, high)) > seconds:
        raise EdgennError(f"{device.title} would need more than {high:.0f} times its peak: a figure must be wrong")
    for _ in range(60):
        middle = math.sqrt(low * high)
        if predicted(_with(device, dtype, middle)) > seconds:
            low = middle
        else:
            high = middle
    return _with(device, dtype, high)


def _with(device: Device, dtype: str, efficiency: float) -> Device:
    return replace(device, efficiency={**device.efficiency, dtype: efficiency})


def describe_this_board(
    name: str,
    model: ModelFile,
    seconds: float,
    *,
    runtime: str,
    threads: int,
    kernels: str,
    machine: Machine | None = None,
    start: float | None = None,
) -> str:
    """A description of this machine as TOML, from measurements made here; `load_device` reads it from a file.

    Args:
      name: title of the description.
      model, seconds: a model and the median of its measured latency, which the efficiency is fitted to.
      runtime, threads, kernels: of the interpreter that it was measured with.
      machine: the roof of one thread; None: measured now.
      start: seconds to start an operator; None: measured now.

    Raises:
      EdgennError: the figures contradict each other.
    """
    if any(character in name for character in '"\\\n'):
        raise EdgennError(f"{name!r} cannot be the name of a device: leave out quotes and backslashes")
    roof = machine or measure(runtime=runtime, threads=1, kernels=kernels)
    start = start or operator_seconds(runtime=runtime, threads=threads, kernels=kernels)
    device = Device(
        name=name,
        title=name,
        kind="cpu",
        runtime=f"{runtime}, {kernels} kernels",
        cores=environment.cores(),
        peak={"int8": roof.int8, "int8_depthwise": roof.int8_depthwise, "float32": roof.float32},
        efficiency={"int8": 1.0, "float32": 1.0, "depthwise": 1.0},
        memory=roof.memory,
        cache=1 << 20,
        operator_seconds=start,
        start_seconds=0.0,
        error={},
        sources={},
    )
    work = steps(model.graph)
    dtype = "float32" if any(step.macs and step.dtype == "float32" for step in work) else "int8"
    fitted = calibrated(device, dtype, seconds, lambda guess: model_seconds(guess, work, threads)).efficiency[dtype]
    measured = f"measured here with {runtime}, {kernels} kernels"
    return f'''schema = {SCHEMA}
title = "{name}"
kind = "cpu"
runtime = "{device.runtime}"

[cpu]
cores = {device.cores}
source = "{_plain(roof.cpu)}"

[peak]
int8 = {roof.int8:.4g}
int8_depthwise = {roof.int8_depthwise:.4g}
float32 = {roof.float32:.4g}
source = "{measured}: multiply-adds a second of one thread, 1x1 and 3x3 depthwise convolutions"

[efficiency]
int8 = {fitted:.4g}
float32 = {fitted:.4g}
depthwise = 1.0
source = "fitted to {_plain(Path(model.path).name)}, {seconds * 1e3:.4g} ms with {threads} threads ({dtype})"

[memory]
bytes_per_second = {roof.memory:.4g}
cache_bytes = {device.cache}
source = "{measured}: NumPy copying 32 MB with one thread, read and written; the cache is assumed"

[overhead]
operator_seconds = {start:.4g}
source = "{measured}: a convolution with next to nothing to compute"
'''


def _plain(text: str) -> str:
    return text.replace("\\", "/").replace('"', "'")
