"""A classifier that outlives its delegate: the Edge TPU while it works, its CPU twin while it does not.

The delegate runs in a child process (`delegate_process` says why). When it is missing at the start, fails, hangs or
dies, the same frame is answered by the twin in this process; a thread of its own then tries to get the delegate back,
with back-off and jitter, proves it on the golden inputs and hands it the next frame. Chooses no delegate: it is told
which, and says in the health document which of the two answers.
"""

from __future__ import annotations

import logging
import os
import random
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import delegates, golden
from .classifier import Classifier
from .delegate_process import STARTING, DelegateFailed, DelegateProcess
from .errors import EdgennError
from .health import Health
from .interpreter import Kernels
from .model_file import ModelFile, load

COMPILED = "_edgetpu"

# Seconds between tries, doubled from the first to the longest: each costs a process that loads Python and a runtime.
_FIRST, _LONGEST = 0.5, 30.0
# Seconds between looks whether a device that was away is attached again, which cost next to nothing.
_LOOK = 1.0
# Seconds a start waits for the delegate before the twin begins.
_HEAD_START = 10.0
# A delegate has hung when it takes this many seconds, or this many times the slowest of the golden inputs.
_HUNG, _HUNG_TIMES = 1.0, 10.0
# Of the range of the twin's scores. An Edge TPU rounds differently from a CPU by a step or two of 256; a device that
# has lost its model or gives the answer of another frame is off by far more.
_TOLERANCE = 0.1

_log = logging.getLogger(__name__)


