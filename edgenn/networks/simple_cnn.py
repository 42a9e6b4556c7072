"""`simple_cnn`: convolutions, batch normalisation, ReLU and pooling in a few blocks, then one linear layer.

The plain VGG scheme (Simonyan and Zisserman 2015, arXiv:1409.1556, table 1) with batch normalisation (Ioffe and Szegedy
2015, arXiv:1502.03167), a stride in the first convolution and global average pooling in place of the large dense layers
(Lin et al. 2014, arXiv:1312.4400, section 3.2). Every operator has an int8 kernel everywhere, the Edge TPU included.
669,106 parameters and 79,130,496 MACs at 96×96×3 with 10 classes.
"""

from __future__ import annotations

from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from .ends import begin, finish
from .registry import Figures, Network

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
    _check(width, depth)
    layers = require("keras").layers

    def convolve(x: Any, filters: int, name: str, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    pictures, x = begin(input_shape)
    x = convolve(x, width, "stem", strides=2)
    for block in range(1, depth + 1):
        filters = min(WIDEST, width * 2 ** (block - 1))
        x = convolve(x, filters, f"block{block}_conv1")
        x = convolve(x, filters, f"block{block}_conv2")
        if block < depth:
            x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    return finish(pictures, x, classes, dropout, "simple_cnn")


def _check(width: int, depth: int) -> None:
    if not 1 <= width <= WIDEST:
        raise EdgennError(f"simple_cnn: width {width} is not possible: 1 to {WIDEST} channels")
    if not 1 <= depth <= 7:
        raise EdgennError(f"simple_cnn: depth {depth} is not possible: 1 to 7 blocks")


def smallest(*, depth: int, **_: Any) -> int:
    """Least side of a picture that is not pooled away: 2 to the power of `depth`."""
    return int(2**depth)


def cuts(*, depth: int, **_: Any) -> tuple[str, ...]:
    """After the stem and after each block."""
    return ("stem_relu", *(f"block{block}_pool" for block in range(1, depth)), f"block{depth}_conv2_relu")


def cut(*, depth: int, **_: Any) -> str:
    """Before the last block."""
    return cuts(depth=depth)[-2]


NETWORK = Network(
    name="simple_cnn",
    build=build,
    options={"width": 24, "depth": 4, "dropout": 0.3},
    smallest=smallest,
    source="VGG's scheme with batch normalisation (arXiv:1409.1556, table 1)",
    size=96,
    sizes=(32, 48, 64, 96, 128, 160),
    cuts=cuts,
    cut=cut,
    figures=(Figures({}, 96, 669_106, 79_130_496, 696_432), Figures({"width": 16}, 64, 298_618, 15_779_072, 319_992)),
)
