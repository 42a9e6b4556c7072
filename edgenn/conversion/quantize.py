"""The ways from a float Keras network to a .tflite flatbuffer, from cheap to dear; none of them judges the result.

"int8" simulates int8 in Keras (`fake_quant`) with ranges measured on pictures and biases corrected for what rounding
adds on average, "equalized" evens out the channels first, "qat" trains on from there. A network with layers that cannot
be simulated is left to TensorFlow's own quantizer, which knows more layers, for "int8" only. TensorFlow's converter
itself runs in a child process. "mixed" keeps some layers in float, which TensorFlow's quantizer alone can do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from edgenn.evaluation.model import load_keras
from edgenn_device.errors import EdgennError

from . import tflite
from .fake_quant.ranges import Method
from .tflite import Io, convert_in_child, mixed_in_child

Scheme = Literal["int8", "equalized", "qat", "mixed", "float16", "dynamic", "float32"]
FULL_INTEGER: tuple[Scheme, ...] = ("int8", "equalized", "qat")
# These have integers at both ends.
INTEGER: tuple[Scheme, ...] = (*FULL_INTEGER, "mixed")
# Pictures on which channels are equalized and biases corrected: means and largest values of channels settle sooner than
# the ends of ranges.
MENDING_PICTURES = 100
_SIMULATED = "the network simulates int8 already, and becomes an int8 file and nothing else"
WORDS: dict[Scheme, str] = {
    "int8": "int8 post-training",
    "equalized": "int8 post-training, channels equalized",
    "qat": "int8 quantization-aware training",
    "mixed": "int8 post-training by TensorFlow, minmax ranges",
    "float16": "float16 weights",
    "dynamic": "int8 weights, float activations",
    "float32": "float32",
}


@dataclass(frozen=True)
class Quantized:
    """A network as a flatbuffer.

    Attributes:
      content: a TFLite flatbuffer without metadata or card.
      scheme: how it was made, in words.
      calibration_pictures: how many pictures its ranges were measured on.
      simulated: the Keras network that computes the same; None where nothing was simulated.
      reach: how much of the range that validation pictures have those pictures reach, by layer, 0…1.
      in_float: names of layers that were kept in float.
      whole: the same with no layer in float; empty if `in_float` is.
      notes: what a person should know of it.
    """

    content: bytes
    scheme: str
    calibration_pictures: int = 0
    simulated: Any = None
    reach: dict[str, float] = field(default_factory=dict)
    in_float: tuple[str, ...] = ()
    whole: bytes = b""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quantizer:
    """What all ways need.

    Attributes:
      keras_model: path of the .keras; `model` is it, loaded.
      calibration: uint8 (n, height, width, channels), in an order in which any first part is a fair sample.
      validation: uint8 (m, height, width, channels), to tell how far the calibration pictures reach.
      train: (simulated network) -> None: trains it in place.
      io: element type at both ends.
      per_tensor_dense: for TensorFlow's quantizer: one scale for a Dense layer.
      ranges: how the ends of activations are chosen.
      keep_float: layers that are not quantized.
      simulated: `model` simulates its int8 already: it is converted as it is.
      say: is told each step.
    """

    keras_model: Path
    model: Any
    calibration: NDArray[np.uint8]
    validation: NDArray[np.uint8]
    train: Callable[[Any], None]
    io: Io = "uint8"
    per_tensor_dense: bool = False
    ranges: Method = "minmax"
    keep_float: Collection[str] = ()
    simulated: bool = False
    say: Callable[[str], None] = lambda line: None

    def make(self, scheme: Scheme) -> Quantized:
        """Quantize in one way; for "mixed" `mixed` is there.

        Raises:
          EdgennError: the network has a layer for which this way is closed, or the converter refuses it.
        """
        if scheme not in get_args(Scheme):
            raise EdgennError(f"no quantization {scheme!r}: choose one of {', '.join(get_args(Scheme))}")
        if self.simulated:
            if scheme not in FULL_INTEGER or self.keep_float:
                raise EdgennError(_SIMULATED)
            self.say("converting to TFLite")
            return Quantized(self._converted(self.model), "int8 as the network simulates it", simulated=self.model)
        if scheme not in FULL_INTEGER:
            self.say(f"converting to {scheme}")
            weights_only = cast(tflite.Scheme, scheme)
            return Quantized(convert_in_child(self.keras_model, scheme=weights_only, io=self.io), WORDS[scheme])
        if self.keep_float:
            if scheme != "int8":
                raise EdgennError(f"layers are kept in float by --quantization int8 only, not {scheme}")
            return self.mixed([self.keep_float])[0]
        try:
            aware, used, reach = self._simulated(equalized=scheme == "equalized")
        except EdgennError as error:
            if scheme != "int8":
                raise
            return self._tensorflow(str(error))
        words = f"{WORDS[scheme]}, {self.ranges} ranges"
        if scheme == "qat":
            self.train(aware)
            words = WORDS[scheme]
        self.say("converting to TFLite")
        return Quantized(self._converted(aware), words, used, aware, reach)

    def dearest_first(self) -> tuple[str, ...]:
        """Layers in the order in which to keep them in float (`mixed.dearest_first`).

        Raises:
          EdgennError: the network has a layer that cannot be simulated.
        """
        from . import mixed

        if self.simulated:
            raise EdgennError(_SIMULATED)
        aware, _, _ = self._simulated(equalized=False)
        self.say("rounding one layer at a time, to find the dearest")
        return mixed.dearest_first(aware, self.model, self.calibration)

    def mixed(self, sets: Sequence[Collection[str]]) -> list[Quantized]:
        """Quantize by TensorFlow once for each of some sets of layers that stay in float, from one calibration.

        Raises:
          EdgennError: a layer is none of the converted network's, or the converter refuses it.
        """
        self.say(
            f"converting with TensorFlow's own quantizer on {len(self.calibration)} pictures, some layers in float"
        )
        whole, *contents = mixed_in_child(self.keras_model, self.calibration, [(), *sets], io=self.io)
        return [
            Quantized(
                content,
                f"{WORDS['mixed']}, {len(names)} layer{'s' if len(names) > 1 else ''} in float",
                len(self.calibration),
                in_float=tuple(names),
                whole=whole,
            )
            for names, content in zip(sets, contents, strict=True)
        ]

    def _simulated(self, equalized: bool) -> tuple[Any, int, dict[str, float]]:
        from .fake_quant import mending, ranges
        from .fake_quant.rewrite import quantization_aware

        aware = quantization_aware(self.model)
        if equalized:
            self.say("evening out the channels")
            mending.equalize(aware, self.calibration[:MENDING_PICTURES])
        mending.correct_biases(aware, self.calibration[:MENDING_PICTURES])
        self.say(f"measuring the ranges of activations on up to {len(self.calibration)} pictures")
        seen = ranges.calibrate(aware, self.calibration, self.ranges)
        others = ranges.observe(aware, self.validation)
        used = len(seen[0][1].low) if seen else 0
        return aware, used, ranges.reach(seen, others)

    def _converted(self, aware: Any) -> bytes:
        with tempfile.TemporaryDirectory(prefix="edgenn-convert-") as folder:
            path = Path(folder) / "simulated.keras"
            aware.save(path)
            return convert_in_child(path, scheme="simulated", io=self.io)

    def _tensorflow(self, reason: str) -> Quantized:
        self.say(f"converting with TensorFlow's own quantizer on {len(self.calibration)} pictures ({reason})")
        content = convert_in_child(
            self.keras_model,
            self.calibration,
            scheme="tensorflow",
            io=self.io,
            per_tensor_dense=self.per_tensor_dense,
        )
        note = f"quantized by TensorFlow and not simulated: {reason}"
        return Quantized(content, WORDS["mixed"], len(self.calibration), notes=(note,))


def trained(model: Any) -> Any:
    """The .keras of a simulated network, loaded again with the layers it needs."""
    from .fake_quant import layers  # noqa: F401 - registers them with Keras

    return load_keras(Path(model))
