"""Label-free tests of new rows against held-out ones. All are permutation tests: exact for any distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tl_core.diagnostics.separation import on_axes, permuted_sides, separate
from tl_core.evaluation.bootstrap import Floats, Ints
from tl_core.types import Targets

TAILS = (0.75, 0.9, 0.95, 0.99)  # few far rows stand out at the last
# of a feature, as a share of the median feature's: what is almost constant shows which engine computed it, no more
LEAST_SPREAD = 0.05
_MANY = 10**6

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Side:
    """Rows of one kind, known or new.

    distances: float64 [N] to the training rows; said, sure: as `tl_core.held.answered` gives them, None where they are
    not known; groups: int64 [N], None where each row stands for itself.
    """

    distances: Floats
    said: Array | None = None
    sure: Rows | None = None
    groups: Ints | None = None

    def __len__(self) -> int:
        return len(self.distances)


@dataclass(frozen=True)
class Tested:
    """A test's name, its p-value, and the size of the effect.

    Of `unusual` the widest gap between the shares of new and known rows beyond a percentile of both; of `distance`,
    `features` and `confidence` an AUC; of `kernel` the squared distance of kernel means; of `answers` the share of rows
    that would have to be answered otherwise (multilabel: the largest change of a label's share; regression: the widest
    gap between the distribution functions).
    """

    name: str
    p: float
    effect: float


def joined(known: Ints | None, new: Ints | None, counts: tuple[int, int]) -> Ints | None:
    """The groups of known rows, then of new ones, int64 [K + N]; a row of a side without groups is its own."""
    if known is None and new is None:
        return None
    sides = [
        groups if groups is not None else -1 - np.arange(count, dtype=np.int64) - (counts[0] if i else 0)
        for i, (groups, count) in enumerate(zip((known, new), counts))
    ]
    return np.concatenate(sides)


def answer_tests(
    known: Side, new: Side, targets: Targets, *, permutations: int, seed: int
) -> tuple[list[Tested], Floats]:
    """Tests of distances, answers and confidence; and a p-value for each answer's share, corrected for all of them."""
    side = np.arange(len(known) + len(new)) >= len(known)
    groups = joined(known.groups, new.groups, (len(known), len(new)))
    sides = permuted_sides(side, groups, permutations, seed).astype(np.float64)
    far = np.concatenate([known.distances, new.distances])
    found = [_tail(far, sides), _ranked("distance", far, sides, more=True)]
    each = np.zeros(0)
    if known.said is not None and new.said is not None:
        said = np.concatenate([known.said, new.said])
        if targets.task == "regression":
            gaps = _widest_gap(said, sides)
            found.append(Tested("answers", p_of(gaps), float(gaps[0])))
        else:
            test, each = _mix(_columns(said, targets), sides, both=targets.task == "multilabel")
            found.append(test)
    if known.sure is not None and new.sure is not None:
        found.append(_ranked("confidence", np.concatenate([known.sure, new.sure]), sides, more=False))
    return found, each


def feature_tests(
    known: Rows, new: Rows, groups: Ints | None, *, confidence: float, resamples: int, permutations: int, seed: int
) -> tuple[list[Tested], tuple[float, float]] | None:
    """Two-sample tests of features [K, D] and [N, D], and the AUC's interval; None below 20 rows of either."""
    rows = np.concatenate([known, new])
    spread = rows.std(axis=0)
    rows = rows[:, spread >= LEAST_SPREAD * np.median(spread)]
    strata = np.zeros(len(rows), np.int64)
    first = np.arange(len(rows)) >= len(known)
    parts = separate(
        on_axes(rows, strata), first, strata, groups=groups, confidence=confidence, resamples=resamples,
        permutations=permutations, seed=seed,
    )  # fmt: skip
    if parts is None:
        return None
    found = [Tested("features", parts.p, parts.auc.value), Tested("kernel", parts.mmd_p, parts.mmd)]
    return found, (parts.auc.low, parts.auc.high)


