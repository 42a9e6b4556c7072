"""Jackets: bombers, puffers, blazers, denim jackets, zipped hoodies and parkas, open or closed, always long-sleeved.

Refuses prints on the chest; a closed one keeps its zip or its row of studs in sight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from . import collars
from .fabric import Colour, Fabric, brightness, contrasting, darker, dye
from .pieces import Disc, Garment, Line, Panel, Piece, Points, mirrored, moved, path, strip
from .torso import Body, Sleeve, body_folds, sleeve, sleeve_folds

_STEEL: Colour = (200, 198, 194)
_BRASS: Colour = (92, 152, 186)
_FLIP = np.array([-1.0, 1.0])


@dataclass(frozen=True)
class Style:
    """How one kind of jacket is made up.

    Attributes:
      share: of all jackets.
      fastening, collar, pockets: their kinds.
      length: range of the hem's y.
      closed: share of them that is worn closed.
      weave, roughness, gloss: of the cloth (see `Fabric`).
      patterns: what the cloth may show instead of being plain.
      banded: ribbed cuffs and hem.
      padding: how far the cloth bulges; `wide`: width of the sleeve at the elbow.
    """

    share: float
    fastening: Literal["zip", "studs", "buttons"]
    collar: Literal["stand", "fold", "hood", "lapels"]
    pockets: Literal["welt", "flap", "chest", "zip"]
    length: tuple[float, float]
    closed: float = 0.4
    weave: str = "twill"
    roughness: float = 0.03
    gloss: float = 0.1
    patterns: tuple[str, ...] = ("camouflage", "tartan")
    banded: bool = False
    padding: float = 0.045
    wide: float = 0.42


_WORSTED = ("pinstripes", "windowpane", "tartan")
STYLES = {
    "bomber": Style(0.22, "zip", "stand", "welt", (1.75, 2.0), weave="smooth", roughness=0.012, gloss=0.5, banded=True),
    "puffer": Style(0.2, "zip", "stand", "zip", (1.8, 2.15), 0.5, "smooth", 0.01, 0.6, padding=0.08, wide=0.5),
    "blazer": Style(0.18, "buttons", "lapels", "flap", (2.05, 2.35), 0.35, "twill", 0.05, 0.0, _WORSTED),
    "denim": Style(0.11, "studs", "fold", "chest", (1.7, 1.95), roughness=0.09, gloss=0.0),
    "hoodie": Style(0.15, "zip", "hood", "welt", (1.85, 2.1), weave="fleece", roughness=0.05, gloss=0.0, banded=True),
    "parka": Style(0.09, "zip", "hood", "flap", (2.15, 2.45), padding=0.06, wide=0.5),
    "harrington": Style(0.05, "zip", "fold", "welt", (1.85, 2.1), patterns=_WORSTED),
}


def cut(rng: np.random.Generator) -> Garment:
    """A jacket by chance."""
    name = str(rng.choice(list(STYLES), p=[style.share for style in STYLES.values()]))
    style = STYLES[name]
    gap = 0.0 if rng.random() < style.closed else float(rng.uniform(0.1, 0.36))
    body = Body(
        neck=rng.uniform(0.25, 0.31),
        drop=0.14,
        shoulder=(rng.uniform(0.84, 0.98), rng.uniform(0.13, 0.22)),
        armpit=(rng.uniform(0.76, 0.9), rng.uniform(0.66, 0.78)),
        waist=(rng.uniform(0.72, 0.84) if style.collar == "lapels" else rng.uniform(0.76, 0.9), 1.4),
        hem=(rng.uniform(0.76, 0.92), rng.uniform(*style.length)),
        sag=rng.uniform(0.0, 0.05),
    )
    cloth = _cloth(rng, name, style)
    lining = Fabric(darker(dye(rng), 0.75), roughness=0.01, weave="smooth", gloss=0.2)
    seam = darker(cloth.colour, 0.7 if brightness(cloth.colour) > 55 else 1.2)
    metal = _BRASS if rng.random() < 0.35 else _STEEL

    angle, length = rng.uniform(0.75, 1.36), rng.uniform(1.42, 1.62)
    worn = rng.uniform(0.3, 1.0)
    folds = body_folds(rng, body, worn)
    sleeves: list[Piece] = []
    for left in (True, False):
        cuff = style.wide * rng.uniform(0.62, 0.8)
        arm = sleeve(body, angle + rng.normal(0, 0.09), rng.normal(0.1, 0.16), length, style.wide, cuff, left)
        folds += sleeve_folds(rng, arm, worn)
        sleeves += _sleeve(arm, name, style, cloth, seam)
    over = rng.random() < 0.4

    edge = _edge(rng, body, gap, style)
    pieces: list[Piece] = collars.hood(rng, cloth, lining) if style.collar == "hood" else []
    pieces += _back(rng, body, lining, gap)
    if style.collar in ("fold", "lapels"):
        pieces.append(collars.inside(body, cloth))
    pieces += [] if over else sleeves
    for front in (body.half(edge) * _FLIP, body.half(edge)):
        pieces.append(Panel(front, cloth, lift=0.02, bulge=style.padding, shadow=0.5, body=True))
    pieces += sleeves if over else []
    pieces += _seams(body, name, cloth, seam)
    pieces += _pockets(body, style, cloth, seam, metal)
    if style.banded:
        pieces += _waistband(body, edge, cloth)
    if style.fastening == "zip":
        pieces += _zip(rng, edge, gap, cloth, metal)
    elif style.fastening == "studs":
        pieces += _studs(rng, body, edge, gap, cloth, seam, metal)
    pieces += _collar(rng, body, style, edge, gap, cloth, seam)
    return Garment("jacket", name, tuple(pieces), tuple(folds))


def _cloth(rng: np.random.Generator, name: str, style: Style) -> Fabric:
    colour = dye(rng, most=105) if rng.random() < 0.75 else dye(rng)
    if name == "denim" and rng.random() < 0.7:
        shade = rng.uniform(0.55, 1.15)
        colour = (int(135 * shade), int(98 * shade), int(66 * shade))
    pattern = "plain"
    if name != "puffer" and rng.random() < (0.35 if style.patterns == _WORSTED else 0.13):
        pattern = str(rng.choice(style.patterns))
    cloth = Fabric(
        colour=colour,
        pattern=pattern,
        second=contrasting(rng, colour, 30),
        third=dye(rng),
        period=1.2 if pattern == "camouflage" else rng.uniform(0.12, 0.4),
        weave=style.weave,
        roughness=style.roughness,
        gloss=style.gloss * rng.uniform(0.4, 1.0),
    )
    if name == "puffer":
        relief, period, height = "diamond" if rng.random() < 0.2 else "puff", rng.uniform(0.19, 0.32), 0.06
    elif name == "bomber" and rng.random() < 0.25:
        relief, period, height = "diamond", 0.16, 0.02
    else:
        return cloth
    return replace(cloth, relief=relief, relief_period=period, relief_height=height * rng.uniform(0.8, 1.2))


def _edge(rng: np.random.Generator, body: Body, gap: float, style: Style) -> Points:
    """The right front's edge, from the neck to the hem."""
    low = body.hem[1] + body.sag
    if style.collar == "lapels":
        lap = gap - 0.05
        return path(
            (body.neck, 0.0),
            ((body.neck * 0.7 + gap * 0.3, 0.4), (lap, rng.uniform(0.95, 1.2))),
            ((lap + 0.01, low * 0.85), (lap + 0.12, low)),
        )
    start = gap * 0.55
    return path((start, body.drop - 0.02), ((start + gap * 0.3, 0.9), (gap, low)))


