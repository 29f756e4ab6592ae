"""Grounds on which the creatures sit, and the clutter that lies under and over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from outlines import Part, Points, Rng, curve, oval, stroke
from paint import Canvas, Colour, clouds, noise
from PIL import Image, ImageDraw, ImageFilter


def tint(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue (turns of the colour wheel), saturation and value, red, green and blue in 0..1."""
    shares = [abs((hue * 6 + shift) % 6 - 3) - 1 for shift in (0, 4, 2)]
    red, green, blue = (value * (1 - saturation * (1 - min(1.0, max(0.0, share)))) for share in shares)
    return red, green, blue


def ground(kind: str, size: int, hue: float, value: float, rng: Rng) -> Canvas:
    """A ground of a kind in GROUNDS, float32 [size, size, 3], around a hue and a brightness."""
    canvas = GROUNDS[kind](size, hue, value, rng)
    return np.ascontiguousarray(np.clip(canvas, 0, 1), dtype=np.float32)


def _flat(size: int, colour: Colour) -> Canvas:
    return np.broadcast_to(np.asarray(colour, np.float32), (size, size, 3)).copy()


def _paper(size: int, hue: float, value: float, rng: Rng) -> Canvas:
    canvas = _flat(size, tint(hue, rng.uniform(0.02, 0.3), value))
    canvas *= 0.9 + 0.16 * clouds(size, 3, rng, 5)[..., None]
    if rng.random() < 0.45:  # ruled or squared
        step, ink = int(rng.integers(18, 34)), np.asarray(tint(rng.random(), 0.4, 0.6), np.float32)
        for axis in (0, 1)[: int(rng.integers(1, 3))]:
            rows = canvas if axis == 0 else canvas.transpose(1, 0, 2)
            lines = rows[int(rng.integers(step)) :: step]
            lines += 0.4 * (ink - lines)
    if rng.random() < 0.35:  # a cup stood here
        x, y, r = rng.uniform(0, size, 3)
        yy, xx = np.mgrid[:size, :size]
        ring = np.exp(-(((np.hypot(xx - x, yy - y) - 0.3 * size - 0.1 * r) / 4) ** 2)) * clouds(size, 6, rng)
        canvas *= 1 - 0.5 * ring[..., None] * np.array([0.4, 0.7, 1.0])
    return canvas


def _wood(size: int, hue: float, value: float, rng: Rng) -> Canvas:
    fibres = clouds(size, 40, rng, 3, stretch=12)
    rings = 0.5 + 0.5 * np.sin(np.linspace(0, rng.uniform(20, 60), size)[:, None] + 5 * noise(size, 4, rng, 3))
    canvas = _flat(size, tint(0.05 + 0.06 * rng.random(), rng.uniform(0.25, 0.6), value))
    canvas *= 0.7 + 0.35 * fibres[..., None] + 0.15 * rings[..., None]
    return canvas if rng.random() < 0.5 else canvas.transpose(1, 0, 2)


def _leaves(size: int, hue: float, value: float, rng: Rng) -> Canvas:
    """Foliage out of focus."""
    sheet = Image.new("RGB", (size, size), _bytes(tint(hue, 0.4, value * 0.75)))
    draw = ImageDraw.Draw(sheet)
    for _ in range(40):
        leaf = _placed(_leaf(rng), rng, size, rng.uniform(0.1, 0.35))
        shade = tint((hue + rng.normal(0.0, 0.05)) % 1, rng.uniform(0.15, 0.5), value * rng.uniform(0.7, 1.1))
        draw.polygon([(float(x), float(y)) for x, y in leaf], fill=_bytes(shade))
    return _floats(sheet.filter(ImageFilter.GaussianBlur(rng.uniform(2.0, 9.0))))


def _gravel(size: int, hue: float, value: float, rng: Rng) -> Canvas:
    sheet = Image.new("RGB", (size, size), _bytes(tint(hue, 0.15, value * 0.65)))
    draw = ImageDraw.Draw(sheet)
    stone = rng.uniform(5, 22)
    for _ in range(int(2.2 * (size / stone) ** 2)):
        x, y = rng.uniform(0, size, 2)
        outline = oval(x, y, stone * rng.uniform(0.4, 1), stone * rng.uniform(0.4, 1), count=9)
        shade = tint(hue + rng.normal(0, 0.03), rng.uniform(0.02, 0.25), value * rng.uniform(0.75, 1.1))
        draw.polygon([(float(a), float(b)) for a, b in outline], fill=_bytes(shade))
    return _floats(sheet.filter(ImageFilter.GaussianBlur(1.2))) * (0.85 + 0.3 * clouds(size, 8, rng)[..., None])


