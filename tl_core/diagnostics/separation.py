"""Can two sets of rows be told apart? Two tests whose p-values hold for any features and any number of rows.

A linear classifier is cross-validated (Lopez-Paz and Oquab, ICLR 2017), and kernel means are compared (Gretton et al.,
JMLR 2012). Both are judged by permutations of which row is in which set. The classifier is ridge regression on the
sets' labels, Fisher's discriminant: its folds' systems are solved once for all permutations together, so that each
permutation is a classifier trained anew, and not the scores of one shuffled. What belongs to the classes is taken out
beforehand: rows are centred within their class and sets are permuted within classes, so that another balance of
classes is no difference. What is a group's own (a speaker's, a patient's) is no difference either: groups that lie in
one set change it whole, rows of a group that both sets have trade places within it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import (
    Bools,
    Floats,
    Ints,
    percentile_interval,
    resample_weights,
    ways_to_resample,
)
from tl_core.evaluation.curves import Ranking
from tl_core.linear_path import eigenbasis, moments

LEAST = 20  # rows of a set: fewer tell nothing in hundreds of dimensions
ROWS = 1000  # of a set that the classifier sees
KERNEL_ROWS = 1000  # of both sets that kernel means are over
AXES = 256  # principal axes of the features; what lies beyond is mostly noise to a classifier of this few rows
SAMPLE = 3000  # rows that tell the axes
FOLDS, UNIT_FOLDS = 5, 10
RIDGE = 1.0  # times the mean energy of an axis

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Separation:
    """What tells two sets apart.

    auc, p: of held-out classifier scores; mmd, mmd_p: unbiased squared distance of the kernel means; used: int64 [M],
    the rows that were looked at; scores: [M], theirs, higher for the first set; whole: whole groups were permuted.
    """

    auc: Interval
    p: float
    mmd: float
    mmd_p: float
    used: Ints
    scores: Floats
    whole: bool


def on_axes(features: Rows, strata: Ints) -> Rows:
    """Standardised features on the principal axes of their spread within strata, float32 [N, up to 256]."""
    x = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    mean, scale = moments(x)
    some = np.unique(np.linspace(0, len(x) - 1, min(len(x), SAMPLE)).round().astype(np.int64))
    _, axes = eigenbasis(_centred((x[some] - mean) / scale, strata[some]))
    turn = axes[:, -AXES:].float() / scale[:, None]  # ascending: the last are the widest
    return np.asarray((x - mean) @ turn)


def separate(
    rows: Rows,
    first: Bools,
    strata: Ints,
    *,
    groups: Ints | None,
    confidence: float,
    resamples: int,
    permutations: int,
    seed: int,
) -> Separation | None:
    """Both tests of the rows of the first set against all others; None below 20 rows a set in strata that both have.

    rows: float32 [N, R]; strata: int64 [N], what differences don't count between; groups: int64 [N], whose rows are
    alike anyway: they are held out together, and permuted as `_permuted_groups` says.
    """
    rng = np.random.default_rng(seed)
    shared = np.intersect1d(strata[first], strata[~first])
    usable = np.isin(strata, shared)
    grouped = groups is not None and _several(groups[usable])
    used = _drawn(usable, first, groups if grouped else None, rng)
    side = first[used]
    if min(side.sum(), (~side).sum()) < LEAST:
        return None
    stratum = np.unique(strata[used], return_inverse=True)[1]
    x = _centred(torch.from_numpy(rows[used]), stratum)
    units = np.unique(groups[used], return_inverse=True)[1].astype(np.int64) if grouped and groups is not None else None
    if units is None:
        fold, sides = _permuted_rows(stratum, side, permutations, rng)
    else:
        fold, sides = _permuted_groups(units, stratum, side, permutations, rng)
    scores = _held_out(x, sides, fold)
    some = np.sort(rng.permutation(len(used))[:KERNEL_ROWS])
    distances = _kernel_distances(x[some], sides[some])
    own = scores[:, 0].double().numpy()
    return Separation(
        auc=_auc(own, side, np.arange(len(used)) if units is None else units, confidence, resamples, seed),
        p=_p(_contrast(scores, sides)),
        mmd=round(float(distances[0]), 6) + 0.0,
        mmd_p=_p(distances),
        used=used,
        scores=own,
        whole=units is not None and not _mixed(units, side).all(),
    )


def other_balance(
    strata: Ints, first: Bools, *, groups: Ints | None, permutations: int, seed: int
) -> tuple[float, float]:
    """(share of the first set that would have to change class to be like the others, permutation p)."""
    rng = np.random.default_rng(seed)
    codes = np.unique(strata, return_inverse=True)[1]
    counts, n = np.bincount(codes), int(first.sum())
    own = np.bincount(codes[first], minlength=len(counts))
    if groups is not None and _several(groups):
        drawn = _balances(np.unique(groups, return_inverse=True)[1], codes, first, permutations, rng)
    else:
        drawn = rng.multivariate_hypergeometric(counts, n, size=permutations, method="marginals").astype(np.float64)
    every = np.concatenate([own[None], drawn])  # [1 + permutations, strata]
    inside, outside = every.sum(axis=1, keepdims=True), len(codes) - every.sum(axis=1, keepdims=True)
    apart = every / inside - (counts - every) / outside
    return float(np.abs(apart[0]).sum() / 2), _p(torch.from_numpy((apart**2 / counts).sum(axis=1)))


def _balances(units: Ints, codes: Ints, first: Bools, permutations: int, rng: np.random.Generator) -> Floats:
    """Rows of each stratum in the first set, [permutations, strata], permuted as `_permuted_groups` says."""
    table = np.zeros((int(units.max()) + 1, int(codes.max()) + 1), np.int64)
    np.add.at(table, (units, codes), 1)
    mixed = _mixed(units, first)
    inside = np.bincount(units, first).astype(np.int64)
    whole = np.tile(inside[~mixed] > 0, (permutations, 1)).astype(np.float64)
    drawn: Floats = rng.permuted(whole, axis=1) @ table[~mixed]
    for unit in np.flatnonzero(mixed).tolist():
        there = np.flatnonzero(table[unit])
        drawn[:, there] += rng.multivariate_hypergeometric(
            table[unit, there], inside[unit], size=permutations, method="marginals"
        )
    return drawn


def permuted_sides(side: Bools, groups: Ints | None, permutations: int, seed: int) -> npt.NDArray[np.float32]:
    """Which of [N] rows are in the first set, then permutations of that, 0 and 1, float32 [N, 1 + permutations].

    groups: int64 [N], permuted as `_permuted_groups` says; None where each row stands for itself.
    """
    rng = np.random.default_rng(seed)
    if groups is not None and _several(groups):
        units = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        return np.asarray(_permuted_groups(units, np.zeros(len(side), np.int64), side, permutations, rng)[1])
    sides = np.empty((len(side), 1 + permutations), np.float32)
    sides[:, 0] = side
    _permute_within(np.zeros(len(side), np.int64), np.arange(len(side)), sides, rng)
    return sides


def _several(groups: Ints) -> bool:
    """Whether there are several groups, some of several rows: else rows are what can be permuted."""
    return 1 < len(np.unique(groups)) < len(groups)


def _mixed(units: Ints, first: Bools) -> Bools:
    """Which groups, numbered from 0, have rows in both sets."""
    inside = np.bincount(units, first)
    mixed: Bools = (inside > 0) & (inside < np.bincount(units))
    return mixed


def _drawn(usable: Bools, first: Bools, groups: Ints | None, rng: np.random.Generator) -> Ints:
    """The rows that are looked at: so many of either set, or of every group in either set."""
    shuffled = rng.permutation(np.flatnonzero(usable))
    parts = first[shuffled].astype(np.int64)
    if groups is not None:
        parts = np.unique(2 * groups[shuffled] + parts, return_inverse=True)[1]
    most = max(1, 2 * ROWS // (int(parts.max(initial=0)) + 1)) if groups is not None else ROWS
    order = np.argsort(parts, kind="stable")
    starts = np.searchsorted(parts[order], parts[order])
    return np.sort(shuffled[order[np.arange(len(order)) - starts < most]])


def _centred(x: Tensor, strata: Ints) -> Tensor:
    """Rows minus the mean of their stratum."""
    codes = torch.from_numpy(np.unique(strata, return_inverse=True)[1].astype(np.int64))
    sums = torch.zeros(int(codes.max()) + 1, x.shape[1], dtype=x.dtype).index_add_(0, codes, x)
    return x - (sums / torch.bincount(codes)[:, None])[codes]


def _permuted_rows(strata: Ints, side: Bools, permutations: int, rng: np.random.Generator) -> tuple[Ints, Tensor]:
    """Folds even in stratum and set; and the sets, then permuted ones, float32 [M, 1 + permutations].

    Permutations keep how many rows of either set a fold has of a stratum: else the true sets alone would be dealt
    evenly.
    """
    fold = np.empty(len(side), np.int64)
    fold[np.lexsort((rng.random(len(side)), side, strata))] = np.arange(len(side)) % FOLDS
    sides = np.empty((len(side), 1 + permutations), np.float32)
    sides[:, 0] = side
    _permute_within(strata * FOLDS + fold, np.arange(len(side)), sides, rng)
    return fold, torch.from_numpy(sides)


def _permuted_groups(
    units: Ints, strata: Ints, side: Bools, permutations: int, rng: np.random.Generator
) -> tuple[Ints, Tensor]:
    """Folds of whole groups, whatever set they are in; the sets, then permuted ones, float32 [M, 1 + permutations].

    Groups that lie in one set are permuted whole: what sets them apart may be the groups' own. Rows of a group that has
    some in both are permuted within it and their stratum: among them, what is the group's own is the same.
    """
    mixed, count = _mixed(units, side), int(units.max()) + 1
    of_unit = np.zeros(count, np.float32)
    of_unit[units] = side
    permuted = np.empty((count, permutations), np.float32)
    permuted[~mixed] = rng.permuted(np.tile(of_unit[~mixed], (permutations, 1)), axis=1).T
    sides = np.concatenate([side[:, None].astype(np.float32), permuted[units]], axis=1)
    _permute_within(units * (int(strata.max()) + 1) + strata, np.flatnonzero(mixed[units]), sides, rng)
    fold = rng.permutation(count) % min(UNIT_FOLDS, count)
    return fold[units], torch.from_numpy(sides)


def _permute_within(cells: Ints, chosen: Ints, sides: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    """Fill all columns of sides but the first: in chosen rows with the first, permuted within cells."""
    order = chosen[np.argsort(cells[chosen], kind="stable")]
    for members in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
        sides[members, 1:] = rng.permuted(np.tile(sides[members, 0], (sides.shape[1] - 1, 1)), axis=1).T


def _held_out(x: Tensor, sides: Tensor, fold: Ints) -> Tensor:
    """Scores of each row by the classifiers that did not see its fold, float32 [M, 1 + permutations]."""
    wanted = sides - sides.mean(dim=0)
    gram, cross = x.T @ x, x.T @ wanted
    mean_energy = (gram.trace() / max(1, len(gram))).clamp_min(1e-9)  # rows that are all the same have none
    ridge = RIDGE * mean_energy * torch.eye(len(gram))
    scores = torch.empty_like(sides)
    for number in np.unique(fold):
        held = torch.from_numpy(fold == number)
        part = x[held]
        root = torch.linalg.cholesky((gram - part.T @ part + ridge).double())
        weights = torch.cholesky_solve((cross - part.T @ wanted[held]).double(), root)
        scores[held] = part @ weights.float()
    return scores


def _contrast(scores: Tensor, sides: Tensor) -> Tensor:
    """Mean score of the first set minus that of the other, in standard deviations, [1 + permutations]."""
    inside = sides.sum(dim=0)
    own, every = (scores * sides).sum(dim=0), scores.sum(dim=0)
    spread = scores.std(dim=0, correction=0).clamp_min(1e-12)
    return ((own / inside) - (every - own) / (len(sides) - inside)) / spread


def _kernel_distances(x: Tensor, sides: Tensor) -> Tensor:
    """Unbiased squared MMD under a Gaussian kernel as wide as the median distance, [1 + permutations]."""
    squared = torch.cdist(x, x).square_()
    n = len(x)
    width = squared[torch.triu_indices(n, n, 1).unbind()].median().clamp_min(1e-12)
    kernel = torch.exp(-squared / (2 * width)).fill_diagonal_(0)
    inside = sides.sum(dim=0).double()
    outside = n - inside
    reach = kernel.sum(dim=1) @ sides  # of the first set's rows to all rows
    within = (sides * (kernel @ sides)).sum(dim=0).double()
    across = reach.double() - within
    beyond = kernel.sum().double() - reach.double() - across
    own, other = within / (inside * (inside - 1)).clamp_min(1), beyond / (outside * (outside - 1)).clamp_min(1)
    return own + other - 2 * across / (inside * outside).clamp_min(1)


def _p(statistics: Tensor) -> float:
    """How often a permutation does as well as what was seen, which counts as one; rounding decides for it."""
    seen = float(statistics[0])
    as_well = int((statistics[1:] >= seen - 1e-6 * abs(seen)).sum())
    return round((1 + as_well) / len(statistics), 6)


def _auc(scores: Floats, side: Bools, units: Ints, confidence: float, resamples: int, seed: int) -> Interval:
    ranking = Ranking(scores, side)

    def area(weights: Floats) -> float:
        return ranking.areas(weights.astype(np.float32), float(weights.sum()))[0]

    ways = ways_to_resample(units)
    draws = [[area(weights) for weights in resample_weights(way, resamples, seed)] for way in ways]
    trials = float(min(side.sum(), (~side).sum()))
    fewer = [min(len(np.unique(way[side])), len(np.unique(way[~side]))) for way in ways]
    return percentile_interval(area(np.ones(len(side))), np.asarray(draws), confidence, trials, units=fewer)
