"""What a garment lies on or hangs before, and what lies about: floors, walls, sheets, books, cups, leaves, arms.

Draws on pictures it is given or makes; it never looks at the garment, so nothing here gives the label away.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from .fabric import PATTERNS, Bytes, Colour, Fabric, Floats, cloud, contrasting, dye, grain, tile

_AA = cv2.LINE_AA
_WOODS: tuple[Colour, ...] = (
    (82, 120, 160),
    (60, 92, 132),
    (120, 160, 192),
    (44, 62, 88),
    (160, 182, 200),
    (98, 128, 146),
)
_GROUNDS: tuple[Colour, ...] = (
    (226, 230, 232),
    (205, 212, 216),
    (176, 182, 186),
    (232, 226, 216),
    (148, 152, 156),
    (92, 96, 100),
)


def backdrop(rng: np.random.Generator, height: int, width: int) -> Bytes:
    """A background, BGR uint8 (height, width, 3)."""
    kinds = (_plain, _gradient, _wood, _tiles, _sheet, _concrete, _carpet, _room, _grass, _cloth, _terrazzo)
    chances = np.array((1.6, 1.1, 1.8, 0.9, 1.0, 1.0, 0.9, 1.1, 0.4, 0.3, 0.5))
    picture = kinds[int(rng.choice(len(kinds), p=chances / chances.sum()))](rng, height, width)
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.5, 0.25, 0.15, 0.1)))):
        thing(rng, picture)
    return picture


def _ground(rng: np.random.Generator) -> Colour:
    """A colour for a wall or a floor: mostly quiet, at times any dye."""
    if rng.random() < 0.35:
        return dye(rng)
    base = np.array(_GROUNDS[int(rng.integers(len(_GROUNDS)))]) + rng.normal(0, 6, 3)
    b, g, r = np.clip(base, 0, 255).astype(int).tolist()
    return b, g, r


def _window(rng: np.random.Generator, texture: Floats, height: int, width: int, zoom: tuple[float, float]) -> Floats:
    """A random part of a texture, magnified by `zoom` (y, x)."""
    rows, columns = (
        min(n, max(2, round(side / z))) for n, side, z in zip(texture.shape, (height, width), zoom, strict=True)
    )
    y, x = rng.integers(0, texture.shape[0] - rows + 1), rng.integers(0, texture.shape[1] - columns + 1)
    return cv2.resize(texture[y : y + rows, x : x + columns], (width, height), interpolation=cv2.INTER_LINEAR)


def _mottled(colour: Colour, brightness: Floats) -> Bytes:
    """A colour times a brightness map (1 leaves it as it is)."""
    flat: Bytes = np.empty((*brightness.shape, 3), np.uint8)
    flat[:] = colour
    return cv2.multiply(flat, cv2.merge([cv2.convertScaleAbs(brightness, alpha=128)] * 3), scale=1 / 128)


def _plain(rng: np.random.Generator, height: int, width: int) -> Bytes:
    return _mottled(_ground(rng), 1 + np.float32(0.012) * _window(rng, grain(), height, width, (1, 1)))


def _gradient(rng: np.random.Generator, height: int, width: int) -> Bytes:
    turn = rng.uniform(0, 2 * math.pi)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(math.sin(turn))
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * np.float32(math.cos(turn))
    mix = cv2.convertScaleAbs((x + y) * np.float32(0.4) + np.float32(0.5), alpha=255)
    a, b = np.array(_ground(rng)), np.array(_ground(rng))
    ramp = np.clip(a + (b - a) * np.arange(256)[:, None] / 255, 0, 255).astype(np.uint8)
    return cv2.LUT(cv2.merge([mix] * 3), ramp[None])


def _wood(rng: np.random.Generator, height: int, width: int) -> Bytes:
    upright = rng.random() < 0.4
    if upright:
        height, width = width, height
    brightness = 1 + np.float32(0.10) * _window(rng, cloud(), height, width, (0.6, 9))
    brightness += np.float32(0.05) * _window(rng, grain(), height, width, (1, 14))
    plank = height / rng.integers(3, 7)
    offset = rng.uniform(0, plank)
    for top in np.arange(-offset, height, plank):
        a, b = max(0, int(top)), max(0, int(top + plank))
        brightness[a:b] *= rng.uniform(0.86, 1.12)
        brightness[max(0, b - 1) : b + 1] *= 0.45
        end = int(rng.uniform(0, width))
        brightness[a:b, end : end + 2] *= 0.5
    wood = _mottled(_WOODS[int(rng.integers(len(_WOODS)))], brightness)
    return np.ascontiguousarray(wood.transpose(1, 0, 2)) if upright else wood


def _tiles(rng: np.random.Generator, height: int, width: int) -> Bytes:
    side = max(8, int(height / rng.uniform(2.2, 6)))
    rows, columns = height // side + 2, width // side + 2
    each = 1 + np.float32(0.05) * rng.standard_normal((rows, columns)).astype(np.float32)
    if rng.random() < 0.25:
        each[(np.arange(rows)[:, None] + np.arange(columns)) % 2 == 0] *= np.float32(rng.uniform(0.5, 0.8))
    y, x = rng.integers(0, side, 2).tolist()
    brightness = np.ascontiguousarray(np.repeat(np.repeat(each, side, 0), side, 1)[y : y + height, x : x + width])
    brightness += np.float32(0.03) * _window(rng, cloud(), height, width, (2, 2))
    picture = _mottled(_ground(rng), brightness)
    grout = (100, 104, 108) if rng.random() < 0.5 else (214, 216, 218)
    for line in range(side - y, height, side):
        cv2.line(picture, (0, line), (width, line), grout, max(1, side // 30))
    for line in range(side - x, width, side):
        cv2.line(picture, (line, 0), (line, height), grout, max(1, side // 30))
    return picture


def _sheet(rng: np.random.Generator, height: int, width: int) -> Bytes:
    """A bed sheet with soft creases: smooth noise lit from the side."""
    zoom = rng.uniform(1.0, 2.6)
    hills = _window(rng, cloud(), height, width, (zoom, zoom * rng.uniform(0.6, 1.6)))
    slope = cv2.Sobel(hills, cv2.CV_32F, 1, 1 if rng.random() < 0.3 else 0, ksize=3, scale=rng.uniform(0.15, 0.45))
    small = cv2.Sobel(_window(rng, cloud(), height, width, (0.6, 0.9)), cv2.CV_32F, 0, 1, ksize=3, scale=0.12)
    brightness = np.clip(1 + slope + small + np.float32(0.02) * _window(rng, grain(), height, width, (1, 1)), 0.5, 1.3)
    return _mottled(_ground(rng), brightness)


def _concrete(rng: np.random.Generator, height: int, width: int) -> Bytes:
    brightness = 1 + np.float32(rng.uniform(0.04, 0.12)) * _window(rng, cloud(), height, width, (2.5, 2.5))
    brightness += np.float32(0.05) * _window(rng, cloud(), height, width, (0.8, 0.8))
    brightness += np.float32(rng.uniform(0.02, 0.07)) * _window(rng, grain(), height, width, (1.5, 1.5))
    return _mottled(_ground(rng), brightness)


def _carpet(rng: np.random.Generator, height: int, width: int) -> Bytes:
    brightness = 1 + np.float32(rng.uniform(0.08, 0.18)) * _window(rng, grain(), height, width, (1.4, 1.4))
    brightness += np.float32(0.04) * _window(rng, cloud(), height, width, (3, 3))
    return _mottled(_ground(rng), brightness)


def _room(rng: np.random.Generator, height: int, width: int) -> Bytes:
    """A wall, a skirting board and a floor."""
    picture = _concrete(rng, height, width) if rng.random() < 0.3 else _plain(rng, height, width)
    floor = int(height * rng.uniform(0.68, 0.92))
    picture[floor:] = _wood(rng, height, width)[floor:]
    board = max(2, height // 28)
    cv2.rectangle(picture, (0, floor - board), (width, floor), (225, 228, 230), -1)
    cv2.line(picture, (0, floor), (width, floor), (60, 62, 64), max(1, height // 160))
    if rng.random() < 0.4:  # a window or a picture frame
        x, y = int(rng.uniform(-0.1, 0.8) * width), int(rng.uniform(-0.15, 0.3) * height)
        size = (int(rng.uniform(0.2, 0.35) * width), int(rng.uniform(0.25, 0.5) * height))
        cv2.rectangle(picture, (x, y), (x + size[0], y + size[1]), dye(rng), -1)
        cv2.rectangle(picture, (x, y), (x + size[0], y + size[1]), _ground(rng), max(2, height // 50), _AA)
    return picture


def _grass(rng: np.random.Generator, height: int, width: int) -> Bytes:
    brightness = 1 + np.float32(0.22) * _window(rng, grain(), height, width, (3.5, 1.2))
    brightness += np.float32(0.15) * _window(rng, cloud(), height, width, (1, 1))
    return _mottled((52, int(rng.uniform(105, 135)), int(rng.uniform(80, 105))), np.maximum(brightness, 0.2))


def _cloth(rng: np.random.Generator, height: int, width: int) -> Bytes:
    """A table cloth or a blanket with a pattern."""
    colour = _ground(rng)
    fabric = Fabric(colour, str(rng.choice(list(PATTERNS))), contrasting(rng, colour, 25), dye(rng))
    side = int(height * rng.uniform(0.1, 0.4)) + 4
    turn = rng.uniform(-0.6, 0.6)
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    return cv2.remap(tile(fabric, side), c * x + s * y, c * y - s * x, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _terrazzo(rng: np.random.Generator, height: int, width: int) -> Bytes:
    picture = _plain(rng, height, width)
    chips = [_ground(rng) for _ in range(4)]
    corners = rng.uniform((-0.02, -0.02), (1.02, 1.02), (90, 1, 2)) * (width, height)
    shapes = np.rint(corners + rng.normal(0, height / 55, (90, 4, 2))).astype(np.int32)
    for i, colour in enumerate(chips):
        hulls = [cv2.convexHull(shape) for shape in shapes[i::4]]
        cv2.fillPoly(picture, hulls, colour, _AA)
    return picture


def thing(rng: np.random.Generator, picture: Bytes) -> None:
    """Put something near the edge of the picture: a book, a cup, a phone, leaves, a belt."""
    height, width = picture.shape[:2]
    side = rng.uniform(0, 2 * math.pi)
    x = width * (0.5 + rng.uniform(0.38, 0.56) * math.cos(side))
    y = height * (0.5 + rng.uniform(0.38, 0.56) * math.sin(side))
    size = height * rng.uniform(0.16, 0.34)
    kind = (_book, _cup, _phone, _leaves, _belt)[int(rng.choice(5, p=(0.3, 0.2, 0.2, 0.2, 0.1)))]
    kind(rng, picture, x, y, size)


def _fill(picture: Bytes, points: npt.ArrayLike, colour: Colour) -> None:
    cv2.fillPoly(picture, [np.rint(np.array(points, float) * 16).astype(np.int32)], colour, _AA, 4)


def _shadow(picture: Bytes, points: npt.NDArray[np.float64], reach: float) -> None:
    """Darken the ground beside an outline."""
    low = np.maximum(np.floor(points.min(0) - 3 * reach), 0).astype(int)
    high = np.ceil(points.max(0) + 3 * reach).astype(int)
    window = picture[low[1] : high[1], low[0] : high[0]]
    if window.size == 0:
        return
    mask: Bytes = np.zeros(window.shape[:2], np.uint8)
    _fill(mask, points - low + (reach * 0.5, reach * 0.8), (130, 130, 130))
    box = 2 * int(reach) + 1
    light = cv2.bitwise_not(cv2.blur(cv2.blur(mask, (box, box)), (box, box)))
    window[:] = cv2.multiply(window, cv2.merge([light] * 3), scale=1 / 255)


def _slab(x: float, y: float, width: float, height: float, turn: float) -> npt.NDArray[np.float64]:
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float) * (width / 2, height / 2)
    c, s = math.cos(turn), math.sin(turn)
    turned: npt.NDArray[np.float64] = corners @ np.array([(c, s), (-s, c)]) + np.array([x, y])
    return turned


def _book(rng: np.random.Generator, picture: Bytes, x: float, y: float, size: float) -> None:
    turn, colour = rng.uniform(0, math.pi), dye(rng)
    _shadow(picture, _slab(x, y, size * 1.4, size, turn), size * 0.06)
    _fill(picture, _slab(x, y, size * 1.4, size, turn), (212, 222, 228))
    _fill(picture, _slab(x - size * 0.03, y - size * 0.03, size * 1.38, size * 0.97, turn), colour)
    _fill(picture, _slab(x, y, size * 0.8, size * 0.3, turn), contrasting(rng, colour, 30))


def _cup(rng: np.random.Generator, picture: Bytes, x: float, y: float, size: float) -> None:
    colour, at = dye(rng), (int(x * 16), int(y * 16))
    ring = np.stack(
        [x + size * 0.4 * np.cos(np.linspace(0, 6.28, 24)), y + size * 0.4 * np.sin(np.linspace(0, 6.28, 24))], 1
    )
    _shadow(picture, ring, size * 0.09)
    handle = rng.uniform(0, 2 * math.pi)
    end = (int((x + size * 0.55 * math.cos(handle)) * 16), int((y + size * 0.55 * math.sin(handle)) * 16))
    cv2.line(picture, at, end, colour, max(2, int(size * 0.12)), _AA, 4)
    for radius, shade in ((0.4, colour), (0.345, (70, 76, 82)), (0.33, (36, 58, 84))):
        cv2.circle(picture, at, int(size * radius * 16), shade, -1, _AA, 4)


def _phone(rng: np.random.Generator, picture: Bytes, x: float, y: float, size: float) -> None:
    turn = rng.uniform(0, math.pi)
    _shadow(picture, _slab(x, y, size * 0.55, size * 1.1, turn), size * 0.05)
    _fill(picture, _slab(x, y, size * 0.55, size * 1.1, turn), (44, 42, 42))
    _fill(picture, _slab(x, y, size * 0.5, size * 1.02, turn), (84, 62, 46) if rng.random() < 0.6 else (26, 24, 24))


def _leaves(rng: np.random.Generator, picture: Bytes, x: float, y: float, size: float) -> None:
    start = rng.uniform(0, 2 * math.pi)
    green = np.array((58, 112, 70)) * rng.uniform(0.6, 1.3)
    for i in range(int(rng.integers(4, 8))):
        turn = start + i * 0.75 + rng.normal(0, 0.15)
        along = np.array([math.cos(turn), math.sin(turn)])
        across = np.array([-along[1], along[0]])
        t = np.linspace(0, 1, 9)[:, None]
        belly = np.sin(t * math.pi) * size * 0.13
        spine = np.array([x, y]) + along * size * 0.75 * t
        b, g, r = np.clip(green * rng.uniform(0.85, 1.15), 0, 255).astype(int).tolist()
        outline = np.concatenate([spine + across * belly, (spine - across * belly)[::-1]])
        _fill(picture, outline, (b, g, r))
        tip = spine[-1]
        cv2.line(
            picture,
            (int(x * 16), int(y * 16)),
            (int(tip[0] * 16), int(tip[1] * 16)),
            (b // 2, g * 2 // 3, r // 2),
            1,
            _AA,
            4,
        )


def _belt(rng: np.random.Generator, picture: Bytes, x: float, y: float, size: float) -> None:
    turn, t = rng.uniform(0, 2 * math.pi), np.linspace(-1, 1, 30)
    points = np.stack([x + size * 2 * t * math.cos(turn), y + size * 2 * t * math.sin(turn)], 1)
    points += np.stack([np.sin(t * 3), np.cos(t * 2.3)], 1) * size * 0.35
    fixed = np.rint(points * 16).astype(np.int32)
    cv2.polylines(picture, [fixed + 24], False, (50, 50, 50), max(3, int(size * 0.17)), _AA, 4)
    cv2.polylines(
        picture, [fixed], False, (38, 54, 84) if rng.random() < 0.6 else (34, 34, 36), max(3, int(size * 0.15)), _AA, 4
    )


def obstruct(rng: np.random.Generator, picture: Bytes) -> None:
    """Put something in front of the garment: an arm that reaches in, a box, leaves."""
    height, width = picture.shape[:2]
    choice = rng.random()
    if choice < 0.45:
        _arm(rng, picture)
        return
    side = rng.uniform(0, 2 * math.pi)
    x, y = width * (0.5 + 0.3 * math.cos(side)), height * (0.5 + 0.34 * math.sin(side))
    kind = _book if choice < 0.65 else _leaves if choice < 0.85 else _phone
    kind(rng, picture, x, y, height * rng.uniform(0.16, 0.3))


def _arm(rng: np.random.Generator, picture: Bytes) -> None:
    """A forearm with a hand, from outside the picture towards its middle."""
    height, width = picture.shape[:2]
    side = rng.uniform(0, 2 * math.pi)
    away = np.array([math.cos(side), math.sin(side)])
    middle = np.array([width, height]) * (0.5 + rng.uniform(-0.14, 0.14, 2))
    hand = middle + away * np.array([width, height]) * rng.uniform(0.2, 0.34)
    outer = middle + away * math.hypot(width, height)
    thick = height * rng.uniform(0.085, 0.12)
    across = np.array([-away[1], away[0]]) * thick / 2
    tone = np.array((150, 180, 222)) * rng.uniform(0.35, 1.05) + rng.normal(0, 4, 3)

    def skin(factor: float) -> Colour:
        b, g, r = np.clip(tone * factor, 0, 255).astype(int).tolist()
        return b, g, r

    wrist = hand + away * thick * 0.55
    limb = np.array([wrist + across * 0.75, outer + across * 1.7, outer - across * 1.7, wrist - across * 0.75])
    _shadow(picture, limb, thick * 0.16)
    _fill(picture, limb, skin(0.88))
    _fill(picture, limb * 0.5 + limb[::-1] * 0.5 + (limb - limb[::-1]) * 0.28, skin(1.0))
    thumb = float(rng.choice((-1.0, 1.0)))
    for finger, (spread, reach) in enumerate(
        ((0.36, 1.15), (0.12, 1.4), (-0.1, 1.35), (-0.32, 1.1), (thumb * 1.15, 0.95))
    ):
        turn = side + math.pi + spread
        base = hand + across * (0.0 if finger == 4 else 0.8 * (finger - 1.5) / 1.5)
        tip = hand + np.array([math.cos(turn), math.sin(turn)]) * thick * reach
        line = np.rint(np.array([base, tip]) * 16).astype(np.int32)
        cv2.polylines(picture, [line], False, skin(0.74), max(2, round(thick * 0.36)), _AA, 4)
        cv2.polylines(picture, [line], False, skin(0.97), max(1, round(thick * 0.29)), _AA, 4)
    palm = hand + away * thick * 0.1
    axes = np.rint(np.array([0.62, 0.52]) * thick).astype(int).tolist()
    cv2.ellipse(picture, np.rint(palm).astype(int).tolist(), axes, math.degrees(side), 0, 360, skin(0.97), -1, _AA)
