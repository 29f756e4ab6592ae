"""Is one set of predictions better than another on the same rows? Paired resamples, McNemar's test, a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from tl_core.evaluation.bootstrap import (
    Bools,
    Floats,
    Interval,
    Ints,
    Numbers,
    count_of,
    percentile_interval,
    resample_weights,
    units_of,
    ways_to_resample,
)
from tl_core.evaluation.metrics import Column, Measure, Multiclass, Multilabel, measure, watch_name
from tl_core.intervals import wilson
from tl_core.types import Targets
from tl_core.watch import metric_title

Side = Literal["two", "one"]
POWER = 0.8  # how often so many rows would decide, where the difference is as measured
MOST_ROWS = 10_000_000  # past that a number of rows is no advice


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two gets right; multi-label: right with all labels.

    p: exact, of a split as uneven as this among rows that are decided by a coin (one-sided: in favour of the second);
    None where rows come in groups, since it takes them as independent. McNemar, Psychometrika 1947.
    """

    first_only: int
    second_only: int
    p: float | None


@dataclass(frozen=True)
class Paired:
    """Two sets of predictions on the same rows, by the watched metric.

    difference: second minus first, on the same resamples; side: whether the interval holds at `confidence` as a whole
    (`two`) or each of its ends alone does (`one`); state: by whether it holds 0; differ: rows decided differently (None
    for regression); more_rows: further test rows that would decide in 4 of 5 cases if the difference is as measured,
    None where it is decided or no number is known; text: the outcome in a sentence.
    """

    metric: str
    rows: int
    confidence: float
    side: Side
    first: Interval
    second: Interval
    difference: Interval
    state: Literal["better", "worse", "can't tell"]
    differ: int | None
    mcnemar: McNemar | None
    more_rows: int | None
    text: str


@dataclass(frozen=True)
class ClassDifference:
    """F1 of one class (or label) by both; difference: second minus first, on the same resamples.

    support: rows that have it, at least one.
    """

    name: str
    support: int
    first: float
    second: float
    difference: Interval


def paired(
    targets: Targets,
    first: Numbers,
    second: Numbers,
    truth: npt.NDArray[np.generic],
    *,
    groups: Sequence[str] | None = None,
    confidence: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    side: Side = "two",
    names: tuple[str, str] = ("the first", "the second"),
) -> Paired:
    """How the second set of predictions compares with the first, both on the rows of truth.

    first, second: probabilities [N, C], or values [N] for regression; truth: as in `evaluate_predictions`; groups: of
    each row, resampled whole; names: of the two, for the sentence. Raises UserError where there are no rows or
    predictions are not finite.
    """
    both = _Both.of(targets, first, second, truth, groups)
    a, b, counts = both.first, both.second, both.counts
    draws = both.drawn(lambda model, weights: model.watch(weights), resamples, seed)
    # one-sided ends at 90% are those of the two-sided interval at 80%
    level = confidence if side == "two" else 2 * confidence - 1
    values = [float(model.resampled(np.ones(len(truth)), ranked=False)[0]) for model in (a, b)]
    intervals = [
        _known(model.columns[0], value, draws[:, :, i], level, counts)
        for i, (model, value) in enumerate(zip((a, b), values))
    ]
    counted = _mcnemar(a, b, grouped=groups is not None, side=side)
    differ = _differ(a, b)
    spread = draws[:, :, 1] - draws[:, :, 0]
    difference = _difference(values, intervals, spread, differ, counts, level)
    state: Literal["better", "worse", "can't tell"] = (
        "better" if difference.low > 0 else "worse" if difference.high < 0 else "can't tell"
    )
    more = _more_rows(difference.value, spread, len(truth), level) if state == "can't tell" else None
    metric = watch_name(targets)
    return Paired(
        metric=metric,
        rows=len(truth),
        confidence=confidence,
        side=side,
        first=intervals[0],
        second=intervals[1],
        difference=difference,
        state=state,
        differ=differ,
        mcnemar=counted,
        more_rows=more,
        text=_sentence(metric, names, intervals, difference, state, differ, len(truth), confidence, side, more),
    )


