"""What the motion gate costs in right labels, and what it spares, by threshold.

Every frame is classified once; then the label over time is decided twice, from all scores and from those that the gate
lets through. A frame counts as differing when the two labels differ; how many differ without a gate between two films
that have the same scenes and other noise is given as "other noise": no gate can be told from that. Two films, both
with a camera's faults (flicker, noise, JPEG):

drawn   garments before a hand-held camera, as `--source synthetic` shows them
photos  each photo of a folder for four seconds, one after the other, before a camera that stands

    python tools/bench_gate.py MODEL.tflite [--photos FOLDER] [--seconds 60] [--fps 15]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edgenn_device.cameras.stills import StillsSource
from edgenn_device.cameras.synthetic import SyntheticSource
from edgenn_device.classifier import Classifier
from edgenn_device.decision import IN_A_ROW, Decision
from edgenn_device.motion import LOOKS, Gate

THRESHOLDS = (2.0, 5.0, 10.0, 20.0, 40.0)
# A webcam's in a room with the lights on: noise and flicker, of 255, standard deviations.
NOISE, FLICKER = 4.0, 1.0
# Seconds for which a photo is shown.
SHOWN = 4.0
SIZE = (480, 640)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--labels", help="labels file of a model that carries none")
    parser.add_argument("--photos", help="a folder of photos")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each film (default 60)")
    parser.add_argument("--fps", type=float, default=15.0, help="(default 15)")
    options = parser.parse_args()
    classifier = Classifier(options.model, labels=options.labels)
    count = round(options.seconds * options.fps)
    films = {"drawn": drawn(count, options.fps)}
    if options.photos:
        films["photos"] = photos(options.photos, count, options.fps)
    print(f"{options.model.name}, {classifier.interpreter.description}, {count} frames, {options.fps:g} a second")
    print(f"{'film':<8} {'threshold':>9} {'looks/s':>8} {'without network':>16} {'label differs':>14}")
    for name, film in films.items():
        clean = list(film)
        pictures = [worn(picture, number) for number, picture in enumerate(clean)]
        scores = [classifier.scores(classifier.preprocess(picture)).copy() for picture in pictures]
        truth = decided(classifier, scores, options.fps)
        again = [
            classifier.scores(classifier.preprocess(worn(picture, count + number))).copy()
            for number, picture in enumerate(clean)
        ]
        noise = share(decided(classifier, again, options.fps), truth)
        print(f"{name:<8} {'other noise':>9} {'':>6} {0:>16.1%} {noise:>14.2%}")
        for threshold, looks in [(t, 1e9) for t in THRESHOLDS] + [(t, LOOKS) for t in THRESHOLDS]:
            labels, spared = through(Gate(threshold, looks=looks), classifier, pictures, scores, options.fps)
            shown = "all" if looks > 1e6 else f"{looks:g}"
            print(f"{name:<8} {threshold:>9g} {shown:>8} {spared / len(pictures):>16.1%} {share(labels, truth):>14.2%}")


def share(labels: list[str], others: list[str]) -> float:
    return float(np.mean([a != b for a, b in zip(labels, others, strict=True)]))


def drawn(count: int, fps: float) -> Iterator[np.ndarray]:
    with SyntheticSource(size=SIZE, fps=fps, fast=True) as source:
        for _ in range(count):
            frame = source.read()
            assert frame is not None
            assert isinstance(frame.image, np.ndarray)
            yield frame.image


def photos(folder: str, count: int, fps: float) -> Iterator[np.ndarray]:
    with StillsSource(folder) as source:
        paths = [frame.path for frame in iter(source.read, None)]
    # In an order that has another class after each photo.
    order = np.random.default_rng(0).permutation(len(paths))
    for number in range(count):
        shown = round(SHOWN * fps)
        if number % shown == 0:
            picture = cv2.imread(str(paths[order[number // shown % len(paths)]]))
            assert picture is not None
            fitted = cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_AREA)
        yield fitted


def worn(picture: np.ndarray, number: int) -> np.ndarray:
    """As a camera sees it."""
    random = np.random.default_rng(number)
    noisy = picture + random.normal(0, NOISE, picture.shape) + random.normal(0, FLICKER)
    encoded = cv2.imencode(".jpg", np.clip(noisy, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


def through(
    gate: Gate, classifier: Classifier, pictures: list[np.ndarray], scores: list[np.ndarray], fps: float
) -> tuple[list[str], int]:
    """The labels as the pipeline would decide them, and how many frames spared the network."""
    decision = Decision(classifier.labels, in_a_row=IN_A_ROW)
    labels: list[str] = []
    held, spared = scores[0], 0
    for number, picture in enumerate(pictures):
        moment = number / fps
        still = gate.rests(moment) or gate.still(picture, moment)
        spared += still
        what = decision.update(held if still else scores[number], moment)
        labels.append(what.label)
        held = what.scores
    return labels, spared


def decided(classifier: Classifier, scores: list[np.ndarray], fps: float) -> list[str]:
    decision = Decision(classifier.labels, in_a_row=IN_A_ROW)
    return [decision.update(each, number / fps).label for number, each in enumerate(scores)]


if __name__ == "__main__":
    main()
