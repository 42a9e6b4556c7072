"""A run in, a checked .tflite out: the whole of `edgenn convert`.

Nothing is called int8 that was not looked at: the graph is read back for float tensors and operator versions, and the
file is run on validation photos beside the float model before it gets its name. A file that fails the gate is kept
as *.rejected.tflite, so that it can be looked at and is not deployed by accident.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenn import data
from edgenn.evaluation import metrics, predict
from edgenn.training.run import Run
from edgenn_device import golden, model_file
from edgenn_device.card import Card, InputSpec
from edgenn_device.classifier import Classifier
from edgenn_device.errors import AnswerIsNo, EdgennError
from edgenn_device.files import write_atomically
from edgenn_device.model_file import ModelFile

from . import metadata, targets
from .tflite import Io, Quantization, convert_in_child

# Activation ranges settle after some hundred pictures (TensorFlow's guide to post-training quantization says 100 to
# 500); calibration costs one float inference each.
CALIBRATION_PICTURES = 300
# Points of validation accuracy that int8 may cost.
MAX_DROP = 1.0


@dataclass(frozen=True)
class Conversion:
    """What a conversion came to. Accuracies and agreement are on `pictures` validation photos, 0..1.

    Attributes:
      model: path of the .tflite.
      quantization: "int8" or "float32"; `target` what it was checked for.
      bytes: size of the file; `float_bytes` that of the weights in float32.
      float_accuracy: of the Keras model.
      int8_accuracy: of the file, on `runtime`.
      agreement: share of photos on which both give the same label.
      passed: the file met the gate.
      reasons: why not, one sentence each.
      seconds: wall time.
    """

    model: Path
    quantization: Quantization
    target: str
    bytes: int
    float_bytes: int
    float_accuracy: float
    int8_accuracy: float
    runtime: str
    agreement: float
    pictures: int
    calibration_pictures: int
    passed: bool
    reasons: tuple[str, ...]
    seconds: float


def convert(
    run: str | os.PathLike[str] | Run,
    *,
    quantization: Quantization = "int8",
    target: str = "pi",
    io: Io = "uint8",
    photos: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    max_drop: float = MAX_DROP,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Conversion:
    """Convert a run's model and check the result.

    Args:
      run: a run, or its folder.
      quantization: "int8" (post-training, full integer) or "float32".
      target: "pi" or "coral".
      io: element type at both ends of an int8 model.
      photos: where the photos are now, if not where they were in training.
      out: path of the .tflite; RUN/model.tflite if None (model-float32.tflite for float32).
      max_drop: points of validation accuracy that int8 may cost.
      overwrite: replace a file at `out`.
      progress: called with one line at the start of each step.

    Returns:
      What came of it; `passed` is False when the file was rejected (it is then at *.rejected.tflite).

    Raises:
      EdgennError: the run, the photos or `out` cannot be used, or the converter refuses the model.
    """
    started = time.perf_counter()
    say = progress or (lambda line: None)
    run = run if isinstance(run, Run) else Run.load(run)
    path = _path(run, quantization, out)
    if path.exists() and not overwrite:
        raise EdgennError(f"{path} exists: give --overwrite, or another place with --out")
    say("reading photos")
    calibration, tensors, truth = _pictures(run, photos)
    say(f"converting to {quantization} with {len(calibration)} calibration pictures")
    content = convert_in_child(
        run.model, calibration, quantization=quantization, io=io, per_tensor_dense=target == "coral"
    )
    card = _card(run, path, quantization, target, io, len(calibration))
    content = metadata.add(content, card)

    say(f"comparing float and {quantization} on {len(truth)} validation photos")
    model = _loaded(content, card)
    expected = predict(run.model, tensors)
    actual = predict(Classifier(model), tensors)
    before, after = expected.probabilities.argmax(1), actual.probabilities.argmax(1)
    card = replace(
        card,
        metrics={
            "float": {"accuracy": metrics.accuracy(truth, before), "runtime": expected.runtime},
            quantization: {"accuracy": metrics.accuracy(truth, after), "runtime": actual.runtime},
            "agreement": metrics.agreement(before, after),
            "pictures": len(truth),
            "split": "validation",
        },
        golden=golden.record(model),
    )
    reasons = _gate(model, target, quantization, truth, before, after, max_drop)
    if reasons:
        path = path.with_suffix(".rejected.tflite")
    content = model_file.attach(content, card)
    write_atomically(path, content)
    return Conversion(
        model=path,
        quantization=quantization,
        target=target,
        bytes=len(content),
        float_bytes=4 * run.parameters,
        float_accuracy=card.metrics["float"]["accuracy"],
        int8_accuracy=card.metrics[quantization]["accuracy"],
        runtime=actual.runtime,
        agreement=card.metrics["agreement"],
        pictures=len(truth),
        calibration_pictures=len(calibration),
        passed=not reasons,
        reasons=tuple(reasons),
        seconds=time.perf_counter() - started,
    )


def check_passed(conversion: Conversion) -> None:
    """Raise AnswerIsNo, naming the reasons, if the gate refused."""
    if not conversion.passed:
        raise AnswerIsNo(f"rejected, kept as {conversion.model}: {'; '.join(conversion.reasons)}")


def _path(run: Run, quantization: Quantization, out: str | os.PathLike[str] | None) -> Path:
    if out is None:
        return run.path / ("model.tflite" if quantization == "int8" else f"model-{quantization}.tflite")
    path = Path(out)
    if path.suffix != ".tflite":
        raise EdgennError(f"--out {path} is not a .tflite: give a file name that ends in .tflite")
    return path


def _pictures(run: Run, photos: str | os.PathLike[str] | None) -> tuple[Any, Any, Any]:
    """Calibration tensors from the training split; tensors and labels of the validation split."""
    place = Path(photos) if photos is not None else run.photos
    if not place.is_dir():
        raise EdgennError(f"the photos of this run are no longer at {place}: give their place with --photos")
    dataset = data.scan(place, run.labels)
    spec = run.recipe.input
    calibration = data.load(data.calibration(dataset.splits["train"], CALIBRATION_PICTURES, run.recipe.seed), spec)
    validation = data.load(dataset.splits["validation"], spec)
    return calibration.tensors, validation.tensors, validation.labels


def _card(run: Run, path: Path, quantization: Quantization, target: str, io: Io, calibration: int) -> Card:
    spec: InputSpec = replace(run.recipe.input, dtype=io if quantization == "int8" else "float32")
    name = run.path.resolve().name if path.stem.startswith("model") else path.stem
    return Card(
        name=name,
        labels=run.labels,
        input=spec,
        quantization={
            "scheme": "int8 post-training, min/max ranges" if quantization == "int8" else "float32",
            "calibration_pictures": calibration if quantization == "int8" else 0,
            "input_dtype": spec.dtype,
            "output_dtype": spec.dtype,
        },
        training={
            "network": run.network,
            "network_options": run.recipe.network_options,
            "parameters": run.parameters,
            "fingerprint": run.fingerprint,
            "seed": run.recipe.seed,
            "epochs": run.epochs,
            "versions": run.versions,
        },
        target=target,
    )


def _loaded(content: bytes, card: Card) -> ModelFile:
    """The file as the device will have it, read through the same verification."""
    with tempfile.TemporaryDirectory(prefix="edgenn-convert-") as folder:
        draft = Path(folder) / "model.tflite"
        draft.write_bytes(model_file.attach(content, card))
        return model_file.load(draft)


def _gate(
    model: ModelFile, target: str, quantization: Quantization, truth: Any, before: Any, after: Any, max_drop: float
) -> list[str]:
    """Reasons against the file; none if it may go to a device."""
    reasons = list(targets.check(model, target).reasons) if not targets.check(model, target).ok else []
    floats = [tensor.name for tensor in model.graph.tensors if tensor.dtype.startswith("float")]
    if quantization == "int8" and floats:
        reasons.append(f"{len(floats)} tensors are still float, the first is {floats[0]}")
    lost = int(np.sum(before == truth) - np.sum(after == truth))
    # One photo more or less is no evidence, however few there are.
    if lost > max(1.0, max_drop / 100 * len(truth)):
        points = 100 * lost / len(truth)
        reasons.append(f"{quantization} loses {points:.1f} points of validation accuracy, {max_drop:g} are allowed")
    return reasons
