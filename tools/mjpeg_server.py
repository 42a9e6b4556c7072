"""A camera for benchmarks: an HTTP MJPEG stream of pictures that were encoded before, at a steady pace.

A process of its own, so that its work is not counted as the runner's; a frame costs it one `sendall`. Every client gets
the same pictures, over and over. With --still they show one scene with a camera's noise, else a garment that moves.

    python tools/mjpeg_server.py [--size 1920x1080] [--fps 30] [--still] [--port 0]
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from edgenn_device.cameras.synthetic import SyntheticSource

# Pictures that are encoded: at 250 kB each a few megabytes, and two seconds of a camera.
COUNT = 60
# Standard deviation of the noise, of 255: a webcam's in a room with the lights on.
NOISE = 4.0
QUALITY = 85
# The picture is drawn at this share of its size and scaled up; drawing 1080p takes a second each.
DRAWN = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080", help="(default 1920x1080)")
    parser.add_argument("--fps", type=float, default=30.0, help="pace (default 30)")
    parser.add_argument("--still", action="store_true", help="one scene with noise")
    parser.add_argument("--port", type=int, default=0, help="(default: a free one)")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    parts = [part(jpeg) for jpeg in pictures(width, height, options.still)]
    with socket.create_server(("127.0.0.1", options.port)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/stream.mjpg", flush=True)
        while True:
            client, _ = listening.accept()
            threading.Thread(target=serve, args=(client, parts, options.fps), daemon=True).start()


def pictures(width: int, height: int, still: bool) -> Iterator[bytes]:
    random = np.random.default_rng(0)
    with SyntheticSource(size=(height // DRAWN, width // DRAWN), fast=True) as source:
        frame = source.read()
        for _ in range(COUNT):
            assert frame is not None
            assert isinstance(frame.image, np.ndarray)
            picture = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_CUBIC)
            noise = random.normal(0, NOISE, picture.shape)
            noisy = np.clip(picture + noise, 0, 255).astype(np.uint8)
            yield cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
            if not still:
                frame = source.read()


def part(jpeg: bytes) -> bytes:
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n"


def serve(client: socket.socket, parts: list[bytes], fps: float) -> None:
    with client:
        try:
            client.recv(65536)
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
            began, number = time.monotonic(), 0
            while True:
                client.sendall(parts[number % len(parts)])
                number += 1
                late = time.monotonic() - (began + number / fps)
                if late < 0:
                    time.sleep(-late)
                elif late > 1 / fps:
                    # A client that was slow does not get a burst afterwards.
                    began += late
        except OSError:
            return


@contextmanager
def running(fps: float, *, still: bool = False, size: str = "1920x1080") -> Iterator[str]:
    """The server as a process; its address."""
    command = [sys.executable, str(Path(__file__)), "--fps", str(fps), "--size", size, *(["--still"] if still else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
