"""Compares what the same int8 file computes on x86 and on emulated aarch64, bit by bit.

    .venv/bin/python -m tools.compare_kernels_on_arm

For garments.tflite and a MobileNetV2 of random weights made here: LiteRT with XNNPACK and with TFLite's built-in
kernels on the Python of Debian Bookworm and of Trixie, tflite-runtime on Bookworm's. XNNPACK has to give the same bits,
and the exit status says whether it does; the built-in kernels do not (docs/test-device.md), and the table says by how
much. The emulator runs the very ARM code of the wheels, for a Pi 4's processor. Says nothing about speed. Starts the
test devices, and needs root.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenn.deployment.packages import Platform
from tools.arm_device import Device, devices, or_reason

ROOT = Path(__file__).parents[1]
GARMENTS = ROOT / "models" / "garments" / "garments.tflite"
OLD_PYTHON = ROOT / ".venv-tflite-runtime" / "bin" / "python"
# Debian's glibc of each suite, and its Python.
PLATFORMS = {
    "bookworm": Platform("aarch64", (3, 11), (2, 36)),
    "trixie": Platform("aarch64", (3, 13), (2, 41)),
}
RUNTIMES = {"litert": ["ai-edge-litert>=2.1", "numpy>=1.26"], "tflite-runtime": ["tflite-runtime==2.14.0", "numpy<2"]}
PICTURES = 8

# Runs under every Python that is compared. RandomState's stream is the same in every NumPy.
ASK = f'''
import json, platform, sys
from pathlib import Path
import numpy as np
from edgenn_device.interpreter import Interpreter
from edgenn_device.model_file import load

def blocks(random, shape, dtype):
    """Squares of random colours: of finer noise a network without training sees the mean alone."""
    limits = np.iinfo(dtype)
    squares = random.randint(limits.min, limits.max + 1, (1, shape[1] // 8 + 1, shape[2] // 8 + 1, shape[3]))
    return squares.repeat(8, 1).repeat(8, 2)[:, : shape[1], : shape[2]].astype(dtype)

answers = []
for path in sys.argv[2:]:
    for kernels in ("default", "builtin") if sys.argv[1] == "litert" else ("builtin",):
        network = Interpreter(load(Path(path)), runtime=sys.argv[1], threads=1, kernels=kernels)
        random = np.random.RandomState(0)
        pictures = [blocks(random, network.input.shape, network.input.dtype) for _ in range({PICTURES})]
        answers.append({{
            "model": Path(path).stem, "runtime": network.runtime + " " + network.version, "kernels": network.kernels,
            "python": platform.python_version(), "machine": platform.machine(),
            "scores": [network.invoke_raw(picture).tolist() for picture in pictures],
        }})
json.dump(answers, sys.stdout)
'''


@dataclass(frozen=True)
class Answer:
    """What one runtime computed: `scores` has a list of the output's integers for each picture."""

    model: str
    runtime: str
    kernels: str
    python: str
    machine: str
    scores: list[list[int]]

    def differs(self, other: Answer) -> tuple[int, int]:
        """How many scores differ, and the largest difference in steps of the output."""
        steps = np.abs(np.subtract(self.scores, other.scores))
        return int(np.count_nonzero(steps)), int(steps.max())


