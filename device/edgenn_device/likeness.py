"""How alike two pictures are: a fingerprint of 64 bits, and the number of bits in which two of them differ.

For leaving out what a camera shows for the tenth time, and a picture as the JPEG file to keep of it. Knows nothing of
what is in a picture.
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np

from . import preprocess
from .cameras.base import Image
from .errors import EdgennError
from .picture_header import read_header

# Of 64 bits. Up to here two pictures count as one seen twice. Measured on the synthetic camera (hand-held, 30 frames a
# second): a tenth of a second apart 95% differ in at most 6 bits, a second apart half in 14 or more, and of different
# scenes 99% in 19 or more. The customary threshold for this hash, too (Krawetz, "Kind of Like That", 2013).
ALIKE = 10
# Grey levels (of 256) by which a neighbour must be brighter to count: below lies the noise of a flat wall.
_STEP = 2
_SIDE = 8
# In percent. What is trained on should carry the camera's noise and not the coder's blocks.
_QUALITY = 95


def fingerprint(image: Image) -> int:
    """A difference hash: of 8 rows of 9 grey areas, which are darker than their right neighbour (Krawetz, 2013).

    Args:
      image: uint8 pixels (H, W, 3) in BGR order, or the bytes of an encoded picture.

    Returns:
      64 bits.

    Raises:
      EdgennError: the picture cannot be read.
    """
    if isinstance(image, bytes):
        # Several pixels for each area, so that a reduced JPEG gives the bits that the whole would give.
        image = preprocess.decode(image, cover=(8 * _SIDE, 8 * (_SIDE + 1)))
    try:
        small = cv2.resize(image, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.int16)
    except cv2.error as error:
        raise EdgennError(f"an array of shape {image.shape} is no picture: {error.err}") from None
    darker = grey[:, 1:] - grey[:, :-1] > _STEP
    return int.from_bytes(np.packbits(darker).tobytes(), "big")


def difference(one: int, other: int) -> int:
    """In how many of their 64 bits two fingerprints differ."""
    return (one ^ other).bit_count()


def as_jpeg(image: Image) -> bytes:
    """The picture as a JPEG file: as it came if it is one, else encoded at a quality that is good to train on.

    Raises:
      EdgennError: the picture cannot be read.
    """
    if isinstance(image, bytes):
        if read_header(image).format == "JPEG":
            return image
        image = preprocess.decode(image)
    try:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    except cv2.error as error:
        raise EdgennError(f"a picture of {image.shape} cannot be stored as JPEG: {error.err}") from None
    return cast("np.ndarray[Any, Any]", data).tobytes()
