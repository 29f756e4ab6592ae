"""Where things lie in the report's pictures: positions in percent, so that the page draws them at any width."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from tl_core.evaluation import Evaluation, Interval, floor_title, metric_title
from tl_core.report.lines import REFERENCE, Lines, Series, picture
from tl_core.report.samples import anchor
from tl_core.report.scale import Scale, fitting
from tl_core.report.templates import LABEL_CHARACTERS, short

MAX_MATRIX = 60  # classes that a heat map can show and a reader tell apart; past that the most confused ones
CURVES, CURVE_STYLES = 3, (0, 1, 3)  # curves in a picture, and their styles
UNBOUNDED = ("mae", "rmse", "log_loss")  # metrics that no scale from 0 to 1 holds


@dataclass(frozen=True)
class Bar:
    """One number on a scale with its interval; percent positions, None where it lies on no scale."""

    label: str
    kind: str  # model, floor: how it is drawn
    interval: Interval
    at: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bars:
    rows: list[Bar]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Cell:
    """anchor: where its rows are listed, empty where they are not."""

    row: int
    column: int
    count: int
    opacity: float  # grows with the share of the actual class's rows; errors faster, so that a few percent are seen
    anchor: str = ""


@dataclass(frozen=True)
class Matrix:
    """names: along both edges; cell: pixels; total: classes of the task, of which the names may be a part."""

    names: list[str]
    cells: list[Cell]
    cell: int
    total: int

    @property
    def edge(self) -> int:
        longest = max(len(short(name)) for name in self.names)
        return round(14 + min(longest, LABEL_CHARACTERS) * self.font * 0.62)

    @property
    def font(self) -> int:
        return 12 if self.cell >= 20 else 8

    @property
    def side(self) -> int:
        return self.cell * len(self.names)


@dataclass(frozen=True)
class Scatter:
    points: list[tuple[float, float]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    diagonal: tuple[float, float, float, float]  # x1, y1, x2, y2


def metric_bars(evaluation: Evaluation) -> Bars:
    """The metrics and, under them, the floors of the watched one; numbers with a unit stand without a scale."""
    scaled = {k: v for k, v in evaluation.summary.items() if k not in UNBOUNDED}
    floors = {f"floor: {floor_title(k, evaluation.task)}": floor.value for k, floor in evaluation.floors.items()}
    worst = min([v.low for v in (*scaled.values(), *floors.values())], default=0.0)
    scale = Scale(0.0 if worst >= 0 else max(-1.0, math.floor(worst * 5) / 5), 1.0)
    rows = [_bar(metric_title(name), "model", interval, scale) for name, interval in scaled.items()]
    rows[1:1] = [_bar(title, "floor", interval, scale) for title, interval in floors.items()]
    rows += [Bar(metric_title(k), "model", v) for k, v in evaluation.summary.items() if k not in scaled]
    return Bars(rows, scale.ticks())


def unit_bar(interval: Interval | None) -> Bar | None:
    """A number between 0 and 1 for a table's cell."""
    return None if interval is None else _bar("", "model", interval, Scale(0.0, 1.0))


def comparison_bars(intervals: Sequence[Interval | None], ends: tuple[float, float]) -> list[Bar | None]:
    """Numbers of the same kind on one scale between the ends; beyond them is drawn at the end."""
    scale = Scale(*ends)
    return [None if interval is None else _bar("", "model", interval, scale) for interval in intervals]


def matrix(evaluation: Evaluation, listed: Set[str] = frozenset()) -> Matrix | None:
    """The confusion matrix as coloured cells; past 60 classes, of those with the most errors.

    listed: the anchors of cells whose rows the page lists.
    """
    if evaluation.confusion is None:
        return None
    counts = np.asarray(evaluation.confusion)
    names = [row.name for row in evaluation.per_class]
    total = len(names)
    if total > MAX_MATRIX:
        errors = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
        kept = np.sort(np.argsort(-errors, kind="stable")[:MAX_MATRIX])
        supports = counts.sum(1)[kept]
        counts, names = counts[np.ix_(kept, kept)], [names[i] for i in kept]
    else:
        kept, supports = np.arange(total), counts.sum(1)
    cells = []
    for r, c in np.argwhere(counts).tolist():
        share = float(counts[r, c] / supports[r])
        opacity = 0.15 + 0.85 * share if r == c else 0.25 + 0.75 * math.sqrt(share)
        at = anchor(int(kept[r]), int(kept[c]))
        cells.append(Cell(r, c, int(counts[r, c]), round(opacity, 2), at if at in listed else ""))
    return Matrix(names, cells, max(9, min(46, 760 // len(names))), total)


def confusions(evaluation: Evaluation, limit: int = 12) -> list[tuple[str, str, int, float]]:
    """The commonest errors: actual, predicted, rows, share of the actual class's rows."""
    if evaluation.confusion is None:
        return []
    counts = np.asarray(evaluation.confusion)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    names, supports = [row.name for row in evaluation.per_class], counts.sum(1)
    found = [divmod(int(i), len(names)) for i in order]
    return [(names[a], names[p], int(wrong[a, p]), float(wrong[a, p] / supports[a])) for a, p in found if wrong[a, p]]


def scatter(evaluation: Evaluation) -> Scatter | None:
    """Predicted over actual value, both on the same range of numbers."""
    if len(evaluation.pairs) < 2:
        return None
    x = fitting([actual for actual, _ in evaluation.pairs])
    y = fitting([value for pair in evaluation.pairs for value in pair])
    low, high = max(x.low, y.low), min(x.high, y.high)
    return Scatter(
        points=[(x.at(a), round(100 - y.at(p), 2)) for a, p in evaluation.pairs],
        x_ticks=x.ticks(),
        y_ticks=[(round(100 - at, 2), text) for at, text in y.ticks()],
        diagonal=(x.at(low), round(100 - y.at(low), 2), x.at(high), round(100 - y.at(high), 2)),
    )


def _bar(label: str, kind: str, interval: Interval, scale: Scale) -> Bar:
    return Bar(label, kind, interval, *(scale.at(v) for v in (interval.value, interval.low, interval.high)))


def curves(evaluation: Evaluation) -> list[Lines]:
    """Precision over recall, and true over false positives, of the classes that are worst at it."""
    drawn = []
    for kind, title, x_title in (
        ("pr", "Precision over recall", "recall"),
        ("roc", "True positive rate over false positive rate", "false positive rate"),
    ):
        found = [curve for curve in evaluation.curves if curve.kind == kind]
        shown = found[:CURVES]
        series = [
            Series(f"{short(c.label)}, {c.area.value:.3f}", style, c.points) for style, c in zip(CURVE_STYLES, shown)
        ]
        if kind == "roc":
            series.append(Series("guessing, 0.500", REFERENCE, [(0.0, 0.0), (1.0, 1.0)]))
        words = f"{title} of {len(shown)} classes; areas: " + ", ".join(
            f"{short(c.label)} {c.area.value:.3f} ({c.area.low:.3f} to {c.area.high:.3f})" for c in shown
        )
        chart = picture(title, x_title, f"{words}.", series, ends=(0.0, 1.0), shares=True, dots=False)
        drawn += [chart] if chart and shown else []
    return drawn
