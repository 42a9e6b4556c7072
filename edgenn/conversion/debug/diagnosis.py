"""`edgenn debug`: a .tflite beside the float model of its run, figure by figure; writes nothing.

The order is that of the questions: which pictures does int8 see differently (on the runtime that the device has), what
does each layer add to the error and why (in float with one rounding at a time), what has come together by then (as the
file computes), and what takes the bytes.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn import data
from edgenn.evaluation import metrics, predict
from edgenn.evaluation.model import load_keras
from edgenn.evaluation.predict import Predictions
from edgenn.training.run import Run
from edgenn_device import model_file
from edgenn_device.classifier import Classifier
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile

from ..fake_quant import mending
from ..fake_quant.network import steps_of
from . import comparison, noise
from .advice import Layer, Lost, Means, Verdict, judge
from .comparison import Compared, spread_of_kernel
from .matching import Wiring, match_by_name
from .simulation import Simulation, simulate
from .size import Size, size_of

# Validation photos that labels are compared on, and those of them that layers are measured on: a ratio of powers over
# thousands of values settles soon (three choices of 32 clothing photos differed by at most 1.5 dB in any layer).
PICTURES, LAYER_PICTURES = 400, 32
# What is told while it goes on: (step, done, in all).
Progress = Callable[[str, int, int], None]
_NAMES = ("model.tflite", "model.rejected.tflite")


@dataclass(frozen=True)
class Class:
    """A class of photos: how many there are, and how many float model and file get right."""

    label: str
    pictures: int
    float_right: int
    int8_right: int


@dataclass(frozen=True)
class Flip:
    """A photo that gets another label from the file: both labels, each with the score (0..1) its model gives it."""

    path: Path
    true: str
    float_label: str
    float_score: float
    int8_label: str
    int8_score: float


@dataclass(frozen=True)
class Diagnosis:
    """Why int8 loses, or that it does not.

    Attributes:
      model: path of the .tflite; `run` of the run it was made from.
      scheme: how it was quantized, in the words of its card.
      runtime: what the file's labels were computed with.
      pictures: validation photos compared; `layer_pictures` of them for the figures by layer.
      float_accuracy, int8_accuracy, agreement: 0..1; `p_value` as `metrics.mcnemar`.
      layers: the guilty one first, if there is one, then the dearest.
      order: names of the layers as they are computed.
      classes: that have pictures, those that lost most first.
      flips: the photos whose label changed, first those that float got right and int8 does not.
      size: what the bytes are.
      verdict: the answer in words.
      notes: what a reader of the figures should know.
      seconds: wall time.
    """

    model: Path
    run: Path
    scheme: str
    runtime: str
    pictures: int
    layer_pictures: int
    float_accuracy: float
    int8_accuracy: float
    agreement: float
    p_value: float
    layers: tuple[Layer, ...]
    order: tuple[str, ...]
    classes: tuple[Class, ...]
    flips: tuple[Flip, ...]
    size: Size
    verdict: Verdict
    notes: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: paths as text; a ratio that is infinite, because nothing is lost, as null."""
        document: dict[str, Any] = _plain(dataclasses.asdict(self))
        return document


@dataclass(frozen=True)
class Examined:
    """What quantization does to the layers.

    Attributes:
      layers: the dearest first; `order` their names as they are computed.
      operators: index of an operator of the file -> the layer that it computes.
      means: what may be advised.
      notes: what a reader of the figures should know.
    """

    layers: tuple[Layer, ...]
    order: tuple[str, ...]
    operators: dict[int, str]
    means: Means
    notes: tuple[str, ...]


