"""Both ends that all networks share: the normalisation in front, pooling and the classifier behind.

Knows nothing of what lies between. The names of the layers here ("pictures", "normalisation", "pool", "dropout",
"scores") are what transfer and conversion look for.
"""

from __future__ import annotations

from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError

# x / 128 - 1 maps the bytes 0..255 onto multiples of 1/128, so that at conversion an input scale of 1/128 and a zero
# point of 128 carry it exactly; the usual x / 127.5 - 1 would be half a step off.
NORMALISATION = (1 / 128, -1.0)


def begin(input_shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """The input "pictures" of 0..255, and what "normalisation" makes of it, -1..1."""
    layers = require("keras").layers
    scale, offset = NORMALISATION
    pictures = layers.Input(input_shape, name="pictures")
    return pictures, layers.Rescaling(scale, offset, name="normalisation")(pictures)


def finish(pictures: Any, features: Any, classes: int, dropout: float, name: str) -> Any:
    """The model from `pictures` to a softmax over the mean of `features` (batch, height, width, channels).

    Args:
      pictures: the input.
      features: what the backbone made of it.
      classes: size of the softmax.
      dropout: share of the pooled features dropped in training.
      name: of the model.
    """
    keras = require("keras")
    if not 0 <= dropout < 1:
        raise EdgennError(f"{name}: dropout {dropout} is not possible: 0 or more, below 1")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    scores = keras.layers.Dense(classes, activation="softmax", name="scores")(x)
    model = keras.Model(pictures, scores, name=name)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Keras' own default. keras.applications has 0.999 in places, which forgets the start only after some
            # 7,000 steps: more than a run on a few thousand photos has.
            layer.momentum = 0.99
    return model


def check_alpha(name: str, alpha: float, least: float, most: float) -> None:
    """Raise EdgennError unless the width multiplier is in range."""
    if not least <= alpha <= most:
        raise EdgennError(f"{name}: alpha {alpha} is not possible: {least:g} to {most:g}")
