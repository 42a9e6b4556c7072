"""The part of a network that is not trained: computed once for several views of every photo, kept on disk, read back.

What it gives for one view of all photos is one file, float16 and memory-mapped. A file is found again by everything
that it depends on (the part's structure and weights, the photos' content, how they are decoded and varied, the view),
so the next run, or one with more views, computes only what is missing. The files are bounded together: those used
least recently go first. A file is written aside and carries a checksum: a killed process leaves nothing that is read,
and a damaged file is computed again. Nothing here trains, and nothing decides where a network is cut.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import queue
import struct
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgenn.data import Progress
from edgenn.data.cache import Kept, by_use, cache_folder, evict, remove_abandoned, share_of_disk
from edgenn.extras import quiet_stderr, require
from edgenn_device.errors import EdgennError
from edgenn_device.files import written_aside

from .augment import DRAWS, vary, view_draws
from .photos import PhotoFeed
from .recipe import Recipe

Features: TypeAlias = NDArray[np.float16]

# Of the disk (what is free and what these files take already) at most this share, and at most so many bytes: enough for
# 30 views of 7,000 photos at MobileNetV2's default cut.
SHARE_OF_DISK, MOST = 0.25, 8 << 30
# Photos that one thread takes at a time.
_BLOCK = 32
# Bytes of which a checksum is computed at a time.
_SLICE = 64 << 20
_CHECKSUM = struct.Struct("<I")
_LARGEST = float(np.finfo(np.float16).max)
# Seconds for which a file that is being written may have no lock yet.
_GRACE = 60.0

# Layers whose conversion to a float .tflite is proven. A part that has others runs in TensorFlow: the converter can end
# the whole process with a segmentation fault, and it runs in this one.
_CONVERTED = {
    *("InputLayer", "Rescaling", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense", "BatchNormalization"),
    *("ReLU", "Activation", "Add", "Concatenate", "Dropout", "ZeroPadding2D", "MaxPooling2D", "AveragePooling2D"),
    *("GlobalAveragePooling2D", "Flatten", "Reshape"),
}


class FrozenPart:
    """A model that will not change any more, made ready to run fast on this machine at its first call.

    On a CPU that is LiteRT, one interpreter a core: on two cores MobileNetV2 up to block_12_add at 224 takes 1.9 ms a
    photo so, and 8.3 ms in TensorFlow (tools/bench_transfer.py frozen). On a GPU, or with layers that are not proven
    to convert, TensorFlow runs it.

    Attributes:
      model: the keras.Model.
      shape: of what it gives for a photo.
      digest: hex sha256 of its structure and weights.
      threads: that may call it at the same time, each with a batch of its own.
    """

    def __init__(self, model: Any) -> None:
        """Take a keras.Model: float32 (batch, height, width, channels) of 0..255 -> (batch, …)."""
        self.model = model
        self._run: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None
        self.shape: tuple[int, ...] = tuple(model.output_shape[1:])
        digest = hashlib.sha256(_structure(model).encode())
        for array in model.get_weights():
            digest.update(np.ascontiguousarray(array).data)
        self.digest = digest.hexdigest()
        self.threads = len(os.sched_getaffinity(0))

    @property
    def row(self) -> int:
        """Bytes that a photo's output takes."""
        return 2 * int(np.prod(self.shape))

    def prepare(self) -> None:
        """Convert or trace, unless that is done."""
        if self._run is None:
            tf = require("tensorflow")
            on_gpu = bool(tf.config.list_logical_devices("GPU"))
            lite = None if on_gpu else in_litert(self.model, self.threads)
            self._run = lite or in_tensorflow(self.model)

    def __call__(self, photos: NDArray[np.float32]) -> Features:
        """What it gives for float32 photos (n, height, width, channels): (n, *shape); beyond ±65504 it is cut off."""
        self.prepare()
        assert self._run is not None
        given = self._run(photos)
        return np.clip(given, -_LARGEST, _LARGEST).astype(np.float16)


