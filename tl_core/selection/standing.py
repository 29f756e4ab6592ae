"""Where the candidates stand: one posterior over all of them, what it says of each, and which one to take.

What is estimated is the metric that a probe reaches on new rows of the same source, on average over training sets of
the sample's size. Each draw of the posterior weighs the rows at random, alike for all candidates (Bayesian bootstrap:
Rubin, Annals of Statistics 1981), so that what the candidates have in common cancels from their differences; two more
rows of weight Gamma(1/2), one right and one wrong, keep it honest where all rows are right or wrong (Jeffreys' prior).

Rows that were held out in turn are no fresh test set: the probes that judge them learnt from these very rows, and would
be others on another sample. Intervals that pass over this are too narrow (Bates, Hastie and Tibshirani, JASA 2023,
arXiv:2104.00673). So each row counts as WORTH of one: its weight is Gamma(WORTH), and an accuracy of k out of n alone
is Beta(WORTH k + 1/2, WORTH (n - k) + 1/2).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tl_core.selection.outcomes import Floats, Ints, Outcomes

# Nadeau and Bengio (Machine Learning 2003) suppose that the training sample adds as much variance as so many test rows
# would have: 1 / (1 + n / (n - n / 5)) = 0.44. For a regularised linear probe it adds about a third of that, across
# tasks, sizes and widths (benchmarks/selection/coverage.py): 1 / (1 + 1.25 / 3).
WORTH = 0.7
BLOCK = 500  # draws at a time: memory stays at so many weights a row
FEW_GROUPS = 10  # below that the rows are weighed one by one as well, and the wider interval holds
LOST = 0.01  # chance, over all looks of a race, that the best candidate is taken for hopeless beside a given leader
Prefer = Literal["cost", "accuracy", "size"]
Gain = tuple[int, Outcomes, Outcomes]
"""A candidate by number, its outcomes on fewer rows, and those on most."""


@dataclass(frozen=True)
class Standing:
    """What is known of a candidate; shares of the metric, never percent.

    rows, value, low, high: the last sample that it was measured on, its metric there and the interval of that.
    p_best: probability of being the best; regret: what choosing it is expected to lose against the best; rank: the
    predicted one, from 1, with interval; gap: how far behind the leader it is, with interval; tied: that interval
    holds 0. ahead: probability of being better than the leader; looks: rounds that it took part in.
    """

    name: str
    rows: int
    value: float
    low: float
    high: float
    p_best: float
    regret: float
    rank: int
    rank_low: int
    rank_high: int
    gap: float
    gap_low: float
    gap_high: float
    tied: bool
    ahead: float
    looks: int


def standings(
    history: Mapping[str, Sequence[Outcomes]], *, confidence: float, seed: int, draws: int = 4000
) -> list[Standing]:
    """The candidates by predicted rank, whatever order they are given in.

    history: outcomes of each candidate by round; the rows of a round begin with those of the one before, and some
    candidate of each round has been in the last one as well. One that left the race is put where it would stand if it
    had since gained what the best of those has gained, draw by draw: it is not blamed for having seen fewer rows. Rows
    of one group are weighed as one; where there are fewer than ten groups, intervals span the single rows' as well.
    """
    names = sorted(history)
    if not names:
        return []
    last = [history[name][-1] for name in names]
    longest = max(map(len, last))
    rounds = [history[name] for name in names]
    since = {n: _since(n, longest, rounds) for n in {len(outcomes) for outcomes in last} if n < longest}
    value = np.array([outcomes.metric() for outcomes in last])
    gained = {n: now.metric() - then.metric() for n, (_, then, now) in since.items()}
    level = value + [gained.get(len(outcomes), 0.0) for outcomes in last]
    order = np.lexsort((np.arange(len(names)), -level))
    units = _units(max(last, key=len))
    ways = [_drawn(names, last, since, int(order[0]), unit, seed, draws) for unit in units]
    rank, gap = np.argsort(order).astype(np.float64) + 1, level[order[0]] - level
    low, high = _span([way.metric for way in ways], value, confidence)
    gap_low, gap_high = _span([way.gap for way in ways], gap, confidence)
    rank_low, rank_high = _span([_ranks(way.level) for way in ways], rank, confidence)
    p_best = _alike(np.mean([_p_best(way.level) for way in ways], axis=0), last)
    regret = _alike(np.mean([(way.level.max(axis=0) - way.level).mean(axis=1) for way in ways], axis=0), last)
    # equal draws count half
    ahead = np.max([((way.gap < 0) + 0.5 * (way.gap == 0)).mean(axis=1) for way in ways], axis=0)
    return [
        Standing(
            name=names[i],
            rows=len(last[i]),
            value=float(value[i]),
            low=float(low[i]),
            high=float(high[i]),
            p_best=float(p_best[i]),
            regret=float(regret[i]),
            rank=int(rank[i]),
            rank_low=math.floor(rank_low[i]),
            rank_high=math.ceil(rank_high[i]),
            gap=float(gap[i]),
            gap_low=float(gap_low[i]),
            gap_high=float(gap_high[i]),
            tied=bool(gap_low[i] <= 0),
            ahead=float(ahead[i]),
            looks=len(history[names[i]]),
        )
        for i in order
    ]


def hopeless(found: Sequence[Standing]) -> list[str]:
    """Who can be let go: all but certainly behind the leader, and so not the best.

    A race looks again and again, so the look number r may err in 1 of 100 r (r + 1) cases, which adds up to at most
    1 in 100 over any number of looks (Bonferroni's inequality over a convergent series).
    """
    looks = max((one.looks for one in found), default=1)
    return [one.name for one in found[1:] if one.ahead < LOST / (looks * (looks + 1)) and not one.tied]


def decided(found: Sequence[Standing], *, tolerance: float = 0.01, confidence: float = 0.99) -> bool:
    """Whether more rows are not worth their cost: the leader is the best, or next to nothing is lost by taking it.

    By the leader's probability of being the best, or its expected regret of at most a quarter of the tolerance. Both
    are read from a posterior, which may be read after every round: what it says does not hang on why one looked.
    """
    leader = found[0]
    return leader.p_best >= confidence or leader.regret <= tolerance / 4


def contenders(found: Sequence[Standing], *, tolerance: float, out: Collection[str] = ()) -> list[Standing]:
    """Those that one may be taken from: the first, and who is tied with the leader and at most `tolerance` behind it.

    out: names that left the race; what they would reach by now was never measured, so that none of them is taken.
    """
    first, *others = [one for one in found if one.name not in out]
    return [first, *(one for one in others if one.tied and one.gap - first.gap <= tolerance)]


def choose(
    found: Sequence[Standing],
    *,
    prefer: Prefer,
    tolerance: float,
    flops: Mapping[str, int | None],
    params: Mapping[str, int | None],
    out: Collection[str] = (),
) -> str:
    """The one to take of the contenders().

    The cheapest (FLOPs per sample), the smallest (parameters) or the one with the best metric; ties go by the other
    cost, then the metric, then the name. What is not known counts as the most.
    """

    def key(one: Standing) -> tuple[float | str, ...]:
        cost, size = _known(flops.get(one.name)), _known(params.get(one.name))
        if prefer == "accuracy":
            return one.gap, cost, size, one.name
        first, second = (cost, size) if prefer == "cost" else (size, cost)
        return first, second, one.gap, one.name

    return min(contenders(found, tolerance=tolerance, out=out), key=key).name


def _known(number: int | None) -> float:
    return math.inf if number is None else number


@dataclass(frozen=True)
class _Way:
    """Draws of the posterior under one way to weigh the rows, float64 [K, B] each.

    metric: on the rows that a candidate has seen; level: with what the anchor has gained since; gap: to the leader.
    """

    metric: Floats
    level: Floats
    gap: Floats


def _since(n: int, longest: int, rounds: Sequence[Sequence[Outcomes]]) -> Gain:
    """By whom to tell what more than n rows bring: the best on most rows of those that were measured on n as well."""
    both = [
        (i, then, mine[-1])
        for i, mine in enumerate(rounds)
        for then in mine
        if len(mine[-1]) == longest and len(then) == n
    ]
    return min(both, key=lambda gain: (-gain[2].metric(), gain[0]))


def _units(outcomes: Outcomes) -> list[Ints]:
    """What is weighed as one, as the unit number of each row; where these are few groups, single rows as well.

    A single group can't be weighed against anything: there only the rows are.
    """
    rows = np.arange(len(outcomes))
    if outcomes.groups is None:
        return [rows]
    groups = np.unique(outcomes.groups, return_inverse=True)[1].astype(np.int64)
    count = int(groups.max()) + 1
    if count < 2:
        return [rows]
    return [groups, rows] if count < min(len(rows), FEW_GROUPS) else [groups]


def _drawn(
    names: Sequence[str],
    last: Sequence[Outcomes],
    since: Mapping[int, Gain],
    leader: int,
    units: Ints,
    seed: int,
    draws: int,
) -> _Way:
    """The posterior of all candidates on the same weights.

    A candidate's two more rows come from its name, so that it doesn't matter who else is there.
    """
    rng = np.random.default_rng(seed)
    more = [_generator(seed, name).standard_gamma(0.5, (2, draws)) for name in names]
    metric, level = np.empty((len(names), draws)), np.empty((len(names), draws))
    for start in range(0, draws, BLOCK):
        block = slice(start, min(start + BLOCK, draws))
        weights = rng.standard_gamma(WORTH, (block.stop - block.start, int(units.max()) + 1))[:, units]

        def at(i: int, outcomes: Outcomes) -> Floats:
            return outcomes.draws(weights[:, : len(outcomes)], *more[i][:, block])  # noqa: B023 - used at once

        gained = {n: at(i, now) - at(i, then) for n, (i, then, now) in since.items()}
        for i, outcomes in enumerate(last):
            metric[i, block] = at(i, outcomes)
            level[i, block] = metric[i, block] + gained.get(len(outcomes), 0.0)
    return _Way(metric, level, level[leader] - level)


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _span(ways: Sequence[Floats], point: Floats, confidence: float) -> tuple[Floats, Floats]:
    """The percentile interval of draws [K, B], the widest over the ways and never without the point itself."""
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    bounds = np.stack([np.quantile(way, tails, axis=1) for way in ways])  # [ways, 2, K]
    return np.minimum(bounds[:, 0].min(axis=0), point), np.maximum(bounds[:, 1].max(axis=0), point)


def _p_best(level: Floats) -> Floats:
    """Share of the draws that each candidate is the best in; those that are equally good share it."""
    best = level == level.max(axis=0)
    share: Floats = (best / best.sum(axis=0)).mean(axis=1)
    return share


def _ranks(level: Floats) -> Floats:
    """1 for the best in a draw; equal ones share the mean of their places."""
    return np.stack([1 + (level > one).sum(axis=0) + ((level == one).sum(axis=0) - 1) / 2 for one in level])


def _alike(numbers: Floats, last: Sequence[Outcomes]) -> Floats:
    """The same number for candidates with the same outcomes, their mean: their own two rows must not part them."""
    terms = [outcomes.terms for outcomes in last]
    return np.array([numbers[[np.array_equal(one, other) for other in terms]].mean() for one in terms])
