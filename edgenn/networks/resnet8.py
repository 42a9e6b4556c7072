"""`resnet8`: the image classification network of MLPerf Tiny, a residual network of three stacks.

Banbury et al. 2021 (arXiv:2106.07597, section 4.1); mlcommons/tiny, v0.1/benchmarks/image_classification,
keras_model.py: a stem and three stacks of two 3×3 convolutions with 16, 32 and 64 channels (He et al. 2016,
arXiv:1512.03385), biases beside the batch normalisation, a 1×1 convolution on the short way where the picture is
halved. 78,666 parameters and 12,501,632 MACs at 32×32×3 with 10 classes, as there.
"""

from __future__ import annotations

from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from .ends import begin, finish
from .registry import Figures, Network

WIDEST = 128


def build(input_shape: tuple[int, int, int], classes: int, *, width: int, dropout: float) -> Any:
    """A stem without stride, then three residual stacks, the second and third of stride 2.

    Args:
      input_shape: (height, width, channels) of the pictures, 0..255.
      classes: outputs of the softmax.
      width: channels of the stem and the first stack; the second has twice, the third four times as many.
      dropout: share of the pooled features dropped in training; MLPerf Tiny drops none.
    """
    if not 1 <= width <= WIDEST:
        raise EdgennError(f"resnet8: width {width} is not possible: 1 to {WIDEST} channels")
    layers = require("keras").layers

    def convolve(x: Any, filters: int, name: str, strides: int = 1, kernel: int = 3) -> Any:
        return layers.Conv2D(filters, kernel, strides, padding="same", kernel_initializer="he_normal", name=name)(x)

    def normalised(x: Any, filters: int, name: str, strides: int = 1) -> Any:
        return layers.BatchNormalization(name=f"{name}_norm")(convolve(x, filters, name, strides))

    pictures, x = begin(input_shape)
    x = layers.ReLU(name="stem_relu")(normalised(x, width, "stem"))
    for block, strides in enumerate((1, 2, 2), start=1):
        filters, name = width * 2 ** (block - 1), f"block{block}"
        y = layers.ReLU(name=f"{name}_conv1_relu")(normalised(x, filters, f"{name}_conv1", strides))
        y = normalised(y, filters, f"{name}_conv2")
        if strides > 1:
            x = convolve(x, filters, f"{name}_shortcut", strides, kernel=1)
        x = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))
    return finish(pictures, x, classes, dropout, "resnet8")


def smallest(**_: Any) -> int:
    """Two halvings leave a picture of 2×2."""
    return 8


def cuts(**_: Any) -> tuple[str, ...]:
    """After the stem and after each stack."""
    return ("stem_relu", "block1_relu", "block2_relu", "block3_relu")


def cut(**_: Any) -> str:
    """Before the last stack."""
    return "block2_relu"


NETWORK = Network(
    name="resnet8",
    build=build,
    options={"width": 16, "dropout": 0.0},
    smallest=smallest,
    source="MLPerf Tiny, image classification (arXiv:2106.07597)",
    size=32,
    sizes=(32, 48, 64),
    cuts=cuts,
    cut=cut,
    figures=(Figures({}, 32, 78_666, 12_501_632, 96_248),),
)
