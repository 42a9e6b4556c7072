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


def main(job_path: str) -> None:
    """Do the job described in `job_path`: keras, calibration (.npy, uint8), quantization, io, per_tensor_dense, out."""
    job = json.loads(Path(job_path).read_text())
    tf, keras = require("tensorflow"), require("keras")
    model = keras.models.load_model(job["keras"], compile=False)
    quantized = job["quantization"] == "int8"
    body, scale, offset = absorbed_normalisation(keras, model) if quantized else (model, 1.0, 0.0)
    height, width, channels = model.input_shape[1:]

    signature = [tf.TensorSpec([1, height, width, channels], tf.float32, name="pictures")]
    call = tf.function(lambda pictures: body(pictures, training=False), input_signature=signature)

    # Without the second argument, which from_concrete_functions cannot take for a Keras 3 model. The batch of 1 in the
    # signature keeps SHAPE, STRIDED_SLICE and PACK out of the graph.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    if quantized:
        pictures = np.load(job["calibration"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _representative(pictures, scale, offset)
        converter.inference_input_type = converter.inference_output_type = getattr(tf, job["io"])
        converter._experimental_disable_per_channel_quantization_for_dense_layers = job["per_tensor_dense"]
    Path(job["out"]).write_bytes(converter.convert())


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