def diagnose(
    model: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
    photos: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Find out what quantization has done to a model.

    Args:
      model: a .tflite that `convert` made, also a *.rejected.tflite, or the folder of a run.
      run: the run it was made from, if the file does not lie in its folder.
      photos: where the photos are now, if not where they were in training; their validation part is taken.
      progress: called with (step, done, in all) as it goes on.

    Raises:
      EdgennError: there is no such model, it was not made from this run, or the photos cannot be used.
    """
    started = time.perf_counter()
    tell = progress or _silent
    file, of = located(Path(model), Path(run) if run is not None else None)
    loaded = _photos(of, photos, tell)
    network = load_keras(of.model)
    before = predict(network, loaded.tensors, progress=lambda done, total: tell("asking the float model", done, total))
    after = predict(Classifier(file), loaded.tensors, progress=lambda done, total: tell("asking the file", done, total))
    right_before, right_after = before.top1 == loaded.labels, after.top1 == loaded.labels
    lost = Lost(
        len(loaded.labels), int(right_before.sum()) - int(right_after.sum()), int((before.top1 != after.top1).sum())
    )
    examined = examine(network, file, loaded.tensors[:LAYER_PICTURES], progress=tell)
    verdict = judge(examined.layers, lost, examined.means)
    return Diagnosis(
        model=file.path,
        run=of.path,
        scheme=examined.means.scheme,
        runtime=after.runtime,
        pictures=lost.pictures,
        layer_pictures=min(LAYER_PICTURES, lost.pictures),
        float_accuracy=float(right_before.mean()),
        int8_accuracy=float(right_after.mean()),
        agreement=1 - lost.flips / lost.pictures,
        p_value=metrics.mcnemar(loaded.labels, before.top1, after.top1),
        layers=tuple(sorted(examined.layers, key=lambda layer: layer.name != verdict.guilty)),
        order=examined.order,
        classes=_classes(of, loaded.labels, right_before, right_after),
        flips=_flips(of, loaded, before, after),
        size=size_of(file, examined.operators),
        verdict=verdict,
        notes=examined.notes,
        seconds=time.perf_counter() - started,
    )


def located(model: Path, run: Path | None) -> tuple[ModelFile, Run]:
    """The file that is meant, and the run it was made from.

    Raises:
      EdgennError: one of them is not there, or they do not belong together.
    """
    if model.is_dir():
        of = Run.load(run or model)
        found = [model / name for name in _NAMES if (model / name).is_file()]
        if not found:
            raise EdgennError(f"{model} has no {_NAMES[0]} yet: `edgenn convert {model}` makes it")
        model = max(found, key=lambda path: path.stat().st_mtime)
        file = model_file.load(model)
    else:
        if model.suffix != ".tflite" and model.exists():
            raise EdgennError(f"{model} is not a .tflite: give what `edgenn convert` wrote, or a run")
        file = model_file.load(model)
        if run is None and not (model.parent / "run.json").is_file():
            raise EdgennError(f"{model} lies in no run's folder: give the run it was made from with --run")
        of = Run.load(run or model.parent)
    if any(operator.custom for operator in file.graph.operators):
        raise EdgennError(f"{model} is compiled for an Edge TPU: give the .tflite that it was compiled from")
    made_from = file.card.training.get("fingerprint") if file.card else None
    sides = [(spec.height, spec.width, spec.channels) for spec in (file.input, of.recipe.input)]
    if made_from not in (None, of.fingerprint) or file.labels != of.labels or sides[0] != sides[1]:
        raise EdgennError(f"{model} was not made from {of.path}: give its run with --run")
    return file, of


def _photos(run: Run, photos: str | os.PathLike[str] | None, tell: Progress) -> data.Loaded:
    place = Path(photos) if photos is not None else run.photos
    if not place.is_dir():
        raise EdgennError(f"the photos of this run are no longer at {place}: give their place with --photos")
    dataset = data.scan(place, run.labels, for_training=False)
    chosen = data.calibration(dataset.splits["validation"], PICTURES, run.recipe.seed)
    loaded = data.load(chosen, run.recipe.input, lambda done, total: tell("reading photos", done, total))
    if not len(loaded.labels):
        raise EdgennError(f"{place} has no validation photos of the run's classes: give another place with --photos")
    return loaded


def examine(
    network: Any, file: ModelFile, pictures: NDArray[np.uint8], *, progress: Progress | None = None
) -> Examined:
    """Measure what quantization does to each layer.

    Args:
      network: the float keras.Model.
      file: converted from it.
      pictures: uint8 (n, height, width, channels); some tens suffice.
      progress: called with (step, done, in all).
    """
    tell = progress or _silent
    card = file.card
    integer = any(tensor.dtype == "int8" and not tensor.constant for tensor in file.graph.tensors)
    means = Means(
        scheme=str(card.quantization.get("scheme", "")) if card else "",
        target=(card.target or "") if card else "",
        kind="int8" if integer else "the file",
    )
    try:
        simulation = simulate(network, file)
    except EdgennError as error:
        return _by_name(network, file, pictures, tell, means, str(error))
    names = [step.name for step in steps_of(network).steps]
    means = dataclasses.replace(
        means,
        pairs={pair.first.name: pair.second.name for pair in mending.pairs(simulation.aware)},
        readers=lambda layer: noise.readers(network, layer),
        named=lambda layer: noise.name_in_run(layer, names),
    )
    alone = noise.own(
        simulation.network,
        simulation.rounded,
        pictures,
        in_float=simulation.in_float,
        progress=lambda done, total: tell("rounding one layer at a time", done, total),
    )
    matches, wiring = simulation.matches, Wiring(file.graph)
    bounds = {index: wiring.bounds(wiring.root(file.graph.operators[index].outputs[0])) for index in matches.operators}
    together = comparison.compare(
        simulation.network,
        matches,
        file,
        pictures,
        bounds=bounds,
        progress=lambda done, total: tell("comparing tensors", done, total),
    )
    rows = _rows(simulation, file, alone, together, bounds)
    ranked = sorted(rows, key=lambda layer: layer.ratio if layer.ratio is not None else math.inf)
    return Examined(tuple(ranked), tuple(alone), matches.layers, means, _notes(simulation))


def _rows(
    simulation: Simulation,
    file: ModelFile,
    alone: dict[str, noise.Noise],
    together: dict[str, Compared],
    bounds: dict[int, tuple[float, float] | None],
) -> list[Layer]:
    total = sum(found.power for found in alone.values())
    operators = {name: index for index, name in simulation.matches.layers.items()}
    rows = []
    for name, found in alone.items():
        layer, index = simulation.aware.get_layer(name), operators.get(name)
        kernel = layer.get_weights()[0] if hasattr(layer, "kernel") else None
        kind = type(layer).__name__.removeprefix("Quantized")
        compared = together.get(name)
        if not found.power and compared is None:
            continue
        if name not in simulation.rounded and name not in noise.rounding_sites(simulation.network):
            continue  # hands on what it reads at the same scale
        rows.append(
            Layer(
                name=name,
                kind=kind,
                operator=file.graph.operators[index].name if index is not None else "",
                ratio=found.ratio,
                ratio_weights=noise.decibels(found.signal, found.weights),
                ratio_activation=noise.decibels(found.signal, found.activation),
                clipping=found.clipping / found.activation if found.activation else 0.0,
                share=found.power / total if total else 0.0,
                accumulated=compared.ratio if compared else None,
                weights=spread_of_kernel(kernel, kind == "DepthwiseConv2D") if kernel is not None else None,
                activation=compared.spread(bounds.get(index) if index is not None else None) if compared else None,
            )
        )
    return rows


def _by_name(
    network: Any, file: ModelFile, pictures: NDArray[np.uint8], tell: Progress, means: Means, reason: str
) -> Examined:
    """What can be said of a network that cannot be simulated: how the error has grown by each operator that is known
    by its name; first that at which it grows most."""
    steps = steps_of(network)
    matches = match_by_name(steps, file.graph)
    together = comparison.compare(
        steps,
        matches,
        file,
        pictures,
        progress=lambda done, total: tell("comparing tensors", done, total),
    )
    operators = {name: index for index, name in matches.layers.items()}
    layers = {step.name: step.layer for step in steps.steps}
    rows, grown, before = [], {}, 0.0
    for name, compared in together.items():
        after = compared.error / compared.signal if compared.signal else 0.0
        grown[name], before = after - before, after
        rows.append(
            Layer(
                name=name,
                kind=type(layers[name]).__name__,
                operator=file.graph.operators[operators[name]].name,
                ratio=None,
                ratio_weights=None,
                ratio_activation=None,
                clipping=None,
                share=None,
                accumulated=compared.ratio,
                weights=None,
                activation=compared.spread(None),
            )
        )
    note = f"Layers could not be rounded one by one, and stand in the order in which the error grows: {reason}"
    ranked = sorted(rows, key=lambda layer: -grown[layer.name])
    return Examined(tuple(ranked), tuple(together), matches.layers, means, (note,))


def _notes(simulation: Simulation) -> tuple[str, ...]:
    notes = []
    if simulation.origin == "file":
        notes.append(
            "The file's weights are not the run's rounded, as after quantization-aware training: figures by layer "
            "compare with the file's own weights in float, so that only the rounding of activations is seen. Photos "
            "and classes compare with the run's float model."
        )
    if simulation.origin == "equalized":
        notes.append("Channels were evened out: figures by layer are of the network after that, equal in float.")
    missing = [
        name
        for name in noise.layer_names(simulation.network)
        if hasattr(simulation.aware.get_layer(name), "kernel") and name not in simulation.rounded
    ]
    if missing:
        notes.append(f"No operator of the file was found for {', '.join(missing)}: left out.")
    return tuple(notes)


def _classes(
    run: Run, truth: NDArray[np.int64], before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> tuple[Class, ...]:
    found = [
        Class(label, int(here.sum()), int(before[here].sum()), int(after[here].sum()))
        for index, label in enumerate(run.labels)
        if (here := truth == index).any()
    ]
    return tuple(sorted(found, key=lambda entry: entry.int8_right - entry.float_right))


def _flips(run: Run, loaded: data.Loaded, before: Predictions, after: Predictions) -> tuple[Flip, ...]:
    found = []
    for index in np.flatnonzero(before.top1 != after.top1):
        first, second, truth = int(before.top1[index]), int(after.top1[index]), int(loaded.labels[index])
        flip = Flip(
            path=loaded.pictures[index].path,
            true=run.labels[truth],
            float_label=run.labels[first],
            float_score=float(before.probabilities[index, first]),
            int8_label=run.labels[second],
            int8_score=float(after.probabilities[index, second]),
        )
        # What float got right comes first, then what both got wrong, then what int8 put right; the surest first.
        found.append((first != truth, second == truth, -flip.float_score, flip))
    return tuple(flip for *_, flip in sorted(found, key=lambda row: row[:3]))


def _silent(step: str, done: int, total: int) -> None:
    """Tells nobody."""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
