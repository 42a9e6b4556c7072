"""What closes around the neck: collars that fold down, stand up or turn into lapels, and hoods.

Each takes the neck's measures and gives the pieces, right side and left; which garment wears which is not decided here.
"""

from __future__ import annotations

import numpy as np

from .fabric import Colour, Fabric, contrasting, darker
from .pieces import Disc, Line, Panel, Piece, Point, Points, mirrored, path, strip
from .torso import Body

_FLIP = np.array([-1.0, 1.0])


def _nape(neck: float, width: float, rise: float) -> Points:
    """A band around the back of the neck, seen above what lies in front of it."""
    x = neck * 0.98
    return strip(path((-x, -0.08), ((-x * 0.5, -rise), (x * 0.5, -rise), (x, -0.08))), width, 1)


def inside(body: Body, cloth: Fabric) -> Piece:
    """The inner side of a collar at the back of the neck, down to where the front begins."""
    x = body.neck
    top = path((-x * 1.02, -0.06), ((-x * 0.6, -0.2), (x * 0.6, -0.2), (x * 1.02, -0.06)))
    return Panel(np.concatenate([top, body.neckline(0.04)[::-1]]), cloth.shaded(0.62), bulge=0.0)


def fold_down(neck: float, front: Point, tip: Point, cloth: Fabric, seam: Colour, stiff: float = 1.0) -> list[Piece]:
    """Two leaves that fold down over the shoulders.

    Args:
      neck: as in `Body`.
      front: where the right leaf meets the front edge; `tip`: its point.
      stiff: 1 for shirt cloth; more lies higher and reaches further out.
    """
    x, out = neck, 0.1 * stiff
    leaf = path(
        (x * 0.97, -0.09),
        ((x * 0.94, front[1] * 0.5), front),
        (tip,),
        ((x + out + 0.04, 0.2), (x + out, 0.0)),
        ((x + out * 0.6, -0.09), (x * 0.97, -0.09)),
    )
    rim = path(
        (front[0] + 0.035, front[1] + 0.02),
        ((tip[0] - 0.01, tip[1] - 0.05),),
        ((x + out, 0.2), (x + out - 0.025, 0.02)),
    )
    pieces: list[Piece] = [Panel(_nape(neck, 0.035 * stiff, 0.17), cloth, lift=0.02, shadow=0.25)]
    for flip in (-1.0, 1.0):
        side = np.array([flip, 1.0])
        pieces.append(Panel(leaf * side, cloth, turn=-flip * 0.5, lift=0.028 * stiff, bulge=0.025 * stiff, shadow=0.5))
        pieces.append(Line(rim * side, seam, 0.008, groove=0.35))
    return pieces


def lapels(rng: np.random.Generator, body: Body, edge: Points, cloth: Fabric, seam: Colour) -> list[Piece]:
    """A blazer's: the fronts' edges turn outwards and meet the collar at a notch; below them the buttons."""
    x, wide = body.neck, rng.uniform(0.16, 0.26)
    notch = rng.uniform(0.34, 0.46)
    fold = edge[: int(np.argmin(np.abs(edge[:, 1] - 1.0))) + 1]
    end = (float(fold[-1, 0]), float(fold[-1, 1]))
    outer = path(
        end, ((x + wide * 0.9, 0.75), (x + wide + 0.06, notch)), ((x + 0.02, notch + 0.06),), ((x - 0.02, 0.1),)
    )
    leaf = np.concatenate([fold, outer])
    collar = path(
        (x * 0.9, -0.1),
        ((x * 0.86, 0.2), (x * 0.8, 0.33)),
        ((x + 0.06, notch + 0.02),),
        ((x + wide * 0.85, notch - 0.08),),
        ((x + 0.16, 0.12), (x + 0.1, -0.02)),
        ((x * 0.9, -0.1),),
    )
    satin = cloth.dyed(darker(cloth.colour, 0.7)) if rng.random() < 0.1 else cloth
    pieces: list[Piece] = [Panel(_nape(x, 0.06, 0.16), satin, lift=0.03, shadow=0.4)]
    for flip in (-1.0, 1.0):
        side = np.array([flip, 1.0])
        pieces.append(Panel(leaf * side, satin, turn=-0.35 * flip, lift=0.03, bulge=0.02, shadow=0.55))
        pieces.append(Panel(collar * side, satin, turn=-0.6 * flip, lift=0.04, bulge=0.02, shadow=0.5))
    closed = edge[-1, 0] < 0.15
    for y in np.arange(end[1] + 0.1, min(body.hem[1] - 0.4, end[1] + 0.6), 0.26):
        at = 0.0 if closed else float(np.interp(y, edge[:, 1], edge[:, 0])) + 0.05
        pieces.append(Disc((at, float(y)), 0.032, seam))
    return pieces


