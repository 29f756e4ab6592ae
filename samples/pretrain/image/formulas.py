"""Formula classes: what stays the same in all images of a class, and how one is drawn.

A class is a random generator seeded with its number: it draws the class's own numbers first (shape, texture,
palette), then every instance's pose, jitter, ground and light.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samples.pretrain.image.fields import (
    Grid,
    Rng,
    attractor,
    contour,
    crops,
    each,
    noise_bank,
    posed_grid,
    splat,
    stroke,
    tensor,
)
from samples.pretrain.image.paint import (
    Banks,
    Fill,
    background,
    coloured,
    fill,
    filled,
    finish,
    flat,
    leaves_bank,
    lit,
    over,
    palette,
    palettes,
)

VERSION = 1  # of the images that a seed gives
FAMILIES = ("contour", "body", "stroke", "fractal", "texture", "network")
SHARES = (0.2, 0.3, 0.16, 0.14, 0.1, 0.1)


def banks(seed: int, side: int) -> Banks:
    """The shared noise and clutter."""
    rng = np.random.default_rng([seed, 1_000_003])
    noise = noise_bank(180, 2 * side, rng)
    return Banks(noise, leaves_bank(96, side, rng, noise))


def family(label: int, classes: int) -> str:
    """The family of a class: fixed shares, in blocks."""
    return FAMILIES[int(np.searchsorted(np.cumsum(SHARES), (label + 0.5) / classes))]


def render(label: int, classes: int, count: int, side: int, seed: int, shared: Banks) -> Tensor:
    """All images of one class, uint8 [count, side, side, 3]; the same numbers give the same bytes."""
    rng = np.random.default_rng([seed, label])
    draw = {
        "contour": _contours,
        "body": _bodies,
        "stroke": _strokes,
        "fractal": _fractals,
        "texture": _textures,
        "network": _networks,
    }[family(label, classes)]
    return finish(draw(rng, count, side, shared), rng)


def _own_palette(rng: Rng) -> np.ndarray | None:
    return palette(rng) if rng.random() < 0.7 else None  # else colour says nothing of the class


@dataclass(frozen=True)
class _Part:
    x: float
    y: float
    angle: float
    sx: float
    sy: float
    waves: tuple[tuple[int, float, float], ...]
    corners: int
    anchor: int
    style: Fill | None


def _part(rng: Rng, size: float, reach: float, waves: int) -> _Part:
    frequencies = rng.choice(np.arange(2, 10), waves, replace=False)
    x, y = rng.uniform(-reach, reach, 2)
    return _Part(
        x=x,
        y=y,
        angle=rng.uniform(0, np.pi),
        sx=size * np.exp(rng.normal(0, 0.35)),
        sy=size * np.exp(rng.normal(0, 0.35)),
        waves=tuple((int(k), rng.normal(0, 0.5) / k**0.7, rng.uniform(0, 2 * np.pi)) for k in frequencies),
        corners=int(rng.choice([0, 0, 0, 3, 4, 5, 6])),
        anchor=int(rng.integers(4)),
        style=fill(rng) if rng.random() < 0.5 else None,
    )


def _drawn(picture: Tensor, part: _Part, grid: Grid, colours: Tensor, shared: Banks, rng: Rng, relief: float,
           line: float, sway: float) -> Tensor:  # fmt: skip
    """The picture with one part on it, each instance's a little different."""
    n = picture.shape[0]

    def near(value: float, spread: float) -> Tensor:
        return each(value + rng.normal(0, spread, n))

    sizes = np.exp(rng.normal(0, 0.08, (2, n)))
    own = grid.placed(near(part.x, sway), near(part.y, sway), near(part.angle, 2 * sway), each(part.sx * sizes[0]),
                      each(part.sy * sizes[1]))  # fmt: skip
    waves = [(k, near(a, 0.03), near(p, 0.12)) for k, a, p in part.waves]
    height = contour(own, waves, part.corners)
    ink: Tensor = flat(colours, part.anchor)
    if part.style is not None:
        ink = coloured(filled(part.style, own, shared.noise, rng), colours.roll(part.anchor, dims=1))
    ink = lit(ink.expand_as(picture), height, rng, relief)
    picture = over(picture, height, ink)
    if line:
        rim = 1 - (height / line).abs()
        picture = over(picture, rim, flat(colours, 0) * 0.35)
    return picture


