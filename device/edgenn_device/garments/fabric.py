"""Cloth before it is cut: colours, woven and printed patterns as tiles that repeat, and how rough or shiny it is.

Knows nothing of garments; a tile is drawn at the scale it will be seen at, so that nothing has to be shrunk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Colour: TypeAlias = tuple[int, int, int]  # blue, green, red
# OpenCV's annotations do not follow element types through its functions; these names say them to the reader.
Bytes: TypeAlias = npt.NDArray[Any]  # uint8, (h, w) or (h, w, 3)
Floats: TypeAlias = npt.NDArray[Any]  # float32, (h, w)

# Dyes that clothes are sold in, as 0xRRGGBB; some stand twice because they are common.
_DYES = (
    0xF4F3EF,
    0xF4F3EF,
    0xE9E4D8,
    0x1C1C1F,
    0x1C1C1F,
    0x2D2F34,
    0x4A4D52,
    0x8D9196,
    0xB9BCC0,
    0x1D2A44,
    0x1D2A44,
    0x27406B,
    0x4F6F9F,
    0x8FB0CF,
    0xC5D8E6,
    0xA32A2F,
    0xC8423B,
    0x6D1F2C,
    0x2F4A3A,
    0x5D6B45,
    0x8A8F5C,
    0x9FB79B,
    0xC9A13B,
    0xE0BD57,
    0xC7AD86,
    0xA47F58,
    0x5B4030,
    0xD99FA6,
    0xE6C3C3,
    0x8F7AA8,
    0x5A3F6B,
    0x2F7F86,
    0x6FB1AD,
    0xD9773A,
    0xF0A07A,
    0x3F5F4F,
)


def dye(rng: np.random.Generator, least: float = 0.0, most: float = 255.0) -> Colour:
    """One of the common colours, no two lots quite the same, as bright as `least` to `most` if it can be."""
    for _ in range(20):
        code = _DYES[int(rng.integers(len(_DYES)))]
        value = np.array([code & 255, code >> 8 & 255, code >> 16], float)
        value = np.clip(value * rng.uniform(0.9, 1.08) + rng.normal(0, 5, 3), 8, 250)
        colour = int(value[0]), int(value[1]), int(value[2])
        if least <= brightness(colour) <= most:
            break
    return colour


def brightness(colour: Colour) -> float:
    """Perceived brightness 0..255 (the luma weights of ITU-R BT.601)."""
    return 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]


def contrasting(rng: np.random.Generator, colour: Colour, least: float = 60.0) -> Colour:
    """A colour whose brightness differs from `colour` by `least` or more."""
    for _ in range(20):
        other = dye(rng)
        if abs(brightness(other) - brightness(colour)) >= least:
            return other
    return (245, 246, 246) if brightness(colour) < 128 else (30, 28, 28)


def darker(colour: Colour, factor: float) -> Colour:
    """The colour times `factor`; factors above 1 lighten it towards white."""
    if factor <= 1:
        return _scaled(colour, factor)
    return (
        int(255 - (255 - colour[0]) / factor),
        int(255 - (255 - colour[1]) / factor),
        int(255 - (255 - colour[2]) / factor),
    )


@dataclass(frozen=True)
class Fabric:
    """A cloth.

    Attributes:
      colour: ground colour.
      pattern: "plain" or a name in `PATTERNS`.
      second, third: colours of the pattern.
      period: length after which the pattern repeats, garment units.
      weave: "smooth", "jersey", "heather", "twill" or "fleece".
      roughness: standard deviation of the weave's brightness, as a fraction.
      relief: "flat", "rib" (ridges along the pattern's v axis), "puff" (quilted across) or "diamond" (quilted).
      relief_period, relief_height: of the ridges, garment units.
      gloss: 0 for cotton, 1 for patent leather.
      fade: colour at the hem, or None.
    """

    colour: Colour
    pattern: str = "plain"
    second: Colour = (0, 0, 0)
    third: Colour = (0, 0, 0)
    period: float = 0.2
    weave: str = "jersey"
    roughness: float = 0.03
    relief: str = "flat"
    relief_period: float = 0.2
    relief_height: float = 0.03
    gloss: float = 0.0
    fade: Colour | None = None

    @property
    def flat(self) -> bool:
        """Whether it looks the same everywhere, but for its threads."""
        return self.pattern == "plain" and self.fade is None and self.relief == "flat"

    def dyed(self, colour: Colour) -> Fabric:
        """The same cloth, plain, in another colour."""
        return replace(self, colour=colour, pattern="plain", fade=None)

    def shaded(self, factor: float) -> Fabric:
        """The same cloth, darker: the side that light does not reach."""
        return replace(
            self,
            colour=_scaled(self.colour, factor),
            second=_scaled(self.second, factor),
            third=_scaled(self.third, factor),
            fade=None,
        )

    def ribbed(self, period: float = 0.05, height: float = 0.004) -> Fabric:
        """Plain rib-knit of the same colour, as at cuffs and necks."""
        return replace(self.dyed(self.colour), relief="rib", relief_period=period, relief_height=height)


def _scaled(colour: Colour, factor: float) -> Colour:
    return int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor)


def tile(fabric: Fabric, side: int) -> Bytes:
    """One period of the pattern, BGR (side, side, 3), drawn so that its edges meet when repeated."""
    picture = np.empty((side, side, 3), np.uint8)
    picture[:] = fabric.colour
    PATTERNS[fabric.pattern](picture, fabric)
    return picture


def _bands(picture: Bytes, colour: Colour, edges: tuple[tuple[float, float], ...], across: bool) -> None:
    """Lay half-transparent bands over the tile, horizontal or vertical: where they cross they are fuller, as woven."""
    side = len(picture)
    cover = np.zeros(side, np.float32)
    place = (np.arange(side * 4) + 0.5) / (side * 4)
    for low, high in edges:
        cover = np.maximum(cover, ((place >= low) & (place < high)).reshape(side, 4).mean(1))
    cover = cover[None, :, None] if across else cover[:, None, None]
    picture[:] = picture + (np.array(colour, np.float32) - picture) * cover


def _stripes(picture: Bytes, f: Fabric) -> None:
    _bands(picture, f.second, ((0.25, 0.7),), across=True)


def _pinstripes(picture: Bytes, f: Fabric) -> None:
    _bands(picture, f.second, ((0.4, 0.55),), across=True)


def _hoops(picture: Bytes, f: Fabric) -> None:
    _bands(picture, f.second, ((0.3, 0.72),), across=False)


def _wide_hoops(picture: Bytes, f: Fabric) -> None:
    _bands(picture, f.second, ((0.1, 0.45),), across=False)
    _bands(picture, f.third, ((0.5, 0.62),), across=False)


def _half(a: Colour, b: Colour) -> Colour:
    return (a[0] + b[0]) // 2, (a[1] + b[1]) // 2, (a[2] + b[2]) // 2


def _gingham(picture: Bytes, f: Fabric) -> None:
    halfway = _half(f.colour, f.second)
    _bands(picture, halfway, ((0.25, 0.75),), across=True)
    rows = slice(len(picture) // 4, len(picture) * 3 // 4)
    picture[rows] = picture[rows] // 2 + np.array(f.second, np.uint8) // 2


def _tartan(picture: Bytes, f: Fabric) -> None:
    _bands(picture, _half(f.colour, f.second), ((0.1, 0.5),), across=True)
    rows = slice(len(picture) // 10, len(picture) // 2)
    picture[rows] = picture[rows] // 2 + np.array(f.second, np.uint8) // 2
    for across in (True, False):
        _bands(picture, f.third, ((0.28, 0.33), (0.74, 0.78)), across=across)


def _windowpane(picture: Bytes, f: Fabric) -> None:
    for across in (True, False):
        _bands(picture, f.second, ((0.45, 0.54),), across=across)


def _spots(picture: Bytes, centres: tuple[tuple[float, float, float], ...], colour: Colour) -> None:
    """Discs (x, y, radius, fractions of the tile) that go on across its edges."""
    side = len(picture)
    for x, y, radius in centres:
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                centre = (int((x + dx) * side * 16), int((y + dy) * side * 16))
                cv2.circle(picture, centre, max(8, int(radius * side * 16)), colour, -1, cv2.LINE_AA, 4)


def _dots(picture: Bytes, f: Fabric) -> None:
    _spots(picture, ((0.25, 0.25, 0.13), (0.75, 0.75, 0.13)), f.second)


def _blossoms(picture: Bytes, f: Fabric) -> None:
    for x, y, size in ((0.22, 0.25, 0.075), (0.72, 0.42, 0.095), (0.38, 0.76, 0.085), (0.9, 0.9, 0.06)):
        turn = np.arange(5) * 2 * np.pi / 5 + 9 * x
        petals = tuple((x + 1.1 * size * np.cos(a), y + 1.1 * size * np.sin(a), size * 0.8) for a in turn)
        _spots(picture, petals, f.second)
        _spots(picture, ((x, y, size * 0.6),), f.third)


def _camouflage(picture: Bytes, f: Fabric) -> None:
    side = len(picture)
    for colour, shift in ((f.second, 0), (f.third, 71)):
        blobs = np.roll(cloud(), (shift, 2 * shift), (0, 1))
        blobs = cv2.resize(blobs, (side, side), interpolation=cv2.INTER_AREA if side < 256 else cv2.INTER_LINEAR)
        cover = np.clip((blobs - 0.35) * 6 + 0.5, 0, 1)[..., None]
        picture[:] = picture + (np.array(colour, np.float32) - picture) * cover


PATTERNS = {
    "stripes": _stripes,
    "pinstripes": _pinstripes,
    "hoops": _hoops,
    "wide hoops": _wide_hoops,
    "gingham": _gingham,
    "tartan": _tartan,
    "windowpane": _windowpane,
    "dots": _dots,
    "blossoms": _blossoms,
    "camouflage": _camouflage,
}


@cache
def grain() -> Floats:
    """White noise (512, 512), mean 0, standard deviation 1, that repeats without a seam; always the same."""
    return np.random.default_rng(7).standard_normal((512, 512), np.float32)


@cache
def cloud() -> Floats:
    """Smooth noise (256, 256) of mean 0 and standard deviation 1 that repeats without a seam; always the same."""
    spectrum = np.fft.rfft2(np.random.default_rng(8).standard_normal((256, 256)))
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :]) * 256
    smooth = np.fft.irfft2(spectrum * np.exp(-((frequency / 5) ** 2)), (256, 256))
    return np.asarray((smooth - smooth.mean()) / smooth.std(), np.float32)


@cache
def weave(kind: str) -> Floats:
    """Brightness of the threads (512, 512), mean 0, standard deviation 1, one pixel a thread."""
    noise = grain()
    blur = {"smooth": (3, 3), "jersey": (1, 3), "heather": (5, 1), "twill": (1, 1), "fleece": (5, 5)}[kind]
    woven = cv2.blur(noise, blur, borderType=cv2.BORDER_REFLECT)
    if kind == "twill":
        y, x = np.mgrid[:512, :512]
        woven = woven * 0.8 + np.where((x + y) % 4 < 2, 0.7, -0.7).astype(np.float32)
    return np.ascontiguousarray((woven - woven.mean()) / woven.std(), dtype=np.float32)