def _back(rng: np.random.Generator, body: Body, lining: Fabric, gap: float) -> list[Piece]:
    """What is seen through the open front: the lining with its label, and at times what is worn under the jacket."""
    (ax, ay), (wx, wy), (hx, hy) = body.armpit, body.waist, body.hem
    inset = replace(body, armpit=(ax - 0.06, ay), waist=(wx - 0.08, wy), hem=(hx - 0.08, hy - 0.03), sag=0.0)
    tag = np.array([(-0.08, 0.07), (0.08, 0.07), (0.08, 0.15), (-0.08, 0.15)])
    pieces: list[Piece] = [
        Panel(inset.back(0.03), lining, bulge=0.0),
        Panel(tag, Fabric(contrasting(rng, lining.colour), roughness=0.0), shadow=0.2, bulge=0.0),
    ]
    if gap > 0.1 and rng.random() < 0.35:
        under = Body(body.neck * 0.95, 0.24, (0.5, 0.15), (0.5, 0.7), (0.5, 1.3), (0.5, hy - 0.08), 0.02)
        cloth = Fabric(dye(rng), "plain" if rng.random() < 0.6 else "hoops", second=dye(rng))
        pieces += [Panel(under.outline(), cloth, shadow=0.3), Panel(strip(under.neckline(0.03), 0.05), cloth.ribbed())]
    return pieces


