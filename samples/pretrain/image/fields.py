"""Scalar fields over a pixel grid, from formulas alone: contours, strokes, fractals, noise, cells.

Shapes: n instances of one class at once, S pixels a side; grids and fields are float32 [n, S, S].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Rng = np.random.Generator


def tensor(values: object) -> Tensor:
    """float32 tensor of numpy's numbers."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def each(values: object) -> Tensor:
    """A number per instance, [n] -> [n, 1, 1]."""
    return tensor(values)[:, None, None]


@dataclass(frozen=True)
class Grid:
    """Coordinates of every pixel in an instance's own frame, about -1..1 where the object is."""

    u: Tensor
    v: Tensor

    def placed(self, x: Tensor, y: Tensor, angle: Tensor, sx: Tensor, sy: Tensor) -> Grid:
        """The grid in the frame of a part at (x, y), turned by angle, sx by sy in size; each [n, 1, 1]."""
        du, dv = self.u - x, self.v - y
        cos, sin = torch.cos(angle), torch.sin(angle)
        return Grid((cos * du + sin * dv) / sx, (cos * dv - sin * du) / sy)


def pixel_grid(n: int, side: int) -> Grid:
    """The untransformed grid, -1..1 over the image."""
    axis = (torch.arange(side, dtype=torch.float32) + 0.5) * (2 / side) - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return Grid(u.expand(n, side, side), v.expand(n, side, side))


def posed_grid(n: int, side: int, rng: Rng, turn: float, scale: tuple[float, float], shift: float) -> Grid:
    """Random similarity with a little shear: a camera that never stands at the same place twice."""
    grid = pixel_grid(n, side)
    size = np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]), n))
    aspect = np.exp(rng.normal(0, 0.12, n))
    x, y = rng.uniform(-shift, shift, (2, n))
    posed = grid.placed(each(x), each(y), each(rng.normal(0, turn, n)), each(size * aspect), each(size / aspect))
    return Grid(posed.u + each(rng.normal(0, 0.12, n)) * posed.v, posed.v)


def contour(grid: Grid, waves: Sequence[tuple[int, Tensor, Tensor]], corners: int = 0) -> Tensor:
    """Signed height over a closed radial contour: 1 at its centre, 0 on it, negative outside.

    r(t) = 1 + sum a_k cos(k t + p_k) (RCDB, Kataoka 2022; VisualAtom, Takashima 2023); with corners, times a
    regular polygon's radius. waves: (k, amplitude [n, 1, 1], phase [n, 1, 1]).
    """
    angle = torch.atan2(grid.v, grid.u)
    radius = torch.ones_like(angle)
    for frequency, amplitude, phase in waves:
        radius = radius + amplitude * torch.cos(frequency * angle + phase)
    if corners:
        sector = 2 * np.pi / corners
        radius = radius * (np.cos(sector / 2) / torch.cos(torch.remainder(angle, sector) - sector / 2))
    return 1 - torch.hypot(grid.u, grid.v) / radius.clamp(min=0.15)


