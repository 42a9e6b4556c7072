"""A model ready to be asked, whichever kind of file it is: .keras through Keras, .tflite through a TFLite runtime.

Finds out what both kinds owe an evaluation: labels, input, runtime, and which photos it was trained on. Refuses what
does not take one picture and give one score a class, before a picture is read.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require
from edgenn_device import model_file, preprocess
from edgenn_device.card import InputSpec
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError

# What a run's folder calls them.
RUN_MODEL, RUN_RECORD = "model.keras", "run.json"


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
      name: its path, or what it calls itself when it was handed over in memory.
      labels: in the order of the scores; () when nothing says them.
      classes: how many scores it gives.
      input: how a picture becomes its input.
      runtime: what computes it, as figures are to be labelled.
      fingerprint: of the photos it was trained on; "" when nothing says it.
      trained_on: the beginnings of some of their digests, as `data.Dataset.sample` gives them.
      notes: sentences on what had to be assumed.
      scores: uint8 (n, height, width, channels), as `preprocess.to_bytes` gives them -> float32 (n, classes).
    """

    name: str
    labels: tuple[str, ...]
    classes: int
    input: InputSpec
    runtime: str
    fingerprint: str
    trained_on: str
    notes: tuple[str, ...]
    scores: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def located(model: str | os.PathLike[str]) -> Path:
    """The model file that `model` names: itself, or model.keras in a run's folder.

    Raises:
      EdgennError: there is no such file, or it is of neither kind.
    """
    path = Path(model)
    if path.is_dir():
        if not (path / RUN_MODEL).is_file():
            raise EdgennError(f"{path} is a folder without {RUN_MODEL}: give a run's folder, a .keras or a .tflite")
        return path / RUN_MODEL
    if not path.is_file():
        raise EdgennError(f"there is no model {path}: give a run's folder, a .keras or a .tflite")
    if path.suffix not in (".keras", ".tflite"):
        raise EdgennError(f"{path} is neither a .keras nor a .tflite: `edgenn convert` makes the latter of a run")
    return path