class Views:
    """What a frozen part gives for the views of some photos, on disk.

    Attributes:
      features: float16 (count, *part.shape) of each view, memory-mapped.
      computed: how many of them had to be computed now.
    """

    def __init__(
        self,
        part: FrozenPart,
        photos: PhotoFeed,
        recipe: Recipe,
        views: Sequence[int | None],
        progress: Progress | None = None,
        *,
        folder: Path | None = None,
        most: int | None = None,
    ) -> None:
        """Find the views in the cache and compute those that are not there.

        Args:
          part: what is applied to the photos.
          photos: decoded to the part's input.
          recipe: its input and augmentation.
          views: numbers of views (see `augment.view_draws`); None is the photo as it is.
          progress: called with the number of views of photos that are ready and their total.
          folder: of the cache; None: `default_folder()`.
          most: bytes that the cache may take; None: `room(folder)`. What is asked for here is kept even if it is more.

        Raises:
          EdgennError: the folder cannot be written.
        """
        folder = folder or default_folder()
        count, shape = photos.count, (photos.count, *part.shape)
        paths = [folder / f"{_key(part, photos, recipe, view)}.npy" for view in views]
        with ThreadPoolExecutor(part.threads) as pool:  # a checksum of every byte: 0.3 s a view of 3,000 photos
            found = dict(zip(paths, pool.map(lambda path: _open(path, shape), paths), strict=True))
        missing = [(path, view) for path, view in zip(paths, views, strict=True) if found[path] is None]
        self.computed = len(missing)
        done = (len(paths) - len(missing)) * count
        if missing:
            part.prepare()
            needed = len(missing) * (count * part.row)
            _sweep(folder)
            evict(_files(folder), (room(folder) if most is None else most) - needed, keep=set(paths))
        varied = _varied(photos, recipe) if missing else None
        for path, view in missing:

            def ready(part_done: int, before: int = done) -> None:
                if progress:
                    progress(before + part_done, len(paths) * count)

            _compute(path, part, photos, view, varied, ready)
            done += count
            found[path] = _open(path, shape)
        opened = [found[path] for path in paths]
        if any(features is None for features in opened):
            raise EdgennError(f"the disk of {folder} gives back other bytes than were written: set XDG_CACHE_HOME")
        self.features = [features for features in opened if features is not None]
        for path in paths:
            with suppress(FileNotFoundError):
                os.utime(path)


def default_folder() -> Path:
    """frozen/ in edgenn's cache folder."""
    return cache_folder() / "frozen"


def room(folder: Path) -> int:
    """Bytes that the files in `folder` may take together: `MOST`, or `SHARE_OF_DISK` if that is less."""
    return min(MOST, share_of_disk(folder, SHARE_OF_DISK, _files(folder)))


def _key(part: FrozenPart, photos: PhotoFeed, recipe: Recipe, view: int | None) -> str:
    """Name of a file: a digest of everything that its content follows from."""
    varied = None if view is None else [view, asdict(recipe.augmentation)]
    content = hashlib.sha256(photos.names.tobytes()).hexdigest()
    values = [part.digest, content, asdict(recipe.input), cv2.__version__, varied]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def _structure(model: Any) -> str:
    """The model's configuration without its own name, which Keras counts up in a process."""
    return json.dumps({**model.get_config(), "name": ""}, sort_keys=True, default=str)


def _varied(photos: PhotoFeed, recipe: Recipe) -> Any:
    """A graph: photos uint8 and the draws of their views -> float32 photos."""
    tf = require("tensorflow")
    graph = tf.function(
        lambda pixels, draws: vary(tf.cast(pixels, tf.float32), draws, recipe.augmentation),
        input_signature=[tf.TensorSpec((None, *photos.shape), tf.uint8), tf.TensorSpec((None, DRAWS), tf.float32)],
        autograph=False,
    )
    return graph.get_concrete_function()


