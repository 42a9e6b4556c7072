"""What the three garments share: a body with a neckline and armholes, sleeves, and the folds that cloth falls into.

Measures and geometry only; which measures make a shirt is for `shirt`, `t_shirt` and `jacket` to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .pieces import Fold, Point, Points, mirrored, path, towards


@dataclass(frozen=True)
class Body:
    """The right half's measures, in garment units; the left half mirrors it.

    Attributes:
      neck: x of the point where neckline and shoulder seam meet (its y is 0).
      drop: depth of the neckline in front.
      pointed: the neckline is a V.
      shoulder, armpit, waist, hem: corners of the outline.
      sag: how far the hem hangs lower in the middle (shirt tails: much).
    """

    neck: float
    drop: float
    shoulder: Point
    armpit: Point
    waist: Point
    hem: Point
    sag: float = 0.03
    pointed: bool = False

    def neckline(self, lower: float = 0.0) -> Points:
        """The front neckline from left to right, optionally `lower` by some units (a band's edge)."""
        x, y = self.neck + lower * 0.75, self.drop + lower
        start = (-x, lower * 0.12)
        if self.pointed:
            return path(start, ((-x * 0.62, y * 0.45), (0.0, y)), ((x * 0.62, y * 0.45), (x, start[1])))
        return path(
            start,
            ((-x * 0.98, y * 0.72), (-x * 0.55, y), (0.0, y)),
            ((x * 0.55, y), (x * 0.98, y * 0.72), (x, start[1])),
        )

    def nape(self, depth: float = 0.05) -> Points:
        """The neckline at the back, from left to right; negative depths stand up."""
        return path(
            (-self.neck, 0.0), ((-self.neck * 0.5, depth * 1.3), (self.neck * 0.5, depth * 1.3), (self.neck, 0.0))
        )

    def armhole(self) -> Points:
        """From the right shoulder down to the right armpit."""
        (sx, sy), (ax, ay) = self.shoulder, self.armpit
        inner = min(sx, ax)
        return path((sx, sy), ((inner - 0.06, sy + 0.45 * (ay - sy)), (ax - 0.08, ay - 0.12), (ax, ay)))

    def side(self) -> Points:
        """From the right armpit over the waist to the hem."""
        (ax, ay), (wx, wy), (hx, hy) = self.armpit, self.waist, self.hem
        return path(
            (ax, ay),
            ((wx + 0.3 * (ax - wx), ay + 0.3 * (wy - ay)), (wx, wy)),
            ((wx + 0.2 * (hx - wx), wy + 0.6 * (hy - wy)), (hx, hy)),
        )

    def bottom(self) -> Points:
        """The hem from right to left."""
        hx, hy = self.hem
        low = hy + self.sag
        return path(
            (hx, hy),
            ((hx * 0.75, hy + self.sag * 0.35), (hx * 0.5, low), (0.0, low)),
            ((-hx * 0.5, low), (-hx * 0.75, hy + self.sag * 0.35), (-hx, hy)),
        )

    def outline(self) -> Points:
        """The whole front, neckline and all."""
        right = np.concatenate([self.armhole(), self.side()])
        return np.concatenate([self.neckline(), right, self.bottom(), mirrored(right)])

    def back(self, depth: float = 0.05) -> Points:
        """The whole back: as the front, with the neckline of the nape."""
        right = np.concatenate([self.armhole(), self.side()])
        return np.concatenate([self.nape(depth), right, self.bottom(), mirrored(right)])

    def half(self, edge: Points) -> Points:
        """The right front of something that opens: `edge` runs from the neck down to the hem."""
        hem = self.bottom()
        hem = hem[hem[:, 0] > edge[-1, 0]]
        return np.concatenate([[(self.neck, 0.0)], self.armhole(), self.side(), hem, edge[::-1]])


@dataclass(frozen=True, eq=False)
class Sleeve:
    """One sleeve, already on its side of the body.

    Attributes:
      outline: closed polygon.
      turn: radians to turn a pattern by so that it runs along the arm.
      outer, inner: its edges from the armhole to the cuff.
      cuff: the middle of its end; `direction`: radians in which it ends.
    """

    outline: Points
    turn: float
    outer: Points
    inner: Points
    cuff: Point
    direction: float

    def band(self, depth: float, flare: float = 1.0, overlap: float = 0.0) -> Points:
        """A cuff: the last `depth` of the sleeve, `flare` times as wide, going on by `overlap` beyond the end."""
        a, b = self.outer[-1], self.inner[-1]
        middle, half = (a + b) / 2, (a - b) / 2 * flare
        along = np.array([math.cos(self.direction), math.sin(self.direction)])
        widen = 1 + 0.25 * depth
        return np.array(
            [
                middle + half + along * overlap,
                middle - half + along * overlap,
                middle - half * widen - along * depth,
                middle + half * widen - along * depth,
            ]
        )

    def hem(self, depth: float) -> Points:
        """A seam across the sleeve, `depth` before its end."""
        quad = self.band(depth)
        return quad[2:]


def sleeve(
    body: Body, angle: float, bend: float, length: float, elbow: float, cuff: float, left: bool, tuck: float = 0.03
) -> Sleeve:
    """A sleeve from the armhole.

    Args:
      angle: radians below the horizontal in which the upper arm points.
      bend: radians by which the forearm turns on (down and inwards when above 0).
      length: from the armhole to the cuff.
      elbow, cuff: widths there.
      left: on the left side of the picture.
      tuck: how far it reaches in under the body.
    """
    armhole = body.armhole()
    shoulder, armpit = armhole[0], armhole[-1]
    root = (shoulder + armpit) / 2
    lower = angle + bend
    joint = np.array(towards((root[0], root[1]), angle, length * 0.5))
    end = np.array(towards((joint[0], joint[1]), lower, length * 0.5))

    def across(a: float) -> np.ndarray:
        return np.array([math.sin(a), -math.cos(a)])

    at_joint = across((angle + lower) / 2) * elbow / 2
    at_end = across(lower) * cuff / 2
    outer = _smooth(shoulder, np.array([0.9, 0.42]), joint + at_joint, end + at_end, lower)
    inner = _smooth(armpit, np.array([math.cos(angle), math.sin(angle)]) * 0.6, joint - at_joint, end - at_end, lower)
    outline = np.concatenate([outer, inner[::-1], armhole[::-1] - (tuck, 0.0)])
    turn = (angle + lower) / 2 - math.pi / 2
    if not left:
        return Sleeve(outline, turn, outer, inner, (end[0], end[1]), lower)
    flip = np.array([-1.0, 1.0])
    return Sleeve(outline * flip, -turn, outer * flip, inner * flip, (-end[0], end[1]), math.pi - lower)


def _smooth(start: np.ndarray, leaving: np.ndarray, middle: np.ndarray, end: np.ndarray, arriving: float) -> Points:
    """A curve through three points with a tangent given at both ends (cubic Hermite pieces)."""
    first, second = np.hypot(*(middle - start)), np.hypot(*(end - middle))
    along = (end - start) / max(float(np.hypot(*(end - start))), 1e-6)
    leaving = leaving / max(float(np.hypot(*leaving)), 1e-6)
    last = np.array([math.cos(arriving), math.sin(arriving)])
    a, b = middle - along * first * 0.33, middle + along * second * 0.33
    return path(
        (start[0], start[1]),
        ((start + leaving * first * 0.3).tolist(), a.tolist(), middle.tolist()),
        (b.tolist(), (end - last * second * 0.3).tolist(), end.tolist()),
    )


def body_folds(rng: np.random.Generator, body: Body, amount: float) -> list[Fold]:
    """Folds that hang from the armpits, rise from the hem and cross the waist; `amount` 0 is ironed, 1 is worn."""
    folds = []
    (ax, ay), (hx, hy) = body.armpit, body.hem

    def add(x: float, y: float, angle: float, length: float, width: float, height: float) -> None:
        middle = towards((x, y), angle + rng.normal(0, 0.12), length * 0.5)
        end = towards(middle, angle + rng.normal(0, 0.25), length * 0.5)
        folds.append(
            Fold(
                path((x, y), (middle, end)),
                width * rng.uniform(0.7, 1.4),
                height * amount * rng.choice((-1.0, 1.0, 1.0)),
            )
        )

    for sign in (-1, 1):
        for _ in range(int(rng.integers(2, 5))):
            angle = math.pi / 2 + sign * rng.uniform(-0.1, 1.2)
            add(sign * (ax - 0.08), ay + rng.uniform(-0.12, 0.2), angle, rng.uniform(0.35, 0.9), 0.09, 0.035)
    for _ in range(int(rng.integers(4, 9))):
        x = rng.uniform(-0.9, 0.9) * hx
        add(x, hy + 0.05, -math.pi / 2 - x * 0.2, rng.uniform(0.4, 1.2), 0.12, 0.04)
    for _ in range(int(rng.integers(2, 7))):
        side = rng.choice((-1.0, 1.0))
        angle = (0.0 if side < 0 else math.pi) + side * rng.uniform(-0.5, 0.5)
        add(side * ax * 0.95, rng.uniform(ay + 0.2, hy - 0.1), angle, rng.uniform(0.3, 0.8), 0.07, 0.03)
    for _ in range(int(rng.integers(1, 4))):
        add(rng.uniform(-0.5, 0.5), rng.uniform(0.5, 1.5), rng.uniform(0.2, 2.9), rng.uniform(0.3, 0.7), 0.08, 0.025)
    return folds


def sleeve_folds(rng: np.random.Generator, arm: Sleeve, amount: float) -> list[Fold]:
    """Short folds across the sleeve, thickest where it bends, and a long one along it."""
    folds = []
    count = len(arm.outer)
    span = float(np.hypot(*(arm.outer[-1] - arm.outer[0])))
    for _ in range(int(rng.integers(2, 4 + int(span * 4)))):
        at = int(np.clip(rng.normal(0.5, 0.24), 0.08, 0.95) * (count - 1))
        inner, outer = arm.inner[at], arm.outer[int(np.clip(at + rng.integers(-3, 4), 0, count - 1))]
        reach = inner + (outer - inner) * rng.uniform(0.5, 0.95)
        middle = (inner + reach) / 2 + rng.normal(0, 0.03, 2)
        line = path((inner[0], inner[1]), (middle.tolist(), reach.tolist()))
        folds.append(Fold(line, rng.uniform(0.04, 0.09), 0.028 * amount * rng.choice((-1.0, 1.0))))
    centre = (arm.outer + arm.inner) / 2 + rng.normal(0, 0.02, 2)
    first = int(rng.integers(0, count // 2))
    folds.append(Fold(centre[first:], rng.uniform(0.08, 0.16), 0.03 * amount))
    return folds
