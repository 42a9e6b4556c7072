"""An int8 model compiled for the Edge TPU where edgetpu_compiler is installed, and what it would come to where not.

What the compiler mapped is read off the file that it wrote, layer by layer; why it left something out, and how the
chip's memory is used, off its log (`edgetpu_compiler`). Without the compiler the answer is a prediction
(`targets.findings`) and says so. Decides nothing: `reasons` are for the gate to heed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgenn_device import flatbuffer, model_file
from edgenn_device.card import Card
from edgenn_device.errors import EdgennError
from edgenn_device.graph import Graph
from edgenn_device.metadata import ENTRY
from edgenn_device.operators import EDGETPU
from edgenn_device.profiler.estimate import load_device, model_seconds, steps
from edgenn_device.standby import COMPILED

from . import metadata, targets
from .edgetpu_compiler import COMPILER, Log, compile_file, find, how_to_get_the_compiler, parse
from .layer_names import name_layers
from .targets import coral

_FOLLOWS = "More than one subgraph is not supported"
# Boards whose descriptions the two times are worked out from.
_CPU, _TPU = "pi4", "coral-usb"
# What to do about a status of the operator table; what is not here is told as it is.
_STATUSES = {
    "Operation is working on an unsupported data type": "convert it with --quantization int8",
    "Operation is otherwise supported, but not mapped due to some unspecified limitation": "give it a smaller tensor, "
    "or another layer (coral.ai/docs/edgetpu/models-intro lists the limits)",
    "Tensor has unsupported rank (up to 3 innermost dimensions mapped)": "convert it with a batch of 1",
}


@dataclass(frozen=True)
class OnCpu:
    """An operator that the Edge TPU does not run: what it is, of which layer, why, and what to do ("" if nothing)."""

    operator: str
    layer: str
    why: str
    mend: str
    macs: int


@dataclass(frozen=True)
class Report:
    """What the Edge TPU makes of a model.

    Attributes:
      compiler: its version; None if this is a prediction.
      content: the compiled flatbuffer, without card or metadata; None if there is none.
      operators: how many the model has; `on_cpu` are those that stay on the CPU, in the graph's order.
      macs: of all operators.
      on_chip, on_chip_left, off_chip: bytes of parameters kept on the chip, of room left there, and of those sent with
        every picture; None where not known.
      seconds, cpu_seconds: of an inference on a Pi 4 with a USB Accelerator, and on the Pi 4 alone: worked out from
        `profiler.estimate`'s descriptions of the two, not measured.
      failure: why there is no compiled file, as one clause; "" if there is one, or no compiler.
    """

    compiler: str | None
    content: bytes | None
    operators: int
    on_cpu: tuple[OnCpu, ...]
    macs: int
    on_chip: int | None = None
    on_chip_left: int | None = None
    off_chip: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    failure: str = ""

    @property
    def predicted(self) -> bool:
        return self.compiler is None

    @property
    def mapped(self) -> int:
        return self.operators - len(self.on_cpu)

    @property
    def first(self) -> OnCpu | None:
        """The first operator on the CPU that has a reason of its own, and does not only follow another."""
        return next((left for left in self.on_cpu if left.why != _FOLLOWS), next(iter(self.on_cpu), None))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the model is none for an Edge TPU, by what the compiler did: it failed, mapped nothing, or left
        multiply-adds to the CPU. Operators without any (QUANTIZE, SOFTMAX) cost little there."""
        if self.failure:
            return (f"{COMPILER} makes no file of it: {self.failure}",)
        heavy = sum(left.macs for left in self.on_cpu)
        first = self.first
        if self.predicted or first is None or (self.mapped and not heavy):
            return ()
        return (
            f"{len(self.on_cpu)} of {self.operators} operators, with {heavy / max(self.macs, 1):.0%} of the "
            f"multiply-adds, stay on the CPU; the first is {first.operator} of {first.layer} ({first.why})"
            + (f": {first.mend}" if first.mend else ""),
        )

    def lines(self) -> tuple[str, ...]:
        """What a person should read."""
        if self.failure:
            return (f"{COMPILER} makes no file of it: {self.failure}",)
        who = "predicted, not compiled" if self.predicted else f"compiler {self.compiler}"
        said = [f"{self.mapped} of {self.operators} operators on the Edge TPU ({who})"]
        first = self.first
        if first is not None:
            said.append(
                f"first on the CPU: {first.operator} of {first.layer} ({first.why})"
                + (f": {first.mend}" if first.mend else "")
            )
        if self.on_chip is not None and self.off_chip is not None:
            left = f", {_size(self.on_chip_left)} left" if self.on_chip_left is not None else ""
            said.append(
                f"parameters: {_size(self.on_chip)} on the chip{left}; {_size(self.off_chip)} sent with every picture"
            )
        if self.seconds and self.cpu_seconds:
            said.append(
                f"worked out, not measured: {1e3 * self.seconds:.1f} ms on a Pi 4 with a USB Accelerator, "
                f"{1e3 * self.cpu_seconds:.1f} ms on the Pi 4 alone: {self.faster} (docs/device-estimates.md)"
            )
        if self.predicted:
            said.append(f"to compile it: {how_to_get_the_compiler()}")
        return tuple(said)

    @property
    def faster(self) -> str:
        """Which of the two is faster, by more than the descriptions were found to be off."""
        assert self.seconds is not None
        assert self.cpu_seconds is not None
        ratio = self.cpu_seconds / self.seconds
        error = max(load_device(name).error.get("int8", 0.5) for name in (_CPU, _TPU))
        doubt = (1 + error) / (1 - error)
        if ratio > doubt:
            return "the Edge TPU is faster"
        return "the CPU alone is faster" if ratio < 1 / doubt else "about as fast as each other"

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "predicted": self.predicted,
            "compiler": self.compiler,
            "operators": self.operators,
            "mapped": self.mapped,
            "on_cpu": [
                {"operator": left.operator, "layer": left.layer, "why": left.why, "mend": left.mend, "macs": left.macs}
                for left in self.on_cpu
            ],
            "parameters": {"on_chip": self.on_chip, "on_chip_left": self.on_chip_left, "off_chip": self.off_chip},
            "estimated_ms": {
                "edge_tpu": None if self.seconds is None else round(1e3 * self.seconds, 3),
                "cpu": None if self.cpu_seconds is None else round(1e3 * self.cpu_seconds, 3),
            },
            "failure": self.failure or None,
        }


