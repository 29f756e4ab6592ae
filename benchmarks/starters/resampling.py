"""Intervals over test rows and over runs (initialisations, draws of items), and the verdict on two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import Floats, percentile_interval, units_of, ways_to_resample

CONFIDENCE = 0.9
RESAMPLES = 4000

Verdict = Literal["wins", "leads", "can't tell", "loses"]
"""wins: the two intervals do not overlap; leads: they do, but the difference's interval lies above 0; loses: it lies
below 0; can't tell: it holds 0."""


@dataclass(frozen=True)
class Comparison:
    """Two accuracies, their difference on the same resamples, and what that says."""

    ours: Interval
    theirs: Interval
    difference: Interval
    verdict: Verdict


class Resamples:
    """Resamples of the test rows, or of whole groups, the same for every side.

    Fewer than ten groups are too few to resample alone: then the interval spans the one over single rows as well, as
    in tl's own evaluation. unit: what is drawn, in words.
    """

    def __init__(self, n: int, groups: Sequence[str] | None, resamples: int = RESAMPLES) -> None:
        ways = ways_to_resample(units_of(n, groups))
        counts = [int(units.max(initial=-1)) + 1 for units in ways]
        self.unit = " and ".join(f"{count} rows" if count == n else f"{count} groups" for count in counts)
        self._trials = float(max(counts))
        self._resamples = resamples
        self._ways = [_drawn(count, count, resamples, seed=0)[:, units] for count, units in zip(counts, ways)]  # [R, N]

    def interval(self, correct: np.ndarray) -> Interval:
        """Accuracy of one or more runs with its interval; correct: bool [S, N]."""
        return percentile_interval(float(correct.mean()), self._accuracies(correct), CONFIDENCE, self._trials)

    def compare(self, ours: np.ndarray, theirs: np.ndarray) -> Comparison:
        """Two sides, bool [S, N] each, over the same rows. Where both have S runs, run i of one is paired with run i
        of the other (the same items, say)."""
        left, right = self.interval(ours), self.interval(theirs)
        gap = percentile_interval(
            float(ours.mean() - theirs.mean()), self._accuracies(ours) - self._accuracies(theirs), CONFIDENCE, None
        )
        if gap.method == "none":  # never changed: as far apart as the two intervals allow
            gap = Interval.of(gap.value, left.low - right.high, left.high - right.low, "wilson")
        return Comparison(left, right, gap, verdict(left, right, gap))

    def _accuracies(self, correct: np.ndarray) -> Floats:
        """Accuracy in each resample, [ways, R]: the mean over the runs drawn of the mean over the rows drawn."""
        runs = _run_weights(len(correct), self._resamples)  # [R, S]
        by_row = runs @ correct.astype(np.float64) / runs.sum(axis=1, keepdims=True)  # [R, S] @ [S, N]
        return np.stack([(by_row * rows).sum(axis=1) / rows.sum(axis=1) for rows in self._ways])


def verdict(ours: Interval, theirs: Interval, difference: Interval) -> Verdict:
    """What two intervals and that of their difference say of `ours`."""
    if ours.low > theirs.high:
        return "wins"
    if difference.low > 0:
        return "leads"
    return "loses" if difference.high < 0 else "can't tell"


def _run_weights(runs: int, resamples: int) -> Floats:
    """How often each run is drawn, [R, S].

    One run fewer than there are: with S drawn of S the variance of the mean comes out (S - 1) / S too small, which
    matters where S is five. Rao and Wu, JASA 1988.
    """
    if runs == 1:
        return np.ones((resamples, 1))
    return _drawn(runs, runs - 1, resamples, seed=1)


def _drawn(units: int, draws: int, resamples: int, seed: int) -> Floats:
    counts = np.random.default_rng(seed).multinomial(draws, np.full(units, 1 / units), size=resamples)
    return counts.astype(np.float64)
