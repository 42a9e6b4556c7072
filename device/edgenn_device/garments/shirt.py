"""Shirts: a collar that folds down, a placket with buttons from neck to hem, cuffs or short sleeves, a chest pocket.

Refuses zips and anything printed on the chest.
"""

from __future__ import annotations

import math

import numpy as np

from . import collars
from .fabric import Colour, Fabric, brightness, contrasting, darker, dye
from .pieces import Disc, Garment, Line, Panel, Piece, mirrored, moved, path
from .torso import Body, Sleeve, body_folds, sleeve, sleeve_folds


def cut(rng: np.random.Generator) -> Garment:
    """A shirt by chance."""
    short = bool(rng.random() < 0.2)
    opened = float(rng.uniform(0.25, 0.5)) if rng.random() < (0.6 if short else 0.3) else 0.1
    body = Body(
        neck=rng.uniform(0.23, 0.29),
        drop=opened,
        shoulder=(rng.uniform(0.78, 0.92), rng.uniform(0.13, 0.22)),
        armpit=(rng.uniform(0.7, 0.83), rng.uniform(0.62, 0.74)),
        waist=(rng.uniform(0.66, 0.8), 1.35),
        hem=(rng.uniform(0.7, 0.86), rng.uniform(1.95, 2.3)),
        sag=rng.uniform(0.0, 0.2),
        pointed=True,
    )
    cloth = _cloth(rng)
    seam = darker(cloth.colour, 0.76 if brightness(cloth.colour) > 60 else 1.25)
    buttons = contrasting(rng, cloth.colour, 60) if rng.random() < 0.7 else darker(cloth.colour, rng.choice((0.7, 1.4)))

    angle = rng.uniform(0.45, 1.0) if short else rng.uniform(0.7, 1.36)
    length = rng.uniform(0.45, 0.68) if short else rng.uniform(1.4, 1.62)
    rolled = not short and rng.random() < 0.2
    arms = [
        sleeve(
            body,
            angle + rng.normal(0, 0.09),
            0.0 if short else rng.normal(0.12, 0.16),
            length * (0.72 if rolled else 1.0),
            0.44 if short else 0.36,
            rng.uniform(0.36, 0.45) if short else 0.3 if rolled else 0.24,
            left,
        )
        for left in (True, False)
    ]
    over = not short and rng.random() < 0.4
    worn = rng.uniform(0.2, 1.1)
    folds = body_folds(rng, body, worn)
    sleeves: list[Piece] = []
    for arm in arms:
        folds += sleeve_folds(rng, arm, worn)
        sleeves += _sleeve(arm, cloth, seam, buttons, short, rolled)

    pieces: list[Piece] = [collars.inside(body, cloth)]
    if opened > 0.2 and rng.random() < 0.4:  # a T-shirt under it
        pieces.append(Panel(moved(body.neckline(0.02)[3:-3], 0.0, -0.03), Fabric(dye(rng)), shadow=0.2))
    if not over:
        pieces += sleeves
    pieces.append(Panel(body.outline(), cloth, bulge=0.03, body=True))
    if over:
        pieces += sleeves
    pieces += _front(rng, body, cloth, seam, buttons)
    pieces += _collar(rng, body, cloth, seam, buttons, opened)
    style = "short sleeves" if short else "rolled sleeves" if rolled else "long sleeves"
    return Garment("shirt", style, tuple(pieces), tuple(folds))


def _cloth(rng: np.random.Generator) -> Fabric:
    colour = dye(rng, least=140) if rng.random() < 0.65 else dye(rng)
    pattern = str(
        rng.choice(
            ("plain", "stripes", "pinstripes", "gingham", "tartan", "windowpane", "dots", "blossoms", "hoops"),
            p=(0.38, 0.1, 0.12, 0.1, 0.12, 0.07, 0.04, 0.06, 0.01),
        )
    )
    period = {
        "stripes": rng.uniform(0.08, 0.18),
        "pinstripes": rng.uniform(0.06, 0.13),
        "gingham": rng.uniform(0.08, 0.17),
        "tartan": rng.uniform(0.25, 0.45),
        "blossoms": rng.uniform(0.3, 0.6),
        "dots": rng.uniform(0.09, 0.16),
    }
    return Fabric(
        colour=colour,
        pattern=pattern,
        second=contrasting(rng, colour, 40),
        third=dye(rng),
        period=period.get(pattern, rng.uniform(0.16, 0.3)),
        weave=str(rng.choice(("smooth", "twill", "twill", "jersey"))),
        roughness=rng.uniform(0.008, 0.05),
        gloss=rng.choice((0.0, 0.0, 0.15)),
    )