def shares(said: Array, targets: Targets) -> Floats:
    """How often each class is answered, float64 [C]."""
    return np.asarray(_columns(said, targets).mean(axis=0))


def p_of(statistics: Floats) -> float:
    """How often a permutation does as well as the first, what was seen, which counts too; rounding decides for it."""
    seen = float(statistics[0])
    return round(float(1 + (statistics[1:] >= seen - 1e-9 * max(1.0, abs(seen))).sum()) / len(statistics), 6)


def _tail(far: Floats, sides: Floats) -> Tested:
    """Whether more new rows than known ones are among the farthest, at the level where that stands out most.

    Levels are percentiles of both kinds together, so that permuting rows leaves them as they are.
    """
    beyond = far[:, None] > np.quantile(far, TAILS, method="lower")  # [N, levels]
    new, known = _means(beyond.astype(np.float64), sides)
    share = beyond.mean(axis=0)[:, None]
    apart = (new - known) / np.sqrt(np.maximum(share * (1 - share), 1e-9))
    return Tested("unusual", p_of(apart.max(axis=0)), float((new - known)[:, 0].max()))


def _means(values: Floats, sides: Floats) -> tuple[Floats, Floats]:
    """Means of values [N] (or [N, C]) over new and over known rows, [1 + P] (or [C, 1 + P])."""
    inside = sides.sum(axis=0)
    own = values.T @ sides
    total = values.sum(axis=0)
    return own / inside, (np.expand_dims(total, -1) - own) / (len(sides) - inside)


def _ranked(name: str, values: Array, sides: Floats, *, more: bool) -> Tested:
    """Mann and Whitney's test of new rows having larger (or smaller) values; AUC 0.5: no difference."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # the mean rank of ties
    inside = sides.sum(axis=0)
    areas = (ranks @ sides / inside - (inside + 1) / 2) / (len(sides) - inside)
    areas = areas if more else 1 - areas
    return Tested(name, p_of(areas), float(areas[0]))


def _widest_gap(values: Array, sides: Floats) -> Floats:
    """Kolmogorov and Smirnov's distance of new and known values, [1 + P]."""
    order = np.argsort(values, kind="stable")
    last = np.append(np.diff(values[order]) > 0, True)  # ties step together
    inside = sides.sum(axis=0)
    new = np.cumsum(sides[order], axis=0)
    known = np.arange(1, len(sides) + 1)[:, None] - new
    return np.asarray(np.abs(new / inside - known / (len(sides) - inside))[last].max(axis=0))


def _mix(columns: Floats, sides: Floats, *, both: bool) -> tuple[Tested, Floats]:
    """Whether classes [N, C] are answered as often, and each class's p by the largest of all (Westfall and Young)."""
    new, known = _means(columns, sides)  # [C, 1 + P]
    share = columns.mean(axis=0)[:, None]
    spread = np.maximum(share * (1 - share if both else 1.0), 1e-9)
    apart = (new - known) ** 2 / spread
    largest = apart.max(axis=0)
    each = np.array([p_of(np.concatenate([[one], largest[1:]])) for one in apart[:, 0].tolist()])
    moved = np.abs(new - known)[:, 0]
    return Tested("answers", p_of(apart.sum(axis=0)), float(moved.max() if both else moved.sum() / 2)), each


def _columns(said: Array, targets: Targets) -> Floats:
    if targets.task == "multilabel":
        return said.astype(np.float64)
    return np.asarray(said[:, None] == np.arange(len(targets.classes)), np.float64)


def ways_to_trade(known: Side, new: Side) -> int | None:
    """In how many ways groups can trade sides, at most a million; None where rows have no groups."""
    groups = joined(known.groups, new.groups, (len(known), len(new)))
    if groups is None:
        return None
    before, now = np.unique(groups[: len(known)]), np.unique(groups[len(known) :])
    if len(np.intersect1d(before, now)):  # rows of these trade within their group
        return _MANY
    ways, count = 1, len(before) + len(now)
    for i in range(min(len(before), len(now))):
        ways = min(_MANY, ways * (count - i) // (i + 1))
    return ways
