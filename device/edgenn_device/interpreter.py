"""One face over the runtimes that execute a .tflite: ai-edge-litert, tflite-runtime and TensorFlow.

Takes a model file that `model_file.load` has verified, never a path: the native interpreters trust what they are given
and end the process on a damaged flatbuffer. Finds no delegate itself (`delegates` does) and never falls back to the CPU
in silence: whoever asks for a delegate gets it or an error.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from . import delegates, installed, soundness
from .errors import EdgennError
from .model_file import ModelFile

Runtime = Literal["litert", "tflite-runtime", "tensorflow"]
Kernels = Literal["default", "builtin"]

# Distribution, and the module that holds its Interpreter, in the order in which they are tried.
_RUNTIMES: dict[Runtime, tuple[tuple[str, ...], str]] = {
    "litert": (("ai-edge-litert",), "ai_edge_litert.interpreter"),
    "tflite-runtime": (("tflite-runtime",), "tflite_runtime.interpreter"),
    "tensorflow": (("tensorflow", "tensorflow-cpu", "tensorflow-aarch64"), "tensorflow.lite.python.interpreter"),
}
# More threads than this do not make a classifier of this size faster on a board of four cores; more than the other,
# which may be asked for, never get ready.
_USUAL_THREADS, _MOST_THREADS = 4, 256


@dataclass(frozen=True)
class TensorSpec:
    """An input or output tensor: `shape` with the batch dimension, `dtype`, and real = (q - zero_point) * scale.

    `scale` is 0.0 for a tensor that is not quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int