def make_mobilenet(path: Path) -> Path:
    """A MobileNetV2 of 96x96 pixels and random weights, int8 with per-channel kernels; needs TensorFlow."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    random = np.random.RandomState(0)
    pictures = random.uniform(-1, 1, (64, 13, 13, 3)).repeat(8, 1).repeat(8, 2)[:, :96, :96].astype(np.float32)
    body = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, include_top=False, weights=None, pooling="avg")
    # Normalized by what the layers really give; otherwise every picture scores alike after 50 random layers.
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(8):
        body(pictures, training=True)
    network = keras.Sequential([keras.Input((96, 96, 3), batch_size=1), body, keras.layers.Dense(10)])
    function = tf.function(lambda pictures: network(pictures, training=False))
    specification = tf.TensorSpec((1, 96, 96, 3), tf.float32)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(specification)])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([picture[None]] for picture in pictures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    return path


def here(models: Iterable[Path]) -> list[Answer]:
    """What this machine computes: LiteRT of this environment, and tflite-runtime where `make test` has installed it."""
    pythons = [(sys.executable, "litert"), *([(str(OLD_PYTHON), "tflite-runtime")] if OLD_PYTHON.exists() else [])]
    found = []
    for python, runtime in pythons:
        done = subprocess.run(
            [python, "-c", ASK, runtime, *map(str, models)],
            env={"PYTHONPATH": str(ROOT / "device")},
            capture_output=True,
            text=True,
            check=True,
        )
        found += _answers(done.stdout)
    return found


def install(folder: Path, platform: Platform, requirements: Sequence[str]) -> None:
    """The wheels of another platform, unpacked into a folder for PYTHONPATH. Raises CalledProcessError."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run(
        [*pip, "--only-binary=:all:", f"--target={folder}", *platform.pip_options, *requirements], check=True
    )


def on_device(one: Device, models: Sequence[Path], runtime: str, folder: Path) -> list[Answer]:
    """What the device computes. `folder` receives the wheels, unpacked; they, edgenn_device and the models go there."""
    site = folder / f"{one.suite}-{runtime}"
    install(site, PLATFORMS[one.suite], RUNTIMES[runtime])
    for source in (site, ROOT / "device" / "edgenn_device", *models):
        one.put(source, "compare")
    names = " ".join(path.name for path in models)
    done = one.run(f"cd compare && PYTHONPATH={site.name}:. python3 - {runtime} {names}", input=ASK, timeout=600)
    return _answers(done.stdout)


def _answers(text: str) -> list[Answer]:
    return [Answer(**answer) for answer in json.loads(text)]


def compared(reference: Iterable[Answer], answers: Iterable[Answer]) -> list[tuple[Answer, int, int]]:
    """Each answer, and how it differs from the first of the reference for the same model and kernels."""
    first: dict[tuple[str, str], Answer] = {}
    for one in reference:
        first.setdefault((one.model, one.kernels), one)
    return [(one, *one.differs(first[one.model, one.kernels])) for one in answers]


def apart(answers: Iterable[Answer], model: str) -> int:
    """Steps between what the two kernel libraries compute, the first answer of each: neither is the right one."""
    first = {one.kernels: one for one in reversed(list(answers)) if one.model == model}
    return first["xnnpack"].differs(first["builtin"])[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=list(PLATFORMS), action="append", help="both otherwise")
    suites = parser.parse_args().suite or list(PLATFORMS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = [GARMENTS, make_mobilenet(folder / "mobilenet.tflite")]
        reference = here(models)
        answers = reference[:]
        for suite in suites:
            with devices(1, suite=suite, arch="arm64") as (board,):
                for runtime in ("litert", *(["tflite-runtime"] if suite == "bookworm" else [])):
                    answers += on_device(board, models, runtime, folder)
    print(f"{PICTURES} pictures each; differing scores against x86_64 LiteRT with the same kernels\n")
    heads = f"{'model':<10} {'kernels':<8} {'machine':<8} {'python':<8} {'runtime':<22}"
    print(f"{heads} {'scores':>6} {'differ':>6} {'steps':>5}")
    rows = compared(reference, answers)
    for one, count, steps in sorted(rows, key=lambda row: (row[0].model, row[0].kernels)):
        scores = sum(map(len, one.scores))
        print(
            f"{one.model:<10} {one.kernels:<8} {one.machine:<8} {one.python:<8} {one.runtime:<22} {scores:>6} "
            f"{count:>6} {steps:>5}"
        )
    for model in models:
        print(
            f"{model.stem}: XNNPACK and built-in kernels on x86_64 are up to {apart(reference, model.stem)} steps apart"
        )
    return int(any(count for one, count, _ in rows if one.kernels == "xnnpack"))


if __name__ == "__main__":
    sys.exit(or_reason(main))
