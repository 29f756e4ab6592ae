"""Intervals: resamples of test rows or whole groups, and what to say where resampling says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tl_core.intervals import wilson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Method = Literal["bootstrap", "wilson", "wilson mean", "none"]

FEW_GROUPS = 10  # below that the percentile bootstrap over groups is known to be too narrow
DIGITS = 6  # of every number that reaches a file: below what the order of additions changes


@dataclass(frozen=True)
class Interval:
    """A number with its interval, rounded to 6 decimals.

    method: `bootstrap` (percentiles of the resamples), `wilson` (the resamples all agreed; score interval of a
    proportion), `wilson mean` (the same for a mean over classes), `none` (no interval can be had: low = value = high).
    """

    value: float
    low: float
    high: float
    method: Method = "bootstrap"

    @classmethod
    def of(cls, value: float, low: float, high: float, method: Method = "bootstrap") -> Interval:
        """Rounded, and widened to hold the value where the bias of the resamples pushes it out."""
        return cls(_round(value), _round(min(low, value)), _round(max(high, value)), method)


def percentile_interval(value: float, draws: Floats, confidence: float, trials: float | None) -> Interval:
    """The percentile interval of draws [R] (nan where a resample leaves the number undefined).

    Of several ways to resample, [ways, R], the interval that spans them all. trials: how many independent rows
    stand behind a proportion, for the Wilson interval where all draws agree; None where the number is no proportion.
    """
    tail = (1 - confidence) / 2
    ways = [known for way in np.atleast_2d(draws) if (known := way[np.isfinite(way)]).size]
    if ways:
        bounds = [np.quantile(known, (tail, 1 - tail)) for known in ways]
        low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
        if high - low > 1e-9:
            return Interval.of(value, low, high)
    if trials:
        return Interval.of(value, *wilson(value, trials, confidence), "wilson")
    return Interval.of(value, value, value, "none")


def units_of(n: int, groups: Sequence[str] | None) -> Ints:
    """What is resampled, as the unit number of each of n rows: the row itself, or its group.

    A single group can't be resampled (every resample would be the test split itself): rows are taken instead.
    """
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} rows")
    _, units = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    return units.astype(np.int64) if units.max(initial=0) > 0 else np.arange(n)


def ways_to_resample(units: Ints) -> tuple[Ints, ...]:
    """The units, and where they are fewer than 10 groups the single rows as well.

    A percentile bootstrap over g groups is too narrow by about sqrt((g - 1) / g) times the ratio of the normal's to
    Student's quantile (Hesterberg, The American Statistician 2015), and where few groups happen to agree it almost
    vanishes. No interval should be narrower than the one that takes every row for a group of its own.
    """
    count = int(units.max(initial=-1)) + 1
    few = count < FEW_GROUPS and count < len(units)
    return (units, np.arange(len(units))) if few else (units,)


def resample_weights(units: Ints, resamples: int, seed: int) -> Iterator[Floats]:
    """For each resample how often each row was drawn, [N]: units are drawn with replacement, as many as there are.

    One resample at a time, so that memory stays at a few numbers a row.
    """
    rng = np.random.default_rng(seed)
    count = int(units.max(initial=-1)) + 1
    for _ in range(resamples):
        yield np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)[units]


def _round(value: float) -> float:
    return round(float(value), DIGITS) + 0.0  # + 0.0 turns -0.0 into 0.0
