"""What changed between two models on parts of the same rows: how much, how surely, and whether chance explains it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tl_core.diagnostics.gaps import Rated
from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import (
    Bools,
    Floats,
    Ints,
    Numbers,
    count_of,
    resample_weights,
    units_of,
    ways_to_resample,
)
from tl_core.intervals import wilson
from tl_core.types import Targets

Both = tuple[Floats, Floats]
AT_ONCE = 64  # resamples in memory
TIE = 1e-9  # draws that are equal but for rounding


@dataclass(frozen=True)
class Change:
    """A part's score by the first model and by the second.

    gain: second minus first; the lower end holds together with those of all parts, and so does the upper one. worse,
    better: how often two equal models would show as large a fall (rise) in one of the parts, by chance alone.
    """

    name: str
    rows: int
    first: float
    second: float
    gain: Interval
    worse: float
    better: float


class Scores(ABC):
    """Two models' scores on the same rows, part by part, each a function of sums over rows.

    names: of the parts; rows: int64 [P], how many each has.
    """

    names: tuple[str, ...]
    rows: Ints

    @abstractmethod
    def sums(self, weights: Floats) -> Both:
        """Both models' sums [B, K], each row counted weights [B, N] times."""

    @abstractmethod
    def score(self, sums: Floats) -> Floats:
        """Sums [B, K] as scores [B, P]; nan where undefined."""

    def gain(self, sums: Both) -> Floats:
        """The second model's scores minus the first one's, [B, P]."""
        return self.score(sums[1]) - self.score(sums[0])


class ClassScores(Scores):
    """F1 of each class (or label) that occurs among the rows and that `kept` names.

    first, second: probabilities [N, C]; truth: int64 [N], or multi-hot [N, C].
    """

    def __init__(
        self, targets: Targets, first: Numbers, second: Numbers, truth: npt.NDArray[np.generic], kept: Sequence[str]
    ) -> None:
        self._present, *self._models = (
            _of_labels(truth.astype(np.bool_), first > 0.5, second > 0.5)
            if targets.task == "multilabel"
            else _of_classes(truth.astype(np.int64), _likeliest(first), _likeliest(second), targets.outputs)
        )
        support = self._present(np.ones((1, len(truth))))[0]
        wanted = set(kept)
        self._taken = [c for c, name in enumerate(targets.classes) if support[c] and name in wanted]
        self.names = tuple(targets.classes[c] for c in self._taken)
        self.rows = support[self._taken].astype(np.int64)

    def sums(self, weights: Floats) -> Both:
        present = self._present(weights)[:, self._taken]
        first, second = (
            np.concatenate([2 * hits(weights)[:, self._taken], given(weights)[:, self._taken] + present], axis=1)
            for hits, given in self._models
        )
        return first, second

    def score(self, sums: Floats) -> Floats:
        return _ratios(sums)


class RowScores(Scores):
    """The watched metric on parts of the rows.

    columns: a row's part [N], -1 where it is in none, and the names of the parts; of one way to part them or several.
    """

    def __init__(self, first: Rated, second: Rated, columns: Sequence[tuple[Ints, Sequence[str]]]) -> None:
        self._tables = [
            [_Sums(codes, len(names), of) for of in (one.gained, one.possible) for codes, names in columns]
            for one in (first, second)
        ]
        self.names = tuple(name for _, names in columns for name in names)
        counts = [np.bincount(codes[codes >= 0], minlength=len(names)) for codes, names in columns]
        self.rows = np.concatenate(counts).astype(np.int64)

    def sums(self, weights: Floats) -> Both:
        first, second = (np.concatenate([part(weights) for part in table], axis=1) for table in self._tables)
        return first, second

    def score(self, sums: Floats) -> Floats:
        return _ratios(sums)


class _Sums:
    """Weighted sums of values [N] by code; rows with code -1 are left out."""

    def __init__(self, codes: Ints, count: int, values: npt.NDArray[np.generic] | None = None) -> None:
        kept = np.flatnonzero(codes >= 0 if values is None else (codes >= 0) & (values != 0))
        self._order = kept[np.argsort(codes[kept], kind="stable")]
        self._codes, self._starts = np.unique(codes[self._order], return_index=True)
        self._values = None if values is None else values[self._order].astype(np.float64)
        self._count = count

    def __call__(self, weights: Floats) -> Floats:
        """[B, N] -> [B, count]."""
        found = np.zeros((len(weights), self._count))
        if len(self._order):
            taken = weights[:, self._order]
            taken = taken if self._values is None else taken * self._values
            found[:, self._codes] = np.add.reduceat(taken, self._starts, axis=1)
        return found


Summed = Callable[[Floats], Floats]
Tables = tuple[Summed, tuple[Summed, Summed], tuple[Summed, Summed]]  # have it; each model: hits, were given it


