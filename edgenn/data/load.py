"""From pictures on disk to one array in memory: the place where they are decoded, once.

All pixels come from `edgenn_device.preprocess`, so training sees what the device will see. Pictures that turn out not
to decode are reported and left out. It refuses an array that would not fit into memory before it begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgenn_device.card import InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.preprocess import to_bytes

from .dataset import Loaded, Picture, Problem, Progress
from .parallel import in_parallel


def load(pictures: Sequence[Picture], spec: InputSpec, progress: Progress | None = None) -> Loaded:
    """Decode and resize pictures.

    Args:
      pictures: for instance one split of a `Dataset`.
      spec: the input they are made for; its dtype, mean and std are not used: bytes stay bytes.
      progress: called with the number of pictures decoded and their total.

    Raises:
      EdgennError: the array would take more memory than is free.
    """
    height, width, channels = spec.shape
    needed, free = len(pictures) * height * width * channels, free_memory()
    if free is not None and needed > free:
        raise EdgennError(
            f"{len(pictures)} pictures at {height}x{width} take {needed / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free: choose a smaller input or fewer pictures"
        )
    tensors = np.empty((len(pictures), *spec.shape), np.uint8)

    results = in_parallel(lambda at: decode(pictures[at], spec, tensors[at]), range(len(pictures)), progress)
    kept = [index for index, problem in enumerate(results) if problem is None]
    for row, index in enumerate(kept):  # row <= index: closes the gaps without a second array
        if row != index:
            tensors[row] = tensors[index]
    return Loaded(
        tensors=tensors[: len(kept)],
        labels=np.array([pictures[index].label for index in kept], np.int64),
        pictures=tuple(pictures[index] for index in kept),
        problems=tuple(problem for problem in results if problem is not None),
    )


def decode(picture: Picture, spec: InputSpec, out: npt.NDArray[np.uint8]) -> Problem | None:
    """Decode and resize one picture into `out`, uint8 (height, width, channels), or say why not.

    A file that is no longer the one that was scanned is refused: what is made of its pixels is kept under its digest,
    and outlives the run.
    """
    try:
        content = picture.path.read_bytes()
        to_bytes(content, spec, out=out)
    except EdgennError as error:
        return Problem(picture.path, str(error))
    except OSError as error:
        return Problem(picture.path, f"cannot be read ({error.strerror}): check its permissions")
    if hashlib.sha256(content).digest() != picture.digest:
        return Problem(picture.path, "changed while it was being read: start again")
    return None


def free_memory() -> int | None:
    """Bytes that can be had without swapping, or None where Linux does not say (proc(5), MemAvailable)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