def _contours(rng: Rng, n: int, side: int, shared: Banks) -> Tensor:
    """One closed contour of many waves, nested a few times: filled, ringed or drawn as lines only."""
    own = _own_palette(rng)
    mode = str(rng.choice(["filled", "rings", "lines"], p=[0.5, 0.2, 0.3]))
    outer = _part(rng, 0.75, 0.0, int(rng.integers(2, 6)))
    nested, ring = int(rng.integers(1, 5)), rng.uniform(8, 22)
    relief, line = rng.uniform(0, 0.6), float(rng.choice([0, 0.06]))
    colours = palettes(n, rng, own)
    grid = posed_grid(n, side, rng, turn=0.5, scale=(0.6, 1.25), shift=0.3)
    picture = background(n, side, shared, rng)
    if mode == "filled":
        return _drawn(picture, outer, grid, colours, shared, rng, relief, line, 0.02)
    for level in range(nested if mode == "lines" else 1):
        shrink = 1 - 0.22 * level
        part_grid = grid.placed(each(np.zeros(n)), each(np.zeros(n)), each(np.full(n, 0.15 * level)),
                                each(np.full(n, outer.sx * shrink)), each(np.full(n, outer.sy * shrink)))  # fmt: skip
        waves = [(k, each(a + rng.normal(0, 0.03, n)), each(p + rng.normal(0, 0.12, n))) for k, a, p in outer.waves]
        height = contour(part_grid, waves, outer.corners)
        if mode == "rings":
            bands = 0.5 + 0.5 * torch.sin(ring * height)
            picture = over(picture, height, lit(coloured(bands, colours), height, rng, relief))
        else:
            width = each(rng.uniform(0.03, 0.1, n))
            picture = over(picture, 1 - height.abs() / width, flat(colours, level % 4) * 0.7, edge=0.3)
    return picture


def _bodies(rng: Rng, n: int, side: int, shared: Banks) -> Tensor:
    """An object of several parts that sway against each other, often mirror-symmetric."""
    own = _own_palette(rng)
    parts = [_part(rng, 0.5, 0.15, int(rng.integers(0, 3)))]
    mirrored = rng.random() < 0.5
    for _ in range(int(rng.integers(1, 6))):
        part = _part(rng, rng.uniform(0.1, 0.32), 0.65, int(rng.integers(0, 3)))
        parts.insert(int(rng.integers(len(parts) + 1)), part)
        if mirrored:
            waves = tuple((k, a, -p) for k, a, p in part.waves)
            twin = replace(part, x=-part.x, angle=-part.angle, waves=waves)
            parts.append(twin)
    relief, line = rng.uniform(0, 0.7), float(rng.choice([0, 0, 0.08]))
    colours = palettes(n, rng, own)
    grid = posed_grid(n, side, rng, turn=0.3, scale=(0.6, 1.25), shift=0.3)
    picture = background(n, side, shared, rng)
    for part in parts:
        picture = _drawn(picture, part, grid, colours, shared, rng, relief, line, 0.04)
    return picture


def _strokes(rng: Rng, n: int, side: int, shared: Banks) -> Tensor:
    """A sign of a few strokes: thin on paper as a sketch, thick and lit as a limb."""
    own = _own_palette(rng)
    thick = rng.random() < 0.4
    curves = [np.cumsum(rng.normal(0, 0.42, (int(rng.integers(3, 6)), 2)), axis=0) for _ in range(rng.integers(2, 5))]
    curves = [c - c.mean(axis=0) + rng.uniform(-0.4, 0.4, 2) for c in curves]
    widths = rng.uniform(0.09, 0.22, len(curves)) if thick else rng.uniform(0.03, 0.07, len(curves))
    relief = rng.uniform(0.2, 0.7) if thick else 0.0
    colours = palettes(n, rng, own)
    grid = posed_grid(n, side, rng, turn=0.3, scale=(0.65, 1.25), shift=0.25)
    picture = background(n, side, shared, rng)
    for i, (curve, width) in enumerate(zip(curves, widths, strict=True)):
        points = tensor(curve + rng.normal(0, 0.05, (n, *curve.shape)))
        height = stroke(grid, points, each(width * np.exp(rng.normal(0, 0.25, n))))
        ink = flat(colours, i % 4)
        picture = over(picture, height, lit(ink.expand_as(picture), height, rng, relief) if thick else ink, edge=0.2)
    return picture


