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


def main(job_path: str) -> None:
    """Do the job described in `job_path`: keras, calibration (.npy, uint8), scheme, io, per_tensor_dense, out.

    With keep_float, a list of sets of layers, there is a file for each set: out with -0, -1, … behind its stem.
    """
    job = json.loads(Path(job_path).read_text())
    tf, keras = require("tensorflow"), require("keras")
    scheme = job["scheme"]
    from edgenn.conversion import saved_model  # noqa: F401 - registers its layer with Keras
    from edgenn.conversion.fake_quant import layers  # noqa: F401 - and these theirs

    model = load_keras(Path(job["keras"]))
    integer = scheme in ("simulated", "tensorflow")
    body, scale, offset = absorbed_normalisation(keras, model) if integer else (model, 1.0, 0.0)
    height, width, channels = model.input_shape[1:]

    if job["keep_float"]:
        pictures = np.load(job["calibration"])
        _Mixed(tf, body, (height, width, channels), lambda: _representative(pictures, scale, offset), job).write()
        return
    converter = _converter(tf, body, (height, width, channels))
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
    if integer:
        converter.inference_input_type = converter.inference_output_type = getattr(tf, job["io"])
    Path(job["out"]).write_bytes(converter.convert())


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

    def write(self) -> None:
        out = Path(self._job["out"])
        for number, layers in enumerate(self._job["keep_float"]):
            content = self._quantized(layers, pooled=False)
            graph = flatbuffer.parse(content)
            if graph.tensors[graph.inputs[0]].dtype != self._job["io"]:
                content = self._quantized(layers, pooled=True)
            out.with_stem(f"{out.stem}-{number}").write_bytes(content)

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
    if not isinstance(first, keras.layers.Rescaling) or np.ndim(first.scale) or np.ndim(first.offset):
        return model, 1.0, 0.0
    readers = [layer for layer in model.layers if any(t is model.inputs[0] for t in _inputs(layer))]
    if readers != [first]:
        return model, 1.0, 0.0
    return keras.Model(first.output, model.outputs[0]), float(first.scale), float(first.offset)


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
