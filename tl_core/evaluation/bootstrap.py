"""Intervals: resamples of test rows or whole groups, and what to say where resampling says nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from tl_core.intervals import wilson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_NORMAL = NormalDist()
Method = Literal["bootstrap", "wilson", "wilson mean", "none"]

FEW_GROUPS = 10  # below that the percentile bootstrap over groups is known to be too narrow
TIE = 1e-6  # values may be rounded
MOST_BELOW = 0.75  # share of draws below the value that is taken for bias: more is no mere shift
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


def percentile_interval(
    value: float, draws: Floats, confidence: float, trials: float | None, *, units: Sequence[int] = ()
) -> Interval:
    """The percentile interval of draws [R] (nan where a resample leaves the number undefined).

    Of several ways to resample, [ways, R], the interval that spans them all. trials: how many independent rows
    stand behind a proportion, for the Wilson interval where all draws agree; None where the number is no proportion.
    units: how many were resampled, for each way; the percentiles are then corrected for bias and for few of them, as
    `_tails` says.
    """
    bounds = []
    for way, count in zip_longest(np.atleast_2d(draws), units):
        if (known := way[np.isfinite(way)]).size:
            bounds.append(np.quantile(known, _tails(value, known, confidence, count)))
    if bounds:
        low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
        if high - low > 1e-9:
            return Interval.of(value, low, high)
    if trials:
        return Interval.of(value, *wilson(value, trials, confidence), "wilson")
    return Interval.of(value, value, value, "none")


def _tails(value: float, draws: Floats, confidence: float, units: int | None) -> tuple[float, float]:
    """Which percentiles of the draws an interval has.

    They lie on one side where resampling shifts a number, as it does R2 and average precision: the share of draws
    below the value itself says how far (bias-corrected percentiles; Efron and Tibshirani 1993, chapter 14).
    """
    reach = reach_of(confidence, units)
    if units is None or units < 2:
        return _NORMAL.cdf(-reach), _NORMAL.cdf(reach)
    below = float((draws < value - TIE).mean() + (np.abs(draws - value) <= TIE).mean() / 2)
    shift = 2 * _NORMAL.inv_cdf(min(max(below, 1 - MOST_BELOW), MOST_BELOW))
    return _NORMAL.cdf(shift - reach), _NORMAL.cdf(shift + reach)


def reach_of(confidence: float, units: int | None) -> float:
    """How many standard deviations of the resamples an interval reaches to either side.

    The normal's quantile is too close for few units: a resample's spread is that of a sample divided by n, not n - 1,
    and takes the spread for known. Hence Student's quantile times sqrt(n / (n - 1)) (Hesterberg, The American
    Statistician 2015). One unit tells no spread: it stays the normal's, as where their number is None.
    """
    reach = _NORMAL.inv_cdf((1 + confidence) / 2)
    if units is None or units < 2:
        return reach
    return _student(reach, units - 1) * math.sqrt(units / (units - 1))


def _student(z: float, freedom: int) -> float:
    """Student's quantile that belongs to the normal one (expansion, Abramowitz and Stegun 26.7.5)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, 1))


def units_of(n: int, groups: Sequence[str] | None) -> Ints:
    """What is resampled, as the unit number of each of n rows: the row itself, or its group.

    A single group can't be resampled (every resample would be the test split itself): rows are taken instead.
    """
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} rows")
    # as objects: an array of strings gives every row as much room as the longest name takes
    _, units = np.unique(np.asarray(groups, object), return_inverse=True)
    return units.astype(np.int64) if units.max(initial=0) > 0 else np.arange(n)


def count_of(units: Ints) -> int:
    """How many units there are."""
    return int(units.max(initial=-1)) + 1


def ways_to_resample(units: Ints) -> tuple[Ints, ...]:
    """The units, and where they are fewer than 10 groups the single rows as well.

    A percentile bootstrap over g groups is too narrow by about sqrt((g - 1) / g) times the ratio of the normal's to
    Student's quantile (Hesterberg, The American Statistician 2015), and where few groups happen to agree it almost
    vanishes. No interval should be narrower than the one that takes every row for a group of its own.
    """
    count = count_of(units)
    few = count < FEW_GROUPS and count < len(units)
    return (units, np.arange(len(units))) if few else (units,)


def resample_weights(units: Ints, resamples: int, seed: int) -> Iterator[Floats]:
    """For each resample how often each row was drawn, [N]: units are drawn with replacement, as many as there are.

    One resample at a time, so that memory stays at a few numbers a row.
    """
    rng = np.random.default_rng(seed)
    count = count_of(units)
    for _ in range(resamples):
        yield np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)[units]


def _round(value: float) -> float:
    return round(float(value), DIGITS) + 0.0  # + 0.0 turns -0.0 into 0.0