def _collar(
    rng: np.random.Generator, body: Body, cloth: Fabric, seam: Colour, buttons: Colour, opened: float
) -> list[Piece]:
    spread, fall = rng.uniform(0.18, 0.42), rng.uniform(0.3, 0.46)
    closed = opened < 0.2
    front = (0.03, opened * 0.95) if closed else (rng.uniform(0.08, 0.16), opened * 0.62)
    tip = (front[0] + spread, front[1] + fall * 0.82)
    pieces = collars.fold_down(body.neck, front, tip, cloth, seam)
    if closed:
        pieces.append(Disc((0.0, 0.155), 0.024, buttons))
        if fall > 0.4:  # buttoned down
            pieces += [Disc((flip * (tip[0] - 0.03), tip[1] - 0.07), 0.018, buttons) for flip in (-1.0, 1.0)]
    return pieces


def _front(rng: np.random.Generator, body: Body, cloth: Fabric, seam: Colour, buttons: Colour) -> list[Piece]:
    """Placket, buttons, yoke, seams and pockets."""
    low = body.hem[1] + body.sag
    top = body.drop * 0.9
    half = rng.uniform(0.05, 0.075)
    lean = rng.normal(0, 0.015)
    placket = np.array([(-half, top), (half, top), (half + lean, low - 0.01), (-half + lean, low - 0.01)])
    pieces: list[Piece] = []
    hole = body.armhole()
    for edge in (hole, mirrored(hole)):
        pieces.append(Line(edge, seam, 0.012, groove=0.8))
    yoke = path((body.neck + 0.05, 0.2), ((body.shoulder[0] * 0.6, 0.27), (body.shoulder[0] * 0.97, 0.32)))
    if rng.random() < 0.5:
        pieces += [Line(yoke, seam, 0.008, groove=0.5), Line(mirrored(yoke), seam, 0.008, groove=0.5)]
    pieces.append(Line(moved(body.bottom(), 0.0, -0.05), seam, 0.008, groove=0.5))

    pocket_kinds = rng.choice(("none", "one", "two"), p=(0.36, 0.44, 0.2))
    flap = rng.random() < (0.65 if pocket_kinds == "two" else 0.25)
    for flip in {"none": (), "one": (1.0,), "two": (-1.0, 1.0)}[str(pocket_kinds)]:
        pieces += _pocket(0.42 * flip * body.shoulder[0] / 0.85, 0.62, cloth, seam, buttons, flap)

    pieces.append(Panel(placket, cloth, lift=0.018, bulge=0.012, shadow=0.35, inside=True))
    stitch = 0.012
    for x in (-half + stitch, half - stitch):
        pieces.append(Line(np.array([(x, top), (x + lean, low - 0.02)]), seam, 0.007, groove=0.4))
    if rng.random() < 0.92:  # at times they are hidden
        count = int(rng.integers(5, 8))
        for y in np.linspace(top + 0.16 if body.drop < 0.2 else top + 0.06, low - rng.uniform(0.2, 0.3), count):
            pieces.append(Disc((float(lean * (y - top) / (low - top)), float(y)), rng.uniform(0.022, 0.026), buttons))
    return pieces


def _pocket(x: float, y: float, cloth: Fabric, seam: Colour, buttons: Colour, flap: bool) -> list[Piece]:
    outline = np.array(
        [(x - 0.16, y), (x + 0.16, y), (x + 0.16, y + 0.3), (x, y + 0.37), (x - 0.16, y + 0.3), (x - 0.16, y)]
    )
    pieces: list[Piece] = [
        Panel(outline, cloth, lift=0.016, bulge=0.012, shadow=0.3, inside=True),
        Line(np.array([(x - 0.16, y + 0.05), (x + 0.16, y + 0.05)]), seam, 0.008, groove=0.4),
    ]
    if flap:
        cover = np.array(
            [(x - 0.18, y - 0.02), (x + 0.18, y - 0.02), (x + 0.18, y + 0.08), (x, y + 0.14), (x - 0.18, y + 0.08)]
        )
        pieces += [Panel(cover, cloth, lift=0.03, shadow=0.4, inside=True), Disc((x, y + 0.095), 0.02, buttons)]
    return pieces


def _sleeve(arm: Sleeve, cloth: Fabric, seam: Colour, buttons: Colour, short: bool, rolled: bool) -> list[Piece]:
    pieces: list[Piece] = [Panel(arm.outline, cloth, turn=arm.turn, bulge=0.04, shadow=0.4)]
    if short:
        return [*pieces, Line(arm.hem(0.09), seam, 0.008, groove=0.6)]
    if rolled:
        for depth in (0.2, 0.12):
            pieces.append(Panel(arm.band(depth, 1.1, 0.01), cloth.shaded(0.92), turn=arm.turn, lift=0.03, shadow=0.4))
        return pieces
    cuff = arm.band(0.16, 1.02, 0.02)
    pieces.append(Panel(cuff, cloth, turn=arm.turn + math.pi / 2, lift=0.02, bulge=0.02, shadow=0.35))
    pieces.append(Line(arm.hem(0.15), seam, 0.008, groove=0.5))
    middle = cuff.mean(0)
    pieces.append(Disc((float(middle[0]), float(middle[1])), 0.022, buttons))
    return pieces