class Interpreter:
    """A model, loaded and ready to run.

    Args:
      model: a verified model file.
      runtime: "auto" takes the first of litert, tflite-runtime and tensorflow that is installed and works.
      threads: CPU threads; None takes the machine's cores, four at most.
      kernels: "default" lets the runtime choose (XNNPACK in LiteRT and TensorFlow); "builtin" asks for TFLite's own
        kernels, which compute bit for bit what tflite-runtime does.
      delegate: "cpu" for none; an Edge TPU as "usb", "pci" or ":N"; any other by the path of its library, with options
        as PATH?key=value. It is loaded into this process, and takes it along if it crashes.

    Raises:
      EdgennError: no runtime is installed, or it refuses the model (the runtime's own reason is in the line); the
        delegate is not there or cannot be used.
    """

    def __init__(
        self,
        model: ModelFile,
        *,
        runtime: str = "auto",
        threads: int | None = None,
        kernels: Kernels = "default",
        delegate: str = delegates.CPU,
    ) -> None:
        if threads is not None and not 1 <= threads <= _MOST_THREADS:
            raise EdgennError(f"{threads} threads cannot run a model: --threads takes 1 to {_MOST_THREADS}")
        self.runtime, self.version = _choose(runtime)
        self.threads = threads or min(_USUAL_THREADS, len(os.sched_getaffinity(0)))
        module = _import(self.runtime)
        options: dict[str, Any] = {"model_content": model.content, "num_threads": self.threads}
        # tflite-runtime 2.14 has no int8 XNNPACK kernels switched on: its kernels are the built-in ones either way.
        self.kernels = "builtin" if kernels == "builtin" or self.runtime == "tflite-runtime" else "xnnpack"
        if kernels == "builtin" and self.runtime != "tflite-runtime":
            options["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        if self.kernels == "xnnpack":
            _check_gains(model)
        self.delegate = delegates.find(delegate, runtime=self.runtime, version=self.version)
        try:
            with _quiet_native_stderr():
                if self.delegate is not None:
                    options["experimental_delegates"] = [delegates.load(self.delegate, module)]
                self._native = module.Interpreter(**options)
                self._native.allocate_tensors()
                inputs, outputs = self._native.get_input_details(), self._native.get_output_details()
        except (RuntimeError, ValueError) as error:  # ValueError also for names of tensors that are not UTF-8
            raise EdgennError(_refusal(error, self.description, model)) from None
        self.input, self.output = _spec(inputs[0]), _spec(outputs[0])
        self._input_index: int = inputs[0]["index"]
        self._output_index: int = outputs[0]["index"]

    @property
    def description(self) -> str:
        """Runtime, version, delegate, kernels and threads, as figures are to be labelled."""
        name = _RUNTIMES[self.runtime][0][0]
        delegate = f"{self.delegate.name}, " if self.delegate else ""
        kernels = "XNNPACK" if self.kernels == "xnnpack" else "built-in"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{name} {self.version}, {delegate}{kernels} kernels, {threads}"

    def invoke_raw(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Run once.

        Args:
          tensor: shape (1, height, width, channels), of the input's dtype.

        Returns:
          The output as the model gives it, shape (classes,), of the output's dtype; a copy that stays valid.

        Raises:
          EdgennError: the runtime finds only now that it cannot compute the model.
        """
        self._native.set_tensor(self._input_index, tensor)
        try:
            self._native.invoke()
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise EdgennError(f"{self.description} cannot compute the model: {reason[:300]}") from error
        result: NDArray[Any] = self._native.get_tensor(self._output_index).reshape(-1)
        return result

    def invoke(self, tensor: NDArray[Any]) -> NDArray[np.float32]:
        """Run once and give float32 scores of shape (classes,), dequantized as (q - zero_point) * scale."""
        return self.dequantize(self.invoke_raw(tensor))

    def dequantize(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Real values of the output's integers, float32 of the same shape; floats pass unchanged."""
        if self.output.scale == 0.0:
            return raw.astype(np.float32, copy=False)
        return (raw.astype(np.float32) - np.float32(self.output.zero_point)) * np.float32(self.output.scale)


def available_runtimes() -> dict[str, str | None]:
    """Version of each runtime that is installed here, None where it is not."""
    return {name: _version(name) for name in get_args(Runtime)}


def _choose(runtime: str) -> tuple[Runtime, str]:
    wanted = get_args(Runtime) if runtime == "auto" else (runtime,)
    if runtime != "auto" and runtime not in _RUNTIMES:
        raise EdgennError(f"unknown runtime {runtime!r}: choose one of auto, {', '.join(_RUNTIMES)}")
    reasons = []
    for name in wanted:
        version = _version(name)
        if version is None:
            reasons.append(f"{name} is not installed")
        elif name == "tflite-runtime" and int(np.__version__.split(".")[0]) >= 2:
            reasons.append(
                f"tflite-runtime {version} needs NumPy 1 and this is {np.__version__}: pip install 'numpy<2'"
            )
        else:
            return name, version
    mend = "" if "pip install" in reasons[-1] else f": pip install {_RUNTIMES[wanted[0]][0][0]}"
    raise EdgennError(f"no runtime can execute the model ({'; '.join(reasons)}){mend}")


def _version(runtime: Runtime) -> str | None:
    return next(filter(None, map(installed.version, _RUNTIMES[runtime][0])), None)


def _import(runtime: Runtime) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return import_module(_RUNTIMES[runtime][1])
    except ImportError as error:
        raise EdgennError(f"{runtime} is installed but cannot be loaded ({error}): run `edgenn doctor`") from None


def _spec(details: dict[str, Any]) -> TensorSpec:
    scale, zero_point = details["quantization"]
    return TensorSpec(
        details["name"], tuple(map(int, details["shape"])), np.dtype(details["dtype"]), float(scale), int(zero_point)
    )


def _check_gains(model: ModelFile) -> None:
    """Refuse what would end the process, and not this one alone (see `soundness.LARGEST_GAIN`)."""
    for operator in model.graph.operators:
        if (gain := soundness.gain(operator, model.graph.tensors)) >= soundness.LARGEST_GAIN:
            raise EdgennError(
                f"{model.path} cannot run with XNNPACK's kernels: {operator.name} multiplies its sums by {gain:.3g}, "
                f"and less than {soundness.LARGEST_GAIN:g} is possible; convert it again with --quantization equalized"
            )


def _refusal(error: Exception, description: str, model: ModelFile) -> str:
    reason = " ".join(str(error).split())
    if "edgetpu-custom-op" in reason:
        return (
            f"{model.path} was compiled for an Edge TPU and this is {description}: "
            "add --delegate usb (or pci), or use the file it was compiled from"
        )
    newer = re.search(r"requires runtime version \((\d+)\).*newer than this runtime version \((\d+)\)", reason)
    if newer:
        return (
            f"{model.path} was compiled for libedgetpu {newer[1]} and this is {newer[2]}: sudo apt install -y "
            f"libedgetpu1-std, or compile it with edgetpu_compiler --min_runtime_version {newer[2]}"
        )
    # A libedgetpu that does not crash in a foreign runtime says this (google-coral/edgetpu issue 259).
    if "Unsupported data type in custom op handler" in reason:
        return f"libedgetpu was built against another TensorFlow Lite than {description}: install one built for it"
    if "Didn't find op" in reason:
        return f"{model.path} needs a newer runtime than {description} ({reason}): pip install -U ai-edge-litert"
    return f"{description} refuses {model.path}: {reason[:300]}"


class _quiet_native_stderr:
    """Swallow what the native library prints while it loads (LiteRT announces its delegate on every start).

    Its reasons reach us as exceptions; a user's screen and a JSON reader's stderr are not the place for the rest.
    """

    def __enter__(self) -> None:
        self._kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)

    def __exit__(self, *exception: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