def _fractals(rng: Rng, n: int, side: int, shared: Banks) -> Tensor:
    """An iterated function system, coloured by its maps' history; thin systems are thrown away."""
    own = _own_palette(rng)
    while True:
        count = int(rng.integers(2, 6))
        maps = rng.uniform(-1, 1, (count, 2, 3)) * np.array([0.85, 0.85, 1.0])
        bend = str(rng.choice(["flat", "flat", "sin", "swirl", "ball"]))
        chances = np.abs(np.linalg.det(maps[:, :, :2])) + 0.03
        chances /= chances.sum()
        if bend == "flat" and np.abs(np.linalg.eigvals(maps[:, :, :2])).max() > 0.95:
            continue
        points, hue = attractor(tensor(maps[None]), chances, bend, np.random.default_rng(0), particles=600)
        counts, _ = splat(points, hue, 32)
        if (counts > 0).float().mean() > 0.15:
            break
    tone = float(rng.choice([0.15, 0.4, 1.0]))
    colours = palettes(n, rng, own)
    wobbly = tensor(maps * (1 + rng.normal(0, 0.04, (n, *maps.shape))))
    points, hue = attractor(wobbly, chances, bend, rng)
    angle, size = rng.normal(0, 0.5, n), np.exp(rng.uniform(np.log(0.55), np.log(1.05), n))
    turn = tensor(
        np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(n, 2, 2)
        * size[:, None, None]
    )
    points = points @ turn.transpose(1, 2) + tensor(rng.uniform(-0.3, 0.3, (n, 1, 2)))
    counts, colour = splat(points, hue, side)
    weight = F.avg_pool2d(F.pad(counts[:, None], (1, 1, 1, 1)), 3, stride=1)
    colour = F.avg_pool2d(F.pad((counts * colour)[:, None], (1, 1, 1, 1)), 3, stride=1) / weight.clamp(min=1e-6)
    mask = 1 - torch.exp(-weight / tone)
    picture = background(n, side, shared, rng)
    return picture + mask * (coloured(colour[:, 0], colours) - picture)


def _textures(rng: Rng, n: int, side: int, shared: Banks) -> Tensor:
    """A surface: one texture, or two where a third decides which."""
    own = _own_palette(rng)
    styles = [fill(rng) for _ in range(int(rng.integers(1, 4)))]
    colours = palettes(n, rng, own)
    grid = posed_grid(n, side, rng, turn=0.35, scale=(0.6, 1.4), shift=0.5)
    fields = [filled(style, grid, shared.noise, rng) for style in styles]
    picture = coloured(fields[0], colours)
    if len(fields) > 1:
        gate = fields[-1] if len(fields) == 3 else crops(shared.noise, rng.integers(0, 20, n), side, rng)
        picture = over(picture, gate - 0.5, coloured(fields[1], colours.flip(1)), edge=0.06)
    return picture


def _networks(rng: Rng, n: int, side: int, shared: Banks) -> Tensor:
    """A random network from coordinates and noise to a colour (CPPN, Stanley 2007): smooth scenes with edges."""
    own = _own_palette(rng)
    width = 10
    weights = [
        rng.normal(0, 1.1, (6, width)),
        *(rng.normal(0, 1.5 / np.sqrt(width) * 1.6, (width, width)) for _ in range(2)),
    ]
    last = rng.normal(0, 1.5 / np.sqrt(width), (width, 3))
    rough, sway = rng.random(), rng.uniform(0.1, 0.5)
    colours = palettes(n, rng, own)
    grid = posed_grid(n, side, rng, turn=0.35, scale=(0.35, 0.9), shift=0.4)
    noise = crops(shared.noise, np.clip(rng.normal(rough * 150, 8, n), 0, 179).astype(int), side, rng) - 0.5
    smooth = crops(shared.noise, rng.integers(0, 12, n), side, rng) - 0.5
    u, v = grid.u + sway * smooth, grid.v + sway * noise * 0.4
    state = torch.stack([u, v, torch.hypot(u, v), 1.2 * noise, smooth, torch.ones_like(u)], dim=-1)  # [n, S, S, 6]
    for i, weight in enumerate(weights):
        state = state @ tensor(weight * (1 + rng.normal(0, 0.03, weight.shape)))
        waves, steps, bumps = state[..., :3], state[..., 3:6], state[..., 6:]
        mixed = [torch.sin(2 * waves), torch.tanh(steps), torch.exp(-(bumps**2))]
        state = torch.cat(mixed, dim=-1) if i < 2 else torch.tanh(state)
    out = torch.sigmoid(state @ tensor(last))
    direct = out.permute(0, 3, 1, 2)
    return 0.75 * coloured(out[..., 0], colours) + 0.25 * direct
