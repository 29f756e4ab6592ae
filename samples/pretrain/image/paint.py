"""Colours, fills, backgrounds and the finish: how a field becomes a picture.

Pictures are float32 [n, 3, S, S] in 0..1.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samples.pretrain.image.fields import Grid, Rng, cells, crops, each, pixel_grid, tensor

ANCHORS = 4


def palette(rng: Rng) -> np.ndarray:
    """Four colours [4, 3] from dark to light round one or two hues, mostly dull, as in photos."""
    hue, second = rng.random(), rng.random()
    spread, dull = abs(rng.normal(0, 0.07)), rng.beta(1.4, 2.4)
    light = np.sort(rng.random(ANCHORS)) * rng.uniform(0.5, 1) + rng.uniform(0, 0.3)
    if rng.random() < 0.5:
        rng.shuffle(light)
    colours = []
    for value in np.clip(light, 0.03, 1):
        base = second if rng.random() < 0.3 else hue
        saturation = float(np.clip(dull + rng.normal(0, 0.15), 0, 1))
        colours.append(colorsys.hsv_to_rgb((base + rng.normal(0, spread)) % 1, saturation, value))
    return np.array(colours)


def palettes(n: int, rng: Rng, own: np.ndarray | None, jitter: float = 0.06) -> Tensor:
    """A palette per instance [n, 4, 3]: the class's own with jitter, or any."""
    if own is None:
        return tensor([palette(rng) for _ in range(n)])
    gain = np.exp(rng.normal(0, 0.15, (n, 1, 1))) * np.exp(rng.normal(0, jitter, (n, 1, 3)))
    return tensor(np.clip(own * gain + rng.normal(0, jitter / 2, (n, ANCHORS, 3)), 0, 1))


def coloured(field: Tensor, colours: Tensor) -> Tensor:
    """A field in 0..1 through each instance's palette, linear between its anchors: [n, 3, S, S]."""
    position = field.clamp(0, 1) * (ANCHORS - 1)
    picture = torch.zeros(field.shape[0], 3, *field.shape[1:])
    for i in range(ANCHORS):
        weight = (1 - (position - i).abs()).clamp(min=0)
        picture += weight[:, None] * colours[:, i, :, None, None]
    return picture


def flat(colours: Tensor, anchor: int) -> Tensor:
    """One anchor's colour everywhere, [n, 3, 1, 1]."""
    return colours[:, anchor, :, None, None]


@dataclass(frozen=True)
class Fill:
    """The texture of a class: a kind and its numbers."""

    kind: str
    rough: float
    frequency: float
    angle: float
    warp: float
    sharp: float


KINDS = ("noise", "stripes", "dots", "cells", "rings", "ridges")


def fill(rng: Rng) -> Fill:
    """Random numbers for a texture."""
    return Fill(
        kind=str(rng.choice(KINDS)),
        rough=rng.random(),
        frequency=float(np.exp(rng.uniform(np.log(4), np.log(26)))),
        angle=rng.uniform(0, np.pi),
        warp=float(rng.choice([0.05, 0.2, 0.6])),
        sharp=float(np.exp(rng.uniform(np.log(0.8), np.log(8)))),
    )


def filled(style: Fill, grid: Grid, bank: Tensor, rng: Rng) -> Tensor:
    """The texture's field in 0..1 over a grid, with fresh noise for every instance."""
    n, side = grid.u.shape[:2]
    noise = crops(bank, _near(style.rough, n, len(bank), rng), side, rng)
    if style.kind == "noise":
        return torch.sigmoid(style.sharp * 2 * (noise - 0.5))
    smooth = crops(bank, _near(0.05, n, len(bank), rng), side, rng) - 0.5
    cos, sin = np.cos(style.angle), np.sin(style.angle)
    a, b = cos * grid.u + sin * grid.v + style.warp * smooth, cos * grid.v - sin * grid.u + style.warp * smooth
    frequency = style.frequency * each(np.exp(rng.normal(0, 0.08, n)))
    if style.kind == "stripes":
        wave = torch.sin(frequency * a)
    elif style.kind == "dots":
        wave = torch.sin(frequency * a) * torch.sin(frequency * b)
    elif style.kind == "rings":
        wave = torch.sin(frequency * torch.hypot(a, b))
    elif style.kind == "ridges":
        wave = 1 - 4 * (noise - 0.5).abs()
    else:
        count = int(6 + style.frequency)
        distance, owner = cells(Grid(a, b), tensor(rng.uniform(-1.3, 1.3, (n, count, 2))))
        edge: Tensor = (distance * float(np.sqrt(count)) * 0.9).clamp(0, 1)
        return edge if style.sharp < 2 else 0.6 * owner + 0.4 * edge
    return (torch.sigmoid(style.sharp * wave) + 0.25 * (noise - 0.5)).clamp(0, 1)


