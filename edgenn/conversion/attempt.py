"""One way of quantizing tried on a network: converted, given its card, and judged; and which of several is taken.

Writes nothing: `converter` does, once, what was taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgenn import data
from edgenn_device import flatbuffer, model_file
from edgenn_device.card import Card, InputSpec
from edgenn_device.errors import EdgennError
from edgenn_device.model_file import ModelFile

from . import edgetpu, edgetpu_compiler, gate, metadata, mixed, qat, targets
from .fake_quant.ranges import Method
from .interchange import Original
from .layer_names import keras_layers
from .quantize import FULL_INTEGER, INTEGER, Quantized, Quantizer, Scheme
from .tflite import Io

# Most pictures that activation ranges are measured on; it ends sooner when they have settled (`fake_quant.ranges`).
CALIBRATION_PICTURES = 500
# Most validation photos that the gate judges by: with 5000 the standard error of an accuracy of 0.9 is 0.4 points.
JUDGING_PICTURES = 5000


@dataclass(frozen=True)
class Attempt:
    """What one way of quantizing came to.

    Attributes:
      scheme: which it was; `made` what it gave.
      card: all of it that is known before golden vectors are recorded.
      model: the file as a device would have it.
      verdict: the gate's.
      examined: what the Edge TPU compiler made of it, or would; None for another target.
      notes: what a person should know besides.
    """

    scheme: Scheme
    made: Quantized
    card: Card
    model: ModelFile
    verdict: gate.Verdict
    examined: edgetpu.Report | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempts:
    """Tries ways of quantizing a network.

    Attributes:
      original: the network; `stem` that of the file's name, for the card.
      quantizer, judge: of it.
      target: what the file is for.
    """

    original: Original
    stem: str
    quantizer: Quantizer
    judge: gate.Judge
    target: str

    def make(self, scheme: Scheme) -> Attempt:
        """Try one.

        Raises:
          EdgennError: this way is closed for the network.
        """
        found = self._mixed() if scheme == "mixed" else self._tried(scheme)
        return self._with_cost(found) if found.made.in_float else found

    def _tried(self, scheme: Scheme) -> Attempt:
        made = quantized(self.quantizer, scheme, self.target)
        examined = None
        if targets.target(self.target).compiled and scheme in FULL_INTEGER:
            self.quantizer.say(
                "compiling for the Edge TPU"
                if edgetpu_compiler.find()
                else "predicting what the Edge TPU compiler would do"
            )
            examined = edgetpu.examine(made.content, keras_layers(self.original.model))
        return self._judged(made, scheme, examined)

    def _judged(self, made: Quantized, scheme: Scheme, examined: edgetpu.Report | None = None) -> Attempt:
        say = self.quantizer.say
        card = card_of(self.original, self.stem, made, scheme, self.target, self.quantizer.io)
        say(f"comparing float and {scheme} on {len(self.judge.truth)} validation photos")
        model = loaded(made.content, card)
        allowed = made.in_float if scheme in INTEGER else None
        verdict = self.judge.judge(model, in_float=allowed, edge_tpu=examined)
        if not verdict.passed:
            named = f" with {', '.join(made.in_float)} in float" if made.in_float else ""
            say(f"{scheme}{named} fails: {'; '.join(verdict.reasons)}")
        return Attempt(scheme, made, card, model, verdict, examined)

    def _mixed(self) -> Attempt:
        """As few layers in float as pass the gate, the dearest first; where none do, what was tried last."""
        order = self.quantizer.dearest_first()
        if not order:
            raise EdgennError("rounding costs no layer anything: nothing is to be kept in float")
        ready: dict[int, Quantized] = {}
        tried: dict[int, Attempt] = {}
        refused: dict[int, EdgennError] = {}

        def prepare(counts: Sequence[int]) -> None:
            ready.update(zip(counts, self.quantizer.mixed([order[:count] for count in counts]), strict=True))

        def passes(count: int) -> bool:
            try:
                tried[count] = self._judged(ready[count], "mixed")
            except EdgennError as error:
                refused[count] = error
                return False
            return tried[count].verdict.passed

        count = mixed.fewest(len(order), prepare, passes) or len(order)
        if count in refused:
            raise refused[count]
        return tried[count]

    def _with_cost(self, found: Attempt) -> Attempt:
        """Which layers are in float, and what that costs, in the notes and on the card."""
        whole = loaded(found.made.whole, found.card)
        cost = mixed.cost(found.model, whole)
        layers = found.made.in_float
        kept = {"float_layers": list(layers), "float_cost": cost.to_dict()}
        card = replace(found.card, quantization={**found.card.quantization, **kept})
        note = f"in float: {', '.join(layers)}; that costs {cost}"
        return replace(found, card=card, notes=(*found.notes, note))


def first_that_passes(schemes: Sequence[Scheme], attempts: Attempts) -> Attempt:
    """The first of several ways that passes the gate; the last that could be tried if none does.

    Raises:
      EdgennError: every way is closed for the network, or no runtime here loads what comes of it; why the first is.
        Where only some are, that is a note.
    """
    found: Attempt | None = None
    closed: dict[Scheme, EdgennError] = {}
    for scheme in schemes:
        try:
            found = attempts.make(scheme)
        except EdgennError as error:
            closed[scheme] = error
            attempts.quantizer.say(f"{scheme} is not possible: {error}")
        if found and found.verdict.passed:
            break
    if found is None:
        raise closed[schemes[0]]
    notes = (f"{scheme} was not possible: {error}" for scheme, error in closed.items())
    return replace(found, notes=(*found.notes, *notes))


def pictures(original: Original) -> tuple[data.Loaded, data.Loaded]:
    """Photos of training to calibrate with and photos of validation to judge by, both a fair choice of each class."""
    spec, seed, splits = original.input, original.recipe.seed, original.dataset.splits
    calibration = data.calibration(splits["train"], CALIBRATION_PICTURES, seed)
    # Each class in turn, so that the first of them are a fair choice too.
    validation = data.calibration(splits["validation"], JUDGING_PICTURES, seed)
    return data.load(calibration, spec), data.load(validation, spec)


def quantizer_for(
    original: Original,
    calibration: data.Loaded,
    validation: data.Loaded,
    *,
    target: str = "pi",
    io: Io = "uint8",
    ranges: Method = "minmax",
    keep_float: Collection[str] = (),
    epochs: int = qat.EPOCHS,
    say: Callable[[str], None] = lambda line: None,
) -> Quantizer:
    """The quantizer of an opened network, with its `pictures`; arguments as for `convert`."""
    return Quantizer(
        keras_model=original.path,
        model=original.model,
        calibration=calibration.tensors,
        validation=validation.tensors[:CALIBRATION_PICTURES],
        train=lambda aware: qat.train(
            aware, original.model, original.input, original.recipe, original.dataset, epochs, say
        ),
        io=io,
        per_tensor_dense=targets.target(target).one_scale_for_dense,
        ranges=ranges,
        keep_float=keep_float,
        simulated=original.simulated,
        say=say,
    )


def quantized(quantizer: Quantizer, scheme: Scheme, target: str) -> Quantized:
    """A network quantized; once again with one scale for a Dense layer where the target asks for that."""
    made = quantizer.make(scheme)
    if made.simulated is not None or made.in_float or scheme not in FULL_INTEGER or quantizer.per_tensor_dense:
        return made
    why = targets.dense_scales(targets.findings(flatbuffer.parse(made.content), made.content, target))
    if why is None:
        return made
    note = f"converted again with one scale for each Dense layer: {why}"
    quantizer.say(note)
    made = replace(quantizer, per_tensor_dense=True).make(scheme)
    return replace(made, notes=(*made.notes, note))


def card_of(original: Original, stem: str, made: Quantized, scheme: Scheme, target: str, io: Io) -> Card:
    """What the file `stem`.tflite says of itself, but for what is measured."""
    spec: InputSpec = replace(original.input, dtype=io if scheme in INTEGER else "float32")
    return Card(
        name=original.name if stem.startswith("model") else stem,
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


def loaded(content: bytes, card: Card) -> ModelFile:
    """A flatbuffer with metadata and card as the device will have it, read through the same verification."""
    with tempfile.TemporaryDirectory(prefix="edgenn-convert-") as folder:
        draft = Path(folder) / "model.tflite"
        draft.write_bytes(model_file.attach(metadata.add(content, card), card))
        return model_file.load(draft)