class Standby(Classifier):
    """The face of `Classifier`, with a delegate first and the CPU in reserve.

    Args:
      model: path of a .tflite, or one already loaded; for an Edge TPU the compiled X_edgetpu.tflite.
      delegate: as for `Interpreter`, not "cpu".
      twin: the same network for the CPU. None takes X.tflite beside X_edgetpu.tflite, and for any other delegate the
        model itself.
      labels, runtime, threads, kernels: as for `Classifier`.
      health: is told how the delegate is, as part "delegate".
      root: what /sys and /dev are read below when looking whether a device is attached.

    Attributes:
      interpreter: the one that answers now.

    Raises:
      EdgennError: a file is not usable, the twin is missing, or the two differ in their input, classes or labels. A
        delegate that cannot be had is no error.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | ModelFile,
        *,
        delegate: str,
        twin: str | os.PathLike[str] | None = None,
        labels: str | os.PathLike[str] | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        kernels: Kernels = "default",
        health: Health | None = None,
        root: Path = Path("/"),
    ) -> None:
        path = model.path if isinstance(model, ModelFile) else Path(model)
        place = Path(twin) if twin is not None else twin_of(path)
        if place == path:
            super().__init__(model, labels=labels, runtime=runtime, threads=threads, kernels=kernels)
        else:
            if not place.is_file():
                raise EdgennError(f"{path} has no CPU twin: put {place.name}, which it was compiled from, beside it")
            super().__init__(place, labels=labels, runtime=runtime, threads=threads, kernels=kernels)
        self._twin = self.model
        if place != path:
            own = model if isinstance(model, ModelFile) else _compiled(path, labels, self._twin)
            self.model = _agreed(own, self._twin)
        self._cpu = self.interpreter
        self._inputs = golden.inputs(self.model.input)
        self._expected = np.stack([self._cpu.invoke(tensor) for tensor in self._inputs])
        self._asked = delegate
        self._options: dict[str, Any] = {"runtime": runtime, "threads": threads, "kernels": kernels}
        self._health = health
        self._root = root
        self._lock = threading.Lock()
        self._child: DelegateProcess | None = None
        self._closed = threading.Event()
        # Set when the delegate that answered does not any more; the reason stands in _why by then.
        self._lost = threading.Event()
        self._why = ""
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="edgenn-standby", daemon=True)
        self._thread.start()
        self._tried.wait(_HEAD_START)

    def scores(self, tensor: NDArray[Any]) -> NDArray[np.float32]:
        """Scores of an input tensor, float32 of shape (classes,); by the twin if the delegate does not give them."""
        interpreter = self.interpreter
        if interpreter is not self._cpu:
            try:
                return interpreter.invoke(tensor)
            except DelegateFailed as error:
                self.interpreter = self._cpu
                self._why = str(error)
                self._lost.set()
        return self._cpu.invoke(tensor)

    def verify(self) -> bool | None:
        """As `Classifier.verify`, of the twin, by which the delegate in turn is judged. Not while frames are coming.

        Where neither file has golden outputs, the twin's answers to the golden inputs stand in for them: True while a
        delegate answers, since it was taken because it gave them; None while the twin answers, which proves nothing.
        """
        for model in (self._twin, self.model):
            computed = golden.check(model, self._cpu)
            if computed is not None:
                return computed
        return True if self.interpreter is not self._cpu else None

    def close(self) -> None:
        """End the child and the thread. What is asked afterwards the twin answers. Harmless when repeated."""
        self._closed.set()
        self._lost.set()
        with self._lock:
            self.interpreter = self._cpu
            if self._child is not None:
                self._child.kill()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def _keep(self) -> None:
        """Get the delegate, and get it back, until closed."""
        pause = _FIRST
        while not self._closed.is_set():
            reason = self._take()
            if reason is None:
                began = time.monotonic()
                self._tell("ok", "")
                self._tried.set()
                self._lost.wait()
                self._lost.clear()
                reason = self._why
                self._end_child()
                if time.monotonic() - began > _LONGEST:
                    pause = _FIRST
            if self._closed.is_set():
                return
            self._tell("degraded", f"{self._asked} {reason}; the CPU answers")
            self._tried.set()
            # Half of it at random: devices that lost power together do not come back together.
            self._rest(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST)

    def _rest(self, pause: float) -> None:
        """Wait `pause` seconds, and while the device is away for as long as that takes."""
        until = time.monotonic() + pause
        while not self._closed.is_set():
            if not delegates.present(self._asked, self._root):
                until = 0.0
                self._closed.wait(_LOOK)
            elif time.monotonic() >= until:
                return
            else:
                self._closed.wait(min(_LOOK, until - time.monotonic()))

    def _take(self) -> str | None:
        """Start the delegate, prove it and hand it the next frame. Why that did not work, None when it did."""
        if not delegates.present(self._asked, self._root):
            if not delegates.is_edge_tpu(self._asked):
                return "is not there: there is no such library"
            why, mend = delegates.unusable(delegates.kind_of(self._asked), self._root)
            return f"is not there: {why}" if why.startswith("there is no") else f"cannot be used: {why}: {mend}"
        try:
            with self._lock:
                if self._closed.is_set():
                    return "was closed"
                self._child = DelegateProcess(self.model, delegate=self._asked, **self._options)
            self._child.wait(STARTING)
            self._prove(self._child)
        except (DelegateFailed, OSError) as error:
            self._end_child()
            return str(error)
        with self._lock:
            if not self._closed.is_set():
                self.interpreter = self._child
        return None

    def _prove(self, child: DelegateProcess) -> None:
        """Raise DelegateFailed unless the child computes what the twin does, and set how long it may take."""
        mine, other = self._cpu.input, child.input
        if (mine.shape, mine.dtype) != (other.shape, other.dtype) or other.shape[1:] != self.model.input.shape:
            raise DelegateFailed(f"takes {other.dtype} {other.shape} and its twin {mine.dtype} {mine.shape}")
        slowest = 0.0
        allowed = _TOLERANCE * max(float(np.ptp(self._expected)), 1e-6)
        for tensor, expected in zip(self._inputs, self._expected, strict=True):
            began = time.monotonic()
            scores = child.dequantize(child.invoke_raw(tensor, STARTING))
            slowest = max(slowest, time.monotonic() - began)
            if scores.shape != expected.shape or not np.abs(scores - expected).max() <= allowed:
                raise DelegateFailed("computes something else than its twin for the golden inputs")
        child.patience = max(_HUNG, _HUNG_TIMES * slowest)

    def _end_child(self) -> None:
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child = None

    def _tell(self, state: str, reason: str) -> None:
        if state == "ok":
            _log.info("%s runs on %s", self.model.path.name, self.interpreter.description)
        else:
            _log.warning("delegate %s", reason)
        if self._health is not None:
            running = self.interpreter.delegate
            name = f"{running.name} ({running.detail})" if running and running.detail else running and running.name
            self._health.describe(delegate=name or delegates.CPU, runtime=self.interpreter.description)
            self._health.set("delegate", "ok" if state == "ok" else "degraded", reason)


def twin_of(path: Path) -> Path:
    """X.tflite for X_edgetpu.tflite, as edgetpu_compiler names its output; any other path itself."""
    stem = path.stem
    return path.with_name(stem.removesuffix(COMPILED) + path.suffix) if stem.endswith(COMPILED) else path


def _compiled(path: Path, labels: str | os.PathLike[str] | None, twin: ModelFile) -> ModelFile:
    """The compiled file; the compiler writes the flatbuffer anew, without the labels and the card behind it."""
    try:
        return load(path, labels)
    except EdgennError:
        if labels is not None or not twin.labels:
            raise
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "labels.txt"
        given.write_text("\n".join(twin.labels) + "\n", encoding="utf-8")
        return load(path, given)


def _agreed(own: ModelFile, twin: ModelFile) -> ModelFile:
    """The compiled file with what only its twin says; EdgennError where both say something and differ."""
    both = f"{own.path} and its twin {twin.path}"
    if (own.input.shape, own.input.dtype) != (twin.input.shape, twin.input.dtype):
        raise EdgennError(f"{both} take different pictures: compile the twin again")
    if own.classes != twin.classes or (own.labels and twin.labels and own.labels != twin.labels):
        raise EdgennError(f"{both} have different labels: compile the twin again")
    if own.card is not None and own.input != twin.input:
        raise EdgennError(f"{both} want their pictures prepared differently: compile the twin again")
    return replace(own, card=own.card or twin.card, labels=own.labels or twin.labels, input=twin.input)