def _compute(
    path: Path, part: FrozenPart, photos: PhotoFeed, view: int | None, varied: Any, ready: Callable[[int], None]
) -> None:
    """Write the file of a view; `ready` is told the number of photos done."""
    with written_aside(path) as aside, aside.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # says that it is being written; see `_sweep`
        header = {"descr": "<f2", "fortran_order": False, "shape": (photos.count, *part.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        checksum = done = 0
        # Closed at once when writing or telling fails, or the threads would go on to the last photo.
        with closing(_blocks(part, photos, view, varied)) as blocks:
            for block in blocks:
                checksum = zlib.crc32(block.data, checksum)
                file.write(block.data)
                done += len(block)
                ready(done)
        file.write(_CHECKSUM.pack(checksum))


def _blocks(part: FrozenPart, photos: PhotoFeed, view: int | None, varied: Any) -> Generator[Features]:
    """What the part gives for all photos, some at a time and in order, computed on all cores."""
    tf = require("tensorflow")

    def compute(first: int) -> Features:
        index = np.arange(first, min(first + _BLOCK, photos.count))
        pixels = photos.rows(index)
        if view is None:
            return part(pixels.astype(np.float32))
        with tf.device("cpu"):
            draws = view_draws(photos.names[index], view)
            return part(varied(tf.constant(pixels), tf.constant(draws)).numpy())

    with ThreadPoolExecutor(part.threads) as pool:
        yield from pool.map(compute, range(0, photos.count, _BLOCK))


def _open(path: Path, shape: tuple[int, ...]) -> Features | None:
    """A file's array, mapped; None if it is missing or not what was written."""
    try:
        features: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        end = features.offset + features.nbytes
        if features.dtype != np.float16 or features.shape != shape or path.stat().st_size != end + _CHECKSUM.size:
            return None
        with path.open("rb") as file:
            file.seek(features.offset)
            return features if _checksum(file, features.nbytes) == _CHECKSUM.unpack(file.read())[0] else None
    except (OSError, ValueError, EOFError):
        return None


def _checksum(file: BinaryIO, size: int) -> int:
    value = 0
    for first in range(0, size, _SLICE):
        value = zlib.crc32(file.read(min(_SLICE, size - first)), value)
    return value


def _files(folder: Path) -> list[Kept]:
    """Every file in the cache, least recently used first."""
    return by_use(folder.glob("[!.]*.npy"))


def _sweep(folder: Path) -> None:
    """Remove what killed processes left."""
    for begun in by_use(folder.glob(".*.npy")):
        if time.time() - begun.used > _GRACE:
            remove_abandoned(begun.path)


def in_tensorflow(model: Any) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The model as a graph: float32 (n, height, width, channels) -> float32 (n, …)."""
    tf = require("tensorflow")
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)]
    run = tf.function(lambda photos: model(photos, training=False), input_signature=signature, autograph=False)
    run.get_concrete_function()
    return lambda photos: run(photos).numpy()


def in_litert(model: Any, threads: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]] | None:
    """The model in LiteRT, an interpreter for each thread; None if it cannot be had or computes something else."""
    if any(type(layer).__name__ not in _CONVERTED for layer in model.layers):
        return None
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return None
    tf = require("tensorflow")
    shape = (1, *model.input_shape[1:])
    call = tf.function(
        lambda photos: model(photos, training=False),
        input_signature=[tf.TensorSpec(shape, tf.float32)],
        autograph=False,
    )
    free: queue.SimpleQueue[tuple[Any, int, int]] = queue.SimpleQueue()
    with quiet_stderr(True):
        content = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()]).convert()
        for _ in range(threads):
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
            ends = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
            free.put((interpreter, *ends))

    def run(photos: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter, given, result = free.get()
        try:
            rows = []
            for photo in photos:
                interpreter.set_tensor(given, photo[None])
                interpreter.invoke()
                rows.append(interpreter.get_tensor(result))
            return np.concatenate(rows)
        finally:
            free.put((interpreter, given, result))

    probe = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    expected = model(probe, training=False).numpy()
    # Both compute in float32; that differs by rounding, about 1e-5 of the largest value.
    agree = np.abs(run(probe) - expected).max() <= 1e-3 * max(np.abs(expected).max(), 1e-6)
    return run if agree else None
