"""How many more test rows would decide what can't be told yet."""

from __future__ import annotations

import math
from statistics import NormalDist

from tl_core.evaluation import Interval

POWER = 0.8  # how often so many rows would decide, where the difference is as measured
MOST_ROWS = 10_000_000  # past that a number of rows is no advice


def further_rows(interval: Interval, limit: float, rows: int, confidence: float, p: float | None = None) -> int | None:
    """Rows beside these that would tell on which side of the limit a value lies, if it is as measured.

    interval: each of its ends at `confidence`, on `rows` rows; it narrows with their root; p: of an exact test
    of the same value, which counts where it alone is undecided. None where the value is at the limit, nothing varies or
    the number is beyond all sense.
    """
    normal = NormalDist()
    deviation = (interval.high - interval.low) / (2 * normal.inv_cdf(confidence))
    if interval.value == limit or deviation == 0:
        return None
    away = abs(interval.value - limit) / deviation
    if p is not None and interval.low > limit:
        away = min(away, normal.inv_cdf(1 - p)) if p < 0.5 else 0.0
    if away <= 0:
        return None
    reach = normal.inv_cdf(confidence) + normal.inv_cdf(POWER)
    more = max(1, math.ceil(rows * ((reach / away) ** 2 - 1)))
    if more > MOST_ROWS:
        return None
    step: int = 10 ** max(0, len(str(more)) - 2)  # two digits: more would claim to know it
    return math.ceil(more / step) * step


def advice(count: int | None) -> str:
    """The number in a sentence that follows another one; nothing where there is none."""
    return f" About {count:,} more labelled test rows would decide it, if it is as measured." if count else ""