def examine(content: bytes, layers: Sequence[str] = ()) -> Report:
    """Compile a model if the compiler is on the PATH, else predict what it would do. Never raises for what it does.

    Args:
      content: the int8 flatbuffer as it was converted, without card or metadata.
      layers: names of the Keras layers, where the network is known.
    """
    graph = flatbuffer.parse(content)
    compiler = find()
    if compiler is None:
        return _predicted(graph, content, layers)
    try:
        compiled, log = compile_file(compiler, content)
        return _compiled(graph, compiled, parse(log), layers)
    except EdgennError as error:
        every = tuple(OnCpu(row.name, "", "", "", row.macs) for row in steps(graph))
        return Report("", None, len(every), every, sum(left.macs for left in every), failure=str(error))


def with_card(content: bytes, card: Card) -> bytes:
    """The compiled flatbuffer as a complete model file: the compiler drops labels, card and metadata.

    Golden vectors are left out: they are the CPU's, and an Edge TPU rounds differently by a step or two.
    """
    card = replace(card, golden={})
    if ENTRY not in flatbuffer.parse(content).metadata:
        content = metadata.add(content, card)
    return model_file.attach(content, card)


def beside(path: Path) -> Path:
    """X_edgetpu.tflite for X.tflite: where the compiler puts it, and where a device looks for the pair."""
    return path.with_stem(path.stem + COMPILED)


