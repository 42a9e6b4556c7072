"""Pictures that are printed on T-shirts: words, suns, mountains, planets and other figures, drawn on nothing.

Every picture is BGRA with transparent ground, so that the cloth shows through.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .fabric import Colour, dye

_WORDS = (
    "NORTH",
    "1984",
    "EDGE",
    "SURF",
    "LAB",
    "07",
    "WILD",
    "RIVER",
    "23",
    "TOKYO",
    "BASIC",
    "OSLO",
    "MOON",
    "NOVA",
    "99",
    "HELLO",
    "PARIS",
    "RUN",
    "JAZZ",
)
_AA = cv2.LINE_AA


class _Sheet:
    """A transparent sheet with coordinates 0..1 across its width, drawn with solid inks."""

    def __init__(self, height: int, width: int) -> None:
        self.ink = np.zeros((height, width, 4), np.uint8)
        self.unit = width

    def polygon(self, points: npt.ArrayLike, colour: Colour) -> None:
        fixed = np.rint(np.array(points, float) * self.unit * 16).astype(np.int32)
        cv2.fillPoly(self.ink, [fixed], (*colour, 255), _AA, 4)

    def circle(self, x: float, y: float, radius: float, colour: Colour, thickness: float = 0.0) -> None:
        centre = (int(x * self.unit * 16), int(y * self.unit * 16))
        line = max(1, round(thickness * self.unit)) if thickness else -1
        cv2.circle(self.ink, centre, int(radius * self.unit * 16), (*colour, 255), line, _AA, 4)

    def line(self, points: npt.ArrayLike, colour: Colour, thickness: float) -> None:
        fixed = np.rint(np.array(points, float) * self.unit * 16).astype(np.int32)
        cv2.polylines(self.ink, [fixed], False, (*colour, 255), max(1, round(thickness * self.unit)), _AA, 4)

    def clear(self, top: float, bottom: float) -> None:
        self.ink[int(top * self.unit) : int(bottom * self.unit)] = 0

    def word(self, text: str, middle: float, width: float, colour: Colour, bold: float = 0.18) -> None:
        """A word of the given width, centred at height `middle`."""
        font = cv2.FONT_HERSHEY_DUPLEX if len(text) > 2 else cv2.FONT_HERSHEY_SIMPLEX
        (w, h), _ = cv2.getTextSize(text, font, 1.0, 1)
        size = width * self.unit / w
        thick = max(1, round(h * size * bold))
        place = (round((self.unit - w * size) / 2), round(middle * self.unit + h * size / 2))
        cv2.putText(self.ink, text, place, font, size, (*colour, 255), thick, _AA)


def picture(rng: np.random.Generator, first: Colour, second: Colour) -> npt.NDArray[np.uint8]:
    """One of the figures in two inks (and at times a third); BGRA uint8, 128 pixels wide or less."""
    figures = (_word, _block, _sunset, _mountains, _planet, _star, _rings, _waves, _upright, _column, _badge)
    chances = np.array((2.2, 1.2, 1.2, 1.2, 1.0, 1.0, 1.0, 0.8, 1.2, 0.8, 1.2))
    return figures[int(rng.choice(len(figures), p=chances / chances.sum()))](rng, first, second)


def _word(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(72, 128)
    sheet.word(str(rng.choice(_WORDS)), 0.24, 0.92, a)
    if rng.random() < 0.6:
        sheet.line([(0.04, 0.48), (0.96, 0.48)], b, 0.025)
    return sheet.ink


def _block(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(112, 128)
    sheet.polygon([(0.02, 0.02), (0.98, 0.02), (0.98, 0.85), (0.02, 0.85)], a)
    if rng.random() < 0.5:
        sheet.circle(0.5, 0.43, 0.27, b)
    else:
        sheet.word(str(rng.choice(_WORDS)), 0.43, 0.8, b)
    return sheet.ink


def _sunset(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(128, 128)
    mix = np.linspace(0, 1, 128)[:, None, None]
    sheet.ink[..., :3] = np.array((60, 190, 250)) * (1 - mix) + np.array((90, 60, 210)) * mix
    cv2.circle(disc := np.zeros((128, 128), np.uint8), (64, 64), 58, 255, -1, _AA)
    sheet.ink[..., 3] = disc
    for i in range(5):
        y = 0.55 + 0.085 * i
        sheet.clear(y, y + 0.012 + 0.008 * i)
    return sheet.ink


def _mountains(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(104, 128)
    if rng.random() < 0.6:
        sheet.circle(rng.uniform(0.3, 0.7), 0.24, 0.15, dye(rng))
    for x, y, half, colour in ((0.34, 0.2, 0.32, b), (0.62, 0.08, 0.38, a)):
        sheet.polygon([(x - half, 0.72), (x, y), (x + half, 0.72)], colour)
        top = 0.3 * (0.72 - y)
        snow = [
            (x, y),
            (x + half * 0.3, y + top),
            (x + half * 0.1, y + top * 0.75),
            (x - half * 0.05, y + top * 1.05),
            (x - half * 0.3, y + top),
        ]
        sheet.polygon(snow, (240, 240, 240))
    return sheet.ink


def _planet(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(112, 128)
    sheet.circle(0.5, 0.43, 0.28, a)
    sheet.circle(0.41, 0.35, 0.07, b)
    sheet.circle(0.58, 0.52, 0.05, b)
    cv2.ellipse(sheet.ink, (64, 55), (60, 15), -18, -15, 195, (*b, 255), 4, _AA)
    for x, y in rng.uniform((0.03, 0.03), (0.97, 0.83), (7, 2)):
        sheet.circle(x, y, 0.014, b)
    return sheet.ink


def _star(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(128, 128)
    points = int(rng.choice((5, 5, 6, 8)))
    turn = np.arange(2 * points) * np.pi / points - np.pi / 2
    radius = np.where(np.arange(2 * points) % 2 == 0, 0.46, 0.2)
    sheet.polygon(np.stack([0.5 + radius * np.cos(turn), 0.5 + radius * np.sin(turn)], 1), a)
    if rng.random() < 0.4:
        sheet.circle(0.5, 0.5, 0.12, b)
    return sheet.ink


def _rings(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(112, 128)
    for x, y, colour in ((0.34, 0.3, a), (0.66, 0.3, b), (0.5, 0.56, dye(rng))):
        sheet.circle(x, y, 0.24, colour, 0.06)
    return sheet.ink


def _waves(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(90, 128)
    x = np.linspace(0.04, 0.96, 40)
    for i in range(4):
        y = 0.12 + 0.15 * i + 0.05 * np.sin(x * 11 + 0.7 * i)
        sheet.line(np.stack([x, y], 1), (a, b)[i % 2], 0.05)
    return sheet.ink


def _upright(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    """A word that runs down the front."""
    sheet = _Sheet(30, 128)
    sheet.word(str(rng.choice(_WORDS)), 0.12, 0.94, a, 0.16)
    return np.ascontiguousarray(np.rot90(sheet.ink, -1))


def _column(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    """A stripe or a row of dots that runs down the front, much like a placket."""
    sheet = np.zeros((160, 24, 4), np.uint8)
    if rng.random() < 0.6:
        cv2.rectangle(sheet, (5, 2), (18, 157), (*a, 255), -1)
    for y in range(16, 150, int(rng.integers(20, 30))):
        cv2.circle(sheet, (12, y), 5, (*b, 255), -1, _AA)
    return sheet


def _badge(rng: np.random.Generator, a: Colour, b: Colour) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(128, 128)
    sheet.circle(0.5, 0.5, 0.47, a)
    sheet.circle(0.5, 0.5, 0.4, b, 0.02)
    sheet.word(str(rng.choice(_WORDS)), 0.5, 0.56, b)
    return sheet.ink
