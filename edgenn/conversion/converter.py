"""A run or somebody else's network in, a checked .tflite out: the whole of `edgenn convert`.

Nothing is called int8 that was not looked at: the graph is read back for float tensors and operator versions, and the
file is run on validation photos beside the float model before it gets its name. A file that fails the gate (`gate`) is
kept as *.rejected.tflite, so that it can be looked at and is not deployed by accident.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgenn import data
from edgenn.training.run import Run
from edgenn_device import flatbuffer, golden, model_file
from edgenn_device.card import Card, InputSpec
from edgenn_device.errors import AnswerIsNo, EdgennError
from edgenn_device.files import write_atomically
from edgenn_device.model_file import ModelFile

from . import edgetpu, edgetpu_compiler, gate, interchange, metadata, qat, targets
from .fake_quant.ranges import Method
from .interchange import Original
from .layer_names import keras_layers
from .quantize import FULL_INTEGER, Quantized, Quantizer, Scheme
from .runtimes import Ran
from .tflite import Io

Quantization = Literal["int8", "equalized", "qat", "auto", "float16", "dynamic", "float32"]
# "auto" goes from cheap to dear and stops at the first that passes.
LADDER: tuple[Scheme, ...] = ("int8", "equalized", "qat")
# Most pictures that activation ranges are measured on; it ends sooner when they have settled (`fake_quant.ranges`).
CALIBRATION_PICTURES = 500
# Most validation photos that the gate judges by: with 5000 the standard error of an accuracy of 0.9 is 0.4 points.
JUDGING_PICTURES = 5000


@dataclass(frozen=True)
class Conversion:
    """What a conversion came to. Accuracies and agreement are on `pictures` validation photos, 0..1.

    Attributes:
      model: path of the .tflite.
      quantization: the scheme that was taken; `target` what it was checked for.
      scheme: how it was quantized, in words.
      bytes: size of the file; `float_bytes` that of the weights in float32.
      float_accuracy: of the Keras model.
      int8_accuracy: of the file, on `runtime`.
      agreement: share of photos on which both give the same label.
      p_value: that float and file are equally accurate, given these photos (`metrics.mcnemar`).
      reach: share of the range of validation photos' activations that the calibration pictures reach, the least of all
        layers; None where none were measured.
      passed: the file met the gate.
      reasons: why not, one sentence each.
      notes: what a person should know besides.
      seconds: wall time.
      runtimes: what came of running the file in each runtime that the target names.
      edge_tpu: what the Edge TPU compiler made of it, or would; None for another target.
      compiled: path of the file for the Edge TPU, beside `model`, which is its twin for the CPU; None if there is none.
    """

    model: Path
    quantization: Scheme
    scheme: str
    target: str
    bytes: int
    float_bytes: int
    float_accuracy: float
    int8_accuracy: float
    runtime: str
    agreement: float
    p_value: float
    pictures: int
    calibration_pictures: int
    reach: float | None
    passed: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    runtimes: tuple[Ran, ...] = ()
    edge_tpu: edgetpu.Report | None = None
    compiled: Path | None = None


def convert(
    run: str | os.PathLike[str] | Run,
    *,
    quantization: Quantization = "int8",
    target: str = "pi",
    io: Io = "uint8",
    photos: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    ranges: Method = "minmax",
    keep_float: Collection[str] = (),
    epochs: int = qat.EPOCHS,
    max_drop: float = gate.MAX_DROP,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Conversion:
    """Convert a run's model, or one that was not trained here, and check the result.

    Args:
      run: a run, or its folder; or a .keras, an .h5 or the folder of a SavedModel (`interchange`).
      quantization: "int8" (post-training, full integer), "equalized" (that, channels evened out first), "qat"
        (quantization-aware training), "auto" (the first of these three that passes the gate), "float16" or "dynamic"
        (weights only), or "float32".
      target: "pi" or "coral".
      io: element type at both ends of a full integer model.
      photos: where the photos are now, if not where they were in training; a model without a run needs them.
      labels: for a model without a run: a file with one label a line, if not the names of the photos' class folders.
      out: path of the .tflite; RUN/model.tflite if None (model-float32.tflite for float32 and so on), or what stands
        beside a model without a run.
      ranges: how the ends of activations are chosen (`fake_quant.ranges.calibrate`).
      keep_float: names of layers that are not quantized; not for "coral".
      epochs: of quantization-aware training.
      max_drop: points of validation accuracy that the file may cost.
      overwrite: replace a file at `out`.
      progress: called with one line at the start of each step.

    Returns:
      What came of it; `passed` is False when the file was rejected (it is then at *.rejected.tflite).

    Raises:
      EdgennError: the run, the photos or `out` cannot be used, or the converter refuses the model.
    """
    started = time.perf_counter()
    say = progress or (lambda line: None)
    if out is not None:
        _check_place(Path(out), overwrite)  # before the photos are read
    if keep_float and target == "coral":
        raise EdgennError("the Edge TPU computes in int8 only: --keep-float is not for --target coral")
    with interchange.opened(run, photos, labels, say) as original:
        path = Path(out) if out is not None else _place(original, quantization)
        _check_place(path, overwrite)
        if target == "coral":
            _check_place(edgetpu.beside(path), overwrite)
        if quantization in ("qat", "auto") and original.partial and not original.simulated:
            raise EdgennError("the photos show some of the classes only, and training would forget the others: not qat")
        calibration, validation = _pictures(original)
        quantizer = Quantizer(
            keras_model=original.path,
            model=original.model,
            calibration=calibration.tensors,
            validation=validation.tensors[:CALIBRATION_PICTURES],
            train=lambda aware: qat.train(aware, original.input, original.recipe, original.dataset, epochs, say),
            io=io,
            per_tensor_dense=target == "coral",
            ranges=ranges,
            keep_float=keep_float,
            simulated=original.simulated,
            say=say,
        )
        judge = gate.Judge(original.model, validation.tensors, validation.labels, target, max_drop)
        for scheme in _schemes(quantization, original):
            made = _mended(quantizer, scheme, target, say)
            examined = None
            if target == "coral" and scheme in FULL_INTEGER:
                say(
                    "compiling for the Edge TPU"
                    if edgetpu_compiler.find()
                    else "predicting what the Edge TPU compiler would do"
                )
                examined = edgetpu.examine(made.content, keras_layers(original.model))
            card = _card(original, path, made, scheme, target, io)
            say(f"comparing float and {scheme} on {len(validation.labels)} validation photos")
            model = _loaded(metadata.add(made.content, card), card)
            verdict = judge.judge(model, full_integer=scheme in FULL_INTEGER and not keep_float, edge_tpu=examined)
            if verdict.passed:
                break
            say(f"{scheme} fails: {'; '.join(verdict.reasons)}")
    return _written(original, path, model, card, made, scheme, verdict, examined, time.perf_counter() - started)


def check_passed(conversion: Conversion) -> None:
    """Raise AnswerIsNo, naming the reasons, if the gate refused."""
    if not conversion.passed:
        raise AnswerIsNo(f"rejected, kept as {conversion.model}: {'; '.join(conversion.reasons)}")


def _written(
    original: Original,
    path: Path,
    model: ModelFile,
    card: Card,
    made: Quantized,
    scheme: Scheme,
    verdict: gate.Verdict,
    examined: edgetpu.Report | None,
    seconds: float,
) -> Conversion:
    """Write the file with its card complete, and tell."""
    card = replace(
        card,
        metrics={
            "float": {"accuracy": verdict.before, "runtime": verdict.expected.runtime},
            "int8" if scheme in FULL_INTEGER else scheme: {
                "accuracy": verdict.after,
                "runtime": verdict.actual.runtime,
            },
            "agreement": verdict.agreement,
            "p_value": verdict.p_value,
            "pictures": len(verdict.actual.top1),
            "split": "validation",
        },
        minimum_confidence=verdict.minimum_confidence,
        golden=golden.record(model),
    )
    if verdict.reasons:
        path = path.with_suffix(".rejected.tflite")
    content = model_file.attach(metadata.add(made.content, card), card)
    write_atomically(path, content)
    compiled, notes = None, [*original.notes, *made.notes]
    if examined is not None and verdict.passed:
        place = edgetpu.beside(path)
        if examined.content is not None:
            compiled = write_atomically(place, edgetpu.with_card(examined.content, card))
        elif place.exists():
            notes.append(f"{place} beside it was compiled from an earlier model: remove it, or compile again")
    return Conversion(
        model=path,
        quantization=scheme,
        scheme=made.scheme,
        target=card.target or "",
        bytes=len(content),
        float_bytes=4 * original.parameters,
        float_accuracy=verdict.before,
        int8_accuracy=verdict.after,
        runtime=verdict.actual.runtime,
        agreement=verdict.agreement,
        p_value=verdict.p_value,
        pictures=len(verdict.actual.top1),
        calibration_pictures=made.calibration_pictures,
        reach=min(made.reach.values(), default=None),
        passed=verdict.passed,
        reasons=verdict.reasons,
        notes=tuple(notes),
        seconds=seconds,
        runtimes=verdict.runtimes,
        edge_tpu=examined,
        compiled=compiled,
    )


def _mended(quantizer: Quantizer, scheme: Scheme, target: str, say: Callable[[str], None]) -> Quantized:
    """A network quantized; once again with one scale for a Dense layer where the target asks for that."""
    made = quantizer.make(scheme)
    if made.simulated is not None or scheme not in FULL_INTEGER or quantizer.per_tensor_dense:
        return made
    why = targets.dense_scales(targets.findings(flatbuffer.parse(made.content), made.content, target))
    if why is None:
        return made
    note = f"converted again with one scale for each Dense layer: {why}"
    say(note)
    made = replace(quantizer, per_tensor_dense=True).make(scheme)
    return replace(made, notes=(*made.notes, note))


def _schemes(quantization: Quantization, original: Original) -> tuple[Scheme, ...]:
    if quantization != "auto":
        return (quantization,)
    return ("qat",) if original.simulated else LADDER


def _place(original: Original, quantization: Quantization) -> Path:
    if quantization in (*FULL_INTEGER, "auto"):
        return original.out
    return original.out.with_stem(f"{original.out.stem}-{quantization}")


def _check_place(path: Path, overwrite: bool) -> None:
    if path.suffix != ".tflite":
        raise EdgennError(f"--out {path} is not a .tflite: give a file name that ends in .tflite")
    if path.exists() and not overwrite:
        raise EdgennError(f"{path} exists: give --overwrite, or another place with --out")


def _pictures(original: Original) -> tuple[data.Loaded, data.Loaded]:
    """Photos of training to calibrate with and photos of validation to judge by, both a fair choice of each class."""
    spec, seed, splits = original.input, original.recipe.seed, original.dataset.splits
    calibration = data.calibration(splits["train"], CALIBRATION_PICTURES, seed)
    validation = splits["validation"]
    if len(validation) > JUDGING_PICTURES:
        validation = data.calibration(validation, JUDGING_PICTURES, seed)
    return data.load(calibration, spec), data.load(validation, spec)


def _card(original: Original, path: Path, made: Quantized, scheme: Scheme, target: str, io: Io) -> Card:
    spec: InputSpec = replace(original.input, dtype=io if scheme in FULL_INTEGER else "float32")
    return Card(
        name=original.name if path.stem.startswith("model") else path.stem,
        labels=original.labels,
        input=spec,
        quantization={
            "scheme": made.scheme,
            "calibration_pictures": made.calibration_pictures,
            "input_dtype": spec.dtype,
            "output_dtype": spec.dtype,
        },
        training=original.training,
        target=target,
    )


def _loaded(content: bytes, card: Card) -> ModelFile:
    """The file as the device will have it, read through the same verification."""
    with tempfile.TemporaryDirectory(prefix="edgenn-convert-") as folder:
        draft = Path(folder) / "model.tflite"
        draft.write_bytes(model_file.attach(content, card))
        return model_file.load(draft)