def stand(rng: np.random.Generator, body: Body, gap: float, cloth: Fabric, bulge: float) -> list[Piece]:
    """A collar that stands up around the neck, of ribbed or padded cloth."""
    x, tall = body.neck, rng.uniform(0.14, 0.24)
    inner = path(
        (-x, -tall * 0.7),
        ((-x * 0.5, -tall * 1.15), (x * 0.5, -tall * 1.15), (x, -tall * 0.7)),
        ((x * 0.5, -tall * 0.1), (-x * 0.5, -tall * 0.1), (-x, -tall * 0.7)),
    )
    meet = gap * 0.5
    side = path(
        (x, -tall * 0.75),
        ((x * 0.75, 0.0), (meet, 0.03)),
        ((meet, body.drop + 0.06),),
        ((x * 0.9, 0.12), (x + 0.07, 0.03)),
        ((x + 0.05, -tall * 0.5), (x, -tall * 0.75)),
    )
    return [
        Panel(inner, cloth.shaded(0.6), bulge=0.02),
        *(Panel(leaf, cloth, lift=0.03, bulge=max(0.03, bulge * 0.7), shadow=0.4) for leaf in (side * _FLIP, side)),
    ]


def hood(rng: np.random.Generator, cloth: Fabric, lining: Fabric) -> list[Piece]:
    """The hood as it lies behind the neck."""
    wide, tall = rng.uniform(0.46, 0.58), rng.uniform(0.42, 0.62)
    right = path((0.0, -tall), ((wide * 0.75, -tall), (wide * 1.1, -tall * 0.35), (wide * 0.85, 0.16)))
    opening = path(
        (-wide * 0.6, 0.1),
        ((-wide * 0.75, -tall * 0.85), (wide * 0.75, -tall * 0.85), (wide * 0.6, 0.1)),
        ((wide * 0.3, 0.25), (-wide * 0.3, 0.25), (-wide * 0.6, 0.1)),
    )
    return [
        Panel(np.concatenate([right, mirrored(right)]), cloth, bulge=0.06),
        Panel(opening, lining, bulge=-0.05, lift=-0.01, shadow=0.3),
    ]


def hood_front(rng: np.random.Generator, body: Body, gap: float, cloth: Fabric) -> list[Piece]:
    """The hood's edges where they come round to the front, and its drawstrings."""
    x, meet = body.neck, gap * 0.5
    side = path(
        (x * 1.35, -0.2),
        ((x * 0.75, -0.08), (meet, 0.2)),
        ((meet + 0.02, body.drop + 0.16),),
        ((x * 1.05, 0.24), (x + 0.24, 0.02)),
        ((x * 1.35, -0.2),),
    )
    pieces: list[Piece] = [Panel(leaf, cloth, lift=0.03, bulge=0.04, shadow=0.45) for leaf in (side * _FLIP, side)]
    if rng.random() < 0.7:
        colour = contrasting(rng, cloth.colour, 40)
        for flip in (-1.0, 1.0):
            at, end = (meet + 0.07) * flip, rng.uniform(0.54, 0.84)
            bend, swing = rng.normal(0, 0.06), rng.normal(0, 0.05)
            pieces.append(
                Line(path((at, 0.22), ((at + bend, end * 0.6), (at + swing, end))), colour, 0.022, groove=0.3)
            )
    return pieces
