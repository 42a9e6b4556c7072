"""T-shirts: short (at times long) sleeves, a ribbed round or V neck, and what is printed on them.

Refuses collars; a row of buttons only as the short placket of a henley.
"""

from __future__ import annotations

import math

import numpy as np

from .fabric import Fabric, contrasting, darker, dye
from .pieces import Disc, Fold, Garment, Line, Panel, Piece, Print, moved, path, strip
from .prints import picture
from .torso import Body, Sleeve, body_folds, sleeve, sleeve_folds


def cut(rng: np.random.Generator) -> Garment:
    """A T-shirt by chance."""
    kind = str(rng.choice(("round", "v", "ringer", "raglan", "henley", "long"), p=(0.5, 0.19, 0.11, 0.09, 0.06, 0.05)))
    body = Body(
        neck=rng.uniform(0.27, 0.37),
        drop=rng.uniform(0.36, 0.5) if kind == "v" else rng.uniform(0.18, 0.3),
        shoulder=(rng.uniform(0.8, 0.95), rng.uniform(0.12, 0.21)),
        armpit=(rng.uniform(0.72, 0.84), rng.uniform(0.62, 0.74)),
        waist=(rng.uniform(0.69, 0.8), 1.35),
        hem=(rng.uniform(0.72, 0.85), rng.uniform(1.9, 2.35)),
        sag=rng.uniform(0.0, 0.06),
        pointed=kind == "v",
    )
    cloth = _cloth(rng)
    second = cloth.dyed(contrasting(rng, cloth.colour))
    arm_cloth = second if kind == "raglan" else cloth
    band_cloth = second.ribbed() if kind in ("ringer", "raglan") else cloth.shaded(0.94).ribbed()

    angle = rng.uniform(0.4, 1.05)
    long = kind == "long" or (kind == "raglan" and rng.random() < 0.3)
    length = rng.uniform(1.25, 1.5) if long else rng.uniform(0.46, 0.72)
    arms = [
        sleeve(
            body,
            angle + rng.normal(0, 0.09),
            rng.normal(0.12, 0.12) if long else 0.0,
            length,
            0.36 if long else 0.46,
            0.22 if long else rng.uniform(0.38, 0.47),
            left,
        )
        for left in (True, False)
    ]
    worn = rng.uniform(0.3, 1.1)
    folds: list[Fold] = body_folds(rng, body, worn)
    pieces: list[Piece] = [*_inside(rng, body, cloth)]
    for arm in arms:
        pieces += _sleeve(arm, arm_cloth, band_cloth, kind == "ringer" or long)
        folds += sleeve_folds(rng, arm, worn)
    pieces.append(Panel(body.outline(), cloth, bulge=0.035, body=True))
    pieces += _seams(body, cloth)
    if kind == "raglan":
        pieces += _raglan(body, second)
    if kind == "henley":
        pieces += _henley(rng, body, cloth)
    elif kind != "raglan" and rng.random() < (0.68 if cloth.pattern == "plain" else 0.12):
        pieces.append(_print(rng, cloth))
    if rng.random() < 0.12:
        pieces += _pocket(body, cloth)
    pieces.append(Panel(strip(body.neckline(0.035), 0.075), band_cloth, lift=0.02, bulge=0.02, shadow=0.3))
    return Garment("t-shirt", kind, tuple(pieces), tuple(folds))


def _cloth(rng: np.random.Generator) -> Fabric:
    colour = dye(rng)
    pattern = "plain"
    if rng.random() < 0.3:
        pattern = str(
            rng.choice(
                ("hoops", "wide hoops", "stripes", "dots", "blossoms", "camouflage"),
                p=(0.3, 0.25, 0.1, 0.12, 0.13, 0.1),
            )
        )
    period = {"wide hoops": rng.uniform(0.35, 0.6), "camouflage": 1.3, "blossoms": rng.uniform(0.35, 0.7)}
    return Fabric(
        colour=colour,
        pattern=pattern,
        second=contrasting(rng, colour, 45),
        third=dye(rng),
        period=period.get(pattern, rng.uniform(0.11, 0.28)),
        weave=str(rng.choice(("jersey", "heather", "smooth"))),
        roughness=rng.uniform(0.01, 0.06),
        fade=dye(rng) if pattern == "plain" and rng.random() < 0.1 else None,
    )


