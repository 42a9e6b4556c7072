"""Makes the small models in tests/data_files with TensorFlow, so that the tests need not import it for them.

    .venv/bin/python tools/make_test_models.py

tiny_int8 (uint8 at both ends) and tiny_float are one network of random weights, 32x32x3 in and 3 scores out;
tiny_vector takes 16 numbers and is no picture classifier. The files do not depend on the run: seeds are fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

FOLDER = Path(__file__).parents[1] / "tests" / "data_files"


def network() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3), batch_size=1),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=4.0), activation="softmax"),
        ]
    )


def pictures() -> Iterator[list[np.ndarray]]:
    """Noise of every strength and colour, -1..1: the ranges then cover what a picture can do."""
    random = np.random.RandomState(0)
    for _ in range(40):
        yield [random.uniform(-1, 1, (1, 1, 1, 3)) + random.uniform(-0.3, 0.3, (1, 32, 32, 3))]


def converted(model: keras.Model, quantize: bool) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([np.clip(x[0], -1, 1).astype(np.float32)] for x in pictures())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
        # As for the Coral: the tests take this file as one that every target runs.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    content: bytes = converter.convert()
    return content


def main() -> None:
    keras.utils.set_random_seed(0)
    model = network()
    vector = keras.Sequential([keras.Input((16,), batch_size=1), keras.layers.Dense(2)])
    for name, content in (
        ("tiny_int8", converted(model, True)),
        ("tiny_float", converted(model, False)),
        ("tiny_vector", converted(vector, False)),
    ):
        (FOLDER / f"{name}.tflite").write_bytes(content)
        print(f"{name}.tflite {len(content)} bytes")


if __name__ == "__main__":
    main()
