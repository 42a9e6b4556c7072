"""The child process that holds TensorFlow's converter: a .keras model and calibration pictures in, a .tflite out.

Some conversions end the whole process with a segmentation fault; here that costs a child and not the user's command.
Started by `tflite.convert_in_child` as `python -m edgenn.conversion.worker JOB.json`; not a command for people.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgenn.evaluation.model import load_keras
from edgenn.extras import require
from edgenn_device import flatbuffer

from .fake_quant.folding import input_scaling

# Ways in which the input is bytes; the others are told in float32.
_INTEGER = ("simulated", "tensorflow")
# Of the input's scale: over 255 steps it adds up to a quarter of one.
_SAME = 1e-3


def main(job_path: str) -> None:
    """Do the job described in `job_path`: keras, calibration (.npy, uint8), scheme, io, per_tensor_dense, out.

    With keep_float, a list of sets of layers, there is a file for each set: out with -0, -1, … behind its stem.
    """
    job = json.loads(Path(job_path).read_text())
    tf, keras = require("tensorflow"), require("keras")
    scheme = job["scheme"]
    from edgenn.conversion import saved_model  # noqa: F401 - registers its layer with Keras
    from edgenn.conversion.fake_quant import layers  # noqa: F401 - and these theirs

    model = _in_float32(keras, load_keras(Path(job["keras"])))
    beginning = model, 1.0, 0.0
    if scheme in _INTEGER:
        beginning = absorbed_normalisation(keras, model)
    contents = _contents(tf, job, *beginning)
    if beginning[0] is not model and not all(_takes_bytes(content, *beginning[1:]) for content in contents):
        # The input got the scale of what it is joined with: the Rescaling stays, and parts them.
        beginning = model, 1.0, 0.0
        contents = _contents(tf, job, *beginning)
    if scheme in _INTEGER and not all(_takes_bytes(content, *beginning[1:]) for content in contents):
        raise SystemExit(
            "error: the pictures are joined with other values at one scale: put a Rescaling behind the input"
        )
    out = Path(job["out"])
    for number, content in enumerate(contents):
        (out.with_stem(f"{out.stem}-{number}") if job["keep_float"] else out).write_bytes(content)


def _in_float32(keras: Any, model: Any) -> Any:
    """The network, computing in float32 where it computed in float16 (mixed precision), which TFLite does not."""
    if all(getattr(layer, "compute_dtype", "float32") != "float16" for layer in model._flatten_layers()):
        return model

    def again(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    plain = keras.models.clone_model(model, clone_function=again, recursive=True)
    plain.set_weights(model.get_weights())
    return plain


def _contents(tf: Any, job: dict[str, Any], body: Any, scale: float, offset: float) -> list[bytes]:
    """The files that a job asks for, of a network that wants its bytes by `scale` and `offset`."""
    scheme, shape = job["scheme"], tuple(body.input_shape[1:])
    if job["keep_float"]:
        pictures = np.load(job["calibration"])
        return _Mixed(tf, body, shape, lambda: _representative(pictures, scale, offset), job).contents()
    converter = _converter(tf, body, shape)
    if scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        # One scale for a Dense layer: the Edge TPU wants it, and with weights only quantized tflite-runtime 2.14 lacks
        # the FULLY_CONNECTED (version 12) that a scale for each output needs.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = (
            job["per_tensor_dense"] or scheme == "dynamic"
        )
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "tensorflow":
        pictures = np.load(job["calibration"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _representative(pictures, scale, offset)
    if scheme in _INTEGER:
        converter.inference_input_type = converter.inference_output_type = getattr(tf, job["io"])
    content: bytes = converter.convert()
    return [content]


def _takes_bytes(content: bytes, scale: float, offset: float) -> bool:
    """Whether a file's input stands for scale × byte + offset, to a small part of a step; a float one does for any."""
    graph = flatbuffer.parse(content)
    pictures = graph.tensors[graph.inputs[0]]
    if not pictures.scales:
        return True
    first = pictures.zero_points[0] + (128 if pictures.dtype == "int8" else 0)
    return abs(pictures.scales[0] / scale - 1) < _SAME and abs(first + offset / scale) < 0.5 + _SAME


def _converter(tf: Any, call: Any, shape: tuple[int, int, int]) -> Any:
    """TensorFlow's converter of `call`, a network or a function of pictures.

    The batch of 1 in the signature keeps SHAPE, STRIDED_SLICE and PACK out of the graph. from_concrete_functions has
    no second argument, since it cannot take a Keras 3 model.
    """
    signature = [tf.TensorSpec([1, *shape], tf.float32, name="pictures")]
    function = tf.function(lambda pictures: call(pictures, training=False), input_signature=signature, autograph=False)
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])


