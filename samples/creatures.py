"""Anatomy: small creatures as filled outlines in body units, seen from above with the head up.

Every creature is a new individual: proportions, pose and markings come from the random generator that is passed in,
colours are only named by role, so that the painter chooses them whatever the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from outlines import Mark, Part, Points, Rng, curve, mirrored, moved, oval, stroke


def creature(kind: str, rng: Rng) -> list[Part]:
    """A new individual of a kind in KINDS, in painting order, centred, with its farthest point at distance 1."""
    parts = KINDS[kind](rng)
    points = np.concatenate([part.outline for part in parts])
    centre = (points.max(axis=0) + points.min(axis=0)) / 2
    size = np.linalg.norm(points - centre, axis=1).max()
    return [moved(part, lambda p: (p - centre) / size) for part in parts]


def _both(outline: Points, role: str, opacity: float = 1.0, marks: Sequence[Mark] = ()) -> list[Part]:
    other = tuple((mirrored(mark), of) for mark, of in marks)
    return [Part(outline, role, opacity, tuple(marks)), Part(mirrored(outline), role, opacity, other)]


def _furry(outline: Points, length: float, rng: Rng) -> Points:
    """The outline with a coat of short hair."""
    centre = outline.mean(axis=0)
    steps = np.linspace(0, len(outline), 3 * len(outline), endpoint=False)
    closed = np.concatenate([outline, outline[:1]])
    dense = np.stack([np.interp(steps, np.arange(len(closed)), closed[:, i]) for i in (0, 1)], axis=1)
    reach = 1 + length * rng.uniform(0, 1, len(dense)) * (np.arange(len(dense)) % 2)
    return np.asarray(centre + (dense - centre) * reach[:, None])


def _limb(root: tuple[float, float], joints: Sequence[tuple[float, float]], width: float, rng: Rng) -> Points:
    """A jointed limb. joints: (degrees, length) of each piece, 0 points away from the body, -90 to the front."""
    at = np.array(root)
    line = [at]
    for degrees, length in joints:
        angle = np.radians(degrees + rng.normal(0, 7))
        step = np.array([np.cos(angle), np.sin(angle)]) * length * rng.uniform(0.9, 1.1)
        line += [at + step / 2, at + step]
        at = at + step
    return stroke(np.array(line), width, 0.45)


def _legs(
    roots: Sequence[tuple[float, float]],
    degrees: Sequence[float] | Points,
    lengths: Sequence[float] | Points,
    bend: float,
    width: float,
    rng: Rng,
) -> list[Part]:
    """Pairs of legs, every leg in a pose of its own. bend: degrees by which the knees turn to front or back."""
    parts = []
    for root, angle, length in zip(roots, degrees, lengths):
        turn = bend if angle >= 0 else -bend
        for side in (1, -1):
            joints = [
                (angle - turn * 0.4, 0.42 * length),
                (angle + turn * 0.6, 0.4 * length),
                (angle + turn, 0.2 * length),
            ]
            limb = _limb(root, joints, width, rng)
            parts.append(Part(limb if side > 0 else mirrored(limb), "limb"))
    return parts


def _antennae(root: tuple[float, float], joints: Sequence[tuple[float, float]], width: float, rng: Rng) -> list[Part]:
    return [
        Part(limb if side else mirrored(limb), "limb") for side in (0, 1) for limb in [_limb(root, joints, width, rng)]
    ]


def _bands(y0: float, y1: float, count: int, share: float, rng: Rng) -> list[Mark]:
    """Stripes across the body from y0 to y1."""
    edges = np.linspace(y0, y1, count + 1)
    sag = rng.uniform(-0.08, 0.08)
    marks = []
    for top, bottom in pairwise(edges):
        thick = (bottom - top) * share
        line = curve([(-1.0, top + sag), (0.0, top), (1.0, top + sag)])
        marks.append((np.concatenate([line, line[::-1] + np.array([0, thick])]), "second"))
    return marks


def _dots(outline: Points, rng: Rng, role: str = "mark") -> list[Mark]:
    """Round spots here and there on one half of the body."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    size = (high - low).min()
    radius = size * rng.uniform(0.07, 0.2)
    places = rng.uniform(low, high, (int(rng.integers(1, 6)), 2))
    return [(oval(x, y, radius, radius, count=14), role) for x, y in places]


