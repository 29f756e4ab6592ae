"""Shapes to paint, as closed outlines, and the curves that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # [P, 2]: x to the right, y down
Mark = tuple[Points, str]
Rng = np.random.Generator


@dataclass(frozen=True)
class Part:
    """One shape to paint. role: body, second, wing, mark or limb; opacity: below 1 where light shines through.

    marks: outlines with roles of their own, painted inside the shape only.
    """

    outline: Points
    role: str
    opacity: float = 1.0
    marks: tuple[Mark, ...] = ()


def moved(part: Part, place: Callable[[Points], Points]) -> Part:
    """The part with every point put elsewhere."""
    marks = tuple((place(outline), role) for outline, role in part.marks)
    return Part(place(part.outline), part.role, part.opacity, marks)


def oval(x: float, y: float, rx: float, ry: float, egg: float = 0.0, square: float = 2.0, count: int = 40) -> Points:
    """A superellipse. egg: how much wider (below 0: narrower) its rear is; square: 2 an ellipse, more is boxier."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    c, s = np.cos(turn), np.sin(turn)
    px = np.sign(c) * np.abs(c) ** (2 / square) * rx * (1 + egg * s)
    return np.stack([x + px, y + np.sign(s) * np.abs(s) ** (2 / square) * ry], axis=1)


def curve(
    points: Sequence[tuple[float, float]] | Sequence[Points] | Points, closed: bool = False, steps: int = 8
) -> Points:
    """A Catmull-Rom spline through the points."""
    p = np.asarray(points, dtype=float)
    ends = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    p = np.concatenate([ends[0], p, ends[1]])
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    line = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    line = line.reshape(-1, 2)
    return line if closed else np.concatenate([line, p[-2:-1]])


def stroke(line: Points, width: float, tip: float = 0.4) -> Points:
    """The outline of a line that is `width` thick at its start and `tip` of that at its end."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    half = width / 2 * np.linspace(1, tip, len(line))[:, None]
    return np.concatenate([line + across * half, (line - across * half)[::-1]])


def mirrored(outline: Points) -> Points:
    """The same on the other side of the body."""
    return np.asarray(outline * np.array([-1.0, 1.0]))