def opened(
    model: Any,
    *,
    labels: str | os.PathLike[str] | None = None,
    runtime: str = "auto",
    threads: int | None = None,
) -> Model:
    """Load a model.

    Args:
      model: a run's folder, a .keras or a .tflite; or a keras.Model or Classifier, or a Model (returned as it is).
      labels: a file with one label a line, for a file that carries none; with a .keras it takes the place of those
        that stand in its run.
      runtime, threads: for a .tflite, as `edgenn_device.Interpreter` takes them.

    Raises:
      EdgennError: it cannot be loaded, or is not a classifier of pictures.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, Classifier):
        return _of_classifier(model)
    if not isinstance(model, (str, os.PathLike)):
        return _of_keras(model, str(getattr(model, "name", "model")), {}, labels)
    path = located(model)
    if path.suffix == ".tflite":
        return _of_classifier(Classifier(path, labels=labels, runtime=runtime, threads=threads))
    if runtime != "auto":
        raise EdgennError(f"{path} is computed by Keras: --runtime {runtime} is for a .tflite")
    return _of_keras(load_keras(path), str(path), _record(path), labels)


def input_spec(model: str | os.PathLike[str]) -> InputSpec:
    """How a picture becomes the input of the model file `model` (or of a run's folder).

    A .tflite says it itself. A .keras says only its size: the run.json beside it says the rest, and without one a
    picture is stretched to that size, in RGB.

    Raises:
      EdgennError: the file is not a usable model.
    """
    path = located(model)
    if path.suffix == ".tflite":
        spec: InputSpec = model_file.load(path).input
        return spec
    return _spec_of_record(_record(path), path) or _spec_of_shape(load_keras(path), str(path))


def _of_classifier(classifier: Classifier) -> Model:
    file = classifier.model
    # The bytes have the tensor's size and order of channels: told so, `preprocess` only brings them to its dtype.
    as_they_are = replace(file.input, colour="grey" if file.input.channels == 1 else "bgr", resize="stretch")

    def scores(tensors: NDArray[np.uint8]) -> NDArray[np.float32]:
        answers = np.empty((len(tensors), len(classifier.labels)), np.float32)
        tensor = np.empty((1, *file.input.shape), file.input.dtype)
        for index, picture in enumerate(tensors):
            answers[index] = classifier.scores(preprocess.to_tensor(picture, as_they_are, out=tensor))
        return answers

    training = file.card.training if file.card else {}
    return Model(
        name=str(file.path),
        labels=file.labels,
        classes=len(classifier.labels),
        input=file.input,
        runtime=classifier.interpreter.description,
        fingerprint=str(training.get("fingerprint", "")),
        trained_on=str(training.get("trained_on", "")),
        notes=tuple(file.assumed),
        scores=scores,
    )


def _of_keras(network: Any, name: str, record: dict[str, Any], labels: str | os.PathLike[str] | None) -> Model:
    keras, tensorflow = require("keras"), require("tensorflow")
    notes: list[str] = []
    spec = _spec_of_shape(network, name)
    recorded = _spec_of_record(record, name)
    if recorded and recorded.shape == spec.shape:
        spec = recorded
    else:
        notes.append(
            f"The input takes pixels 0 to 255, {spec.colour}; pictures are stretched to {spec.height}x{spec.width}."
        )
    classes = _classes(network, name)
    known = tuple(map(str, record.get("labels", ())))
    if labels is not None:
        known = model_file.read_labels(labels, classes)
    if known and len(known) != classes:
        raise EdgennError(f"{name} has {classes} outputs and {len(known)} labels: give --labels with one line each")

    def scores(tensors: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(network.predict_on_batch(tensors.astype(np.float32)), np.float32)

    return Model(
        name=name,
        labels=known,
        classes=classes,
        input=spec,
        runtime=f"keras {keras.__version__}, tensorflow {tensorflow.__version__}",
        fingerprint=str(record.get("fingerprint", "")),
        trained_on=str(record.get("trained_on", "")),
        notes=tuple(notes),
        scores=scores,
    )


def load_keras(path: Path) -> Any:
    """A keras.Model, not compiled, from a .keras that edgenn wrote or that is not looked into.

    Raises:
      EdgennError: it is damaged, or Keras refuses it.
    """
    keras = require("keras")
    if not zipfile.is_zipfile(path):  # of which Keras says that there is no such file
        raise EdgennError(f"{path} is damaged (no .keras file): train again, or copy it again")
    try:
        return keras.saving.load_model(path, compile=False)
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # a damaged archive, an unknown layer, code that safe mode refuses: Keras has no one type
        reason = " ".join(str(error).split())
        raise EdgennError(f"{path} cannot be loaded by Keras {keras.__version__}: {reason[:300]}") from None


def _record(path: Path) -> dict[str, Any]:
    """run.json beside a run's model; {} for a .keras that is not a run's."""
    beside = path.with_name(RUN_RECORD)
    if path.name != RUN_MODEL or not beside.is_file():
        return {}
    try:
        record = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EdgennError(f"{beside} cannot be read ({error}): train again, or move the model away from it") from None
    return record if isinstance(record, dict) else {}


def _spec_of_record(record: dict[str, Any], name: str | Path) -> InputSpec | None:
    said = record.get("input")
    if not isinstance(said, dict):
        return None
    try:
        return InputSpec(**{f.name: said[f.name] for f in fields(InputSpec) if f.name in said})
    except TypeError as error:
        raise EdgennError(f"{RUN_RECORD} beside {name} does not describe an input ({error}): train again") from None


def _spec_of_shape(network: Any, name: str) -> InputSpec:
    if len(network.inputs) != 1:
        raise EdgennError(f"{name} has {len(network.inputs)} inputs: a classifier of pictures has one")
    shape = tuple(network.inputs[0].shape)
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise EdgennError(f"{name} takes {_written(shape)}: a picture is (batch, height, width, 1 or 3)")
    if None in shape[1:3]:
        raise EdgennError(f"{name} takes pictures of any size {_written(shape)}: save it with a fixed input size")
    return InputSpec(shape[1], shape[2], shape[3], "grey" if shape[3] == 1 else "rgb")


def _classes(network: Any, name: str) -> int:
    shapes = [tuple(output.shape) for output in network.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] is None or shapes[0][1] < 2:
        gives = " and ".join(map(_written, shapes))
        raise EdgennError(f"{name} gives {gives}: a classifier gives (batch, classes), two classes or more")
    return int(shapes[0][1])


def _written(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"
