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

from edgenn.extras import require
from edgenn_device import flatbuffer


def main(job_path: str) -> None:
    """Do the job described in `job_path`: keras, calibration (.npy, uint8), scheme, io, per_tensor_dense,
    keep_float, out."""
    job = json.loads(Path(job_path).read_text())
    tf, keras = require("tensorflow"), require("keras")
    scheme = job["scheme"]
    from edgenn.conversion import saved_model  # noqa: F401 - registers its layer with Keras
    from edgenn.conversion.fake_quant import layers  # noqa: F401 - and these theirs

    model = keras.models.load_model(job["keras"], compile=False)
    integer = scheme in ("simulated", "tensorflow")
    body, scale, offset = absorbed_normalisation(keras, model) if integer else (model, 1.0, 0.0)
    height, width, channels = model.input_shape[1:]

    signature = [tf.TensorSpec([1, height, width, channels], tf.float32, name="pictures")]
    call = tf.function(lambda pictures: body(pictures, training=False), input_signature=signature)

    # Without the second argument, which from_concrete_functions cannot take for a Keras 3 model. The batch of 1 in the
    # signature keeps SHAPE, STRIDED_SLICE and PACK out of the graph.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
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
    if integer and not job["keep_float"]:
        converter.inference_input_type = converter.inference_output_type = getattr(tf, job["io"])
    content = _mixed(tf, converter, job) if job["keep_float"] else converter.convert()
    Path(job["out"]).write_bytes(content)


def _mixed(tf: Any, converter: Any, job: dict[str, Any]) -> bytes:
    """Full integer but for the layers in `keep_float`: TensorFlow's quantizer leaves out operators by their output."""
    from tensorflow.lite.python.util import modify_model_io_type

    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]

    def quantized(outputs: list[str]) -> bytes:
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=outputs)
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
        )
        content: bytes = debugger.get_nondebug_quantized_model()
        return content

    graph = flatbuffer.parse(quantized([]))
    names = [graph.tensors[index].name for operator in graph.operators for index in operator.outputs]
    io = getattr(tf, job["io"])
    content: bytes = modify_model_io_type(quantized(_outputs_of(job["keep_float"], names)), io, io)
    return content


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
