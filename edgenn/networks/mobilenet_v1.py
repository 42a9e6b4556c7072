"""`mobilenet_v1`: thirteen depthwise separable convolutions, thinned by a width multiplier.

Howard et al. 2017 (arXiv:1704.04861, table 1), as keras.applications builds it; ReLU6 throughout. 221,114
parameters and 13,316,608 MACs at 128×128×3 with 10 classes and alpha 0.25; with 1000 classes, alpha 1 and 224×224×3 the
paper's 4.2 million and 569 million (table 6).
"""

from __future__ import annotations

from typing import Any

from edgenn.extras import require

from .ends import begin, check_alpha, finish
from .registry import Figures, Network

PUBLISHED = (128, 160, 192, 224)  # sides of the pictures that published weights were trained with


def build(input_shape: tuple[int, int, int], classes: int, *, alpha: float, dropout: float) -> Any:
    """keras.applications.MobileNet between edgenn's ends.

    Args:
      input_shape: (height, width, channels) of the pictures, 0..255.
      classes: outputs of the softmax.
      alpha: width multiplier, 0.25 to 1; published weights exist for 0.25, 0.5, 0.75 and 1.
      dropout: share of the pooled features dropped in training.
    """
    check_alpha("mobilenet_v1", alpha, 0.25, 1.0)
    pictures, x = begin(input_shape)
    body = require("keras").applications.MobileNet(
        alpha=alpha, include_top=False, weights=None, input_tensor=x, dropout=0.0
    )
    return finish(pictures, body.output, classes, dropout, "mobilenet_v1")


def imagenet(input_shape: tuple[int, int, int], *, alpha: float, **_: Any) -> Any:
    """keras.applications.MobileNet without top, with the weights that Keras publishes for the nearest size."""
    size = min(PUBLISHED, key=lambda side: abs(side - max(input_shape[:2])))
    return require("keras").applications.MobileNet((size, size, 3), alpha=alpha, include_top=False, weights="imagenet")


def smallest(**_: Any) -> int:
    """Five halvings leave one pixel."""
    return 32


def cuts(**_: Any) -> tuple[str, ...]:
    """After the first convolution and after each separable one."""
    return ("conv1_relu", *(f"conv_pw_{block}_relu" for block in range(1, 14)))


def cut(**_: Any) -> str:
    """Before the two blocks at the coarsest resolution."""
    return "conv_pw_11_relu"


NETWORK = Network(
    name="mobilenet_v1",
    build=build,
    options={"alpha": 0.25, "dropout": 0.2},
    smallest=smallest,
    source="MobileNets (arXiv:1704.04861, table 1)",
    size=128,
    sizes=(96, 128, 160, 192, 224),
    cuts=cuts,
    cut=cut,
    imagenet=imagenet,
    figures=(
        Figures({}, 128, 221_114, 13_316_608, 311_548),
        Figures({"alpha": 0.5}, 160, 834_666, 76_017_920, 990_764),
        Figures({"alpha": 0.75}, 192, 1_840_666, 238_513_152, 2_062_428),
        Figures({"alpha": 1.0}, 224, 3_239_114, 567_726_592, 3_526_540),
    ),
)