def _coat(outline: Points, rng: Rng) -> tuple[Mark, ...]:
    """Markings of an abdomen, of any kind for any creature: plain, banded, spotted, or with a line on the back."""
    top, bottom = outline[:, 1].min(), outline[:, 1].max()
    choice = rng.integers(4)
    if choice == 0:
        return ()
    if choice == 1:
        return tuple(_bands(top, bottom, int(rng.integers(3, 7)), rng.uniform(0.3, 0.55), rng))
    if choice == 2:
        half = _dots(outline * [0.6, 1.0], rng)
        return (*half, *((mirrored(mark), role) for mark, role in half))
    return ((stroke(np.array([(0, top), (0, bottom)]), (bottom - top) * rng.uniform(0.08, 0.25), 0.6), "second"),)


def _eyes(x: float, y: float, size: float) -> list[Part]:
    return _both(oval(x, y, size, size * 1.25, count=16), "mark")


def _ant(rng: Rng) -> list[Part]:
    head, waist, rear = rng.uniform(0.85, 1.25, 3)
    width = rng.uniform(0.045, 0.075)
    gaster = oval(0, 0.62 + 0.3 * rear, 0.3 * rear, 0.42 * rear, egg=rng.uniform(-0.25, 0.1))
    thorax = curve([(0, -0.42), (0.17, -0.25), (0.12 * waist, 0.02), (0.13, 0.2), (0, 0.33), (-0.13, 0.2),
                    (-0.12 * waist, 0.02), (-0.17, -0.25)], closed=True)  # fmt: skip
    face = oval(0, -0.66, 0.24 * head, 0.26 * head, egg=-rng.uniform(0.0, 0.25), square=2.3)
    feelers = [(-62, 0.36), (-58 + rng.uniform(-30, 30), 0.42)]
    jaws = _both(stroke(curve([(0.12, -0.85), (0.17, -0.98), (0.04, -1.04)]), 0.07, 0.4), "limb")
    return [
        *_legs([(0.1, -0.25), (0.11, -0.05), (0.1, 0.12)], [-38, 12, 48], rng.uniform(0.9, 1.3, 3), 38, width, rng),
        *_antennae((0.12, -0.84), feelers, width * 0.8, rng),
        *(jaws if rng.random() < 0.6 else []),
        Part(gaster, "body", marks=_coat(gaster, rng)),
        Part(oval(0, 0.43, 0.09 * waist, 0.11), "second"),
        Part(thorax, "body"),
        Part(face, "second" if rng.random() < 0.4 else "body"),
        *_eyes(0.17 * head, -0.7, 0.05),
    ]


def _bee(rng: Rng) -> list[Part]:
    plump = rng.uniform(0.85, 1.2)
    abdomen = oval(0, 0.5, 0.34 * plump, rng.uniform(0.46, 0.6), egg=-rng.uniform(0.05, 0.3))
    bands = _bands(0.1, 1.0, int(rng.integers(3, 6)), rng.uniform(0.35, 0.55), rng)
    thorax = oval(0, -0.2, 0.3 * plump, 0.28)
    sweep, long = rng.uniform(15, 62), rng.uniform(0.8, 1.05)
    fore, hind = (
        (_blade(long, 0.17, 0.3), (0.12, -0.26), sweep),
        (_blade(long * 0.68, 0.14, 0.3), (0.12, -0.1), sweep + 22),
    )
    wings = [_turned(*hind, rng), _turned(*fore, rng)]
    clear = rng.uniform(0.35, 0.75)
    flat = [p for wing in wings for p in _both(wing, "wing", clear, [_vein(wing, 0.3), _vein(wing, 0.62)])]
    legs = _legs([(0.2, -0.3), (0.24, -0.15), (0.2, 0.0)], [-42, 8, 46], rng.uniform(0.42, 0.62, 3), 40, 0.07, rng)
    body = [
        Part(_furry(abdomen, 0.07, rng), "body", marks=tuple(bands)),
        Part(_furry(thorax, rng.uniform(0.1, 0.28), rng), "second" if rng.random() < 0.5 else "body"),
        Part(oval(0, -0.56, 0.22, 0.15, square=2.2), "body"),
        *_eyes(0.18, -0.56, 0.07),
    ]
    feelers = _antennae((0.08, -0.68), [(-70, 0.14), (-48, 0.2)], 0.04, rng)
    return [*legs, *feelers, *(flat + body if rng.random() < 0.4 else body + flat)]


