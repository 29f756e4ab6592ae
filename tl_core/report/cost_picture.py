"""The picture of accuracy over cost: where points lie, and where their labels have room."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tl_core.report.ranking import RankedBackbone, Ranking, Standing
from tl_core.report.scale import Scale
from tl_core.report.templates import number, quantity

HEIGHT = 360  # pixels of the plot
# the least pixels that a page of this class gives the plot; more of them only move points apart, and labels stay clear
WIDTHS = {"on-wide": 720, "on-middle": 460, "on-narrow": 200}
NAME_CHARACTERS = 30
_CHARACTER, _LINE = 7.0, 14.0  # pixels of a label's text, on the wide side
_RADIUS = 7.0

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Label:
    """Text beside a point. dx, dy: pixels from the point to the text's anchor and baseline."""

    text: str
    anchor: str  # start or end
    dx: float
    dy: float


@dataclass(frozen=True)
class Point:
    """A candidate in the picture: x in percent of the width, y, low, high in pixels from the top.

    below: it lies under the picture's lower edge and is drawn there. labels: one for each class of page widths in
    which there is room for it.
    """

    candidate: RankedBackbone
    standing: Standing
    x: float
    y: float
    low: float
    high: float
    below: bool = False
    labels: tuple[tuple[str, Label], ...] = ()


@dataclass(frozen=True)
class CostPicture:
    """points: drawn in this order, the chosen one last; unplaced: names whose cost is not known."""

    points: list[Point]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    unplaced: list[str]
    height: int = HEIGHT

    @property
    def numbered(self) -> list[str]:
        """The classes of page widths in which some labels are ranks."""
        ranks = {kind for p in self.points for kind, label in p.labels if label.text == str(p.candidate.rank)}
        return [kind for kind in WIDTHS if kind in ranks]


def cost_picture(ranking: Ranking) -> CostPicture | None:
    """Metric over FLOPs of those that were measured; None where fewer than two have both."""
    placed = [c for c in ranking.measured if c.flops and c.measure]
    if len(placed) < 2:
        return None
    x = _cost_scale([float(c.flops or 1) for c in placed])
    y = Scale(*worth_showing(placed))
    spots = [_spot(ranking, candidate, x, y) for candidate in placed]
    by_importance = sorted(spots, key=lambda p: (_IMPORTANCE.index(p.standing), p.candidate.rank or 0))
    labels = {kind: _labels(by_importance, width) for kind, width in WIDTHS.items()}
    points = [
        replace(p, labels=tuple((kind, of[p.candidate.name]) for kind, of in labels.items() if p.candidate.name in of))
        for p in reversed(by_importance)
    ]
    shown = {c.name for c in placed}
    return CostPicture(
        points=points,
        x_ticks=_cost_ticks(x),
        y_ticks=[(_pixels(at), text) for at, text in y.ticks(6)],
        unplaced=[c.name for c in ranking.measured if c.name not in shown],
    )


def worth_showing(candidates: Sequence[RankedBackbone]) -> tuple[float, float]:
    """The range of the metric in which candidates are told apart: those that stayed to the end, with some air.

    Who left early widens it downwards by half at most: a decoy far below would press all others together.
    """
    measured = [(c.status == "ranked", *c.measure) for c in candidates if c.measure]
    stayed = [m for m in measured if m[0]] or measured
    low, high = min(m[2] for m in stayed), max(m[3] for m in measured)
    span = high - low or 0.02
    lowest = low - span / 2
    low = max(lowest, min(end for _, value, end, _ in measured if value > lowest))
    return low - span * 0.06, high + span * 0.06


def short_name(name: str, limit: int = NAME_CHARACTERS) -> str:
    """A name in at most limit characters; of a view its cut stays readable."""
    if len(name) <= limit:
        return name
    whole, sign, cut = name.rpartition("#")
    tail = sign + cut if whole and len(cut) < limit // 2 else ""
    body = whole if tail else name
    return f"{body[: limit - 1 - len(tail)]}…{tail}"


_IMPORTANCE: tuple[Standing, ...] = ("chosen", "tied", "behind", "eliminated", "dropped")


def _spot(ranking: Ranking, candidate: RankedBackbone, x: Scale, y: Scale) -> Point:
    assert candidate.measure is not None
    assert candidate.flops is not None
    at, low, high = (_pixels(y.at(value)) for value in candidate.measure)
    below = candidate.measure[0] < y.low
    return Point(candidate, ranking.standing(candidate), x.at(candidate.flops), at, low, high, below)


def _wishes(point: Point, width: float) -> list[tuple[str, bool]]:
    """What may stand beside a point, and whether it must be clear of intervals, the best first.

    A name where the page is wide enough for names, across an interval only of who may be the best; else the rank.
    """
    rank = str(point.candidate.rank)
    if width < 2 * NAME_CHARACTERS * _CHARACTER:
        return [(rank, True), (rank, False)]
    number_too = f" {number(point.candidate.probe or 0.0)}" if point.below else ""
    name = short_name(point.candidate.name) + number_too
    across = [(name, False)] if point.standing in ("chosen", "tied") else []
    return [(name, True), *across, (rank, True), (rank, False)]


def _pixels(percent: float) -> float:
    return round((100 - percent) / 100 * HEIGHT, 1)


def _cost_scale(flops: Sequence[float]) -> Scale:
    low, high = min(flops), max(flops)
    air = max((high / low) ** 0.06, 1.15)
    return Scale(low / air, high * air, log=True)


def _cost_ticks(scale: Scale) -> list[tuple[float, str]]:
    """At powers of ten; at 2 and 5 times these too where there would be few."""
    decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    narrow = scale.high / scale.low < 300
    steps: tuple[float, ...] = (1, 2, 5) if narrow else (1,)
    if scale.high / scale.low < 4:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    values = [step * 10.0**power for power in decades for step in steps]
    return [(scale.at(v), quantity(v)) for v in values if scale.low <= v <= scale.high]


def _labels(points: Sequence[Point], width: float) -> dict[str, Label]:
    """Labels that overlap no other, no point and, where it can be helped, no interval; the first served first.

    Where nothing fits a point stays without label.
    """
    marks = [_around(p.x / 100 * width, p.y, _RADIUS) for p in points]
    bars = [(p.x / 100 * width - 3, p.high, p.x / 100 * width + 3, p.low) for p in points]
    taken, found = list(marks), {}
    for point in points:
        for text, clear in _wishes(point, width):
            obstacles = [*taken, *bars] if clear else taken
            fitting = next(
                (
                    (label, box)
                    for label, box in _places(point, text, width)
                    if box[0] >= 0 and box[2] <= width and box[1] >= -_LINE / 2 and box[3] <= HEIGHT
                    if not any(_overlap(box, other) for other in obstacles)
                ),
                None,
            )
            if fitting is not None:
                found[point.candidate.name] = fitting[0]
                taken.append(fitting[1])
                break
    return found


def _places(point: Point, text: str, width: float) -> Iterable[tuple[Label, Box]]:
    """Where a label may stand, the best place first: right, left, then a line higher and lower."""
    x, size = point.x / 100 * width, len(text) * _CHARACTER
    for rise in (0, -_LINE, _LINE):
        for anchor, dx in (("start", _RADIUS + 3), ("end", -_RADIUS - 3)):
            left = x + dx if anchor == "start" else x + dx - size
            dy = 4 + rise
            yield Label(text, anchor, dx, dy), (left, point.y + dy - 11, left + size, point.y + dy + 3)


def _around(x: float, y: float, radius: float) -> Box:
    return (x - radius, y - radius, x + radius, y + radius)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
