"""One number from several scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, pstdev

PARTS = ("logme", "h_score")


def consensus(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean of each candidate's LogME and H-score, both standardised over the candidates (higher is better).

    scores: of each candidate, by name of the score. A score that is the same for all says nothing and counts as 0;
    one that a candidate lacks doesn't count for it; candidates with neither are left out. Both see what the other
    misses: LogME asks what a regularised model explains, the H-score how classes lie apart whatever the scale.
    """
    standard: dict[str, list[float]] = {}
    for part in PARTS:
        column = {name: own[part] for name, own in scores.items() if part in own and math.isfinite(own[part])}
        if not column:
            continue
        mean, spread = fmean(column.values()), pstdev(column.values())
        # what rounding leaves of equal numbers is no spread
        known = spread > 1e-12 * max(abs(value) for value in column.values())
        for name, value in column.items():
            standard.setdefault(name, []).append((value - mean) / spread if known else 0.0)
    return {name: fmean(standard[name]) for name in scores if name in standard}