def _cloth(size: int, hue: float, value: float, rng: Rng) -> Canvas:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    thread = rng.uniform(3.0, 6.0)
    weave = 0.5 + 0.25 * np.sin(2 * np.pi * x / thread) + 0.25 * np.sin(2 * np.pi * y / thread)
    canvas = _flat(size, tint(hue, rng.uniform(0.1, 0.4), value)) * (0.85 + 0.15 * weave[..., None])
    if rng.random() < 0.5:  # gingham
        wide, other = rng.uniform(30, 70), np.asarray(tint(rng.random(), 0.4, 0.9), np.float32)
        for along in (x, y):
            canvas += 0.2 * ((along // wide) % 2)[..., None] * (other - canvas)
    return np.asarray(canvas * (0.85 + 0.3 * clouds(size, 3, rng)[..., None]), np.float32)


def _grass(size: int, hue: float, value: float, rng: Rng) -> Canvas:
    sheet = Image.new("RGB", (size, size), _bytes(tint(0.28, 0.4, value * 0.6)))
    draw = ImageDraw.Draw(sheet)
    lean = rng.uniform(0, 2 * np.pi)
    for _ in range(140):
        at, angle, long = rng.uniform(-20, size + 20, 2), lean + rng.normal(0, 0.5), rng.uniform(30, 110)
        line = curve([at, at + long * 0.5 * np.array([np.cos(angle), np.sin(angle)]),
                      at + long * np.array([np.cos(angle + 0.4), np.sin(angle + 0.4)])])  # fmt: skip
        shade = tint((hue + rng.normal(0, 0.04)) % 1, rng.uniform(0.2, 0.5), value * rng.uniform(0.65, 1.0))
        draw.polygon([(float(a), float(b)) for a, b in stroke(line, rng.uniform(3, 7), 0.2)], fill=_bytes(shade))
    return _floats(sheet.filter(ImageFilter.GaussianBlur(rng.uniform(1.0, 5.0))))


def _bokeh(size: int, hue: float, value: float, rng: Rng) -> Canvas:
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    fade = (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1))[..., None]
    canvas = _flat(size, tint(hue, rng.uniform(0.1, 0.5), value))
    canvas *= 1 + 0.35 * fade
    for _ in range(int(rng.integers(4, 16))):
        cx, cy, r = rng.random(), rng.random(), rng.uniform(0.04, 0.2)
        disc = np.clip((r - np.hypot(x - cx, y - cy)) * rng.uniform(10, 60), 0, 1)[..., None]
        glow = np.asarray(tint((hue + rng.normal(0, 0.1)) % 1, rng.uniform(0.1, 0.5), rng.uniform(0.4, 1)), np.float32)
        canvas += 0.4 * disc * (glow - canvas)
    return canvas


GROUNDS: dict[str, Callable[[int, float, float, Rng], Canvas]] = {
    "paper": _paper,
    "wood": _wood,
    "leaves": _leaves,
    "gravel": _gravel,
    "cloth": _cloth,
    "grass": _grass,
    "bokeh": _bokeh,
}


def clutter(size: int, count: int, rng: Rng) -> list[Part]:
    """Things that lie about: twigs, blades of grass, leaves, petals, crumbs and scribbles."""
    makers = (_twig, _blade_of_grass, _leaf, _leaf, _petal, _crumb, _scribble)
    parts = []
    for _ in range(count):
        outline = makers[int(rng.integers(len(makers)))](rng)
        role = str(rng.choice(["body", "second", "wing", "mark", "limb"]))
        parts.append(Part(_placed(outline, rng, size, rng.uniform(0.08, 0.3)), role))
    return parts


def _placed(outline: Points, rng: Rng, size: int, scale: float) -> Points:
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(outline @ np.array([[c, s], [-s, c]]) * scale * size + rng.uniform(-0.05, 1.05, 2) * size)


def _twig(rng: Rng) -> Points:
    y = np.cumsum(rng.normal(0, 0.25, 5))
    return stroke(curve(np.stack([np.linspace(-1.6, 1.6, 5), y - y.mean()], axis=1)), rng.uniform(0.08, 0.2), 0.5)


def _blade_of_grass(rng: Rng) -> Points:
    bow = rng.uniform(-0.6, 0.6)
    return stroke(curve([(-1.5, 0), (0, bow), (1.5, bow * 0.3)]), rng.uniform(0.12, 0.3), 0.1)


def _leaf(rng: Rng) -> Points:
    wide, belly = rng.uniform(0.25, 0.6), rng.uniform(-0.3, 0.2)
    return curve([(-1, 0), (belly, -wide), (1, 0), (belly, wide)], closed=True)


def _petal(rng: Rng) -> Points:
    return oval(0, 0, rng.uniform(0.3, 0.5), 0.6, egg=rng.uniform(0.2, 0.6), count=24)


def _crumb(rng: Rng) -> Points:
    turn = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    reach = rng.uniform(0.15, 0.5) * rng.uniform(0.7, 1.2, 9)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1) * reach[:, None]


def _scribble(rng: Rng) -> Points:
    x = np.linspace(-1.3, 1.3, 14) + rng.normal(0, 0.08, 14)
    return stroke(curve(np.stack([x, rng.normal(0, 0.16, 14)], axis=1), steps=4), 0.05, 1.0)


def _bytes(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (int(255 * min(1.0, max(0.0, channel))) for channel in colour)
    return red, green, blue


def _floats(sheet: Image.Image) -> Canvas:
    return np.asarray(sheet, np.float32) / np.float32(255)
