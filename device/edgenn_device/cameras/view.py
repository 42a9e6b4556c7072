"""Which part of a camera's picture is looked at, and which way up: region of interest, rotation, flip.

One place for all sources: a source that can do some of it in hardware does, and leaves the rest in its `view`, which
the pipeline applies to a frame when its turn comes, so that frames that are dropped cost nothing. It does not scale:
that is preprocessing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ..errors import EdgennError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Flip = Literal["none", "horizontal", "vertical", "both"]
# x, y, width, height.
Box: TypeAlias = tuple[float, float, float, float]

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
ROTATIONS = (0, 90, 180, 270)


@dataclass(frozen=True)
class View:
    """How a picture is looked at: rotated, then flipped, then cut to the region of interest.

    Args:
      roi: x, y, width and height of the region in fractions (0..1) of the picture as it is seen, that is rotated and
        flipped; fractions hold at every resolution.
      rotate: degrees clockwise: 0, 90, 180 or 270.
      flip: "horizontal" exchanges left and right, "vertical" top and bottom, "both" is a rotation by 180 degrees.

    Raises:
      EdgennError: the region leaves the picture or is empty, or a word or an angle that is not known.

    >>> View(roi=(0.25, 0.0, 0.5, 1.0), rotate=90).box
    (0.0, 0.25, 1.0, 0.5)
    """

    roi: Box = WHOLE
    rotate: int = 0
    flip: Flip = "none"

    def __post_init__(self) -> None:
        if self.rotate not in ROTATIONS:
            raise EdgennError(f"rotate {self.rotate} is not possible: 0, 90, 180 or 270 degrees clockwise")
        if self.flip not in get_args(Flip):
            raise EdgennError(f"flip {self.flip!r} is not one of {', '.join(get_args(Flip))}")
        x, y, width, height = self.roi
        if not (
            all(map(math.isfinite, self.roi))
            and x >= 0
            and y >= 0
            and width > 0
            and height > 0
            and x + width <= 1 + 1e-6
            and y + height <= 1 + 1e-6
        ):
            shown = ",".join(f"{side:g}" for side in self.roi)
            raise EdgennError(
                f"roi {shown} is not within the picture: X,Y,WIDTH,HEIGHT in fractions of it, such as 0.25,0,0.5,1"
            )

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing to do."""
        return self == View()

    @property
    def turned(self) -> bool:
        """Whether the picture's height is seen as its width."""
        return self.rotate in (90, 270)

    @property
    def box(self) -> Box:
        """The region in fractions of the picture as the camera gives it, before it is rotated and flipped."""
        x, y, width, height = self.roi
        if self.flip in ("horizontal", "both"):
            x = 1 - x - width
        if self.flip in ("vertical", "both"):
            y = 1 - y - height
        if self.rotate == 90:
            x, y, width, height = y, 1 - x - width, height, width
        elif self.rotate == 180:
            x, y = 1 - x - width, 1 - y - height
        elif self.rotate == 270:
            x, y, width, height = 1 - y - height, x, height, width
        # 1 - 0.3 - 0.7 is a little below 0.
        return max(0.0, x), max(0.0, y), width, height

    def cover(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels that the camera's whole picture must have for the region to cover these."""
        if self.turned:
            height, width = width, height
        _, _, region_width, region_height = self.box
        return math.ceil(height / region_height), math.ceil(width / region_width)

    def apply(self, image: NDArray[np.uint8] | bytes, cover: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """The picture as it is seen.

        Args:
          image: uint8 pixels (H, W, 3) or (H, W), or an encoded picture.
          cover: (height, width) that are enough of the result; an encoded picture is decoded at the largest reduction
            that still gives them.

        Returns:
          uint8 pixels; a view into `image` where they were only cut out.

        Raises:
          EdgennError: it is encoded and cannot be decoded.
        """
        if isinstance(image, bytes):
            from .. import preprocess

            image = preprocess.decode(image, cover and self.cover(*cover))
        rows, columns = image.shape[:2]
        x, y, width, height = self.box
        top, bottom = _span(y, height, rows)
        left, right = _span(x, width, columns)
        return self._upright(image[top:bottom, left:right])

    def _upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        rotate, flip = self.rotate, self.flip
        if flip == "both":
            rotate, flip = (rotate + 180) % 360, "none"
        if rotate == 0 and flip == "none":
            return image
        import cv2

        codes = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
        if rotate:
            image = cv2.rotate(image, codes[rotate])  # type: ignore[assignment]
        if flip != "none":
            image = cv2.flip(image, 1 if flip == "horizontal" else 0)  # type: ignore[assignment]
        return image


def _span(begin: float, length: float, side: int) -> tuple[int, int]:
    """A fraction of a side in whole pixels, at least one."""
    first = min(side - 1, round(begin * side))
    return first, max(first + 1, min(side, round((begin + length) * side)))
