"""`simple_cnn`: convolutions, batch normalisation, ReLU and pooling in a few blocks, then one linear layer.

The plain VGG scheme (Simonyan and Zisserman 2015, arXiv:1409.1556, table 1) with batch normalisation (Ioffe and Szegedy
2015, arXiv:1502.03167), a stride in the first convolution and global average pooling in place of the large dense layers
(Lin et al. 2014, arXiv:1312.4400, section 3.2). Every operator has an int8 kernel everywhere, the Edge TPU included.
"""

from __future__ import annotations

from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from .registry import Network

# x / 128 - 1 maps the bytes 0..255 onto multiples of 1/128, so that at conversion an input scale of 1/128 and a zero
# point of 128 carry it exactly; the usual x / 127.5 - 1 would be half a step off.
NORMALISATION = (1 / 128, -1.0)
WIDEST = 256


def build(input_shape: tuple[int, int, int], classes: int, *, width: int, depth: int, dropout: float) -> Any:
    """A convolution of stride 2, then `depth` blocks of two 3×3 convolutions and a 2×2 max pooling.

    Args:
      input_shape: (height, width, channels) of the pictures, 0..255.
      classes: outputs of the softmax.
      width: channels of the first convolution; each block doubles them up to 256.
      depth: number of blocks; each halves the picture, and so does the first convolution.
      dropout: share of the pooled features dropped in training.
    """
    _check(width, depth, dropout)
    keras = require("keras")
    layers = keras.layers

    def convolve(x: Any, filters: int, name: str, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    scale, offset = NORMALISATION
    pictures = keras.Input(input_shape, name="pictures")
    x = layers.Rescaling(scale, offset, name="normalisation")(pictures)
    x = convolve(x, width, "stem", strides=2)
    for block in range(1, depth + 1):
        filters = min(WIDEST, width * 2 ** (block - 1))
        x = convolve(x, filters, f"block{block}_conv1")
        x = convolve(x, filters, f"block{block}_conv2")
        if block < depth:
            x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    return keras.Model(pictures, scores, name="simple_cnn")


def _check(width: int, depth: int, dropout: float) -> None:
    if not 1 <= width <= WIDEST:
        raise EdgennError(f"simple_cnn: width {width} is not possible: 1 to {WIDEST} channels")
    if not 1 <= depth <= 7:
        raise EdgennError(f"simple_cnn: depth {depth} is not possible: 1 to 7 blocks")
    if not 0 <= dropout < 1:
        raise EdgennError(f"simple_cnn: dropout {dropout} is not possible: 0 or more, below 1")


def smallest(*, depth: int, **_: Any) -> int:
    """Least side of a picture that is not pooled away: 2 to the power of `depth`."""
    return int(2**depth)


NETWORK = Network("simple_cnn", build, {"width": 24, "depth": 4, "dropout": 0.3}, smallest)