def _of_classes(truth: Ints, first: Ints, second: Ints, classes: int) -> Tables:
    one, other = ((_Sums(truth, classes, said == truth), _Sums(said, classes)) for said in (first, second))
    return _Sums(truth, classes), one, other


def _of_labels(truth: Bools, first: Bools, second: Bools) -> Tables:
    def of(mask: Bools) -> Summed:
        table = mask.astype(np.float64)
        return lambda weights: weights @ table  # [B, N] @ [N, C]

    one, other = ((of(said & truth), of(said)) for said in (first, second))
    return of(truth), one, other


def _likeliest(probabilities: Numbers) -> Ints:
    found: Ints = probabilities.argmax(axis=1).astype(np.int64)
    return found


def _ratios(sums: Floats) -> Floats:
    above, below = np.split(sums, 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = above / below
    return found


def changes(
    scores: Scores, rows: int, *, confidence: float, resamples: int, seed: int, groups: Sequence[str] | None = None
) -> tuple[Change, ...]:
    """What changed in each part, in the order of the parts.

    rows: of all parts; groups: of each row, resampled and traded whole. Ends of intervals are normal ones by the spread
    over resamples (never below the spread by chance alone), each end for all parts together at `confidence`
    (Bonferroni). `worse` and `better` come from trading the models' answers on rows drawn by a coin, which leaves equal
    models equal: exact for any score, however few rows differ; over parts by the largest studentised change (Westfall
    and Young 1993, single step).
    """
    if not scores.names:
        return ()
    units = units_of(rows, groups)
    whole = scores.sums(np.ones((1, rows)))
    first, second = (scores.score(sums)[0] for sums in whole)
    seen = second - first

    def traded(coins: Floats) -> Floats:
        one, other = scores.sums(coins)
        return scores.gain((whole[0] + other - one, whole[1] + one - other))

    null = np.concatenate([traded(coins) for coins in _stacked(_coins(units, resamples, seed))])
    by_chance = _spread(null)
    spread = by_chance
    for way in ways_to_resample(units):
        weights = _stacked(resample_weights(way, resamples, seed))
        spread = np.maximum(spread, _spread(np.concatenate([scores.gain(scores.sums(some)) for some in weights])))
    scale = np.where(by_chance > 0, by_chance, np.inf)
    falls, rises = (np.nan_to_num(sign * null / scale).max(axis=1) for sign in (-1, 1))
    reach = NormalDist().inv_cdf(1 - (1 - confidence) / len(scores.names))
    every = _every_way(units, resamples)
    found = []
    for part, name in enumerate(scores.names):
        value = float(seen[part])
        height = value / float(scale[part])
        if spread[part] > 0:
            away = reach * float(spread[part])
        else:  # no row of it told the models apart: so many of the others still could
            away = wilson(0.0, float(scores.rows[part]), 2 * NormalDist().cdf(reach) - 1)[1]
        found.append(
            Change(
                name=name,
                rows=int(scores.rows[part]),
                first=round(float(first[part]), 6),
                second=round(float(second[part]), 6),
                gain=Interval.of(value, value - away, value + away),
                worse=_p(falls, -height, every),
                better=_p(rises, height, every),
            )
        )
    return tuple(found)


def _coins(units: Ints, resamples: int, seed: int) -> Iterator[Floats]:
    """For each round the rows on which the models trade places, 0 or 1, [N]: whole units.

    Every way to trade, once, where there are no more ways than resamples; the first leaves all as it is.
    """
    count = count_of(units)
    if _every_way(units, resamples):
        for way in range(2**count):
            yield ((way >> np.arange(count)) & 1).astype(np.float64)[units]
        return
    rng = np.random.default_rng([seed, resamples])
    for _ in range(resamples):
        yield rng.integers(2, size=count).astype(np.float64)[units]


def _every_way(units: Ints, resamples: int) -> bool:
    return count_of(units) < 63 and 2 ** count_of(units) <= resamples


def _stacked(weights: Iterator[Floats]) -> Iterator[Floats]:
    """Several at a time, [B, N]."""
    while some := list(islice(weights, AT_ONCE)):
        yield np.stack(some)


def _spread(draws: Floats) -> Floats:
    """The standard deviation of each part's draws [R, P], 0 where there are none."""
    found: Floats = np.ma.masked_invalid(draws).std(axis=0).filled(0.0)
    return found


def _p(null: Floats, height: float, every: bool) -> float:
    """The share of rounds as extreme; the data themselves count as one where they are not among every way."""
    reached = int((null >= height - TIE).sum())
    return round(reached / len(null) if every else (1 + reached) / (1 + len(null)), 6)
