"""Intervals of scores, by leaving rows out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from tl_core.selection.crossval import deal
from tl_core.types import Task

PARTS = 20
SPLITS = 10


def deal_parts(targets: Tensor, task: Task, seed: int, groups: Sequence[str] | None = None) -> Tensor:
    """The part that each row is left out with, int64 [N]: stratified, or whole groups at a time."""
    part = deal(targets.cpu().numpy(), task, PARTS, seed, groups)
    return torch.from_numpy(part).to(targets.device)


def score_interval(
    function: Callable[[Tensor, Tensor, Task], float],
    features: Tensor,
    targets: Tensor,
    task: Task,
    *,
    confidence: float = 0.9,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> tuple[float, float]:
    """Interval of any score, by computing it anew without each of 20 parts of the rows. See `jackknife`."""
    part = deal_parts(targets, task, seed, groups)
    without = [function(features[part != p], targets[part != p], task) for p in range(int(part.max()) + 1)]
    return jackknife(function(features, targets, task), without, part, confidence)


def jackknife(value: float, without: Sequence[float], part: Tensor, confidence: float) -> tuple[float, float]:
    """Interval around a score: where its mean over other samples of as many rows, in the same strata, may lie.

    without: the score without the rows of each part; part: int64 [N]. The delete-a-group jackknife for parts of unequal
    size (Busing, Meijer and van der Leeden, Stat. Comput. 1999) with Student's t at one degree of freedom fewer than
    parts. Why no bootstrap: drawing rows with replacement gives copies, a copy of a row is explained by the row
    itself, and so resampled evidence lies above the score that it should surround. Fewer rows without copies have no
    such fault, and for rows dealt at random the jackknife's variance is on average no smaller than the truth (Efron and
    Stein, Ann. Stat. 1981). Rows of one group must share a part, else the interval is too narrow.
    """
    sizes = torch.bincount(part.cpu()).double()
    left = torch.tensor(without, dtype=torch.float64)
    parts = len(left)
    inverse = len(part) / sizes  # how many such parts there would be
    pseudo = inverse * value - (inverse - 1) * left
    centre = parts * value - ((1 - 1 / inverse) * left).sum()
    variance = ((pseudo - centre).square() / (inverse - 1)).mean()
    half = student(parts - 1, confidence) * math.sqrt(float(variance))
    return value - half, value + half


def halves(part: Tensor, seed: int) -> list[Tensor]:
    """Pairs of half samples made of whole parts, as masks bool [N]: one, the other, one, the other ..."""
    rng = np.random.default_rng(seed)
    count = int(part.max()) + 1
    pairs = []
    for _ in range(SPLITS):
        one = torch.from_numpy(rng.permutation(count) < count // 2).to(part.device)[part]
        pairs += [one, ~one]
    return pairs


def half_samples(
    value: float, scores: Sequence[float], pairs: Sequence[Tensor], parts: int, confidence: float
) -> tuple[float, float]:
    """Interval around a score that jumps as rows come and go, by how far halves of the rows differ.

    scores: of each half, in the order of halves(); parts: how many the halves were made of. Of nearest neighbours, say,
    the jackknife overstates the spread, because what a few rows change does not add up to what many rows change;
    leaving out as much as is kept is right also then (Shao and Wu, Ann. Stat. 1989; half-samples: McCarthy, Rev. Int.
    Stat. Inst. 1969).
    """
    n = len(pairs[0])
    squares = []
    for one, a, b in zip(pairs[::2], scores[::2], scores[1::2], strict=True):
        share = int(one.sum()) / n
        squares.append(share * (1 - share) * (a - b) ** 2)
    half = student(min(len(squares), parts - 1), confidence) * math.sqrt(math.fsum(squares) / len(squares))
    return value - half, value + half


def student(freedom: int, confidence: float) -> float:
    """How many standard errors a central interval reaches, by Student's t.

    Exact for 1 and 2 degrees of freedom, else from the normal quantile: Abramowitz and Stegun 26.7.5, within 1% of it.
    """
    p = (1 + confidence) / 2
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(freedom) ** (i + 1) for i, term in enumerate(terms))
