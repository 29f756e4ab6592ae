"""The interval of a share, for tables and rankings alike."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(share: float, trials: float, confidence: float) -> tuple[float, float]:
    """Score interval of a proportion, honest at 0 and 1 where percentiles collapse. Wilson, JASA 1927."""
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(share * (1 - share) * z2 / trials + z2 * z2 / (4 * trials * trials)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
