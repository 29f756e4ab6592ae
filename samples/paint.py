"""Painting: outlines onto a canvas as an illustrator of some medium would put them there.

A canvas is float32 [S, S, 3] in 0..1; masks and grounds are float32 [S, S] in 0..1; points are in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from outlines import Part, Points, Rng
from PIL import Image, ImageDraw, ImageFilter

Canvas = npt.NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Medium:
    """How somebody draws. Shares lie between 0 and 1, lengths are in canvas pixels."""

    fill: float = 1.0  # opacity of the paint
    line: float = 0.0  # width of outlines
    ink: str = "dark"  # of outlines: dark, light or self (the shape's own colour, darker)
    shade: float = 0.3  # how round bodies look
    gloss: float = 0.0  # highlights
    grain: float = 0.0  # how much the paper's tooth breaks the paint
    hatch: float = 0.0  # strokes of a pencil instead of a flat tone
    pool: float = 0.0  # pigment that dries at the rim, as in watercolour
    shadow: float = 0.0  # what the creature casts on the ground
    cut: float = 0.0  # what every single part casts on the one below: paper cut-outs
    wobble: float = 0.0  # tremor of the hand


MEDIA: dict[str, Medium] = {
    "ink": Medium(fill=0.5, line=2.6, shade=0.25, wobble=1.5),
    "watercolour": Medium(fill=0.8, ink="self", line=1.2, shade=0.25, grain=0.25, pool=0.7, wobble=1.5),
    "gouache": Medium(shade=0.15, grain=0.1, wobble=0.8),
    "pencil": Medium(fill=0.8, line=2.2, shade=0.5, grain=0.3, hatch=0.6, wobble=1.2),
    "linocut": Medium(line=2.5, ink="light", shade=0.0, grain=0.2, wobble=2.0),
    "chalk": Medium(fill=0.85, line=2.5, ink="self", shade=0.2, grain=0.6, wobble=2.0),
    "specimen": Medium(ink="self", line=1.0, shade=0.8, gloss=0.7, shadow=0.6),
    "papercut": Medium(shade=0.05, grain=0.05, shadow=0.35, cut=0.6),
}


def varied(medium: Medium, rng: Rng) -> Medium:
    """The medium in the hands of one person."""
    scale = rng.uniform(0.7, 1.3, 6)
    return replace(
        medium,
        fill=min(1.0, medium.fill * scale[0]) if medium.fill < 1 else 1.0,
        line=medium.line * scale[1],
        shade=min(1.0, medium.shade * scale[2]),
        grain=min(1.0, medium.grain * scale[3]),
        shadow=min(1.0, medium.shadow * scale[4]),
        wobble=medium.wobble * scale[5],
    )


@dataclass(frozen=True)
class Painter:
    """A medium at work. tooth: the paper's grain; light: unit vector towards the lamp; rng: for the hand's tremor."""

    medium: Medium
    tooth: Canvas
    light: tuple[float, float]
    rng: Rng

    def paint(self, canvas: Canvas, parts: Sequence[Part], colours: Mapping[str, Colour]) -> None:
        """Lay the parts over the canvas, in order."""
        if self.medium.shadow and parts:
            self._cast(canvas, [part.outline for part in parts], self.medium.shadow, 9.0, 5.0)
        for part in parts:
            outline = self._drawn(part.outline)
            if self.medium.cut:
                self._cast(canvas, [outline], self.medium.cut, 3.0, 2.0)
            self._part(canvas, part, outline, colours)

    def _drawn(self, outline: Points) -> Points:
        """The outline as a trembling hand follows it."""
        if not self.medium.wobble:
            return outline
        knots = self.rng.normal(0, self.medium.wobble, (max(4, len(outline) // 5), 2))
        knots[-1] = knots[0]
        at = np.linspace(0, len(knots) - 1, len(outline))
        return outline + np.stack([np.interp(at, np.arange(len(knots)), knots[:, i]) for i in (0, 1)], axis=1)

    def _cast(self, canvas: Canvas, outlines: Sequence[Points], strength: float, distance: float, soft: float) -> None:
        shift = -np.array(self.light) * distance
        points = np.concatenate(outlines) + shift
        box = _box(points, len(canvas), 3 * soft)
        if box is None:
            return
        mask = _blurred(_mask([outline + shift for outline in outlines], box), soft)
        canvas[_slices(box)] *= 1 - strength * mask[..., None]

    def _part(self, canvas: Canvas, part: Part, outline: Points, colours: Mapping[str, Colour]) -> None:
        medium = self.medium
        box = _box(outline, len(canvas), 8)
        if box is None:
            return
        area = _slices(box)
        mask = _mask([outline], box)
        paint = np.broadcast_to(np.asarray(colours[part.role], np.float32), (*mask.shape, 3)).copy()
        for mark, role in part.marks:
            inside = _mask([mark + (outline.mean(axis=0) - part.outline.mean(axis=0))], box)[..., None]
            paint += inside * (np.asarray(colours[role], np.float32) - paint)
        size = float(np.sqrt(mask.sum()))
        if medium.shade or medium.gloss:
            height = _blurred(mask, max(1.5, 0.16 * size)) * mask
            slope = np.gradient(height)
            lit = -(slope[1] * self.light[0] + slope[0] * self.light[1]) * 0.5 * max(4.0, 0.3 * size)
            paint *= 1 + medium.shade * np.clip(lit, -0.8, 0.6)[..., None]
            paint += medium.gloss * (np.clip(lit - 0.12, 0, 1) * np.clip(height - 0.5, 0, 1) * 5)[..., None] ** 1.5
        tooth = self.tooth[area]
        alpha = mask * medium.fill * part.opacity
        if medium.hatch:
            y, x = np.mgrid[box[1] : box[3], box[0] : box[2]]
            lines = 0.5 + 0.5 * np.sin((x * 0.8 + y * 0.6) * 1.1 + 4 * tooth)
            alpha = alpha * (1 - medium.hatch * 0.6 * lines)
        if medium.grain:
            alpha = alpha * (1 - medium.grain * np.clip(2.4 * tooth - 0.7, 0, 1))
        if medium.pool:
            rim = mask * (1 - _blurred(mask, 3.0))
            paint *= 1 - medium.pool * 0.8 * np.clip(rim, 0, 1)[..., None]
            alpha = alpha * (0.75 + 0.5 * _blurred(tooth, 6.0))
        under = canvas[area]
        under += np.clip(alpha, 0, 1)[..., None] * (np.clip(paint, 0, 1) - under)
        if medium.line:
            self._outline(under, outline, box, colours[part.role], tooth)

    def _outline(self, under: Canvas, outline: Points, box: Box, colour: Colour, tooth: Canvas) -> None:
        sheet = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        points = [(float(x - box[0]), float(y - box[1])) for x, y in (*outline, outline[0])]
        ImageDraw.Draw(sheet).line(points, fill=255, width=max(1, round(self.medium.line)), joint="curve")
        stroke = np.asarray(sheet, np.float32) / 255
        stroke *= 1 - self.medium.grain * np.clip(2.0 * tooth - 0.6, 0, 1)
        ink = {"dark": (0.08, 0.07, 0.1), "light": (0.95, 0.93, 0.88)}.get(self.medium.ink)
        tone = np.asarray(ink if ink is not None else [0.6 * c for c in colour], np.float32)
        under += 0.9 * stroke[..., None] * (tone - under)


Box = tuple[int, int, int, int]  # left, top, right, bottom


def noise(size: int, cells: float, rng: Rng, stretch: float = 1.0) -> Canvas:
    """Smooth value noise, [size, size] in 0..1. cells: bumps across the canvas; stretch: longer along x."""
    coarse = rng.random((max(2, round(cells)), max(2, round(cells / stretch))), dtype=np.float32)
    sheet = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(sheet, np.float32), 0, 1)


def clouds(size: int, cells: float, rng: Rng, octaves: int = 4, stretch: float = 1.0) -> Canvas:
    """Noise of several sizes on top of each other, in 0..1, its mean near 0.5."""
    layers = [noise(size, cells * 2**i, rng, stretch) * 0.5**i for i in range(octaves)]
    return np.asarray(np.sum(layers, axis=0) / (2 - 0.5 ** (octaves - 1)), np.float32)


def _mask(outlines: Sequence[Points], box: Box) -> Canvas:
    """The union of filled outlines within a box."""
    sheet = Image.new("L", (box[2] - box[0], box[3] - box[1]))
    draw = ImageDraw.Draw(sheet)
    for outline in outlines:
        draw.polygon([(float(x - box[0]), float(y - box[1])) for x, y in outline], fill=255)
    return np.asarray(sheet, np.float32) / np.float32(255)


def _blurred(mask: Canvas, radius: float) -> Canvas:
    sheet = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(float(radius)))
    return np.asarray(sheet, np.float32) / np.float32(255)


def _box(points: Points, size: int, margin: float) -> Box | None:
    """The part of the canvas that the points take, None where they lie outside of it."""
    left, top = np.floor(points.min(axis=0) - margin).astype(int).clip(0, size)
    right, bottom = np.ceil(points.max(axis=0) + margin).astype(int).clip(0, size)
    return None if right - left < 2 or bottom - top < 2 else (int(left), int(top), int(right), int(bottom))


def _slices(box: Box) -> tuple[slice, slice]:
    return slice(box[1], box[3]), slice(box[0], box[2])
