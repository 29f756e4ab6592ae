"""Pictures of numbers over a number: lines with dots, bands around them, and a mark at what was taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tl_core.report.scale import Scale, fitting

MAX_DOTS = 60  # of a line; past that they would run into each other
REFERENCE = 4  # the style of a line that is no measurement: chance, or what should be


@dataclass(frozen=True)
class Series:
    """Numbers over numbers. style: which of the four colours, or REFERENCE; band: (x, low, high) around it."""

    name: str
    style: int
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Line:
    """One series in percent from the left and from the top. dots: (x, y, text); polyline, band: corners."""

    name: str
    style: int
    dots: list[tuple[float, float, str]]
    polyline: str
    band: str = ""


@dataclass(frozen=True)
class Lines:
    """A picture. words: what it shows, for who can't see it; chosen: percent from the left of what was taken."""

    title: str
    x_title: str
    words: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    chosen: float | None = None
    chosen_title: str = ""


def picture(
    title: str,
    x_title: str,
    words: str,
    series: Sequence[Series],
    *,
    log: bool = False,
    ends: tuple[float, float] | None = None,
    shares: bool = False,
    dots: bool = True,
    chosen: float | None = None,
    chosen_title: str = "",
) -> Lines | None:
    """The series on scales that fit them; None where there is no point.

    log: the x axis; ends: of the y axis, beyond which is drawn at its end; shares: x goes from 0 to 1;
    dots: at the points, where they are few. Series without points are left out.
    """
    shown = [s for s in series if s.points]
    if not shown:
        return None
    x = Scale(0.0, 1.0) if shares else _x_scale([at for s in shown for at, _ in s.points], log)
    values = [v for s in shown for v in (*(p[1] for p in s.points), *(end for b in s.band for end in b[1:]))]
    y = Scale(*ends) if ends else fitting(values)
    return Lines(
        title=title,
        x_title=x_title,
        words=words,
        lines=[_line(s, x, y, MAX_DOTS if dots else 0) for s in shown],
        x_ticks=x.ticks() if shares else _x_ticks(x),
        y_ticks=[(_down(at), text) for at, text in y.ticks(5)],
        chosen=None if chosen is None else x.at(chosen),
        chosen_title=chosen_title,
    )


def finite(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float]]:
    """Those whose number is one, by x."""
    return sorted((x, float(y)) for x, y in points if y is not None and math.isfinite(y))


def _line(series: Series, x: Scale, y: Scale, most: int) -> Line:
    places = [(x.at(a), _down(y.at(v))) for a, v in series.points]
    texts = [f"{v:.4g} at {a:g}" for a, v in series.points]
    over = [(x.at(a), _down(y.at(high))) for a, _, high in series.band]
    under = [(x.at(a), _down(y.at(low))) for a, low, _ in reversed(series.band)]
    dots = [(a, v, text) for (a, v), text in zip(places, texts)] if len(places) <= most else []
    return Line(series.name, series.style, dots, _corners(places), _corners([*over, *under]))


def _corners(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a},{b}" for a, b in places)


def _x_scale(values: Sequence[float], log: bool) -> Scale:
    low, high = min(values), max(values)
    if low < high:
        return Scale(low, high, log)
    return Scale(low * 0.5, high * 1.5 + 1e-9, log)


def _x_ticks(x: Scale) -> list[tuple[float, str]]:
    if x.log:
        return x.ticks()
    return [tick for tick in x.ticks(8) if "." not in tick[1]] or x.ticks(8)


def _down(percent: float) -> float:
    return round(100 - percent, 2)
