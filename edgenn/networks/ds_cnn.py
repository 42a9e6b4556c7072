"""`ds_cnn`: one wide convolution, then depthwise separable ones that all keep its width.

The keyword spotting network of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597, section 4.1; mlcommons/tiny,
v0.1/benchmarks/audio_wake_words, keras_model.py), which is DS-CNN of Zhang et al. 2017 (arXiv:1711.07128, section
4.6), adapted to pictures: where theirs sees 10×4 points of a spectrogram in steps of 2, the first convolution here sees
7×7 pixels in steps of 4, and pooling is global.
31,626 parameters and 7,193,216 MACs at 64×64×3 with 10 classes; with their first convolution and input, and 12
classes, their 24,908 parameters.
"""

from __future__ import annotations

from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from .ends import begin, finish
from .registry import Figures, Network

KERNEL, STRIDE = 7, 4
WIDEST = 512


def build(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: int,
    depth: int,
    dropout: float,
    kernel: int | tuple[int, int] = KERNEL,
    stride: int = STRIDE,
) -> Any:
    """A convolution of stride 4, then `depth` pairs of a depthwise 3×3 and a pointwise convolution.

    Args:
      input_shape: (height, width, channels) of the pictures, 0..255.
      classes: outputs of the softmax.
      width: channels of every convolution.
      depth: number of pairs.
      dropout: share of the pooled features dropped in training.
      kernel, stride: of the first convolution, in pixels.
    """
    if not 1 <= width <= WIDEST:
        raise EdgennError(f"ds_cnn: width {width} is not possible: 1 to {WIDEST} channels")
    if not 1 <= depth <= 16:
        raise EdgennError(f"ds_cnn: depth {depth} is not possible: 1 to 16 pairs of convolutions")
    layers = require("keras").layers

    def activated(x: Any, name: str) -> Any:
        return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_norm")(x))

    pictures, x = begin(input_shape)
    x = activated(layers.Conv2D(width, kernel, stride, padding="same", name="stem")(x), "stem")
    for block in range(1, depth + 1):
        deep, point = f"block{block}_depthwise", f"block{block}_pointwise"
        x = activated(layers.DepthwiseConv2D(3, padding="same", name=deep)(x), deep)
        x = activated(layers.Conv2D(width, 1, name=point)(x), point)
    return finish(pictures, x, classes, dropout, "ds_cnn")


def smallest(**_: Any) -> int:
    """The first convolution leaves 4×4, one more than the 3×3 that the next ones see."""
    return 4 * STRIDE


def cuts(*, depth: int, **_: Any) -> tuple[str, ...]:
    """After the first convolution and after each pair."""
    return ("stem_relu", *(f"block{block}_pointwise_relu" for block in range(1, depth + 1)))


def cut(*, depth: int, **_: Any) -> str:
    """Before the last pair."""
    return cuts(depth=depth)[-2]


NETWORK = Network(
    name="ds_cnn",
    build=build,
    options={"width": 64, "depth": 4, "dropout": 0.2},
    smallest=smallest,
    source="MLPerf Tiny, keyword spotting, adapted to pictures (arXiv:2106.07597)",
    size=64,
    sizes=(32, 48, 64, 96),
    cuts=cuts,
    cut=cut,
    figures=(Figures({}, 64, 31_626, 7_193_216, 54_344),),
)