def _inside(rng: np.random.Generator, body: Body, cloth: Fabric) -> list[Piece]:
    """The back, seen through the neck, with its label."""
    back = np.concatenate([body.nape(rng.uniform(0.02, 0.07)), body.neckline(0.05)[::-1]])
    edge = body.nape(0.06)
    pieces: list[Piece] = [
        Panel(back, cloth.shaded(0.62), bulge=0.0),
        Panel(strip(edge, 0.07, 1.0), cloth.shaded(0.75).ribbed(), shadow=0.2),
    ]
    if rng.random() < 0.6:
        tag = np.array([(-0.06, 0.1), (0.06, 0.1), (0.06, 0.17), (-0.06, 0.17)])
        colour = (235, 238, 238) if rng.random() < 0.7 else (40, 38, 38)
        pieces.append(Panel(tag, Fabric(colour, roughness=0.0), shadow=0.3, bulge=0.0))
    return pieces


def _sleeve(arm: Sleeve, cloth: Fabric, band: Fabric, banded: bool) -> list[Piece]:
    pieces: list[Piece] = [Panel(arm.outline, cloth, turn=arm.turn, bulge=0.04)]
    if banded:
        pieces.append(Panel(arm.band(0.08), band, turn=arm.turn, shadow=0.15))
    else:
        pieces.append(Line(arm.hem(0.075), darker(cloth.colour, 0.8), 0.008, groove=0.5))
    return pieces


def _seams(body: Body, cloth: Fabric) -> list[Piece]:
    seam = darker(cloth.colour, 0.78)
    hem = moved(body.bottom(), 0.0, -0.075)
    hole = body.armhole()
    return [
        Line(hem, seam, 0.008, groove=0.6),
        Line(hole, seam, 0.01, groove=0.7),
        Line(hole * (-1.0, 1.0), seam, 0.01, groove=0.7),
    ]


def _raglan(body: Body, second: Fabric) -> list[Piece]:
    """Sleeves that reach the neck: the shoulders in the sleeves' colour."""
    (sx, sy), (ax, ay) = body.shoulder, body.armpit
    right = path(
        (body.neck * 0.97, 0.03),
        ((sx, sy - 0.04),),
        ((sx + 0.05, sy + 0.1), (ax, ay)),
        ((ax - 0.25, ay * 0.55), (body.neck * 0.97, 0.07)),
    )
    return [Panel(points, second, lift=0.014, shadow=0.1, inside=True) for points in (right, right * (-1.0, 1.0))]


def _henley(rng: np.random.Generator, body: Body, cloth: Fabric) -> list[Piece]:
    """A short placket with two to four buttons."""
    top, low = body.drop, body.drop + rng.uniform(0.32, 0.5)
    placket = np.array([(-0.06, top), (0.06, top), (0.06, low), (-0.06, low)])
    count = int(rng.integers(2, 5))
    colour = contrasting(rng, cloth.colour, 30)
    return [
        Panel(placket, cloth, lift=0.018, shadow=0.3),
        *(Disc((0.0, float(y)), 0.024, colour) for y in np.linspace(top + 0.12, low - 0.06, count)),
    ]


def _pocket(body: Body, cloth: Fabric) -> list[Piece]:
    x, y = 0.4 * body.shoulder[0], 0.55
    outline = np.array([(x - 0.13, y), (x + 0.15, y), (x + 0.15, y + 0.26), (x + 0.01, y + 0.32), (x - 0.13, y + 0.26)])
    return [
        Panel(outline, cloth, lift=0.014, shadow=0.25, inside=True),
        Line(moved(outline[:2], 0.0, 0.04), darker(cloth.colour, 0.8), 0.008, 0.4),
    ]


def _print(rng: np.random.Generator, cloth: Fabric) -> Print:
    shape = picture(rng, contrasting(rng, cloth.colour, 70), contrasting(rng, cloth.colour, 40))
    height, width = shape.shape[:2]
    if height > 1.8 * width:  # an upright print runs down the middle, where a shirt has its buttons
        return Print((rng.normal(0, 0.02), rng.uniform(1.0, 1.15)), rng.uniform(0.16, 0.34), shape, rng.normal(0, 0.02))
    if rng.random() < 0.14:
        return Print((0.4 * rng.choice((-1.0, 1.0)), 0.6), rng.uniform(0.2, 0.3), shape, rng.normal(0, 0.04))
    size = rng.uniform(0.55, 1.0)
    return Print(
        (rng.normal(0, 0.02), 0.42 + 0.5 * size * height / width), size, shape, rng.normal(0, math.radians(1.5))
    )
