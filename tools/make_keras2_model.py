"""Makes tests/data_files/keras2.h5: a small classifier of drawn shapes, trained and saved by Keras 2.

Holds what Keras 3 alone refuses of such files: `groups` of depthwise and separable convolutions, augmentation with
`rng_type`, arithmetic on pixels as calls of TensorFlow, a network inside the network. What Keras 2 computed with it
stands beside it, as attribute `expected` of the file. Needs tf-keras: python -m pip install tf-keras
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import h5py
import numpy as np

from tests.conftest import CLASSES, draw

OUT = Path(__file__).parents[1] / "tests" / "data_files" / "keras2.h5"


def pictures(seeds: range) -> np.ndarray:
    """RGB float32 (n, 32, 32, 3), 0 to 255: a picture of each class in turn."""
    drawn = [cv2.cvtColor(draw(CLASSES[seed % 3], seed), cv2.COLOR_BGR2RGB) for seed in seeds]
    return np.array(drawn, np.float32)


def main() -> None:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras as keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    x = pixels = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.SeparableConv2D(16, 3, padding="same", activation="relu")(x)
    body = keras.Model(pixels, x, name="body")
    photos = keras.Input((32, 32, 3))
    x = keras.Sequential([layers.RandomFlip("horizontal")], name="augmentation")(photos)
    x = x / 127.5 - 1.0
    x = body(x)
    x = layers.SpatialDropout2D(0.1)(x)
    x = layers.Flatten()(x)
    model = keras.Model(photos, layers.Dense(3, activation="softmax")(x))
    seeds = range(20_000, 20_900)
    truth = np.array([seed % 3 for seed in seeds])
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(pictures(seeds), truth, batch_size=32, epochs=12, verbose=2)
    model.save(OUT, include_optimizer=False)
    with h5py.File(OUT, "r+") as file:
        file.attrs["expected"] = model.predict(pictures(range(6)), verbose=0)


if __name__ == "__main__":
    main()
