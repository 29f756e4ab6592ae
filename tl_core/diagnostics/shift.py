"""Whether rows that should be alike are: the splits, each group and all others, what versions of the data lack."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from tl_core.diagnostics.gaps import Rated, gaps
from tl_core.diagnostics.results import Shift, ShiftTest
from tl_core.diagnostics.separation import LEAST, Rows, Separation, on_axes, other_balance, separate
from tl_core.diagnostics.shift_verdict import Found, Kind, judged, overall
from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import Bools, Ints, Numbers
from tl_core.evaluation.curves import Ranking
from tl_core.selection.sample import strata
from tl_core.types import SPLITS, Targets

Labels = npt.NDArray[np.generic]

MOST_GROUPS = 20  # that are tested, the largest first: each further one costs all of them power
CLASS_ROWS = 10  # of a class in each set, for an AUC of its own
SCORED = 10  # predicted rows on either side, for a cost


@dataclass(frozen=True)
class _Pair:
    """Two sets of rows that are compared.

    inside: bool [N], the first one; among: bool [N], both; column: the attribute whose value the first set has; named:
    that value is a group's own name, so that rows of the group are asked about, and not what else it stands for.
    """

    name: str
    kind: Kind
    inside: Bools
    among: Bools
    groups: Ints | None = None
    column: str = ""
    named: bool = False


@dataclass(frozen=True, eq=False)
class TwoSets:
    """Two sets of rows to compare, and what a model says of some of them.

    name: what against what; features: float32 [N, D]; first: bool [N], the rows of the first set; truth: of all rows;
    predictions: of the rows `predicted` (int64 positions), which the model did not learn from; groups: rows of one
    group are not independent.
    """

    name: str
    features: Rows
    first: Bools
    truth: Labels
    predictions: Numbers | None = None
    predicted: Ints | None = None
    groups: Sequence[str] | None = None


@dataclass(frozen=True)
class _How:
    """How sure a finding must be, and the draws that say so."""

    confidence: float
    resamples: int
    permutations: int
    seed: int

    @classmethod
    def of(cls, confidence: float, resamples: int, permutations: int, seed: int, pairs: int) -> Self:
        # the least p-value that there can be must pass Holm's correction, for two tests and the balance of each pair
        return cls(confidence, resamples, max(permutations, math.ceil(4 * pairs / (1 - confidence))), seed)


@dataclass(frozen=True)
class _Data:
    """The rows that pairs are taken from. rated: of the rows `predicted` (int64 positions), None where nothing is."""

    axes: Rows
    strata: Ints
    truth: Labels | None
    targets: Targets
    rated: Rated | None
    predicted: Ints
    groups: Sequence[str] | None
    how: _How

    @classmethod
    def of(
        cls,
        features: Rows,
        truth: Labels | None,
        targets: Targets,
        predictions: Numbers | None,
        predicted: Ints | None,
        groups: Sequence[str] | None,
        how: _How,
    ) -> Self:
        rated, where = None, np.zeros(0, np.int64)
        if predictions is not None and predicted is not None and truth is not None and len(predicted):
            rated, where = Rated.of(predictions, truth[predicted], targets), np.asarray(predicted, np.int64)
        codes = np.zeros(len(features), np.int64) if truth is None else strata(truth, targets.task)
        return cls(on_axes(features, codes), codes, truth, targets, rated, where, groups, how)


def shift(
    features: Rows,
    splits: Sequence[str],
    truth: Labels | None,
    targets: Targets,
    *,
    attributes: Mapping[str, Sequence[str | None]] | None = None,
    predictions: Numbers | None = None,
    predicted: Ints | None = None,
    groups: Sequence[str] | None = None,
    confidence: float = 0.9,
    resamples: int = 1000,
    permutations: int = 1000,
    seed: int = 0,
) -> Shift | None:
    """Compare train with val and test, and each value of each attribute with all other rows.

    features: float32 [N, D] of all good rows, as are splits and truth; attributes: values by column, of which the 20
    largest of at least 20 rows are tested; predictions: of the rows `predicted` (int64 positions), which the model did
    not learn from; groups: rows of one group are not independent. A shift is called one if a permutation test says so
    at 1 - confidence for all comparisons together (Holm, 1979). None where there is nothing to compare.
    """
    pairs = [*_splits(splits, groups), *_values(attributes or {}, groups)]
    if not pairs:
        return None
    how = _How.of(confidence, resamples, permutations, seed, len(pairs))
    data = _Data.of(features, truth, targets, predictions, predicted, groups, how)
    return overall(judged([_tested(pair, data, len(pairs)) for pair in pairs], targets, confidence))


def version_shift(
    sets: Sequence[TwoSets],
    targets: Targets,
    *,
    confidence: float = 0.9,
    resamples: int = 1000,
    permutations: int = 1000,
    seed: int = 0,
) -> tuple[ShiftTest, ...]:
    """Compare rows that one version of the data lacks with those that it has: a test for each two sets, in order.

    A shift is called one as in shift(), for all of them together. The cost is the watched metric on the first set's
    predicted rows minus that on the second's.
    """
    how = _How.of(confidence, resamples, permutations, seed, len(sets))
    found = []
    for two in sets:
        data = _Data.of(two.features, two.truth, targets, two.predictions, two.predicted, two.groups, how)
        pair = _Pair(two.name, "version", two.first, np.ones(len(two.first), np.bool_), _codes(two.groups))
        found.append(_tested(pair, data, len(sets)))
    return tuple(judged(found, targets, confidence))


def _splits(splits: Sequence[str], groups: Sequence[str] | None) -> Iterator[_Pair]:
    of = np.asarray(splits)
    train, units = of == SPLITS[0], _codes(groups)
    for split in SPLITS[1:]:
        other = of == split
        if train.any() and other.any():
            yield _Pair(f"train against {split}", "split", train, train | other, units)


def _values(attributes: Mapping[str, Sequence[str | None]], groups: Sequence[str] | None) -> Iterator[_Pair]:
    units = _codes(groups)
    named = {column: _names(values, units) for column, values in attributes.items()}
    found: list[tuple[int, str, str]] = []
    for column, values in attributes.items():
        counts = Counter(value for value in values if value is not None)
        if len(counts) == 2 and None not in values:  # each is the other's outside
            counts.pop(max(counts))
        found += [(count, column, value) for value, count in counts.items() if LEAST <= count <= len(values) - LEAST]
    for _, column, value in sorted(found, key=lambda item: (-item[0], item[1], item[2]))[:MOST_GROUPS]:
        inside = np.array([other == value for other in attributes[column]])
        everything = np.ones(len(inside), np.bool_)
        yield _Pair(f"{column} {value} against the others", "group", inside, everything, units, column, named[column])


def _names(values: Sequence[str | None], groups: Ints | None) -> bool:
    """Whether each value belongs to one group and each group to one value, as in the group column itself."""
    if groups is None:
        return False
    both = set(zip(values, groups.tolist()))
    return len(both) == len({value for value, _ in both}) == len({group for _, group in both})


def _codes(groups: Sequence[str] | None) -> Ints | None:
    return None if groups is None else np.unique(np.asarray(groups, object), return_inverse=True)[1].astype(np.int64)


def _tested(pair: _Pair, data: _Data, pairs: int) -> Found:
    at = np.flatnonzero(pair.among)
    first, codes = pair.inside[at], data.strata[at]
    units = None if pair.groups is None or pair.named else pair.groups[at]
    parts, how = None, data.how
    if min(first.sum(), (~first).sum()) >= LEAST:
        parts = separate(
            data.axes[at], first, codes, groups=units, confidence=how.confidence, resamples=how.resamples,
            permutations=how.permutations, seed=how.seed,
        )  # fmt: skip
    classes: tuple[tuple[str, float], ...] = ()
    if parts is not None:
        classes = _by_class(parts, at[parts.used], first[parts.used], data)
    moved, balance_p = 0.0, 1.0
    if data.truth is not None and len(np.unique(codes)) > 1:
        moved, balance_p = other_balance(codes, first, groups=units, permutations=how.permutations, seed=how.seed)
    rows = int(first.sum()), int((~first).sum())
    return Found(pair.name, pair.kind, pair.column, rows, parts, classes, moved, balance_p, _cost(pair, data, pairs))


def _by_class(parts: Separation, rows: Ints, first: Bools, data: _Data) -> tuple[tuple[str, float], ...]:
    """AUC of the held-out scores among the rows of each class, for those that both sets have; most moved first."""
    if data.truth is None or data.targets.task == "regression":
        return ()
    found = []
    for c, name in enumerate(data.targets.classes):
        has = data.truth[rows] == c if data.targets.task == "multiclass" else np.asarray(data.truth[rows, c]) == 1
        side = first[has]
        if min(side.sum(), (~side).sum()) >= CLASS_ROWS:
            ones = np.ones(len(side), np.float32)
            found.append((name, round(Ranking(parts.scores[has], side).areas(ones, float(len(side)))[0], 6)))
    return tuple(sorted(found, key=lambda item: (-item[1], item[0])))


def _cost(pair: _Pair, data: _Data, pairs: int) -> Interval | None:
    """The watched metric on the first set's predicted rows minus that on the second's; holds for all pairs together."""
    if data.rated is None:
        return None
    among, inside = pair.among[data.predicted], pair.inside[data.predicted]
    kept = np.flatnonzero(among)
    first = inside[kept]
    if min(first.sum(), (~first).sum()) < SCORED:
        return None
    rated = replace(data.rated, gained=data.rated.gained[kept], possible=data.rated.possible[kept])
    if not (rated.possible[first].any() and rated.possible[~first].any()):
        return None
    groups = None
    if data.groups is not None and pair.groups is not None:
        groups = [data.groups[row] for row in data.predicted[kept].tolist()]
    (gap,) = gaps(
        rated, np.where(first, 0, -1), comparisons=pairs, confidence=data.how.confidence, resamples=data.how.resamples,
        seed=data.how.seed, groups=groups,
    )  # fmt: skip
    return gap.gap
