"""Keras to TFLite, in a process of its own: the parent's half of `worker`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgenn_device.errors import EdgennError

# "simulated" networks have their ranges inside; "tensorflow" lets TensorFlow measure and quantize.
Scheme = Literal["simulated", "tensorflow", "float16", "dynamic", "float32"]
Io = Literal["uint8", "int8"]


def convert_in_child(
    keras_model: Path,
    calibration: NDArray[np.uint8] | None = None,
    *,
    scheme: Scheme = "tensorflow",
    io: Io = "uint8",
    per_tensor_dense: bool = False,
) -> bytes:
    """Convert a Keras model in a child process.

    Args:
      keras_model: path of a .keras file whose input is pixels 0..255, (batch, height, width, channels).
      calibration: uint8 pictures (n, height, width, channels) from which "tensorflow" takes the ranges of activations.
      scheme: how it is quantized.
      io: element type of the input and output of a quantized model.
      per_tensor_dense: one scale for all outputs of a Dense layer, as the Edge TPU compiler wants.

    Returns:
      A TFLite flatbuffer without metadata or card.

    Raises:
      EdgennError: the converter refused the model or crashed; the reason is in the line.
    """
    job = {"scheme": scheme, "io": io, "per_tensor_dense": per_tensor_dense}
    return _in_child(keras_model, calibration, job, (), ["model.tflite"])[0]


def mixed_in_child(
    keras_model: Path, calibration: NDArray[np.uint8], sets: Sequence[Collection[str]], *, io: Io = "uint8"
) -> list[bytes]:
    """Let TensorFlow quantize a Keras model in a child process, once for each set of layers, which stay in float.

    Args:
      keras_model, calibration, io: as for `convert_in_child`.
      sets: names of layers; an empty set leaves none in float.

    Raises:
      EdgennError: as for `convert_in_child`; or a layer is none of the converted network's.
    """
    job = {"scheme": "tensorflow", "io": io, "per_tensor_dense": False}
    return _in_child(keras_model, calibration, job, sets, [f"model-{number}.tflite" for number in range(len(sets))])


def _in_child(
    keras_model: Path,
    calibration: NDArray[np.uint8] | None,
    job: dict[str, Any],
    sets: Sequence[Collection[str]],
    files: Sequence[str],
) -> list[bytes]:
    """Have `worker` do a job, and read the files that it wrote."""
    with tempfile.TemporaryDirectory(prefix="edgenn-convert-") as name:
        folder = Path(name)
        if calibration is not None:
            np.save(folder / "calibration.npy", calibration)
        job = {
            **job,
            "keep_float": [list(names) for names in sets],
            "keras": str(Path(keras_model).resolve()),
            "calibration": str(folder / "calibration.npy"),
            "out": str(folder / "model.tflite"),
        }
        (folder / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-m", "edgenn.conversion.worker", str(folder / "job.json")]
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if child.returncode == 0:
            return [(folder / file).read_bytes() for file in files]
    if child.returncode < 0:
        died = signal.Signals(-child.returncode).name
        raise EdgennError(f"the converter crashed ({died}): a layer it cannot quantize; try --quantization float32")
    raise EdgennError(f"the converter refuses the network: {_reason(child.stderr)}")


def _reason(stderr: str) -> str:
    """The operators that TFLite lacks, or the last line that names an error, which in a traceback is the reason."""
    if lacking := dict.fromkeys(re.findall(r"error: '(tf\.\w+)' op is neither a custom op", stderr)):
        return f"TFLite has no {', '.join(lacking)}"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line.split(":")[0] or "error:" in line]
    return (errors or lines or ["no reason given"])[-1][:300]
