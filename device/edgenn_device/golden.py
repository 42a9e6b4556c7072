"""Golden vectors: a device proves in a second that it computes what the workstation computed.

The inputs come from a seed by SHAKE-256, so they are the same bytes wherever Python runs; the card keeps the outputs
of both kernel libraries, because XNNPACK and TFLite's built-in kernels round differently and neither is wrong.
"""

from __future__ import annotations

import hashlib
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
# Both libraries gave the same bytes on x86-64 and aarch64, the built-in kernels on armhf too; one step is left to
# XNNPACK for instruction sets nobody tried yet.
_TOLERANCE = {"builtin": 0, "xnnpack": 1}


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

    Quantized outputs may differ by one step with XNNPACK and not at all with built-in kernels; float outputs by
    1e-3 (of a softmax's 0..1).

    Returns:
      True or False, or None when the card has no vectors for this kernel library.
    """
    expected = model.card.golden.get(interpreter.kernels) if model.card else None
    if not isinstance(expected, list) or len(expected) != COUNT:
        return None
    quantized = interpreter.output.scale != 0.0
    tolerance = _TOLERANCE[interpreter.kernels] if quantized else 1e-3
    for tensor, outputs in zip(inputs(model.input), expected, strict=True):
        actual = interpreter.invoke_raw(tensor).astype(np.float64)
        if np.shape(outputs) != actual.shape or np.abs(actual - np.asarray(outputs, np.float64)).max() > tolerance:
            return False
    return True
