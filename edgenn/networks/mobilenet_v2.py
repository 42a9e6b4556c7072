"""`mobilenet_v2`: inverted residual blocks with linear bottlenecks, thinned by a width multiplier.

Sandler et al. 2018 (arXiv:1801.04381, table 2), as keras.applications builds it; ReLU6 throughout.
2,270,794 parameters and 299,507,072 MACs at 224×224×3 with 10 classes; with 1000 classes 3.5 million, where the paper
has 3.4 million (table 4), and its 300 million MACs.
"""

from __future__ import annotations

from typing import Any

from edgenn.extras import require

from .ends import begin, check_alpha, finish
from .registry import Figures, Network

PUBLISHED = (96, 128, 160, 192, 224)  # sides of the pictures that published weights were trained with


def build(input_shape: tuple[int, int, int], classes: int, *, alpha: float, dropout: float) -> Any:
    """keras.applications.MobileNetV2 between edgenn's ends.

    Args:
      input_shape: (height, width, channels) of the pictures, 0..255.
      classes: outputs of the softmax.
      alpha: width multiplier, 0.35 to 1.4; published weights exist for 0.35, 0.5, 0.75, 1, 1.3 and 1.4.
      dropout: share of the pooled features dropped in training.
    """
    check_alpha("mobilenet_v2", alpha, 0.35, 1.4)
    pictures, x = begin(input_shape)
    body = require("keras").applications.MobileNetV2(alpha=alpha, include_top=False, weights=None, input_tensor=x)
    return finish(pictures, body.output, classes, dropout, "mobilenet_v2")


def imagenet(input_shape: tuple[int, int, int], *, alpha: float, **_: Any) -> Any:
    """keras.applications.MobileNetV2 without top, with the weights that Keras publishes for the nearest size."""
    size = min(PUBLISHED, key=lambda side: abs(side - max(input_shape[:2])))
    return require("keras").applications.MobileNetV2(
        (size, size, 3), alpha=alpha, include_top=False, weights="imagenet"
    )


def smallest(**_: Any) -> int:
    """Five halvings leave one pixel."""
    return 32


def cuts(**_: Any) -> tuple[str, ...]:
    """After the first convolution, after each block, and after the last convolution."""
    added = (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)  # stride 1 and as many channels as before
    blocks = (f"block_{block}_{'add' if block in added else 'project_BN'}" for block in range(1, 17))
    return ("Conv1_relu", "expanded_conv_project_BN", *blocks, "out_relu")


def cut(**_: Any) -> str:
    """Before the blocks at the coarsest resolution."""
    return "block_12_add"


NETWORK = Network(
    name="mobilenet_v2",
    build=build,
    options={"alpha": 1.0, "dropout": 0.2},
    smallest=smallest,
    source="MobileNetV2 (arXiv:1801.04381, table 2)",
    size=224,
    sizes=(96, 128, 160, 192, 224),
    cuts=cuts,
    cut=cut,
    imagenet=imagenet,
    figures=(
        Figures({}, 224, 2_270_794, 299_507_072, 2_726_158),
        Figures({"alpha": 0.75}, 192, 1_394_874, 152_674_688, 1_760_574),
        Figures({"alpha": 0.5}, 160, 719_034, 48_916_800, 987_582),
        Figures({"alpha": 0.35}, 128, 423_018, 18_953_472, 637_998),
    ),
)
