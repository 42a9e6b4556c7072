"""`mobilenet_v3_small`: the small MobileNetV3 in its minimalistic form.

Howard et al. 2019 (arXiv:1905.02244, table 2), as keras.applications builds it with `minimalistic=True`: ReLU in place
of hard-swish, no squeeze-and-excite, 3×3 kernels only, which is what int8 kernels and the Edge TPU like.
446,770 parameters and 50,680,384 MACs at 224×224×3 with 10 classes. The classifier's hidden layer of 1024, more than
half of the parameters of keras.applications' own top, is left out: it was made for 1000 classes.
"""

from __future__ import annotations

from typing import Any

from edgenn.extras import require

from .ends import begin, check_alpha, finish
from .registry import Figures, Network


def build(input_shape: tuple[int, int, int], classes: int, *, alpha: float, dropout: float) -> Any:
    """keras.applications.MobileNetV3Small between edgenn's ends; its second classifier layer is left out.

    Args:
      input_shape: (height, width, channels) of the pictures, 0..255.
      classes: outputs of the softmax.
      alpha: width multiplier, 0.25 to 1.4; published weights exist for 1.
      dropout: share of the pooled features dropped in training.
    """
    check_alpha("mobilenet_v3_small", alpha, 0.25, 1.4)
    pictures, x = begin(input_shape)
    body = require("keras").applications.MobileNetV3Small(
        alpha=alpha, minimalistic=True, include_top=False, weights=None, input_tensor=x, include_preprocessing=False
    )
    return finish(pictures, body.output, classes, dropout, "mobilenet_v3_small")


def imagenet(_: tuple[int, int, int], *, alpha: float, **__: Any) -> Any:
    """keras.applications.MobileNetV3Small without top, with the weights that Keras publishes, for 224×224."""
    return require("keras").applications.MobileNetV3Small(
        (224, 224, 3),
        alpha=alpha,
        minimalistic=True,
        include_top=False,
        weights="imagenet",
        include_preprocessing=False,
    )


def smallest(**_: Any) -> int:
    """Five halvings leave one pixel."""
    return 32


def cuts(**_: Any) -> tuple[str, ...]:
    """After most blocks. Whether block 6 ends in an addition depends on how its channels are rounded: left out."""
    added = (2, 4, 5, 7, 9, 10)  # stride 1 and as many channels as before
    blocks = (
        f"expanded_conv_{block}_{'add' if block in added else 'project_bn'}" for block in range(1, 11) if block != 6
    )
    return ("expanded_conv_project_bn", *blocks)


def cut(**_: Any) -> str:
    """Before the blocks at the coarsest resolution."""
    return "expanded_conv_7_add"


NETWORK = Network(
    name="mobilenet_v3_small",
    build=build,
    options={"alpha": 1.0, "dropout": 0.2},
    smallest=smallest,
    source="MobileNetV3-Small, minimalistic (arXiv:1905.02244, table 2)",
    size=224,
    sizes=(96, 128, 160, 192, 224),
    cuts=cuts,
    cut=cut,
    imagenet=imagenet,
    figures=(Figures({}, 224, 446_770, 50_680_384, 622_834), Figures({"alpha": 0.5}, 128, 133_930, 6_736_960, 242_602)),
)
