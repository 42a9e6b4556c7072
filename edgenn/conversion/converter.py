"""A run or somebody else's network in, a checked .tflite out: the whole of `edgenn convert`.

Nothing is called int8 that was not looked at: the graph is read back for float tensors and operator versions, and the
file is run on validation photos beside the float model before it gets its name. A file that fails the gate (`gate`) is
kept as *.rejected.tflite, so that it can be looked at and is not deployed by accident.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from edgenn.training.run import Run
from edgenn_device import golden, model_file
from edgenn_device.errors import AnswerIsNo, EdgennError
from edgenn_device.files import write_atomically

from . import attempt, edgetpu, gate, interchange, metadata, qat, targets
from .attempt import Attempt
from .fake_quant.ranges import Method
from .interchange import Original
from .quantize import FULL_INTEGER, INTEGER, Scheme
from .runtimes import Ran
from .tflite import Io

Quantization = Literal["int8", "equalized", "qat", "mixed", "auto", "float16", "dynamic", "float32"]
# "auto" goes from cheap to dear and stops at the first that passes; the last rung is for targets that have float.
LADDER: tuple[Scheme, ...] = (*FULL_INTEGER, "mixed")


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
      float_layers: names of layers that are in float, in a model that is int8 otherwise.
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
    float_layers: tuple[str, ...] = ()
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
        (quantization-aware training), "mixed" (int8 with as few layers in float as pass the gate; for targets that
        have float), "auto" (the first of these that passes the gate), "float16" or "dynamic" (weights only), or
        "float32".
      target: the name of one (`targets`).
      io: element type at both ends of a full integer model.
      photos: where the photos are now, if not where they were in training; a model without a run needs them.
      labels: for a model without a run: a file with one label a line, if not the names of the photos' class folders.
      out: path of the .tflite; RUN/model.tflite if None (model-float32.tflite for float32 and so on), or what stands
        beside a model without a run.
      ranges: how the ends of activations are chosen (`fake_quant.ranges.calibrate`).
      keep_float: names of layers that are not quantized, with "int8"; for targets that have float.
      epochs: of quantization-aware training.
      max_drop: points of validation accuracy that the file may cost.
      overwrite: replace a file at `out`.
      progress: called with one line at the start of each step.

    Returns:
      What came of it; `passed` is False when the file was rejected (it is then at *.rejected.tflite).

    Raises:
      EdgennError: the run, the photos, `out` or another argument cannot be used, or the converter refuses the model.
    """
    _check_words(quantization=(quantization, Quantization), io=(io, Io), ranges=(ranges, Method))
    if isinstance(keep_float, str):
        raise EdgennError(f"keep_float {keep_float!r} is not possible: give a list of names")
    if epochs < 1:
        raise EdgennError(f"epochs {epochs} is not possible: 1 or more")
    if not max_drop >= 0:
        raise EdgennError(f"max_drop {max_drop} is not possible: 0 or more points")
    started = time.perf_counter()
    say = progress or (lambda line: None)
    if out is not None:
        _check_place(Path(out), overwrite)  # before the photos are read
    wanted = targets.target(target)
    if (keep_float or quantization == "mixed") and wanted.int8_only:
        asked = "--keep-float" if keep_float else "--quantization mixed"
        raise EdgennError(f"{wanted.computer} computes in int8 only: {asked} is not for --target {target}")
    if keep_float and quantization != "int8":
        raise EdgennError(f"layers are kept in float by --quantization int8 only, not {quantization}")
    with interchange.opened(run, photos, labels, say) as original:
        path = Path(out) if out is not None else _place(original, quantization)
        _check_place(path, overwrite)
        if wanted.compiled:
            _check_place(edgetpu.beside(path), overwrite)
        if quantization in ("qat", "auto") and original.partial and not original.simulated:
            raise EdgennError("the photos show some of the classes only, and training would forget the others: not qat")
        calibration, validation = attempt.pictures(original)
        quantizer = attempt.quantizer_for(
            original,
            calibration,
            validation,
            target=target,
            io=io,
            ranges=ranges,
            keep_float=keep_float,
            epochs=epochs,
            say=say,
        )
        judge = gate.Judge(original.model, validation.tensors, validation.labels, target, max_drop)
        found = attempt.first_that_passes(
            _schemes(quantization, original, wanted), attempt.Attempts(original, path.stem, quantizer, judge, target)
        )
    return _written(original, path, found, time.perf_counter() - started, overwrite)


def _check_words(**given: tuple[str, Any]) -> None:
    for name, (word, allowed) in given.items():
        if word not in get_args(allowed):
            raise EdgennError(f"no {name} {word!r}: choose one of {', '.join(get_args(allowed))}")


def check_passed(conversion: Conversion) -> None:
    """Raise AnswerIsNo, naming the reasons, if the gate refused."""
    if not conversion.passed:
        raise AnswerIsNo(f"rejected, kept as {conversion.model}: {'; '.join(conversion.reasons)}")


def _written(original: Original, path: Path, found: Attempt, seconds: float, overwrite: bool) -> Conversion:
    """Write the file with its card complete, and tell.

    Raises:
      EdgennError: another process wrote a file of that name since, and `overwrite` is not given.
    """
    made, scheme, verdict, examined = found.made, found.scheme, found.verdict, found.examined
    card = replace(
        found.card,
        metrics={
            "float": {"accuracy": verdict.before, "runtime": verdict.expected.runtime},
            "int8" if scheme in INTEGER else scheme: {
                "accuracy": verdict.after,
                "runtime": verdict.actual.runtime,
            },
            "agreement": verdict.agreement,
            "p_value": verdict.p_value,
            "pictures": len(verdict.actual.top1),
            "split": "validation",
        },
        minimum_confidence=verdict.minimum_confidence,
        golden=golden.record(found.model),
    )
    if verdict.reasons:
        path = path.with_suffix(".rejected.tflite")
    else:
        _check_place(path, overwrite)
        if examined is not None and examined.content is not None:
            _check_place(edgetpu.beside(path), overwrite)
    content = model_file.attach(metadata.add(made.content, card), card)
    write_atomically(path, content)
    compiled, notes = None, [*original.notes, *made.notes, *found.notes]
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
        float_layers=made.in_float,
        runtimes=verdict.runtimes,
        edge_tpu=examined,
        compiled=compiled,
    )


def _schemes(quantization: Quantization, original: Original, target: targets.Target) -> tuple[Scheme, ...]:
    if quantization != "auto":
        return (quantization,)
    if original.simulated:
        return ("qat",)
    return FULL_INTEGER if target.int8_only else LADDER


def _place(original: Original, quantization: Quantization) -> Path:
    if quantization in (*INTEGER, "auto"):
        return original.out
    return original.out.with_stem(f"{original.out.stem}-{quantization}")


def _check_place(path: Path, overwrite: bool) -> None:
    if path.suffix != ".tflite":
        raise EdgennError(f"--out {path} is not a .tflite: give a file name that ends in .tflite")
    if path.exists() and not overwrite:
        raise EdgennError(f"{path} exists: give --overwrite, or another place with --out")