def _beetle(rng: Rng) -> list[Part]:
    wide, long = rng.uniform(0.38, 0.62), rng.uniform(0.62, 0.85)
    shell = oval(0, 0.0, wide, long, egg=rng.uniform(-0.12, 0.15), square=rng.uniform(2.0, 2.7))
    half = np.concatenate([shell[shell[:, 0] >= -1e-9], [[0.0, -long], [0.0, long]]])
    half = half[np.argsort(np.arctan2(half[:, 1], half[:, 0] + 1e-6))]
    marks: list[Mark] = []
    pattern = rng.integers(4)
    if pattern == 1:
        marks = _dots(half, rng)
    elif pattern == 2:
        marks = _bands(-long, long, int(rng.integers(2, 5)), rng.uniform(0.3, 0.5), rng)
    elif pattern == 3:  # furrows
        marks = [(stroke(curve([(wide * f, -long), (wide * f * 1.15, 0), (wide * f * 0.6, long)]), 0.035, 0.8), "mark")
                 for f in (0.28, 0.55, 0.8)]  # fmt: skip
    collar = oval(0, -long - 0.08, wide * rng.uniform(0.7, 0.95), 0.24, egg=rng.uniform(0.05, 0.25), square=2.6)
    head = oval(0, -long - 0.36, wide * rng.uniform(0.4, 0.6), 0.15, square=2.4)
    front = (wide * 0.25, -long - 0.46)
    weapons: list[Part] = []
    if rng.random() < 0.3:  # a stag
        reach = rng.uniform(0.25, 0.5)
        jaw = curve([front, (0.3, front[1] - reach * 0.4), (0.2, front[1] - reach), (0.05, front[1] - reach * 1.05)])
        weapons = _both(stroke(jaw, 0.13, 0.35), "second")
    horns = [(-58, 0.2), (-20, 0.2), (20, rng.uniform(0.05, 0.75))]
    legs = _legs(
        [(wide * 0.7, -long * 0.8), (wide * 0.8, -0.15), (wide * 0.8, 0.25)],
        [-36, 4, 42], rng.uniform(0.5, 0.85, 3), 34, rng.uniform(0.07, 0.11), rng,
    )  # fmt: skip
    return [
        *legs, *_antennae(front, horns, 0.045, rng), *weapons,
        Part(head, "second"), *_eyes(wide * 0.42, -long - 0.38, 0.05), Part(collar, "second", marks=_coat(collar, rng)),
        *_both(half, "body", marks=marks),
    ]  # fmt: skip


def _blade(length: float, breadth: float, belly: float) -> Points:
    """A wing along the x axis from its root at the origin; belly: where it is broadest."""
    return curve([(0, 0.02), (length * belly, -breadth * 0.55), (length * 0.85, -breadth * 0.5), (length, 0.0),
                  (length * 0.8, breadth * 0.55), (length * belly, breadth * 0.5)], closed=True)  # fmt: skip


def _turned(wing: Points, root: tuple[float, float], degrees: float, rng: Rng) -> Points:
    angle = np.radians(degrees + rng.normal(0, 3))
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(wing @ np.array([[c, s], [-s, c]]) + root)


def _vein(wing: Points, where: float) -> Mark:
    """A vein from the wing's root to a place on its rim."""
    return stroke(np.stack([wing[0], wing[int(where * len(wing))]]), 0.018, 0.7), "mark"


