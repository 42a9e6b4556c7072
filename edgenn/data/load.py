"""From pictures on disk to one array in memory: the place where they are decoded, once.

All pixels come from `edgenn_device.preprocess`, so training sees what the device will see. Pictures that turn out not
to decode are reported and left out. It refuses an array that would not fit into memory before it begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

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

    def decode_into(index: int) -> Problem | None:
        path = pictures[index].path
        try:
            to_bytes(path.read_bytes(), spec, out=tensors[index])
        except EdgennError as error:
            return Problem(path, str(error))
        except OSError as error:
            return Problem(path, f"cannot be read ({error.strerror}): check its permissions")
        return None

    results = in_parallel(decode_into, range(len(pictures)), progress)
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


def free_memory() -> int | None:
    """Bytes that can be had without swapping, or None where Linux does not say (proc(5), MemAvailable)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
