"""A video made from labelled photos, and how well a run on it did: a camera's stand-in with known answers.

    python tools/video_of_photos.py make PHOTOS VIDEO.mp4 [--seconds 1] [--fps 10] [--classes a,b,c]
    edgenn run MODEL --source VIDEO.mp4 --fast --json > results.jsonl
    python tools/video_of_photos.py score VIDEO.mp4 results.jsonl

`make` shows every photo of PHOTOS/<class>/ in an order drawn by seed, letterboxed to 480x640 (a camera held upright),
and writes the label of each frame to VIDEO.labels.csv. `score` compares: over all frames, and over the second half of
each photo's time, when the average over time has left the photo before.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import cv2
import numpy as np

from edgenn_device import preprocess
from edgenn_device.card import InputSpec

# A camera held upright, as product photos are: 3:4.
SCREEN = InputSpec(640, 480, colour="bgr", resize="pad")


def make(photos: Path, video: Path, seconds: float, fps: float, classes: list[str], seed: int) -> None:
    """Write VIDEO and VIDEO.labels.csv."""
    paths = [path for path in sorted(photos.glob("*/*")) if not classes or path.parent.name in classes]
    order = np.random.RandomState(seed).permutation(len(paths))
    out = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), fps, (SCREEN.width, SCREEN.height))
    if not out.isOpened():
        raise SystemExit(f"{video} cannot be written as a video: give a name that ends in .mp4")
    shown = max(1, round(seconds * fps))
    with open(video.with_suffix(".labels.csv"), "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["frame", "photo", "settled", "label"])
        for number, index in enumerate(order):
            picture = preprocess.to_bytes(preprocess.read(paths[index]), SCREEN)
            for step in range(shown):
                out.write(picture)
                rows.writerow([number * shown + step, number, int(step >= shown / 2), paths[index].parent.name])
    out.release()
    print(f"{video}: {len(paths)} photos, {len(paths) * shown} frames at {fps:g} a second")


def score(video: Path, results: Path) -> None:
    """Print how often the label of a frame was right."""
    with open(video.with_suffix(".labels.csv"), newline="") as file:
        truth = {int(row["frame"]): row for row in csv.DictReader(file)}
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    frames = [line for line in lines if "frame" in line]
    right = [line["label"] == truth[line["frame"]]["label"] for line in frames]
    settled = [r for r, line in zip(right, frames, strict=True) if truth[line["frame"]]["settled"] == "1"]
    print(f"frames {len(right)}, right {np.mean(right):.3f}; settled {len(settled)}, right {np.mean(settled):.3f}")
    print(json.dumps(lines[-1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    maker = verbs.add_parser("make")
    maker.add_argument("photos", type=Path)
    maker.add_argument("video", type=Path)
    maker.add_argument("--seconds", type=float, default=1.0)
    maker.add_argument("--fps", type=float, default=10.0)
    maker.add_argument("--classes", type=lambda text: text.split(","), default=[])
    maker.add_argument("--seed", type=int, default=0)
    scorer = verbs.add_parser("score")
    scorer.add_argument("video", type=Path)
    scorer.add_argument("results", type=Path)
    given = vars(parser.parse_args())
    {"make": make, "score": score}[given.pop("verb")](**given)
