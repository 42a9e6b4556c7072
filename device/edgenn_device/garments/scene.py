"""A photograph of a garment: cut, laid on a background, lit, partly covered, and seen through an imperfect camera.

The random choices of one picture are made here, from one generator, in one order: the same seed gives the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from . import jacket, shirt, t_shirt
from .backdrop import backdrop, obstruct
from .fabric import Bytes, Floats, grain
from .pieces import Garment
from .sprite import Sprite, render

CUTS = {"jacket": jacket.cut, "shirt": shirt.cut, "t-shirt": t_shirt.cut}


def still(rng: np.random.Generator, label: str, height: int, width: int, margin: float = 0.0) -> tuple[Bytes, str]:
    """What lies before the camera.

    Args:
      height, width: of the frame that the garment is to fill, more or less.
      margin: how much more than the frame is drawn on every side, as a fraction of its sides.

    Returns:
      uint8 (round(height * (1 + 2 * margin)), …, 3) BGR with the frame in its middle, and the garment's style.
    """
    garment = CUTS[label](rng)
    rows, columns = round(height * (1 + 2 * margin)), round(width * (1 + 2 * margin))
    picture = backdrop(rng, rows, columns)
    light, contrast = rng.uniform(0.2, math.pi - 0.2), rng.uniform(0.45, 1.15)
    upright = rng.random() < 0.96
    turn = rng.normal(0, 0.1) if upright else rng.uniform(-math.pi, math.pi)
    span = _span(garment)
    sides = abs(math.cos(turn)), abs(math.sin(turn))
    fit = min(width / (span[0] * sides[0] + span[1] * sides[1]), height / (span[0] * sides[1] + span[1] * sides[0]))
    zoom = rng.uniform(0.8, 1.0) if rng.random() < 0.85 else rng.uniform(1.0, 1.2)
    scale = fit * zoom
    sprite = render(garment, scale, rng, light - turn, contrast)
    slack = np.array([width, height]) * (0.05 + 0.2 * max(0.0, 1 - zoom))
    place = np.array([columns, rows]) / 2 + np.clip(rng.normal(0, 0.5, 2), -1, 1) * slack
    if rng.random() < 0.25 and upright:
        _hanger(rng, picture, place, scale, turn, span)
    shear = rng.normal(0, 0.05)
    stretch = rng.uniform(0.93, 1.07)
    c, s = math.cos(turn), math.sin(turn)
    matrix = np.array([(c, -s), (s, c)]) @ np.array([(stretch, shear), (0.0, 1 / stretch)])
    lay(picture, sprite, matrix, place)
    if rng.random() < 0.12:
        obstruct(rng, picture)
    _illuminate(rng, picture)
    return picture, garment.style


def _span(garment: Garment) -> tuple[float, float]:
    points = np.concatenate([piece.outline for piece in garment.pieces if hasattr(piece, "outline")])
    width, height = (points.max(0) - points.min(0)).tolist()
    return width, height


def lay(picture: Bytes, sprite: Sprite, matrix: npt.NDArray[np.float64], place: npt.NDArray[np.float64]) -> None:
    """Put a sprite on a picture: `matrix` (2, 2) turns and shears it about its origin, and `place` (x, y) is where."""
    shift = place - matrix @ np.array(sprite.origin)
    affine = np.column_stack([matrix, shift])
    size = picture.shape[1], picture.shape[0]
    colour = cv2.warpAffine(sprite.colour, affine, size, flags=cv2.INTER_LINEAR)
    clear = cv2.bitwise_not(cv2.warpAffine(sprite.cover, affine, size, flags=cv2.INTER_LINEAR))
    picture[:] = cv2.add(colour, cv2.multiply(picture, cv2.merge([clear] * 3), scale=1 / 255))


def _hanger(
    rng: np.random.Generator,
    picture: Bytes,
    place: npt.NDArray[np.float64],
    scale: float,
    turn: float,
    span: tuple[float, float],
) -> None:
    """A hook that comes up behind the neck."""
    top = place + np.array([math.sin(turn), -math.cos(turn)]) * (span[1] / 2 - 0.1) * scale
    up = np.array([math.sin(turn), -math.cos(turn)]) * scale
    right = np.array([math.cos(turn), math.sin(turn)]) * scale
    t = np.linspace(math.pi, 2.6 * math.pi, 14)[:, None]
    hook = top + up * 0.42 + (np.cos(t) * right + np.sin(t) * -up * -1.0) * 0.1
    rod = np.stack([top - up * 0.25, top + up * 0.28])
    fixed = [np.rint(points * 16).astype(np.int32) for points in (np.concatenate([rod, hook]),)]
    thick = max(1, round(0.035 * scale))
    cv2.polylines(picture, [fixed[0] + int(0.03 * scale * 16)], False, (70, 70, 70), thick, cv2.LINE_AA, 4)
    cv2.polylines(picture, fixed, False, (188, 186, 182), thick, cv2.LINE_AA, 4)
    cv2.polylines(picture, fixed, False, (226, 226, 226), max(1, thick // 3), cv2.LINE_AA, 4)


def _illuminate(rng: np.random.Generator, picture: Bytes) -> None:
    """Light that falls off to one side, a darker rim, and at times the shadow of a window or of someone standing by."""
    height, width = picture.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    turn, fall, rim = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 0.3), rng.uniform(0.0, 0.16)
    light = (
        1
        + np.float32(fall * math.cos(turn)) * x
        + np.float32(fall * math.sin(turn)) * y
        - np.float32(rim) * (x * x + y * y)
    )
    if rng.random() < 0.15:
        angle, edge = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4)
        across = np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y
        dim = np.float32(rng.uniform(0.15, 0.4))
        light *= 1 - dim * np.clip((across - np.float32(edge)) * np.float32(rng.uniform(4, 20)), 0, 1)
    picture[:] = cv2.multiply(picture, cv2.merge([cv2.convertScaleAbs(light, alpha=128)] * 3), scale=1 / 128)


@dataclass(frozen=True)
class Camera:
    """What a camera does to a picture.

    Attributes:
      gamma: above 1 darkens the middle tones.
      gain: factors for blue, green and red: exposure and colour temperature.
      blur: standard deviation in pixels at 240 rows.
      motion: length of the smear in pixels at 240 rows, and `heading` its direction in radians.
      noise: standard deviation in steps of 1/255.
      quality: of a JPEG on the way (1 to 100), or None.
    """

    gamma: float
    gain: tuple[float, float, float]
    blur: float
    motion: float
    heading: float
    noise: float
    quality: int | None

    def developed(self, picture: Bytes) -> Bytes:
        """The picture after gamma, exposure and white balance."""
        steps = np.arange(256) / 255
        curve = np.stack([255 * np.clip(steps * gain, 0, 1) ** self.gamma for gain in self.gain], 1)
        return cv2.LUT(picture, np.rint(curve).astype(np.uint8)[None])

    def taken(self, picture: Bytes, rng: np.random.Generator) -> Bytes:
        """The picture as it comes out of the camera."""
        unit = picture.shape[0] / 240
        if self.blur > 0:
            picture = cv2.GaussianBlur(picture, (0, 0), max(self.blur * unit, 0.3))
        if self.motion * unit > 1:
            picture = cv2.filter2D(picture, -1, _smear(self.motion * unit, self.heading))
        picture = self.developed(picture)
        if self.noise > 0:
            picture = noisy(picture, self.noise, rng)
        if self.quality is not None:
            _, data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, self.quality))
            picture = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
        return picture


def camera(rng: np.random.Generator) -> Camera:
    """A camera and its settings by chance."""
    exposure = rng.normal(1.0, 0.14)
    warmth = rng.normal(0.0, 0.07)
    return Camera(
        gamma=math.exp(rng.normal(0.0, 0.2)),
        gain=(exposure * (1 - warmth), exposure, exposure * (1 + warmth)),
        blur=rng.uniform(0.4, 1.8) if rng.random() < 0.2 else 0.0,
        motion=rng.uniform(2, 8) if rng.random() < 0.08 else 0.0,
        heading=rng.uniform(0, math.pi),
        noise=rng.uniform(0.5, 3.0) if rng.random() < 0.8 else rng.uniform(3.0, 10.0),
        quality=int(rng.integers(25, 80)) if rng.random() < 0.25 else None,
    )


def noisy(picture: Bytes, deviation: float, rng: np.random.Generator) -> Bytes:
    """Grey noise over the picture: a random part of one fixed field, so that it costs little."""
    height, width = picture.shape[:2]
    field = grain()
    if height > len(field) or width > len(field):
        field = np.tile(field, (-(-height // len(field)), -(-width // len(field))))
    y, x = int(rng.integers(len(field) - height + 1)), int(rng.integers(field.shape[1] - width + 1))
    speckle = cv2.convertScaleAbs(field[y : y + height, x : x + width], alpha=deviation, beta=128)
    return cv2.addWeighted(picture, 1, cv2.merge([speckle] * 3), 1, -128)


def _smear(length: float, heading: float) -> Floats:
    side = int(length) | 1
    kernel = np.zeros((side, side), np.float32)
    middle = side // 2
    reach = np.array([math.cos(heading), math.sin(heading)]) * middle
    a, b = np.rint(middle - reach).astype(int).tolist(), np.rint(middle + reach).astype(int).tolist()
    cv2.line(kernel, a, b, 1.0)
    kernel /= kernel.sum()
    return kernel
