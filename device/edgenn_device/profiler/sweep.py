"""What is to be timed beside each other: every model on every runtime, kernel library and number of threads.

All of them live in one process and are timed in turns (`steady.in_turns`), so that whatever befalls the machine befalls
each. Chooses nothing: what was asked for and cannot be run is an error, not left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import EdgennError
from ..interpreter import Interpreter, Kernels
from ..model_file import ModelFile
from .steady import Steady, in_turns

# What a stage table without a pipeline preprocesses: VGA, the size most USB cameras start with.
PICTURE = (480, 640, 3)


@dataclass(frozen=True)
class Subject:
    """One thing that is timed: a model, loaded, and what runs it."""

    model: ModelFile
    interpreter: Interpreter

    @property
    def likeness(self) -> tuple[Any, ...]:
        """Equal for two that would measure the same thing."""
        ran = self.interpreter
        return str(self.model.path), ran.runtime, ran.kernels, ran.threads


@dataclass(frozen=True)
class Variant:
    """What was measured of one subject.

    Attributes:
      model: the file's name.
      model_sha256: of its flatbuffer.
      runtime, runtime_version, kernels, threads: what ran it.
      description: the same in one line.
      steady: `invoke` alone: input tensor in, scores out.
    """

    model: str
    model_sha256: str
    runtime: str
    runtime_version: str
    kernels: str
    threads: int
    description: str
    steady: Steady


def subjects(
    models: Sequence[ModelFile],
    *,
    runtimes: Sequence[str] = ("auto",),
    threads: Sequence[int | None] = (None,),
    kernels: Sequence[str] = ("default",),
) -> list[Subject]:
    """Load every combination once; the first is that of the first of each.

    Raises:
      EdgennError: a runtime is not installed or refuses a model, or a name or number is none.
    """
    for name in kernels:
        if name not in get_args(Kernels):
            raise EdgennError(f"unknown kernels {name!r}: choose of {', '.join(get_args(Kernels))}")
    found: dict[tuple[Any, ...], Subject] = {}
    for model, runtime, library, count in product(models, runtimes, kernels, threads):
        subject = Subject(
            model,
            Interpreter(
                model, runtime=runtime, threads=count, kernels="builtin" if library == "builtin" else "default"
            ),
        )
        # tflite-runtime has built-in kernels whichever are asked for.
        found.setdefault(subject.likeness, subject)
    return list(found.values())


def measure(
    chosen: Sequence[Subject],
    *,
    runs: int | None,
    seconds: float,
    fewest: int,
    width: float | None,
    between: Callable[[], bool] | None = None,
) -> list[Variant]:
    """Time the subjects in turns; arguments as for `steady.in_turns`."""
    invokes = [invocation(subject) for subject in chosen]
    timed = in_turns(invokes, runs=runs, seconds=seconds, fewest=fewest, width=width, between=between)
    return [_variant(subject, steady) for subject, steady in zip(chosen, timed, strict=True)]


def picture() -> NDArray[np.uint8]:
    """Noise, uint8 of the shape PICTURE."""
    return np.random.default_rng(0).integers(0, 256, PICTURE, np.uint8)


def invocation(subject: Subject) -> Callable[[], object]:
    """`invoke` on a tensor of noise: kernels take the same time for every content, and noise needs no file."""
    spec = subject.interpreter.input
    tensor = np.random.default_rng(0).integers(0, 256, spec.shape, np.uint8)
    # float32 likewise in the range of bytes' normalisation, -1..1.
    filled = tensor.view(spec.dtype) if spec.dtype.itemsize == 1 else ((tensor - 127.5) / 127.5).astype(spec.dtype)
    invoke = subject.interpreter.invoke
    return lambda: invoke(filled)


def _variant(subject: Subject, steady: Steady) -> Variant:
    ran = subject.interpreter
    return Variant(
        model=Path(subject.model.path).name,
        model_sha256=hashlib.sha256(subject.model.content).hexdigest(),
        runtime=ran.runtime,
        runtime_version=ran.version,
        kernels=ran.kernels,
        threads=ran.threads,
        description=ran.description,
        steady=steady,
    )
