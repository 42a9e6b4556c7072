"""Golden vectors: a device proves in a second that it computes what the workstation computed.

The inputs come from a seed by SHAKE-256, so they are the same bytes wherever Python runs; the card keeps the outputs
of both kernel libraries, because XNNPACK and TFLite's built-in kernels round differently and neither is wrong.
"""

from __future__ import annotations

import hashlib
import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import preprocess
from .card import InputSpec
from .interpreter import Interpreter
from .model_file import ModelFile

COUNT = 4
# Coarse squares excite a network more than white noise, whose convolutions average to grey.
_GRID = 8
# XNNPACK gave the same bytes on x86-64 and aarch64; one step is left for instruction sets nobody tried yet.
_XNNPACK_STEPS = 1
# The built-in kernels round once where they have code for ARM and twice on x86; from layer to layer that adds up, to 2
# steps of 255 for a small network and 7 for MobileNetV2 (tools/compare_kernels_on_arm.py). XNNPACK rounds otherwise,
# too, so what lies between the two libraries in the card tells how much that amounts to in this network; twice that.
_TIMES_APART = 2


def inputs(spec: InputSpec) -> list[NDArray[Any]]:
    """`COUNT` input tensors of shape (1, height, width, channels), made from their number alone."""
    tensors = []
    for number in range(COUNT):
        data = hashlib.shake_256(f"edgenn golden {number}".encode()).digest(_GRID * _GRID * spec.channels)
        grid = np.frombuffer(data, np.uint8).reshape(_GRID, _GRID, spec.channels)
        rows = np.arange(spec.height) * _GRID // spec.height
        columns = np.arange(spec.width) * _GRID // spec.width
        # Of the input's own size already, so that no resize (which OpenCV may improve one day) takes part.
        tensors.append(preprocess.to_tensor(np.ascontiguousarray(grid[rows][:, columns]), spec))
    return tensors


def record(model: ModelFile) -> dict[str, Any]:
    """Outputs of `model` for the golden inputs, for its card: {"xnnpack": [[…]…], "builtin": [[…]…], "runtime"}.

    Runs both kernel libraries of the installed runtime.
    """
    vectors: dict[str, Any] = {}
    for kernels in ("default", "builtin"):
        interpreter = Interpreter(model, threads=1, kernels=kernels)
        vectors[interpreter.kernels] = [interpreter.invoke_raw(x).tolist() for x in inputs(model.input)]
        vectors["runtime"] = f"{interpreter.runtime} {interpreter.version}"
    return vectors


def check(model: ModelFile, interpreter: Interpreter) -> bool | None:
    """Whether this machine computes the card's golden outputs.

    Quantized outputs may differ by one step with XNNPACK; with built-in kernels not at all on the kind of processor
    that the vectors are from, x86-64, and elsewhere by what their other rounding amounts to; float outputs by 1e-3 (of
    a softmax's 0..1).

    Returns:
      True or False, or None when the card has no vectors for this kernel library.
    """
    expected = model.card.golden.get(interpreter.kernels) if model.card else None
    if not isinstance(expected, list) or len(expected) != COUNT:
        return None
    quantized = interpreter.output.scale != 0.0
    tolerance = _steps(model, interpreter.kernels) if quantized else 1e-3
    for tensor, outputs in zip(inputs(model.input), expected, strict=True):
        actual = interpreter.invoke_raw(tensor).astype(np.float64)
        if np.shape(outputs) != actual.shape or np.abs(actual - np.asarray(outputs, np.float64)).max() > tolerance:
            return False
    return True


def _steps(model: ModelFile, kernels: str) -> float:
    """By how many steps of the output's scale this machine's kernels may differ from the workstation's."""
    if kernels == "xnnpack":
        return _XNNPACK_STEPS
    if platform.machine() in ("x86_64", "AMD64"):
        return 0
    vectors = model.card.golden if model.card else {}
    try:
        one, other = (np.asarray(vectors[name], np.float64) for name in ("xnnpack", "builtin"))
        apart = float(np.abs(one - other).max())
    except (KeyError, TypeError, ValueError):  # one library's alone, or not what `record` made
        apart = 0.0
    return max(1.0, _TIMES_APART * apart)
