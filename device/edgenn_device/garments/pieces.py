"""The words a garment is written in: panels of cloth, lines, discs, prints, folds, and the curves they are cut along.

Lengths are in garment units: x to the right, y down, the origin between the collar bones; shoulders lie near x = 0.85
and hems near y = 2. Nothing here is drawn and nothing is random: cuts make pieces, `sprite` paints them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .fabric import Bytes, Colour, Fabric

Points = npt.NDArray[np.float64]  # (n, 2), garment units
Point = tuple[float, float]

# Ten points along a Bézier curve: Bernstein weights of its control points, the start's first.
_T = np.linspace(0.0, 1.0, 11)[1:]
_WEIGHTS = {
    1: np.array([[0.0, 1.0]]),
    2: np.stack([(1 - _T) ** 2, 2 * _T * (1 - _T), _T**2], 1),
    3: np.stack([(1 - _T) ** 3, 3 * _T * (1 - _T) ** 2, 3 * _T**2 * (1 - _T), _T**3], 1),
}


@dataclass(frozen=True, eq=False)
class Panel:
    """A piece of cloth.

    Attributes:
      outline: closed polygon.
      fabric: what it is cut from.
      turn: radians by which the fabric's pattern is turned (sleeves carry it along the arm).
      lift: how high its edge stands above what it covers.
      bulge: how far its middle rises above its edge.
      shadow: 0..1, how much it darkens what lies under its edge.
      inside: painted only where the body already is.
      body: later pieces with `inside` are painted on it.
    """

    outline: Points
    fabric: Fabric
    turn: float = 0.0
    lift: float = 0.012
    bulge: float = 0.03
    shadow: float = 0.35
    inside: bool = False
    body: bool = False


@dataclass(frozen=True, eq=False)
class Line:
    """A seam, a row of stitches or of zip teeth: `dash` is the length of a stitch, 0 for an unbroken line."""

    points: Points
    colour: Colour
    width: float = 0.012
    groove: float = 0.0
    dash: float = 0.0


@dataclass(frozen=True, eq=False)
class Disc:
    """A button or a press stud."""

    centre: Point
    radius: float
    colour: Colour


@dataclass(frozen=True, eq=False)
class Print:
    """A picture on the cloth: `picture` is BGRA (h, w, 4), `width` in garment units."""

    centre: Point
    width: float
    picture: Bytes
    turn: float = 0.0


@dataclass(frozen=True, eq=False)
class Fold:
    """A ridge (height above 0) or a trough that tapers towards both ends."""

    points: Points
    width: float
    height: float


Piece = Panel | Line | Disc | Print


@dataclass(frozen=True, eq=False)
class Garment:
    """Everything that is sewn together, in the order in which it is laid down."""

    label: str
    style: str
    pieces: tuple[Piece, ...]
    folds: tuple[Fold, ...] = field(default=())


def path(start: Point, *steps: tuple[Point, ...]) -> Points:
    """Points along lines (one point), quadratic (two) and cubic (three) Bézier curves, each going on from the last."""
    points = [np.array([start], float)]
    for step in steps:
        points.append(_WEIGHTS[len(step)] @ np.array([start, *step], float))
        start = step[-1]
    return np.concatenate(points)


def mirrored(points: Points) -> Points:
    """The same curve on the other side of the garment, run through in the opposite direction."""
    return (points * (-1.0, 1.0))[::-1]


def moved(points: Points, right: float, down: float) -> Points:
    """The same curve somewhere else."""
    return np.asarray(points + np.array([right, down]))


def normals(points: Points) -> Points:
    """Unit vectors (n, 2) to the right of the direction of travel (as seen with y down: to the walker's right)."""
    along = np.empty_like(points)
    along[1:-1] = points[2:] - points[:-2]
    along[0], along[-1] = points[1] - points[0], points[-1] - points[-2]
    along /= np.maximum(np.sqrt((along * along).sum(1, keepdims=True)), 1e-9)
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def strip(points: Points, width: float, side: float = 0.0) -> Points:
    """Outline of a band along a curve: `side` 0 lays it across the curve, 1 to its right, -1 to its left."""
    across = normals(points)
    return np.concatenate([points + across * width * (side - 1) / 2, (points + across * width * (side + 1) / 2)[::-1]])


def towards(start: Point, angle: float, length: float) -> Point:
    """The point `length` away; the angle is from the x axis towards y (downwards), in radians."""
    return start[0] + length * math.cos(angle), start[1] + length * math.sin(angle)
