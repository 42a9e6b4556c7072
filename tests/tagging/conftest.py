"""A model that is small and fast, and a catalogue of small pictures for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def model(tiny: Path) -> Path:
    return tiny / "run" / "model.tflite"


@pytest.fixture
def catalogue(tiny: Path, tmp_path: Path) -> Path:
    """120 pictures in three folders, and three files that are no pictures."""
    folder = tmp_path / "catalogue"
    shutil.copytree(tiny / "photos", folder)
    (folder / "circle" / "empty.jpg").touch()
    (folder / "cross" / "rubbish.png").write_bytes(b"not a picture")
    (folder / "square" / "notes.txt").write_text("no picture's suffix")
    return folder


@pytest.fixture
def storage(monkeypatch):
    """S3 on this machine, with an empty bucket named shop: its file system."""
    s3fs = pytest.importorskip("s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # those of an earlier server
    system = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    system.mkdir("shop")
    yield system
    system.rm("shop", recursive=True)  # moto's buckets outlive its server
    server.stop()


@pytest.fixture(scope="session")
def many(made_once, tiny: Path) -> Path:
    """3,000 small JPEGs, each of its own content."""

    def make(folder: Path) -> None:
        for number in range(3000):
            picture = np.full((40, 40, 3), 0, np.uint8)
            picture[:, :, 0], picture[:, :, 1], picture[0, 0, 2] = number % 256, number // 256 * 20, 255
            cv2.circle(picture, (20, 20), 4 + number % 12, (255, 255, 255), 2)
            place = folder / "pictures" / f"{number // 500}" / f"{number:05d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place), picture)

    return made_once("many_small", make) / "pictures"