def stroke(grid: Grid, points: Tensor, width: Tensor) -> Tensor:
    """Signed height over a stroke through points [n, P, 2] (a Catmull-Rom spline), width [n, 1, 1]: 0 at its rim."""
    curve = _spline(points, 4)  # [n, C, 2]
    u, v = (F.avg_pool2d(x[:, None], 2)[:, 0] for x in (grid.u, grid.v))  # distances are smooth: half the pixels do
    best = torch.full_like(u, 1e9)
    for i in range(curve.shape[1] - 1):
        x, y = curve[:, i, 0, None, None], curve[:, i, 1, None, None]
        dx, dy = curve[:, i + 1, 0, None, None] - x, curve[:, i + 1, 1, None, None] - y
        along = (((u - x) * dx + (v - y) * dy) / (dx * dx + dy * dy).clamp(min=1e-9)).clamp(0, 1)
        du, dv = u - x - along * dx, v - y - along * dy
        best = torch.minimum(best, du * du + dv * dv)
    distance = F.interpolate(best.sqrt()[:, None], size=grid.u.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return 1 - distance / width


def _spline(points: Tensor, steps: int) -> Tensor:
    padded = torch.cat([points[:, :1], points, points[:, -1:]], dim=1)
    t = torch.arange(steps, dtype=torch.float32)[None, :, None] / steps
    pieces = []
    for i in range(points.shape[1] - 1):
        a, b, c, d = (padded[:, i + j, None] for j in range(4))
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return torch.cat([*pieces, points[:, -1:]], dim=1)


def attractor(
    maps: Tensor, chances: np.ndarray, bend: str, rng: Rng, particles: int = 1500, steps: int = 24
) -> tuple[Tensor, Tensor]:
    """Points [n, N, 2] and colours [n, N] of iterated function systems, scaled to about -1..1.

    maps: [n, M, 2, 3] affine maps chosen with `chances` (the chaos game of FractalDB, Kataoka 2020), then bent
    (`flat`, `sin`, `swirl`, `ball`: the variations of Draves' fractal flames); colours follow the maps taken.
    """
    n, count = maps.shape[:2]
    points = tensor(rng.uniform(-1, 1, (n, particles, 2)))
    colour = torch.full((n, particles), 0.5)
    kept: list[Tensor] = []
    hues: list[Tensor] = []
    own = torch.arange(n)[:, None]
    for step in range(steps):
        choice = torch.from_numpy(rng.choice(count, (n, particles), p=chances))
        chosen = maps[own, choice]  # [n, N, 2, 3]
        points = (chosen[..., :2] @ points[..., None])[..., 0] + chosen[..., 2]
        points = _bent(points, bend).clamp(-50, 50)
        colour = (colour + choice / max(count - 1, 1)) / 2
        if step >= 8:  # the first steps still show where the particles began
            kept.append(points)
            hues.append(colour)
    cloud = torch.cat(kept, dim=1)
    low, high = (torch.quantile(cloud[:, ::7], q, dim=1, keepdim=True) for q in (0.02, 0.98))
    return 1.8 * (cloud - (low + high) / 2) / (high - low).amax(dim=2, keepdim=True).clamp(min=1e-3), torch.cat(hues, 1)


def _bent(points: Tensor, bend: str) -> Tensor:
    if bend == "sin":
        return torch.sin(1.6 * points)
    square = (points**2).sum(dim=-1, keepdim=True)
    if bend == "swirl":
        cos, sin = torch.cos(square), torch.sin(square)
        x, y = points[..., :1], points[..., 1:]
        return torch.cat([x * sin - y * cos, x * cos + y * sin], dim=-1)
    if bend == "ball":
        return 2 * points / (square + 1)
    return points


def splat(points: Tensor, values: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Counts and mean values of points [n, N, 2] (-1..1) in side x side cells."""
    n = points.shape[0]
    cell = ((points + 1) * (side / 2)).floor().long()
    inside = ((cell >= 0) & (cell < side)).all(dim=-1)
    flat = (torch.arange(n)[:, None] * side + cell[..., 1]) * side + cell[..., 0]
    flat = flat[inside]
    counts = torch.bincount(flat, minlength=n * side * side).float()
    sums = torch.bincount(flat, weights=values[inside], minlength=n * side * side).float()
    return counts.view(n, side, side), (sums / counts.clamp(min=1)).view(n, side, side)


def noise_bank(count: int, side: int, rng: Rng) -> Tensor:
    """Fields [count, side, side] in 0..1 of many spectra, tileable, sorted from smooth to rough.

    Amplitudes 1/f^a, a falling from 2.5 to 0.9 along the bank, a third of it stretched in one direction
    ("Learning to see by looking at noise", Baradad 2021: spectra like those of photos matter most).
    """
    fx, fy = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    fields = np.empty((count, side, side), np.float32)
    for i in range(count):
        turn, stretch = rng.uniform(0, np.pi), (rng.uniform(2, 6) if i % 3 == 0 else 1.0)
        a, b = fx * np.cos(turn) + fy * np.sin(turn), fy * np.cos(turn) - fx * np.sin(turn)
        radius = np.hypot(a * stretch, b / stretch)
        radius[0, 0] = np.inf
        power = radius ** -(2.2 - 1.6 * i / max(count - 1, 1) + 0.3)
        noise = np.fft.irfft2(power * np.exp(2j * np.pi * rng.random(power.shape)), (side, side))
        fields[i] = noise / noise.std()
    return torch.sigmoid(1.4 * torch.from_numpy(fields))


def crops(bank: Tensor, which: np.ndarray, side: int, rng: Rng) -> Tensor:
    """Random windows of the bank's (tileable) fields, turned over at random: [n, side, side]."""
    whole = bank.shape[-1]
    out = []
    for i in which:
        y, x = rng.integers(0, whole, 2)
        rows = (torch.arange(side) + int(y)) % whole
        columns = (torch.arange(side) + int(x)) % whole
        window = bank[int(i)][rows][:, columns]
        out.append(window.T if rng.random() < 0.5 else window)
    return torch.stack(out)


def cells(grid: Grid, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest of centres [n, P, 2], and a number 0..1 of which it was (Worley's cells)."""
    best = torch.full_like(grid.u, 1e9)
    owner = torch.zeros_like(grid.u)
    count = centres.shape[1]
    for i in range(count):
        du, dv = grid.u - centres[:, i, 0, None, None], grid.v - centres[:, i, 1, None, None]
        distance = du * du + dv * dv
        nearer = distance < best
        owner = torch.where(nearer, torch.full_like(owner, (i * 0.618034) % 1), owner)
        best = torch.minimum(best, distance)
    return best.sqrt(), owner