def _sleeve(arm: Sleeve, name: str, style: Style, cloth: Fabric, seam: Colour) -> list[Piece]:
    pieces: list[Piece] = [Panel(arm.outline, cloth, turn=arm.turn, lift=0.02, bulge=style.padding, shadow=0.5)]
    if style.banded:
        rib = cloth.shaded(0.9).ribbed(0.06, 0.006)
        return [*pieces, Panel(arm.band(0.17, 0.86, 0.04), rib, turn=arm.turn, shadow=0.4)]
    if name == "denim":
        cuff = arm.band(0.14, 1.0, 0.02)
        x, y = cuff.mean(0).tolist()
        return [*pieces, Panel(cuff, cloth, turn=arm.turn + math.pi / 2, lift=0.03), Disc((x, y), 0.022, _BRASS)]
    if name == "blazer":
        along = np.array([math.cos(arm.direction), math.sin(arm.direction)])
        corner = arm.outer[-1] + (arm.inner[-1] - arm.outer[-1]) * 0.2
        spots = (corner - along * depth for depth in (0.07, 0.13, 0.19))
        return [*pieces, *(Disc((float(spot[0]), float(spot[1])), 0.018, seam) for spot in spots)]
    return [*pieces, Line(arm.hem(0.1), seam, 0.01, groove=0.7)]


def _seams(body: Body, name: str, cloth: Fabric, seam: Colour) -> list[Piece]:
    pieces: list[Piece] = [Line(body.armhole(), seam, 0.014, groove=0.9)]
    low = body.hem[1]
    if name != "puffer":
        pieces.append(Line(moved(body.bottom(), 0.0, -0.06), seam, 0.008, groove=0.5))
    if name == "denim":
        thread = (80, 150, 196) if brightness(cloth.colour) < 150 else seam
        yoke = path((0.1, 0.5), ((0.4, 0.5), (body.armpit[0] - 0.05, 0.48)))
        slant = path((0.5, 0.75), ((0.36, 1.2), (0.3, low - 0.14)))
        straight = path((0.24, 0.75), ((0.2, 1.2), (0.16, low - 0.14)))
        for curve in (yoke, slant, straight):
            pieces += [Line(curve, seam, 0.012, groove=0.9), Line(moved(curve, 0.025, 0.02), thread, 0.008, dash=0.03)]
        pieces.append(Line(moved(body.bottom(), 0.0, -0.15), seam, 0.012, groove=0.9))
    if name == "blazer":
        pieces.append(Line(path((0.42, 0.85), ((0.4, 1.2), (0.44, 1.5))), seam, 0.008, groove=0.5))
    # The hem runs from side to side; everything else is on the right, and on the left again.
    right = [piece for piece in pieces if isinstance(piece, Line) and piece.points[:, 0].min() >= 0]
    return [*pieces, *(replace(line, points=mirrored(line.points)) for line in right)]


def _pockets(body: Body, style: Style, cloth: Fabric, seam: Colour, metal: Colour) -> list[Piece]:
    pieces: list[Piece] = []
    for flip in (1.0, -1.0):
        side = np.array([flip, 1.0])
        if style.pockets in ("welt", "zip"):
            pieces += _slit(body.hem[1], side, style, cloth, metal)
        elif style.pockets == "flap":
            pieces.append(_flap(0.46, body.hem[1] - 0.72, 0.2, 0.01, side, cloth))
        else:
            pieces += _chest_pocket(side, cloth, metal)
    if style.pockets == "flap":
        breast = np.array([(0.3, 0.68), (0.56, 0.64), (0.57, 0.7), (0.31, 0.74)])
        pieces.append(Panel(breast, cloth, lift=0.02, shadow=0.4, inside=True))
    return pieces


def _slit(low: float, side: Points, style: Style, cloth: Fabric, metal: Colour) -> list[Piece]:
    slit = np.array([(0.36, low - 0.68), (0.52, low - 0.32)]) * side
    dark = Line(slit, darker(cloth.colour, 0.45), 0.02, groove=1.0)
    if style.pockets == "zip":
        return [dark, Line(slit, metal, 0.012, dash=0.012)]
    return [Panel(strip(slit, 0.06), cloth, turn=0.4 * float(side[0]), lift=0.025, shadow=0.45, inside=True), dark]


