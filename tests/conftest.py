"""What several tests share: small photos, and one tiny run and its int8 model that are made once for all workers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

CLASSES = ("circle", "cross", "square")


def draw(shape: str, seed: int, size: int = 32) -> np.ndarray:
    """A shape at a random place on a random ground, its colour leaning to its class: uint8 BGR (size, size, 3)."""
    random = np.random.RandomState(seed)
    picture = np.full((size, size, 3), random.randint(0, 90, 3), np.uint8)
    leaning = np.roll([120, 0, 0], CLASSES.index(shape))
    colour = tuple(int(v) for v in random.randint(60, 136, 3) + leaning)
    x, y = (int(v) for v in random.randint(size // 3, size - size // 3, 2))
    r = int(random.randint(size // 6, size // 4))
    if shape == "circle":
        cv2.circle(picture, (x, y), r, colour, 2)
    elif shape == "square":
        cv2.rectangle(picture, (x - r, y - r), (x + r, y + r), colour, -1)
    else:
        cv2.line(picture, (x - r, y - r), (x + r, y + r), colour, 2)
        cv2.line(picture, (x - r, y + r), (x + r, y - r), colour, 2)
    noise = random.randint(-12, 13, picture.shape)
    return np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def write_photos(folder: Path, each: int = 30, classes: tuple[str, ...] = CLASSES, first_seed: int = 0) -> Path:
    """FOLDER/<class>/NN.png, `each` of every class."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            seed = first_seed + 1000 * number + index
            cv2.imwrite(str(folder / name / f"{index:02d}.png"), draw(CLASSES[number % 3], seed))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three classes with 30 small photos each."""
    return write_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """made_once(name, make): a folder that the first worker to ask fills by make(folder), and all others read."""
    root = tmp_path_factory.getbasetemp()
    if root.name.startswith("popen-"):
        root = root.parent

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        place, done = root / name, root / f"{name}.done"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                place.mkdir(exist_ok=True)
                make(place)
                done.touch()
        return place

    return folder


def make_tiny(folder: Path) -> None:
    """Fill `folder`, which exists, with photos/, run/ (a trained tiny network) and run/model.tflite."""
    import edgenn

    write_photos(folder / "photos", each=40)
    edgenn.train(
        folder / "photos",
        folder / "run",
        size=32,
        epochs=8,
        batch=16,
        learning_rate=0.01,
        network_options={"width": 8, "depth": 2, "dropout": 0.0},
    )
    edgenn.convert(folder / "run", max_drop=100)


@pytest.fixture(scope="session")
def tiny(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """What `make_tiny` makes. Read only. An environment without TensorFlow is given one by EDGENN_TEST_TINY."""
    made = os.environ.get("EDGENN_TEST_TINY")
    return Path(made) if made else made_once("tiny", make_tiny)