def _compiled(graph: Graph, content: bytes, log: Log, layers: Sequence[str]) -> Report:
    """Which operators of `graph` the compiled file still holds, by the tensors that they compute."""
    compiled = flatbuffer.parse(content)
    left = {
        compiled.tensors[tensor].name
        for operator in compiled.operators
        if not (operator.custom and operator.name == EDGETPU)
        for tensor in operator.outputs
    }
    indices = [
        index
        for index, operator in enumerate(graph.operators)
        if any(graph.tensors[tensor].name in left for tensor in operator.outputs)
    ]
    statuses: dict[str, list[str]] = {}
    for name, _, status in log.table:
        if not status.startswith("Mapped"):
            statuses.setdefault(name, []).append(status)
    names, work = name_layers(graph, layers), steps(graph)
    on_cpu = []
    for index in indices:
        operator = graph.operators[index]
        # The table counts by kind: with two reasons for one kind it does not say which of its operators has which.
        known = statuses.get(operator.name, ["the log does not say why"])
        own = next((status for status in known if status != _FOLLOWS), None)
        mend = _mend(operator.name, operator.version, own) if own else ""
        on_cpu.append(OnCpu(operator.name, names[index], " or ".join(known), mend, work[index].macs))
    report = Report(
        compiler=log.version,
        content=content,
        operators=len(graph.operators),
        on_cpu=tuple(on_cpu),
        macs=sum(step.macs for step in work),
        on_chip=log.on_chip,
        on_chip_left=log.on_chip_left,
        off_chip=log.off_chip,
    )
    return _with_seconds(report, graph, indices)


def _mend(name: str, version: int, status: str) -> str:
    if "version" in status:
        return coral.how_to_lower(name, version)
    return _STATUSES.get(status, targets.instead(name))


def _predicted(graph: Graph, content: bytes, layers: Sequence[str]) -> Report:
    """The first operator that the lint finds fault with, and all after it, on the CPU."""
    found = [finding for finding in targets.findings(graph, content, "coral") if finding.operator is not None]
    first = min((finding.operator for finding in found if finding.operator is not None), default=len(graph.operators))
    names, work = name_layers(graph, layers), steps(graph)
    on_cpu = []
    for index in range(first, len(graph.operators)):
        own = next((finding for finding in found if finding.operator == index), None)
        why, mend = (own.what, own.mend) if own else ("comes after one that is not mapped", "")
        on_cpu.append(OnCpu(graph.operators[index].name, names[index], why, mend, work[index].macs))
    indices = list(range(first, len(graph.operators)))
    size = sum(step.weights for index, step in enumerate(work) if index < first)
    off_chip = max(0, size - coral.PARAMETER_BYTES)
    report = Report(
        compiler=None,
        content=None,
        operators=len(graph.operators),
        on_cpu=tuple(on_cpu),
        macs=sum(step.macs for step in work),
        on_chip=size - off_chip,
        off_chip=off_chip,
    )
    return _with_seconds(report, graph, indices)


def _with_seconds(report: Report, graph: Graph, left: Sequence[int]) -> Report:
    """The report with both times, by the descriptions of a Pi 4 and of a USB Accelerator on one; not for float."""
    cpu, tpu = load_device(_CPU), load_device(_TPU)
    work = steps(graph)
    if any(step.dtype != "int8" and step.macs for step in work):
        return report
    inputs = sum(graph.tensors[index].bytes for index in graph.inputs)
    mapped = [step for index, step in enumerate(work) if index not in set(left)]
    stays = [work[index] for index in left]
    alone = model_seconds(cpu, work, cpu.cores)
    seconds = model_seconds(cpu, stays, cpu.cores)
    if mapped:
        streamed = tpu.cache + (report.off_chip or 0)
        seconds += model_seconds(tpu, mapped, 1, input_bytes=inputs, weights=streamed)
    return replace(report, seconds=seconds, cpu_seconds=alone)


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / (1 << 20):.2f} MiB" if size >= 1 << 20 else f"{size / (1 << 10):.1f} KiB"
