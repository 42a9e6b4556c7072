"""Paints a garment's pieces into a picture with transparency, lit from one side and with its shadow on the ground.

Cloth is laid down layer by layer together with its height; the heights are then lit as a relief, which makes seams,
folds, quilting and edges agree about where the light is. Placing the result in a scene is `scene`'s work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from .fabric import Bytes, Fabric, Floats, cloud, darker, tile, weave
from .pieces import Disc, Fold, Garment, Line, Panel, Points, Print, normals

_SUB = 4  # fractional bits of the coordinates handed to OpenCV: edges are placed to 1/16 pixel
_MARGIN = 0.22  # garment units around the outline, for the shadow


@dataclass(frozen=True, eq=False)
class Sprite:
    """A garment ready to be laid over a background.

    Attributes:
      colour: uint8 (h, w, 3) BGR, already multiplied by `cover`.
      cover: uint8 (h, w), 255 where nothing behind it is seen; the shadow is black with partial cover.
      origin: pixel (x, y) of the middle of the garment's outline.
      extent: (width, height) of that outline in pixels.
    """

    colour: Bytes
    cover: Bytes
    origin: tuple[float, float]
    extent: tuple[float, float]


def render(garment: Garment, scale: float, rng: np.random.Generator, light: float, contrast: float) -> Sprite:
    """Paint a garment.

    Args:
      scale: pixels per garment unit.
      light: radians from the x axis towards y in which the light travels across the cloth.
      contrast: how steeply it falls: 0.4 overcast, 1.2 a low lamp.
    """
    outlines = np.concatenate([piece.outline for piece in garment.pieces if isinstance(piece, Panel)])
    low, high = outlines.min(0) - _MARGIN, outlines.max(0) + _MARGIN
    canvas = _Canvas(garment, scale, low, high, rng)
    for piece in garment.pieces:
        if isinstance(piece, Panel):
            canvas.panel(piece)
        elif isinstance(piece, Line):
            canvas.line(piece)
        elif isinstance(piece, Disc):
            canvas.disc(piece)
        else:
            canvas.picture(piece)
    colour, cover = canvas.lit(light, contrast)
    middle = ((low + high) / 2 - low) * scale
    extent = (high - low - 2 * _MARGIN) * scale
    return Sprite(colour, cover, (middle[0], middle[1]), (extent[0], extent[1]))


class _Canvas:
    """The layers while they are being painted, all of one size."""

    def __init__(self, garment: Garment, scale: float, low: Points, high: Points, rng: np.random.Generator) -> None:
        self.scale = scale
        self.low = low
        self.rng = rng
        width, height = (np.ceil((high - low) * scale).astype(int) + 1).tolist()
        self.colour: Bytes = np.zeros((height, width, 3), np.uint8)
        self.cover: Bytes = np.zeros((height, width), np.uint8)
        self.body: Bytes = np.zeros((height, width), np.uint8)
        self.open: Bytes = np.full((height, width), 255, np.uint8)  # light that no piece above takes away
        self.groove: Bytes = np.zeros((height, width), np.uint8)
        self.gloss: Bytes = np.zeros((height, width), np.uint8)
        self.relief: Floats = np.zeros((height, width), np.float32)
        self.tone: Floats = np.ones((height, width), np.float32)  # brightness of the threads
        self.folds = self._folded(garment.folds)

    def _at(self, points: Points) -> npt.NDArray[np.int32]:
        """Points in fixed-point pixels, as OpenCV's drawing functions take them."""
        return np.rint((points - self.low) * (self.scale * (1 << _SUB))).astype(np.int32)

    def _folded(self, folds: tuple[Fold, ...]) -> Floats:
        """Height of the folds: tapered lenses, softened, over gentle unevenness; at half size: nothing is sharp."""
        height, width = self.cover.shape
        half = np.zeros(((height + 1) // 2, (width + 1) // 2), np.float32)
        for fold in folds:
            taper = _lens(len(fold.points)) * (fold.width / 2)
            across = normals(fold.points)
            lens = np.concatenate([fold.points + across * taper, (fold.points - across * taper)[::-1]])
            cv2.fillPoly(half, [self._at(lens) // 2], fold.height * 2.2, cv2.LINE_8, _SUB)
        sigma = 0.022 * self.scale / 2
        half = (
            cv2.GaussianBlur(half, (0, 0), max(sigma, 0.6)) * 0.6
            + cv2.GaussianBlur(half, (0, 0), max(2.2 * sigma, 0.8)) * 0.8
        )
        shift = self.rng.integers(0, 128, 2)
        uneven = cloud()[shift[0] : shift[0] + 96, shift[1] : shift[1] + 96]
        half += 0.012 * cv2.resize(uneven, half.shape[::-1])
        return cv2.resize(half, (width, height), interpolation=cv2.INTER_LINEAR)

    def panel(self, panel: Panel) -> None:
        """Lay a piece of cloth over what is there."""
        points = self._at(panel.outline)
        reach = max(2, round(0.05 * self.scale))
        height, width = self.cover.shape
        x0, y0 = np.maximum((points.min(0) >> _SUB) - reach, 0).tolist()
        x1, y1 = ((points.max(0) >> _SUB) + reach + 1).tolist()
        window = np.s_[y0 : min(y1, height), x0 : min(x1, width)]
        mask: Bytes = np.zeros(self.cover[window].shape, np.uint8)
        if mask.size == 0:
            return
        cv2.fillPoly(mask, [points - np.array([x0 << _SUB, y0 << _SUB], np.int32)], 255, cv2.LINE_AA, _SUB)
        if panel.inside:
            mask = cv2.min(mask, self.body[window])
        soft = cv2.blur(cv2.blur(mask, (reach, reach)), (reach, reach))

        shade = cv2.convertScaleAbs(soft, alpha=-panel.shadow, beta=255)
        self.open[window] = cv2.max(cv2.multiply(self.open[window], shade, scale=1 / 255), mask)
        keep = cv2.bitwise_not(mask)
        self.groove[window] = cv2.min(self.groove[window], keep)
        self.gloss[window] = cv2.add(
            cv2.multiply(self.gloss[window], keep, scale=1 / 255), cv2.convertScaleAbs(mask, alpha=panel.fabric.gloss)
        )

        rise = soft.astype(np.float32)
        rise *= np.float32(panel.bulge / 255)
        rise += np.float32(panel.lift)
        if panel.fabric.flat:
            cloth = np.full((*mask.shape, 3), panel.fabric.colour, np.uint8)
        else:
            u, v = self._threads(window, panel, mask.shape)
            cloth = self._cloth(panel.fabric, u, v)
            if panel.fabric.relief != "flat":
                rise += _relief(panel.fabric, u, v)
        self.colour[window] = _over(self.colour[window], cloth, mask)
        cv2.copyTo(self._woven(panel.fabric, mask.shape), mask, self.tone[window])
        ground = self.relief[window]
        ground += (rise - ground) * (mask.astype(np.float32) * np.float32(1 / 255))
        self.cover[window] = cv2.max(self.cover[window], mask)
        if panel.body:
            self.body[window] = cv2.max(self.body[window], mask)

    def _threads(self, window: tuple[slice, slice], panel: Panel, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """Cloth coordinates of every pixel, garment units; folds pull the pattern with them."""
        y = ((np.arange(shape[0], dtype=np.float32) + window[0].start) / self.scale + np.float32(self.low[1]))[:, None]
        x = ((np.arange(shape[1], dtype=np.float32) + window[1].start) / self.scale + np.float32(self.low[0]))[None, :]
        c, s = np.float32(math.cos(panel.turn)), np.float32(math.sin(panel.turn))
        pull = self.folds[window] * np.float32(0.4)
        return c * x + s * y + pull, c * y - s * x + pull

    def _cloth(self, fabric: Fabric, u: Floats, v: Floats) -> Bytes:
        """Colour (h, w, 3) of a fabric."""
        if fabric.pattern == "plain":
            cloth: Bytes = np.empty((*u.shape, 3), np.uint8)
            cloth[:] = fabric.colour
        else:
            side = max(6, round(fabric.period * self.scale))
            per_unit = np.float32(side / fabric.period)
            cloth = cv2.remap(
                tile(fabric, side), u * per_unit, v * per_unit, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
            )
        if fabric.fade is not None:
            amount = cv2.convertScaleAbs(v, alpha=255 / 1.6, beta=-255 * 0.25)
            amount[v < 0.4] = 0
            hem: Bytes = np.empty_like(cloth)
            hem[:] = fabric.fade
            cloth = blend(cloth, hem, amount)
        return cloth

    def _woven(self, fabric: Fabric, shape: tuple[int, ...]) -> Floats:
        """Brightness of the threads, 1 on average, from a random place in the weave."""
        if fabric.roughness == 0:
            return np.ones(shape, np.float32)
        threads = weave(fabric.weave)
        rows, columns = (min(side, 512) for side in shape)
        y, x = int(self.rng.integers(513 - rows)), int(self.rng.integers(513 - columns))
        part = threads[y : y + rows, x : x + columns] * np.float32(1.1 * fabric.roughness) + np.float32(1)
        if part.shape != shape:
            part = np.pad(part, ((0, shape[0] - rows), (0, shape[1] - columns)), mode="wrap")
        return part

    def line(self, line: Line) -> None:
        """Sew or draw a line."""
        thickness = max(1, round(line.width * self.scale))
        runs = [self._at(run) for run in (_dashes(line) if line.dash else [line.points])]
        cv2.polylines(self.colour, runs, False, line.colour, thickness, cv2.LINE_AA, _SUB)
        if line.groove:
            cv2.polylines(self.groove, runs, False, min(255, int(255 * line.groove)), thickness + 1, cv2.LINE_AA, _SUB)

    def disc(self, disc: Disc) -> None:
        """Sew on a button: its shadow, its rim, its face and the thread."""
        (x, y), radius = self._at(np.array([disc.centre]))[0].tolist(), disc.radius * self.scale * (1 << _SUB)

        def circle(dx: float, dy: float, size: float, factor: float) -> None:
            centre = (int(x + dx * radius), int(y + dy * radius))
            cv2.circle(
                self.colour, centre, max(4, int(radius * size)), darker(disc.colour, factor), -1, cv2.LINE_AA, _SUB
            )

        circle(0.25, 0.4, 1.15, 0.35)
        circle(0, 0, 1.05, 0.75)
        circle(0, 0, 0.85, 1.0)
        circle(-0.25, -0.3, 0.35, 1.6)
        if disc.radius * self.scale > 4:
            for dx, dy in ((-0.25, 0.25), (0.25, 0.25), (-0.25, -0.25), (0.25, -0.25)):
                circle(dx, dy, 0.14, 0.3)

    def picture(self, print_: Print) -> None:
        """Print a picture on the body; folds are lit over it as they are over the cloth."""
        height, width = print_.picture.shape[:2]
        size = print_.width * self.scale / width
        c, s = math.cos(print_.turn) * size, math.sin(print_.turn) * size
        x, y = ((np.array(print_.centre) - self.low) * self.scale).tolist()
        turn = np.array([[c, -s, x - c * width / 2 + s * height / 2], [s, c, y - s * width / 2 - c * height / 2]])
        span = 0.6 * math.hypot(width, height) * size
        y0, y1 = max(0, int(y - span)), min(self.cover.shape[0], int(y + span) + 1)
        x0, x1 = max(0, int(x - span)), min(self.cover.shape[1], int(x + span) + 1)
        turn[:, 2] -= (x0, y0)
        picture = print_.picture
        if size < 0.7:
            picture = cv2.resize(picture, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
            turn[:, :2] *= (width / picture.shape[1], height / picture.shape[0])
        placed = cv2.warpAffine(picture, turn, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
        mask = cv2.min(placed[..., 3], self.body[y0:y1, x0:x1])
        window = np.s_[y0:y1, x0:x1]
        self.colour[window] = blend(self.colour[window], placed[..., :3], mask)

    def lit(self, light: float, contrast: float) -> tuple[Bytes, Bytes]:
        """The finished colours multiplied by cover, and cover with the shadow on the ground in it."""
        height = self.relief + self.folds
        if self.groove.any():
            height -= cv2.blur(self.groove, (3, 3)).astype(np.float32) * np.float32(0.016 / 255)
        steep = self.scale / 8
        right = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=steep * math.cos(light))
        down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=steep * math.sin(light))
        # Light travelling along +x meets slopes that rise with x; a soft knee keeps sharp edges from burning out.
        shade = cv2.add(right, down) * np.float32(contrast)
        shade = np.float32(1.0) + shade / (np.float32(1.0) + np.abs(shade) * np.float32(0.9))
        shine = np.maximum(shade - np.float32(1.12), 0) * self.gloss * np.float32(1.3)
        shade *= self.open.astype(np.float32) * np.float32(1 / 255)
        shade *= self.tone
        lit = cv2.convertScaleAbs(cv2.multiply(self.colour, cv2.merge([shade] * 3), dtype=cv2.CV_32F))
        lit = cv2.add(lit, cv2.merge([cv2.convertScaleAbs(shine)] * 3))

        reach = 0.07 * self.scale
        away = np.array([[1, 0, reach * math.cos(light)], [0, 1, reach * 0.5 + reach * 0.5 * math.sin(light)]])
        size = self.cover.shape[::-1]
        fallen = cv2.warpAffine(self.cover, away, size)
        box = 2 * int(reach * 0.9) + 1
        fallen = cv2.blur(cv2.blur(fallen, (box, box)), (box, box))
        close = cv2.blur(self.cover, (5, 5))
        shadow = cv2.addWeighted(fallen, 0.28 + 0.16 * contrast, close, 0.2, 0)
        colour = cv2.multiply(lit, cv2.merge([self.cover] * 3), scale=1 / 255)
        return colour, cv2.max(self.cover, shadow)


@cache
def _lens(count: int) -> npt.NDArray[np.float64]:
    """Half widths (count, 1) of a lens of width 2 from tip to tip."""
    return np.sin(np.linspace(0.0, math.pi, count))[:, None]


def blend(below: Bytes, above: Bytes, mask: Bytes) -> Bytes:
    """`above` (h, w, 3) laid over `below` where `mask` (h, w) is 255, mixed where it is less."""
    keep = cv2.bitwise_not(mask)
    return cv2.add(
        cv2.multiply(above, cv2.merge([mask] * 3), scale=1 / 255),
        cv2.multiply(below, cv2.merge([keep] * 3), scale=1 / 255),
    )


def _over(below: Bytes, above: Bytes, mask: Bytes) -> Bytes:
    """As `blend`; large pieces are copied up to the outer edge of their rim, which nobody sees and costs a third."""
    if mask.size < 8000:
        return blend(below, above, mask)
    return cv2.copyTo(above, mask, below)


def _relief(fabric: Fabric, u: Floats, v: Floats) -> Floats:
    """Height of ribs and quilting, garment units."""
    turns = np.float32(math.pi / fabric.relief_period)
    tall = np.float32(fabric.relief_height)
    if fabric.relief == "rib":
        wave = np.sin(u * turns * 2)
    elif fabric.relief == "puff":
        wave = np.sqrt(np.abs(np.sin(v * turns)))
    else:
        wave = np.sqrt(np.abs(np.sin((u + v) * turns) * np.sin((u - v) * turns)))
    wave *= tall
    return wave


def _dashes(line: Line) -> list[Points]:
    """Cut a curve into stitches of `line.dash` units with gaps as long."""
    step = np.hypot(*np.diff(line.points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(step)])
    starts = np.arange(0.0, along[-1], 2 * line.dash)
    ends = np.minimum(starts + line.dash, along[-1])
    places = np.stack([starts, ends], 1)
    x, y = np.interp(places, along, line.points[:, 0]), np.interp(places, along, line.points[:, 1])
    return list(np.stack([x, y], 2))