def _near(rough: float, n: int, count: int, rng: Rng) -> np.ndarray:
    return np.clip(rng.normal(rough * (count - 1), 0.03 * count, n), 0, count - 1).astype(int)


def leaves_bank(count: int, side: int, rng: Rng, bank: Tensor) -> Tensor:
    """Dead leaves [count, 3, side, side]: coloured, textured, occluding discs and polygons of 1/r^3 sizes."""
    ground = crops(bank, rng.integers(0, len(bank) // 2, count), side, rng)
    picture = coloured(ground, tensor([palette(rng) for _ in range(count)]))
    plain = pixel_grid(count, side)
    for _ in range(45):
        size = np.clip(0.07 * rng.random(count) ** -0.6, 0.07, 0.8)
        x, y = rng.uniform(-1.1, 1.1, (2, count))
        part = plain.placed(
            each(x), each(y), each(rng.uniform(0, np.pi, count)), each(size), each(size * rng.uniform(0.4, 1, count))
        )
        power = float(rng.choice([1.0, 2.0, 6.0]))  # diamonds, discs, boxes
        mask = (part.u.abs() ** power + part.v.abs() ** power) < 1
        texture = crops(bank, rng.integers(0, len(bank), count), side, rng)
        leaf = coloured(texture, tensor([palette(rng) for _ in range(count)]))
        picture = torch.where(mask[:, None], leaf, picture)
    return picture


@dataclass(frozen=True)
class Banks:
    """What all classes share: noise to crop from, and clutter to stand before."""

    noise: Tensor
    leaves: Tensor


def background(n: int, side: int, banks: Banks, rng: Rng) -> Tensor:
    """Any ground: plain, a gradient, noise or clutter, unrelated to the class."""
    colours = palettes(n, rng, None)
    plain = pixel_grid(n, side)
    angle = rng.uniform(0, 2 * np.pi, n)
    slope = 0.5 + 0.35 * (each(np.cos(angle)) * plain.u + each(np.sin(angle)) * plain.v)
    noise = crops(banks.noise, rng.integers(0, len(banks.noise), n), side, rng)
    kind = rng.choice(4, n, p=[0.22, 0.2, 0.36, 0.22])
    field = torch.where(
        each(kind == 0) > 0, torch.full_like(noise, 0.5), torch.where(each(kind == 1) > 0, slope, noise)
    )
    field = torch.where(each(kind == 2) > 0, 0.5 * slope + 0.7 * (noise - 0.15), field)
    ground = coloured(field, colours)
    ground[kind == 3] = banks.leaves[rng.integers(0, len(banks.leaves), int((kind == 3).sum()))]
    paper = torch.from_numpy((kind == 0) & (rng.random(n) < 0.5))
    ground[paper] = 0.85 + 0.15 * ground[paper]  # white or nearly so: drawings, product photos
    return ground


def over(ground: Tensor, height: Tensor, ink: Tensor, edge: float = 0.03) -> Tensor:
    """Ink where the height is above 0, with an antialiased rim."""
    mask = torch.sigmoid(height / edge)[:, None]
    return ground + mask * (ink - ground)


def lit(ink: Tensor, height: Tensor, rng: Rng, relief: float) -> Tensor:
    """Ink shaded as a rounded body under a light from above, differently for every instance."""
    n = height.shape[0]
    body = height.clamp(0, 1).sqrt()
    down = F.pad(body[:, 1:] - body[:, :-1], (0, 0, 0, 1)) * (height.shape[1] / 8)
    right = F.pad(body[:, :, 1:] - body[:, :, :-1], (0, 1)) * (height.shape[2] / 8)
    angle = rng.normal(np.pi / 2, 0.7, n)
    slope = each(np.cos(angle)) * right + each(np.sin(angle)) * down
    return (ink * (1 + relief * torch.tanh(slope))[:, None]).clamp(0, 1)


def finish(picture: Tensor, rng: Rng) -> Tensor:
    """Blur, exposure and sensor noise, by chance; uint8 [n, S, S, 3]."""
    n = picture.shape[0]
    soft = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    picture = picture + tensor(rng.random(n) * (rng.random(n) < 0.4))[:, None, None, None] * (soft - picture)
    gamma = tensor(np.exp(rng.normal(0, 0.2, n)))[:, None, None, None]
    picture = picture.clamp(1e-3, 1) ** gamma
    strength = rng.uniform(0, 0.04, n) * (rng.random(n) < 0.4)
    grain = tensor(rng.standard_normal((n, 1, *picture.shape[2:]), dtype=np.float32))
    picture = picture + tensor(strength)[:, None, None, None] * grain
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
