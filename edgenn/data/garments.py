"""A data set that needs no download: drawn garments as photos in split folders, and as a video with its true labels.

Which garments there are is for `edgenn_device.garments` to say; here they become files. No garment is in two splits,
and none of the video's is in any of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from edgenn_device.errors import EdgennError
from edgenn_device.files import folder_written_aside, written_aside
from edgenn_device.garments import LABELS, draw, seed_in
from edgenn_device.garments.moving import Moving

from .dataset import Progress
from .parallel import in_parallel

# Photos of validation and of test for each one of training.
HELD_OUT_SHARE = 0.25
# JPEG quality, from a messenger's to a camera's.
_QUALITY = (55, 96)
# Seconds for which a garment is in the video: the label, an average over time, needs about one to settle.
_SHOWN = 2.0
# Garments of a video have these numbers in the space "live" and above: the synthetic source begins at 0.
_VIDEO = 500_000


def write(
    folder: str | os.PathLike[str],
    per_class: int = 300,
    *,
    seed: int = 0,
    size: int | tuple[int, int] = (240, 320),
    progress: Progress | None = None,
) -> int:
    """Write FOLDER/{train,validation,test}/<label>/NNNN.jpg.

    Args:
      folder: must not exist yet, or be empty; it appears when all photos are written.
      per_class: training photos of each label; validation and test get a quarter of that each, and at least one.
      seed: 0 or above; the same seed gives the same photos.
      size: (height, width) of the photos in pixels, or one number for both.
      progress: called with the number of photos written and their total.

    Returns:
      How many photos were written.

    Raises:
      EdgennError: `folder` holds something or cannot be written, or a number makes no sense.
    """
    folder = Path(folder)
    if per_class < 1:
        raise EdgennError(f"{per_class} photos of each garment are too few: give 1 or more")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EdgennError(f"{folder} exists and is not empty: choose another place")
    held_out = max(1, round(per_class * HELD_OUT_SHARE))
    counts = {"train": per_class, "validation": held_out, "test": held_out}
    photos = [(split, label, number) for split, count in counts.items() for label in LABELS for number in range(count)]
    with folder_written_aside(folder) as aside:
        for split in counts:
            for label in LABELS:
                (aside / split / label).mkdir(parents=True)

        def one(photo: tuple[str, str, int]) -> None:
            split, label, number = photo
            own = seed_in(split, seed, number)
            quality = int(np.random.default_rng(own).integers(*_QUALITY))
            _, data = cv2.imencode(".jpg", draw(label, own, size), (cv2.IMWRITE_JPEG_QUALITY, quality))
            (aside / split / label / f"{number:04d}.jpg").write_bytes(data.tobytes())

        in_parallel(one, photos, progress)
    return len(photos)


def write_video(
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    seconds: float = 10.0,
    fps: float = 30.0,
    size: int | tuple[int, int] = (240, 320),
) -> tuple[str, ...]:
    """Write a video of garments before a hand-held camera, one after the other, each label as often as the others.

    Args:
      path: an .avi; its frames are JPEGs (MJPG), which OpenCV writes and reads without any codec library.
      seed: 0 or above; its garments are in no photo of `write` and in no frame of the synthetic source.
      seconds: length; at least one frame is written.
      fps: frames a second.

    Returns:
      The true label of every frame.

    Raises:
      EdgennError: `path` is no .avi or cannot be written, or a number makes no sense.
    """
    path = Path(path)
    if path.suffix.lower() != ".avi":
        raise EdgennError(f"{path} is not an .avi: give a file name that ends in .avi")
    if not (0 < seconds <= 3600 and 1 <= fps <= 240):
        raise EdgennError(f"{seconds} s at {fps} frames a second make no video: at most 3600 s, and 1 to 240 frames")
    frames = max(1, round(seconds * fps))
    scenes = max(1, round(seconds / _SHOWN))
    truth: list[str] = []
    writer: cv2.VideoWriter | None = None
    with written_aside(path) as aside:
        try:
            for scene in range(scenes):
                moving = Moving(scene % len(LABELS), seed_in("live", seed, _VIDEO + scene), size)
                for frame in range(frames * scene // scenes, frames * (scene + 1) // scenes):
                    picture = moving.view((frame - frames * scene // scenes) / fps)
                    if writer is None:
                        writer = _writer(aside, fps, picture.shape[1], picture.shape[0])
                    writer.write(picture)
                    truth.append(moving.label)
        finally:
            if writer is not None:
                writer.release()
    return tuple(truth)


def _writer(path: Path, fps: float, width: int, height: int) -> cv2.VideoWriter:
    """OpenCV's own MJPEG writer: it is in every build, and needs no codec."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    if not writer.isOpened():
        raise EdgennError(f"{path.parent} takes no video: is there room on the disk, and may it be written?")
    return writer
