"""`efficientnet_lite0`: EfficientNet-B0 without what small devices compute badly.

Tan and Le 2019 (arXiv:1905.11946, table 1), in the form of tensorflow/tpu, models/official/efficientnet/lite
(efficientnet_lite_builder.py): no squeeze-and-excite, ReLU6 in place of swish, stem and head of fixed width. Layers are
called as in keras.applications' EfficientNetB0. Keras publishes no weights for it; a TFLite file of tensorflow/tpu
holds them (`--weights efficientnet-lite0-fp32.tflite`). 3,425,834 parameters and 383,920,352 MACs at 224×224×3 with 10
classes; with 1000 classes it trains 4,652,008, the source's 4.7 million. The source gives it 407 million MACs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from edgenn.extras import require

from .ends import begin, finish
from .registry import Figures, Network


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


STEM, HEAD = 32, 1280
STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def build(input_shape: tuple[int, int, int], classes: int, *, dropout: float) -> Any:
    """A stem of stride 2, seven stages of inverted residual blocks, and a 1×1 convolution to 1280 channels.

    Args:
      input_shape: (height, width, channels) of the pictures, 0..255.
      classes: outputs of the softmax.
      dropout: share of the pooled features dropped in training.
    """
    keras = require("keras")
    layers = keras.layers

    def start() -> Any:
        """As in the source: variance 2 / (kernel area × filters). Made anew each time, for one draws the same twice."""
        return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")

    def convolve(x: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
        return layers.Conv2D(
            filters, kernel, stride, padding="same", use_bias=False, kernel_initializer=start(), name=name
        )(x)

    def activated(x: Any, name: str) -> Any:
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}bn")(x)
        return layers.ReLU(6.0, name=f"{name}activation")(x)

    pictures, x = begin(input_shape)
    x = activated(convolve(x, STEM, 3, 2, "stem_conv"), "stem_")
    for name, stage, first in _blocks():
        shortcut, channels = x, x.shape[-1]
        if stage.expansion > 1:
            x = activated(convolve(x, channels * stage.expansion, 1, 1, f"{name}_expand_conv"), f"{name}_expand_")
        x = layers.DepthwiseConv2D(
            stage.kernel,
            stage.stride if first else 1,
            padding="same",
            use_bias=False,
            depthwise_initializer=start(),
            name=f"{name}_dwconv",
        )(x)
        x = activated(x, f"{name}_")
        x = convolve(x, stage.filters, 1, 1, f"{name}_project_conv")
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_project_bn")(x)
        if not first:
            x = layers.Add(name=f"{name}_add")([x, shortcut])
    x = activated(convolve(x, HEAD, 1, 1, "top_conv"), "top_")
    return finish(pictures, x, classes, dropout, "efficientnet_lite0")


def _blocks() -> Iterator[tuple[str, _Stage, bool]]:
    """The name of each block, its stage, and whether it is the stage's first (which alone has its stride)."""
    for number, stage in enumerate(STAGES, start=1):
        for repeat in range(stage.repeats):
            yield f"block{number}{'abcd'[repeat]}", stage, repeat == 0


def smallest(**_: Any) -> int:
    """Five halvings leave one pixel."""
    return 32


def cuts(**_: Any) -> tuple[str, ...]:
    """After the stem, after each block and after the last convolution."""
    blocks = (f"{name}_{'project_bn' if first else 'add'}" for name, _, first in _blocks())
    return ("stem_activation", *blocks, "top_activation")


def cut(**_: Any) -> str:
    """Before the stages at the coarsest resolution."""
    return "block5c_add"


NETWORK = Network(
    name="efficientnet_lite0",
    build=build,
    options={"dropout": 0.2},
    smallest=smallest,
    source="EfficientNet-Lite0 (arXiv:1905.11946, table 1; tensorflow/tpu)",
    size=224,
    sizes=(128, 160, 192, 224),
    cuts=cuts,
    cut=cut,
    figures=(Figures({}, 224, 3_425_834, 383_920_352, 3_973_496),),
)
