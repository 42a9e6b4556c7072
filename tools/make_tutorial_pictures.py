"""The pictures of docs/tutorial.md, made by the commands that the tutorial tells you to type.

    python -m tools.make_tutorial_pictures [--work FOLDER]

Draws photos of garments, trains, converts, profiles and runs with the `edgenn` command, and takes pictures of the
pages that come out with a headless Chromium (`apt-get install chromium`). Takes some minutes. What the commands print
stays in FOLDER/*.txt, for the tutorial's text. No photo of a person or a real thing goes into docs/pictures, and
together they stay below 600 kB.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from edgenn.data import garments
from edgenn_device.garments import LABELS, draw, seed_in
from tools.chromium import Chromium

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
QUALITY = (cv2.IMWRITE_WEBP_QUALITY, 80)
# A page at this width is readable in the documentation's column, and enlarged by a click.
WIDTH = 980


def sheet(columns: int = 7, side: int = 136) -> np.ndarray:
    """A row of drawn photos for each class with the class's name on the left, as the folders are: uint8 BGR."""
    margin, name = 6, 110
    picture = np.full((len(LABELS) * (side + margin) + margin, name + columns * (side + margin), 3), 255, np.uint8)
    for row, label in enumerate(LABELS):
        top = margin + row * (side + margin)
        cv2.putText(
            picture, f"{label}/", (8, top + side // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (60, 60, 60), 1, cv2.LINE_AA
        )
        for column in range(columns):
            left = name + column * (side + margin)
            photo = draw(label, seed_in("train", 0, column), (side, side))
            picture[top : top + side, left : left + side] = photo
    return picture


def save(picture: np.ndarray, name: str) -> None:
    path = PICTURES / f"{name}.webp"
    cv2.imwrite(str(path), picture, QUALITY)
    print(f"{path}: {picture.shape[1]}x{picture.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


def edgenn(work: Path, name: str, *words: str) -> None:
    """Run a verb in `work`; what it prints goes to NAME.txt there."""
    command = [str(Path(sys.executable).with_name("edgenn")), *words]
    done = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    (work / f"{name}.txt").write_text(f"$ edgenn {' '.join(words)}\n{done.stdout}")
    print(f"$ edgenn {' '.join(words)}\n{done.stdout}")
    if done.returncode:
        raise SystemExit(f"edgenn {words[0]} ended with status {done.returncode}")


def shot(work: Path, address: str, name: str, height: int, ready: str = "document.readyState == 'complete'") -> None:
    """The first `height` pixels of a page, once `ready` is true in it."""
    with tempfile.TemporaryDirectory() as profile, Chromium(Path(profile), WIDTH, height) as browser:
        browser.call("Emulation.setScrollbarsHidden", hidden=True)
        browser.open(address)
        browser.until(ready)
        browser.screenshot(work / f"{name}.png", whole=False)
    picture = cv2.imread(str(work / f"{name}.png"))
    assert picture is not None
    save(picture, name)


def live(work: Path) -> None:
    """The live page while the synthetic camera runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("edgenn")), "run", "runs/first/model.tflite"]
    command += ["--source", "synthetic", "--web", f"127.0.0.1:{port}", "--name", "shop window"]
    with subprocess.Popen(command, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert run.stderr is not None
            while "live page" not in (line := run.stderr.readline()):
                assert line, "edgenn run ended"
            # Three events: then the list below the picture has something to show.
            shot(work, f"http://127.0.0.1:{port}/", "live", 860, "document.querySelectorAll('#events li').length >= 3")
        finally:
            run.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, help="a folder that is kept; taken up again where it was left")
    given = parser.parse_args().work
    work = (given or Path(tempfile.mkdtemp())).resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        save(sheet(), "photos")
        if not (work / "photos").exists():
            garments.write(work / "photos", 240)
        if not (work / "runs/first/report.html").exists():
            edgenn(work, "train", "train", "photos", "--out", "runs/first", "--size", "64")
        if not (work / "runs/first/model.tflite").exists():
            edgenn(work, "convert", "convert", "runs/first")
        edgenn(
            work,
            "evaluate",
            "evaluate",
            "runs/first/model.tflite",
            "photos",
            "--report",
            "evaluated.html",
            "--overwrite",
        )
        edgenn(work, "debug", "debug", "runs/first", "--out", "debug", "--overwrite")
        edgenn(work, "run", "run", "runs/first/model.tflite", "--source", "synthetic", "--limit", "60", "--profile")
        edgenn(work, "profile", "profile", "runs/first/model.tflite", "--out", "profile.html", "--overwrite")
        edgenn(work, "inspect", "inspect", "runs/first/model.tflite")
        edgenn(work, "pi4", "profile", "runs/first/model.tflite", "--device", "pi4")
        shot(work, (work / "runs/first/report.html").as_uri(), "report", 900)
        shot(work, (work / "debug/report.html").as_uri(), "debug", 900)
        shot(work, (work / "profile.html").as_uri(), "profile", 900)
        live(work)
    finally:
        if given is None:
            shutil.rmtree(work)
    total = sum(path.stat().st_size for path in PICTURES.iterdir())
    print(f"together {total / 1000:.0f} kB")
    if total > 600_000:
        raise SystemExit("more than 600 kB: make fewer or smaller pictures")


if __name__ == "__main__":
    main()
