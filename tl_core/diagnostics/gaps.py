"""The watched metric on parts of the test rows, and how far each part is from all other rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import (
    Floats,
    Ints,
    Numbers,
    percentile_interval,
    reach_of,
    resample_weights,
    units_of,
)
from tl_core.types import Targets, Task

AT_ONCE = 64  # resamples in memory


@dataclass(frozen=True, eq=False)
class Rated:
    """What each row [N] has gained of what it could, so that the watched metric of any rows is one sum over another.

    Accuracy, micro F1 (hits and marks), or R². R² counts errors against the spread of all rows: against their own
    spread, rows of similar values would look bad for being similar.
    """

    task: Task
    gained: Floats
    possible: Floats

    @classmethod
    def of(cls, predictions: Numbers, truth: npt.NDArray[np.generic], targets: Targets) -> Rated | None:
        """Predictions as `measure` takes them; None where values don't differ, so that R² is undefined."""
        ones = np.ones(len(truth))
        if targets.task == "multiclass":
            return cls(targets.task, (predictions.argmax(axis=1) == truth).astype(np.float64), ones)
        if targets.task == "multilabel":
            given, present = predictions > 0.5, np.asarray(truth, np.float64) > 0.5
            hits, marks = (given & present).sum(axis=1), given.sum(axis=1) + present.sum(axis=1)
            return cls(targets.task, 2.0 * hits, marks.astype(np.float64))
        values = np.asarray(truth, np.float64)
        variance = float(values.var())
        if variance <= 1e-12 * float((values**2).mean()):
            return None
        return cls(targets.task, 1 - (np.asarray(predictions, np.float64) - values) ** 2 / variance, ones)

    def metric(self) -> float:
        """On all rows."""
        return float(self.gained.sum() / self.possible.sum())


@dataclass(frozen=True)
class Gap:
    """A part's rows and score, the score of all other rows, and the first score minus the second."""

    rows: int
    score: Interval
    rest: float
    gap: Interval


def gaps(
    rated: Rated,
    codes: Ints,
    *,
    comparisons: int,
    confidence: float,
    resamples: int,
    seed: int,
    groups: Sequence[str] | None,
) -> list[Gap]:
    """The gap of each part to all rows outside it; codes: int64 [N], the row's part, -1 where it is in none.

    All parts are looked at on the same resamples, of rows and where groups are given also of whole groups: the wider
    counts. A gap's interval holds together with those of all `comparisons` (Šidák, JASA 1967), reaches further where
    the part or its outside has few rows or groups, and is never narrower than by the spread that rows have among
    themselves, because a small part whose rows happen to agree has none.
    Every part and its outside must hold something to gain.
    """
    count = int(codes.max(initial=-1)) + 1
    member = np.eye(count + 1)[codes][:, :count]  # [N, parts]; code -1 is the column that is cut off
    table = np.concatenate([member * rated.gained[:, None], member * rated.possible[:, None]], axis=1)
    total = np.array([rated.gained.sum(), rated.possible.sum()])
    score, rest = _scores(table.sum(axis=0)[None], total[None])
    value = (score - rest)[0]

    ways = [np.arange(len(codes))] if groups is None else [units_of(len(codes), groups), np.arange(len(codes))]
    scores, differences = np.empty((2, len(ways), resamples, count))
    for w, way in enumerate(ways):
        for at, weights in _stacked(resample_weights(way, resamples, seed)):
            totals = np.stack([weights @ rated.gained, weights @ rated.possible], axis=1)
            ours, theirs = _scores(weights @ table, totals)
            scores[w, at : at + len(weights)], differences[w, at : at + len(weights)] = ours, ours - theirs
    together = confidence ** (1 / comparisons)
    inside, outside = (np.stack([_units_in(way, chosen) for way in ways]) for chosen in (member > 0, member == 0))
    reach = reach_of(together, None) * _chance_spread(rated, member)
    for way, counts in zip(np.ma.masked_invalid(differences), np.minimum(inside, outside).tolist()):
        reaches = np.array([reach_of(together, count) for count in counts])
        reach = np.maximum(reach, reaches * way.std(axis=0).filled(0.0))
    bound = np.inf if rated.task == "regression" else 1.0
    rows = member.sum(axis=0).astype(int)
    return [
        Gap(
            rows=int(rows[v]),
            score=percentile_interval(
                float(score[0, v]),
                scores[:, :, v],
                confidence,
                None if rated.task == "regression" else float(rows[v]),
                units=inside[:, v].tolist(),
            ),
            rest=float(rest[0, v]),
            gap=Interval.of(value[v], max(-bound, value[v] - reach[v]), min(bound, value[v] + reach[v])),
        )
        for v in range(count)
    ]


def _scores(sums: Floats, totals: Floats) -> tuple[Floats, Floats]:
    """Scores of parts and of their outsides [R, parts], from sums [R, 2 parts] and totals [R, 2]; nan where empty."""
    gained, possible = np.split(sums, 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return gained / possible, (totals[:, :1] - gained) / (totals[:, 1:] - possible)


def _units_in(units: Ints, chosen: npt.NDArray[np.bool_]) -> Ints:
    """How many units have rows in each column of chosen [N, parts], [parts]."""
    return np.array([len(np.unique(units[part])) for part in chosen.T], np.int64)


def _chance_spread(rated: Rated, member: Floats) -> Floats:
    """Standard deviation of each part's gap were its rows drawn from all at random, float64 [parts]."""
    deviation = (rated.gained - rated.metric() * rated.possible) / rated.possible.mean()
    inside = member.sum(axis=0)
    spread: Floats = deviation.std() * np.sqrt(1 / inside + 1 / (len(member) - inside))
    return spread


def _stacked(weights: Iterator[Floats]) -> Iterator[tuple[int, Floats]]:
    """Several resamples at a time [R, N], each with the number of the first."""
    at = 0
    while some := list(islice(weights, AT_ONCE)):
        yield at, np.stack(some)
        at += len(some)