def class_differences(
    targets: Targets,
    first: Numbers,
    second: Numbers,
    truth: npt.NDArray[np.generic],
    *,
    groups: Sequence[str] | None = None,
    confidence: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[ClassDifference, ...]:
    """What happened to each class's F1, the largest difference first; nothing for regression."""
    both = _Both.of(targets, first, second, truth, groups)
    taken = [i for i, column in enumerate(both.first.columns) if column.metric == "f1" and column.label is not None]
    if not taken:
        return ()

    def scores(model: Measure, weights: Floats) -> Floats:
        return model.resampled(weights, ranked=False)[taken]

    draws = both.drawn(scores, resamples, seed)
    spread = draws[:, :, 1] - draws[:, :, 0]
    values = [scores(model, np.ones(len(truth))) for model in (both.first, both.second)]
    support = truth.sum(axis=0) if truth.ndim == 2 else np.bincount(truth.astype(np.int64), minlength=targets.outputs)
    found = []
    for c, (name, before, after) in enumerate(zip(targets.classes, *values)):
        if not np.isnan(before):  # without a row of it neither has an F1
            change = percentile_interval(float(after - before), spread[..., c], confidence, None, units=both.counts)
            if change.method == "none":  # every resample agreed, on few rows: no ground to rule out 0
                change = Interval.of(change.value, min(change.value, 0.0), max(change.value, 0.0), "none")
            row = ClassDifference(name, int(support[c]), round(float(before), 6), round(float(after), 6), change)
            found.append(row)
    return tuple(sorted(found, key=lambda row: -abs(row.difference.value)))


@dataclass(frozen=True, eq=False)
class _Both:
    """Two sets of predictions on the same rows, which are resampled for both alike, in each of the ways."""

    first: Measure
    second: Measure
    ways: tuple[Ints, ...]

    @classmethod
    def of(
        cls,
        targets: Targets,
        first: Numbers,
        second: Numbers,
        truth: npt.NDArray[np.generic],
        groups: Sequence[str] | None,
    ) -> Self:
        units = units_of(len(truth), groups)
        a, b = (measure(targets, values, truth, units) for values in (first, second))
        return cls(a, b, ways_to_resample(units))

    @property
    def counts(self) -> list[int]:
        """How many units each way resamples."""
        return [count_of(way) for way in self.ways]

    def drawn(self, scores: Callable[[Measure, Floats], float | Floats], resamples: int, seed: int) -> Floats:
        """The scores of both on each resample, [ways, resamples, 2, ...]."""
        return np.asarray([
            [[scores(model, weights) for model in (self.first, self.second)]
             for weights in resample_weights(way, resamples, seed)]
            for way in self.ways
        ])  # fmt: skip


def _known(column: Column, value: float, draws: Floats, confidence: float, counts: Sequence[int]) -> Interval:
    if np.isnan(value):
        return Interval.of(0.0, 0.0, 0.0, "none")
    return percentile_interval(value, draws, confidence, column.trials, units=counts)


def _difference(
    values: Sequence[float],
    both: Sequence[Interval],
    spread: Floats,
    differ: int | None,
    counts: Sequence[int],
    level: float,
) -> Interval:
    value = float(np.nan_to_num(values[1]) - np.nan_to_num(values[0]))
    found = percentile_interval(value, spread, level, None, units=counts)
    if found.method != "none" or differ is None:
        return found
    if differ == 0:  # no row told them apart: so many of the others still could
        bound = wilson(0.0, counts[0], level)[1]
        return Interval.of(0.0, -bound, bound, "wilson")
    # the difference never changed: as far apart as the two intervals allow
    return Interval.of(value, both[1].low - both[0].high, both[1].high - both[0].low, found.method)


def _differ(a: Measure, b: Measure) -> int | None:
    """Rows that are decided differently; None for values."""
    if isinstance(a, Multiclass) and isinstance(b, Multiclass):
        return int((a.predicted != b.predicted).sum())
    if isinstance(a, Multilabel) and isinstance(b, Multilabel):
        return int((a.given != b.given).any(axis=1).sum())
    return None


def _right(model: Measure) -> Bools | None:
    right: Bools | None = None
    if isinstance(model, Multiclass):
        right = model.right
    elif isinstance(model, Multilabel):
        right = model.exact
    return right


def _mcnemar(a: Measure, b: Measure, *, grouped: bool, side: Side) -> McNemar | None:
    first, second = _right(a), _right(b)
    if first is None or second is None:
        return None
    first_only, second_only = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(first_only, second_only, None if grouped else coin_p(first_only, second_only, side))


def coin_p(first: int, second: int, side: Side = "two") -> float:
    """Exact p of counts as uneven as these if a fair coin decided; `one`: of a second count as large as this."""
    n = first + second
    if n == 0:
        return 1.0
    k = np.arange(1, n + 1)
    # log of C(n, k) / 2^n for k = 0 .. n: the counts may be large
    logs = np.concatenate([[0.0], np.cumsum(np.log((n - k + 1) / k))]) - n * math.log(2)
    chances = np.exp(logs)
    if side == "one":
        return _p(float(chances[second:].sum()))
    return _p(2 * float(chances[: min(first, second) + 1].sum()))


def _p(chance: float) -> float:
    return float(f"{min(1.0, chance):.6g}")  # significant digits: a small p is not 0


def _more_rows(value: float, spread: Floats, rows: int, level: float) -> int | None:
    """How many more rows: an interval narrows with their root (the wider way to resample counts)."""
    known = [way[np.isfinite(way)] for way in np.atleast_2d(spread)]
    deviation = max((float(way.std()) for way in known if way.size), default=0.0)
    if value == 0 or deviation == 0:
        return None
    normal = NormalDist()
    reach = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(POWER)
    more = max(1, math.ceil(rows * ((reach * deviation / value) ** 2 - 1)))
    return _round_up(more) if more <= MOST_ROWS else None


def _round_up(count: int) -> int:
    """Two digits: more would claim to know it."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / step) * step


def _sentence(
    metric: str,
    names: tuple[str, str],
    both: Sequence[Interval],
    difference: Interval,
    state: str,
    differ: int | None,
    rows: int,
    confidence: float,
    side: Side,
    more: int | None,
) -> str:
    first, second = names
    told = {
        "better": f"Better than {first}: {second} has ",
        "worse": f"Worse than {first}: {second} has ",
        "can't tell": f"Can't tell whether {second} is better or worse than {first}: ",
    }[state]
    if differ == 0:
        told = f"No row is decided otherwise by {second} than by {first}: "
    kind = f"{confidence:.0%} interval" if side == "two" else f"{confidence:.0%} one-sided ends"
    text = (
        f"{told}{metric_title(metric)} {both[1].value:.3f} against {both[0].value:.3f}, a "
        f"difference of {difference.value:+.3f} ({kind} {difference.low:+.3f} to {difference.high:+.3f}) on "
        f"{rows:,} test rows."
    )
    if more:
        text += f" Deciding it would take about {more:,} more, if the difference is as measured."
    return text