def _flap(x: float, y: float, half: float, point: float, side: Points, cloth: Fabric) -> Piece:
    outline = np.array(
        [(x - half, y), (x + half, y), (x + half, y + 0.12), (x, y + 0.12 + point), (x - half, y + 0.12)]
    )
    return Panel(outline * side, cloth, lift=0.03, shadow=0.5, inside=True)


def _chest_pocket(side: Points, cloth: Fabric, metal: Colour) -> list[Piece]:
    x, y, half = 0.42, 0.5, 0.16
    pouch = np.array(
        [(x - half, y), (x + half, y), (x + half - 0.03, y + 0.34), (x, y + 0.4), (x - half + 0.03, y + 0.34)]
    )
    return [
        Panel(pouch * side, cloth, lift=0.014, shadow=0.25, inside=True),
        _flap(x, y, half, 0.04, side, cloth),
        Disc((x * float(side[0]), y + 0.1), 0.022, metal),
    ]


def _waistband(body: Body, edge: Points, cloth: Fabric) -> list[Piece]:
    """A ribbed band along the hem of both fronts."""
    hem = body.bottom()
    right = hem[hem[:, 0] > edge[-1, 0]]
    band = np.concatenate([moved(right * np.array([0.97, 1.0]), 0.0, 0.03), moved(right, 0.0, -0.15)[::-1]])
    rib = cloth.shaded(0.9).ribbed(0.06, 0.006)
    return [Panel(points, rib, shadow=0.45, bulge=0.03) for points in (band, band * _FLIP)]


def _zip(rng: np.random.Generator, edge: Points, gap: float, cloth: Fabric, metal: Colour) -> list[Piece]:
    colour = darker(cloth.colour, 0.5) if rng.random() < 0.6 else contrasting(rng, cloth.colour)
    tape = Fabric(colour, roughness=0.0)
    if gap > 0:
        pieces: list[Piece] = []
        for line in (edge, edge * _FLIP):
            pieces += [
                Panel(strip(line, 0.05), tape, shadow=0.3, lift=0.0, bulge=0.0),
                Line(line, metal, 0.02, dash=0.014),
            ]
        return pieces
    y = float(edge[0, 1]) + (rng.uniform(0.0, 0.35) if rng.random() < 0.5 else 0.05)
    pull = np.array([(-0.025, y), (0.025, y), (0.018, y + 0.13), (-0.018, y + 0.13)])
    return [
        Panel(strip(edge, 0.07), tape, shadow=0.4, lift=0.0, bulge=0.0),
        Line(edge, darker(metal, 0.45), 0.03),
        Line(edge, metal, 0.026, dash=0.012),
        Panel(pull, Fabric(metal, roughness=0.0), lift=0.03),
    ]


def _studs(
    rng: np.random.Generator, body: Body, edge: Points, gap: float, cloth: Fabric, seam: Colour, metal: Colour
) -> list[Piece]:
    placket = strip(moved(edge, 0.055, 0.0), 0.11)
    sides = (placket, placket * _FLIP) if gap > 0 else (placket,)
    pieces: list[Piece] = [Panel(points, cloth, lift=0.02, shadow=0.4, inside=True) for points in sides]
    pieces.append(Line(moved(edge, 0.1, 0.0), seam, 0.008, groove=0.4))
    colour = metal if rng.random() < 0.7 else darker(cloth.colour, 0.6)
    for y in np.linspace(0.3, body.hem[1] - 0.08, int(rng.integers(5, 7))):
        x = float(np.interp(y, edge[:, 1], edge[:, 0])) + 0.055
        pieces.append(Disc((x, float(y)), 0.026, colour))
    return pieces


def _collar(
    rng: np.random.Generator, body: Body, style: Style, edge: Points, gap: float, cloth: Fabric, seam: Colour
) -> list[Piece]:
    if style.collar == "lapels":
        return collars.lapels(rng, body, edge, cloth, seam)
    if style.collar == "hood":
        return collars.hood_front(rng, body, gap, cloth)
    if style.collar == "stand":
        own = cloth if style.padding > 0.07 else cloth.ribbed(0.06, 0.006)
        return collars.stand(rng, body, gap, own, style.padding)
    meet, fall = gap * 0.5 + 0.02, rng.uniform(0.26, 0.4)
    tip = (meet + rng.uniform(0.2, 0.36), 0.14 + fall * 0.85)
    return collars.fold_down(body.neck, (meet, 0.13), tip, cloth, seam, stiff=1.25)