def _wing_marks(wing: Points, rng: Rng) -> list[Mark]:
    """A rim, a field, eyes and veins, some of them."""
    root, far = wing[0], wing[np.argmax(np.linalg.norm(wing - wing[0], axis=1))]
    marks: list[Mark] = []
    if rng.random() < 0.65:  # all but a rim in another colour
        marks.append((root + (wing - root) * rng.uniform(0.72, 0.88), "second"))
    if rng.random() < 0.35:
        marks.append((root + (wing - root) * rng.uniform(0.3, 0.55), "wing"))
    if rng.random() < 0.55:
        middle = wing.mean(axis=0) * rng.uniform(0.5, 0.9) + far * rng.uniform(0.15, 0.4)
        size = rng.uniform(0.06, 0.16)
        marks += [
            (oval(middle[0], middle[1], size, size, count=18), "mark"),
            (oval(middle[0], middle[1], size * 0.5, size * 0.5, count=14), "body"),
        ]
    if rng.random() < 0.6:
        marks += [_vein(wing, f) for f in np.linspace(0.2, 0.75, int(rng.integers(3, 6)))]
    return marks


def _butterfly(rng: Rng) -> list[Part]:
    tall, wide, point = rng.uniform(0.85, 1.15), rng.uniform(0.9, 1.15), rng.uniform(-0.1, 0.12)
    fore = curve([(0.05, -0.3), (0.45 * wide, -0.75 * tall), (1.05 * wide, -(0.98 + point) * tall),
                  (1.1 * wide, -0.62 * tall), (0.95 * wide, -0.18), (0.6, 0.02), (0.05, -0.05)],
                 closed=True)  # fmt: skip
    tail = rng.uniform(0.3, 0.6) if rng.random() < 0.35 else 0.0
    hind = curve([(0.05, -0.08), (0.55, -0.02), (0.92 * wide, 0.18), (0.9 * wide, 0.55), (0.62, 0.8 + 0.2 * tail),
                  (0.5, 0.85 + tail), (0.38, 0.8), (0.12, 0.45)], closed=True)  # fmt: skip
    slim = oval(0, 0.05, rng.uniform(0.06, 0.1), 0.55, egg=-0.2)
    feelers = [(-72, 0.25), (-56, rng.uniform(0.2, 0.4))]
    clubs = []
    for limb in _antennae((0.03, -0.52), feelers, 0.03, rng):
        tip = limb.outline[len(limb.outline) // 2]
        clubs += [limb, Part(oval(tip[0], tip[1], 0.04, 0.055, count=14), "limb")]
    return [
        *_both(hind, "wing", marks=_wing_marks(hind, rng)), *_both(fore, "wing", marks=_wing_marks(fore, rng)),
        *clubs, Part(slim, "body", marks=_coat(slim, rng)), Part(oval(0, -0.5, 0.09, 0.09), "body"),
    ]  # fmt: skip


def _moth(rng: Rng) -> list[Part]:
    stout = rng.uniform(0.9, 1.2)
    if rng.random() < 0.6:  # at rest: the forewings lie back like a roof
        back, out = rng.uniform(0.55, 0.9), rng.uniform(0.7, 1.0)
        fore = curve([(0.05, -0.42), (0.3, -0.4), (0.75 * out, 0.1), (out, back), (0.6 * out, back + 0.12),
                      (0.08, 0.55)], closed=True)  # fmt: skip
        hind = curve(
            [(0.05, 0.0), (0.6 * out, 0.35), (0.62 * out, back + 0.16), (0.3, back + 0.2), (0.05, 0.5)], closed=True
        )
    else:
        out = rng.uniform(1.0, 1.25)
        fore = curve(
            [(0.05, -0.38), (0.5, -0.55), (out, -0.5), (1.02 * out, -0.3), (0.72, 0.12), (0.05, 0.1)], closed=True
        )
        hind = curve([(0.05, 0.0), (0.65, 0.1), (0.78, 0.42), (0.45, 0.68), (0.08, 0.4)], closed=True)
    bars = [] if rng.random() < 0.3 else _bands(-0.5, 1.1, int(rng.integers(4, 8)), rng.uniform(0.2, 0.4), rng)
    body = _furry(oval(0, 0.12, 0.16 * stout, 0.5, egg=-0.1), 0.12, rng)
    ruff = _furry(oval(0, -0.32, 0.22 * stout, 0.22), 0.2, rng)
    combs: list[Part] = []
    for side in (1, -1):
        shaft = curve([(0.06, -0.55), (0.22, -0.72), (0.42, -0.78 + rng.uniform(-0.1, 0.15))], steps=6)
        along = np.gradient(shaft, axis=0)
        barb = np.stack([-along[:, 1], along[:, 0]], axis=1)
        barb *= 0.13 / (np.linalg.norm(barb, axis=1, keepdims=True) + 1e-9) * np.linspace(1, 0.4, len(shaft))[:, None]
        teeth = np.empty((4 * len(shaft), 2))
        teeth[0::2] = np.concatenate([shaft, shaft[::-1]])
        teeth[1::2] = np.concatenate([shaft + barb, (shaft - barb)[::-1]])
        combs.append(Part(teeth if side > 0 else mirrored(teeth), "limb"))
    wings = [
        *_both(hind, "second", marks=_wing_marks(hind, rng)),
        *_both(fore, "wing", marks=[*bars, *_wing_marks(fore, rng)[1:]]),
    ]
    fur = Part(body, "body", marks=_coat(body, rng))
    ruff_role = "body" if rng.random() < 0.5 else "second"
    return [
        *combs,
        *([fur, *wings] if rng.random() < 0.5 else [*wings, fur]),
        Part(ruff, ruff_role),
        Part(oval(0, -0.53, 0.12, 0.09), "body"),
    ]


def _dragonfly(rng: Rng) -> list[Part]:
    thin, long = rng.uniform(0.045, 0.085), rng.uniform(1.1, 1.4)
    fore, hind = _blade(rng.uniform(0.95, 1.15), 0.19, 0.6), _blade(rng.uniform(0.9, 1.08), 0.25, 0.4)
    tilt = rng.uniform(-18, 12)
    clear = rng.uniform(0.3, 0.8)
    wings = []
    for wing, root, degrees in ((hind, (0.06, -0.2), tilt + rng.uniform(12, 30)), (fore, (0.06, -0.34), tilt)):
        placed = _turned(wing, root, degrees, rng)
        tip = placed[np.argmax(np.linalg.norm(placed - placed[0], axis=1))]
        spot = placed[0] + (tip - placed[0]) * 0.86
        marks = [_vein(placed, f) for f in (0.28, 0.42, 0.6)] + [
            (oval(spot[0], spot[1], 0.07, 0.035, count=12), "mark")
        ]
        wings += _both(placed, "wing", clear, marks)
    bow = rng.uniform(-0.14, 0.14)
    tail = stroke(curve([(0, -0.1), (bow * 0.3, 0.4), (bow, long)]), 2 * thin, rng.uniform(0.8, 1.5))
    rings = _bands(-0.1, long, int(rng.integers(5, 9)), rng.uniform(0.12, 0.5), rng)
    chest = oval(0, -0.28, 0.15, 0.24)
    body = [
        Part(tail, "body", marks=tuple(rings)),
        Part(chest, "second" if rng.random() < 0.4 else "body", marks=_coat(chest, rng)),
        Part(oval(0, -0.57, 0.1, 0.09), "body"),
        *_both(oval(0.1, -0.6, 0.11, 0.1), "mark"),
    ]  # fmt: skip
    legs = _legs([(0.08, -0.42), (0.1, -0.36)], [-55, -25], (0.35, 0.3), 30, 0.035, rng) if rng.random() < 0.6 else []
    return [*legs, *(wings + body if rng.random() < 0.6 else body + wings)]


def _grasshopper(rng: Rng) -> list[Part]:
    slim, long = rng.uniform(0.14, 0.21), rng.uniform(0.8, 1.05)
    knee, lift = rng.uniform(24, 48), rng.uniform(-10, 14)
    parts: list[Part] = []
    thigh_length, shin = rng.uniform(0.75, 0.95), rng.uniform(0.75, 0.95)
    for side in (1, -1):
        spread = np.radians(knee + rng.normal(0, 5))
        hip = np.array([slim * 0.8, -0.05])
        joint = hip + thigh_length * np.array([np.sin(spread), -np.cos(spread) * (1 if lift < 4 else -0.35)])
        foot = joint + shin * np.array([np.sin(np.radians(lift)) * 0.4, 1.0])
        middle = hip * 0.65 + joint * 0.35
        across = np.array([-(joint - hip)[1], (joint - hip)[0]])
        across *= 0.1 / np.linalg.norm(across)
        thigh = curve([hip - across * 0.5, middle - across, joint - across * 0.35, joint + across * 0.35,
                       middle + across, hip + across * 0.5], closed=True)  # fmt: skip
        tarsus = stroke(curve([joint, (joint + foot) / 2, foot, foot + np.array([0.12, 0.08])]), 0.06, 0.5)
        for outline, role in ((tarsus, "limb"), (thigh, "second")):
            marks = ((stroke(np.stack([hip, joint]), 0.03, 0.6), "mark"),) if role == "second" else ()
            part = Part(outline, role, marks=marks)
            parts.append(part if side > 0 else moved(part, mirrored))
    legs = _legs([(slim, -0.5), (slim, -0.3)], [-50, 5], rng.uniform(0.45, 0.65, 2), 34, 0.05, rng)
    abdomen = oval(0, 0.3, slim, long * 0.8, egg=-0.2)
    folded = curve(
        [(0.02, -0.4), (slim * 1.15, -0.3), (slim * 1.1, 0.4), (slim * 0.5, long + 0.1), (0.0, long)], closed=True
    )
    saddle = oval(0, -0.48, slim * 1.15, 0.24, egg=0.12, square=2.8)
    veins: list[Mark] = [
        (stroke(np.array([(slim * f, -0.4), (slim * f * 0.8, long)]), 0.02, 0.8), "mark") for f in (0.4, 0.8)
    ]
    return [
        *legs, *_antennae((0.06, -0.85), [(-72, 0.3), (-60 + rng.uniform(-25, 25), rng.uniform(0.25, 0.7))], 0.03, rng),
        Part(abdomen, "body", marks=_coat(abdomen, rng)),
        *_both(folded, "wing", marks=veins if rng.random() < 0.6 else []),
        *parts, Part(oval(0, -0.76, slim * 0.95, 0.17, egg=0.1), "body"), *_eyes(slim * 0.75, -0.8, 0.05),
        Part(saddle, "second" if rng.random() < 0.5 else "body", marks=_coat(saddle, rng)),
    ]  # fmt: skip


def _spider(rng: Rng) -> list[Part]:
    fat = rng.uniform(0.7, 1.25)
    abdomen = oval(0, 0.2 + 0.3 * fat, 0.34 * fat, 0.44 * fat, egg=rng.uniform(-0.25, 0.3))
    front = oval(0, -0.14, 0.23, 0.27, egg=rng.uniform(0, 0.25))
    reach = rng.uniform(0.85, 1.5) * np.array([1.1, 0.95, 0.8, 1.05])
    degrees = np.array([-62, -24, 16, 54]) + rng.normal(0, 6, 4)
    roots = [(0.14, -0.3), (0.2, -0.2), (0.2, -0.08), (0.15, 0.02)]
    width = rng.uniform(0.05, 0.09)
    palps = _antennae((0.08, -0.36), [(-75, 0.14), (-100, 0.12)], 0.07, rng)
    return [
        *_legs(roots, degrees, reach, rng.uniform(30, 60), width, rng), *palps,
        Part(abdomen if rng.random() < 0.6 else _furry(abdomen, 0.1, rng), "body", marks=_coat(abdomen, rng)),
        Part(front, "second" if rng.random() < 0.4 else "body"),
        *_eyes(0.07, -0.32, 0.035),
    ]  # fmt: skip


KINDS: dict[str, Callable[[Rng], list[Part]]] = {
    "ant": _ant,
    "bee": _bee,
    "beetle": _beetle,
    "butterfly": _butterfly,
    "dragonfly": _dragonfly,
    "grasshopper": _grasshopper,
    "moth": _moth,
    "spider": _spider,
}
