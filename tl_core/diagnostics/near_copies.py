"""Rows that are nearer to each other than rows of these data come by chance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tl_core.evaluation.bootstrap import Bools, Floats, Ints
from tl_core.linear_path import rotate

SHRINKAGE = 0.1  # of the mean spread, added to each axis: what has no spread is noise, and would be blown up
LEVELS = (0.25, 0.5)  # quantiles that the law is fitted at: copies lie above them unless half of the rows have one
CHANCE = 0.5  # pairs that chance may put above the threshold, over all rows looked at
LEAST = 50  # rows: a quarter of fewer says nothing
MOST_COMMON = 10  # rows that one row may resemble as closely: what is more frequent is common content, no copy
BLOCK = 512  # rows of a product
CLOSEST = 1e-6  # distances below are rounding


@dataclass(frozen=True)
class NearCopies:
    """What each row of a set resembles most in another set.

    nearest: int64 [M], position in the other set; similarity: float64 [M], cosine; near: bool [M], above the threshold
    and not common; common: bool [M], above it with so many rows that it is common content; threshold: None where the
    rows do not suffice to tell one; chance: float64 [M], how many pairs as similar chance would make among all of M.
    """

    nearest: Ints
    similarity: Floats
    near: Bools
    common: Bools
    threshold: float | None
    chance: Floats


def whitened(features: npt.NDArray[np.float32]) -> torch.Tensor:
    """Rows of unit length, float32 [N, R], in a space where the features vary alike in all directions.

    features: float32 [N, D]. There copies stand out: what most rows share, or what tells the classes apart, no longer
    outweighs the detail that only a copy repeats. Raises ValueError on values that are not finite.
    """
    x = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    turned = rotate(x, x.mean(dim=0), torch.ones(x.shape[1]))
    spread = turned.energy.clamp_min(0)
    rows = turned.rows / (spread + SHRINKAGE * spread.sum() / x.shape[1]).sqrt().float().clamp_min(1e-30)
    return torch.nn.functional.normalize(rows, dim=1)


def near_copies(rows: torch.Tensor, others: torch.Tensor, apart: Bools) -> NearCopies:
    """Which rows have a near copy among the others; both float32 of unit length, as whitened() gives them.

    apart: bool [M], rows that are known to have one, and so say nothing about chance.

    The squared distance of a row to its nearest of many others follows a power law near 0 whose exponent is half the
    data's intrinsic dimension (Facco et al., Scientific Reports 2017), so that minus its logarithm follows a Gumbel
    law. It is fitted to these rows at two quantiles that copies hardly move, and again without what it finds.
    """
    similarity, nearest = np.empty(len(rows)), np.empty(len(rows), np.int64)
    for at, products in _products(rows, others):
        best = products.max(dim=1)
        similarity[at], nearest[at] = best.values.numpy(), best.indices.numpy()
    closeness = -np.log(np.clip(1 - similarity, CLOSEST, None))
    law = _law(closeness[~apart], len(rows))
    if law is None:
        nothing = np.zeros(len(rows), bool)
        return NearCopies(nearest, similarity, nothing, nothing, None, np.full(len(rows), np.nan))
    place, scale = law
    threshold = 1 - math.exp(-_quantile(place, scale, len(rows)))
    above = similarity > threshold
    common = above.copy()
    for at, products in _products(rows[torch.from_numpy(above)], others):
        common[np.flatnonzero(above)[at]] = ((products > threshold).sum(dim=1) > MOST_COMMON).numpy()
    chance = len(rows) * -np.expm1(-np.exp(-(closeness - place) / scale))
    return NearCopies(nearest, similarity, above & ~common, common, threshold, chance)


def beyond_chance(chance: Floats) -> bool:
    """Whether pairs are more, or closer, than chance makes. chance: what it would make as close as each of them."""
    for count, expected in enumerate(np.sort(chance).tolist(), 1):
        fewer = sum(math.exp(-expected) * expected**k / math.factorial(k) for k in range(min(count, 100)))
        if 1 - fewer < 0.01:
            return True
    return False


def _products(rows: torch.Tensor, others: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Cosines of successive rows to all others, a block at a time."""
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        yield slice(start, start + len(part)), part @ others.T


def _law(closeness: Floats, rows: int) -> tuple[float, float] | None:
    """Place and scale of the Gumbel law of closeness; None where there are too few rows, or most are the same."""
    if len(closeness) < LEAST:
        return None
    kept = np.ones(len(closeness), bool)
    place, scale = math.nan, math.nan
    for _ in range(20):
        low, high = np.quantile(closeness[kept], LEVELS)
        scale = float(high - low) / (_gumbel(LEVELS[1]) - _gumbel(LEVELS[0]))
        place = float(low) - scale * _gumbel(LEVELS[0])
        if not scale > 1e-9 or high >= -math.log(2 * CLOSEST):
            return None
        inside = closeness <= _quantile(place, scale, rows)
        if (inside == kept).all():
            break
        kept = inside
    return place, scale


def _quantile(place: float, scale: float, rows: int) -> float:
    """The closeness that CHANCE of so many rows exceed."""
    return place + scale * _gumbel(1 - min(0.5, CHANCE / rows))


def _gumbel(share: float) -> float:
    return -math.log(-math.log(share))