class _Mixed:
    """Full integer but for sets of layers: TensorFlow's quantizer leaves out operators by the names of their outputs.

    Calibrates once for all sets; once more if one holds a layer that reads the pictures. Such a layer would make the
    input float: there a pooling of one pixel, which changes nothing, stands before it and takes the bytes.
    """

    def __init__(self, tf: Any, body: Any, shape: tuple[int, int, int], pictures: Any, job: dict[str, Any]) -> None:
        self._tf, self._body, self._shape, self._pictures, self._job = tf, body, shape, pictures, job
        self._ready: dict[bool, tuple[Any, Any, list[str]]] = {}

    def contents(self) -> list[bytes]:
        """A file for each set."""
        found = []
        for layers in self._job["keep_float"]:
            content = self._quantized(layers, pooled=False)
            graph = flatbuffer.parse(content)
            if graph.tensors[graph.inputs[0]].dtype != self._job["io"]:
                content = self._quantized(layers, pooled=True)
            found.append(content)
        return found

    def _quantized(self, layers: list[str], pooled: bool) -> bytes:
        from tensorflow.lite.python.util import modify_model_io_type

        if pooled not in self._ready:
            self._ready[pooled] = self._calibrated(pooled)
        debugger, options, names = self._ready[pooled]
        options.denylisted_nodes = _outputs_of(layers, names)
        io = getattr(self._tf, self._job["io"])
        content: bytes = modify_model_io_type(debugger.get_nondebug_quantized_model(), io, io)
        return content

    def _calibrated(self, pooled: bool) -> tuple[Any, Any, list[str]]:
        """A calibrated network, the options by which it is quantized, and the names of its operators' outputs."""
        tf = self._tf

        def behind_pooling(pictures: Any, training: bool) -> Any:
            return self._body(tf.nn.max_pool2d(pictures, 1, 1, "VALID"), training=training)

        converter = _converter(tf, behind_pooling if pooled else self._body, self._shape)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.representative_dataset = self._pictures
        options = tf.lite.experimental.QuantizationDebugOptions()
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
        )
        graph = flatbuffer.parse(debugger.get_nondebug_quantized_model())
        names = [graph.tensors[index].name for operator in graph.operators for index in operator.outputs]
        return debugger, options, names


def _outputs_of(layers: list[str], names: list[str]) -> list[str]:
    """Names of the tensors that layers give. A network that was put together anew has _1 behind each layer's name."""
    for suffix in ("_1", ""):
        found = [[name for name in names if f"/{layer}{suffix}/" in name] for layer in layers]
        if all(found):
            return [name for some in found for name in some]
    raise SystemExit(f"error: no operator of the converted network belongs to {' or '.join(layers)}")


def absorbed_normalisation(keras: Any, model: Any) -> tuple[Any, float, float]:
    """The part of `model` behind its normalisation, and the normalisation as (scale, offset).

    A Rescaling by one scale and one offset directly behind the input is left out of the graph: the quantized input's
    scale and zero point carry it, and the device saves a multiplication and an addition for every pixel. Any other
    beginning stays in the graph, with (1, 0).
    """
    first = model.layers[1] if len(model.layers) > 1 else None
    scaling = input_scaling(first)
    if first is None or scaling is None:
        return model, 1.0, 0.0
    readers = [layer for layer in model.layers if any(t is model.inputs[0] for t in _inputs(layer))]
    if readers != [first]:
        return model, 1.0, 0.0
    return keras.Model(first.output, model.outputs[0]), *scaling


def _inputs(layer: Any) -> list[Any]:
    """Symbolic inputs of a layer in a functional model; none for the input layer itself."""
    if not layer._inbound_nodes:
        return []
    return list(layer._inbound_nodes[0].input_tensors)


def _representative(pictures: Any, scale: float, offset: float) -> Any:
    """Calibration inputs, float32 (1, height, width, channels), normalised as the model's first layer would.

    The converter takes the input's range from what it sees. One corner pixel of the first picture is set to 0 and
    another to 255, so that the range is that of all bytes and the input's scale exactly one byte's step.
    """
    pictures = pictures.copy()
    pictures[0, 0, 0, :], pictures[0, -1, -1, :] = 0, 255
    for picture in pictures:
        yield [picture[None].astype(np.float32) * np.float32(scale) + np.float32(offset)]


if __name__ == "__main__":
    main(sys.argv[1])
