"""Whether the model is as sure as it is right: reliability diagram, calibration error, and what chance explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from tl_core.diagnostics.results import Bin, Calibration, State
from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import (
    Bools,
    Floats,
    Ints,
    count_of,
    percentile_interval,
    resample_weights,
    units_of,
    ways_to_resample,
)
from tl_core.intervals import wilson
from tl_core.types import Targets

MOST_BINS = 15
BIN_ROWS = 20  # fewer rows, in a bin or altogether, say next to nothing
LEAST = float(np.finfo(np.float32).eps)  # a probability of 0 counts as this much in the log loss
SLIGHT = 0.02  # off by less than that nobody decides otherwise, however sure it is
WIDE = 0.05  # an interval that reaches further from 0 leaves the question open


def calibration(
    predictions: npt.NDArray[np.floating],
    truth: npt.NDArray[np.generic],
    targets: Targets,
    *,
    temperature: float | None,
    confidence: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Calibration | None:
    """Whether probabilities mean what they say; None for regression and without rows.

    predictions: probabilities [N, C]; truth: int64 [N] or multi-hot [N, C]; temperature: what the model divides its
    logits by. Multiclass: the probability of the likeliest class; multilabel: of each decision for or against a label.
    A calibrated model is called miscalibrated in at most 1 - confidence of cases: either its mean confidence or its
    reliability diagram must be further off than `chance` explains, each at half of that level.
    log_loss and brier are means over rows (of labels, in multilabel; the Brier score of a multiclass row goes to 2).
    """
    if targets.task == "regression" or len(truth) == 0:
        return None
    pool = _Pool.of(predictions.astype(np.float64), truth, targets)
    units = units_of(len(truth), groups)
    ways = ways_to_resample(units)
    draws = np.stack([[w @ pool.table for w in resample_weights(way, resamples, seed)] for way in ways])
    parts = pool.parts(draws)  # [ways, R, bins] each
    spread = np.nanvar(parts.gap, axis=1).max(axis=0)  # of a bin's gap, [bins]; groups and labels of a row included

    whole = pool.parts(pool.table.sum(axis=0))
    error = percentile_interval(
        float(corrected_error(whole.gap, whole.share, spread)),
        # a resample's gaps hold the rows' noise and its own
        corrected_error(parts.gap, parts.share, 2 * spread),
        confidence,
        float(units.max() + 1),
    )
    counts = [count_of(way) for way in ways]
    offset = _offset(whole, parts, units, confidence, counts)
    single = len(pool.which) == len(truth) and len(np.unique(units)) == len(truth)
    p_error, p_offset = chance(pool, whole, None if single else units, resamples, seed)
    found = len(truth) >= BIN_ROWS and min(p_error, p_offset) < (1 - confidence) / 2
    state = _state(found, error, offset)
    log_loss, brier = (
        percentile_interval(float(pool.scores[:, i].mean()), parts.scores[..., i], confidence, None, units=counts)
        for i in range(2)
    )
    return Calibration(
        state=state,
        text=_text(state, found, whole, error, offset, temperature, len(truth), targets),
        rows=len(truth),
        error=error,
        offset=offset,
        log_loss=log_loss,
        brier=brier,
        temperature=temperature,
        bins=_bins(pool, whole, parts, ways, confidence),
    )


def error_draws(
    predictions: npt.NDArray[np.floating],
    truth: npt.NDArray[np.generic],
    targets: Targets,
    ways: Sequence[Ints],
    *,
    resamples: int,
    seed: int,
) -> tuple[float, Floats]:
    """The calibration error as `calibration` gives it, and on resamples of each way, [ways, R].

    Of several models on the same rows with the same ways and seed, draw by draw the same resample.
    """
    pool = _Pool.of(predictions.astype(np.float64), truth, targets)
    parts = pool.parts(np.stack([[w @ pool.table for w in resample_weights(way, resamples, seed)] for way in ways]))
    spread = np.nanvar(parts.gap, axis=1).max(axis=0)
    whole = pool.parts(pool.table.sum(axis=0))
    error = float(corrected_error(whole.gap, whole.share, spread))
    return error, corrected_error(parts.gap, parts.share, 2 * spread)


def gap_tables(
    first: npt.NDArray[np.floating],
    second: npt.NDArray[np.floating],
    truth: npt.NDArray[np.generic],
    targets: Targets,
) -> tuple[Floats, Floats]:
    """For each of two models what its rows add to the gap of each bin, confidence minus right decisions: [N, bins].

    The bins are those of both models' confidences together, so that rows of the two may be traded.
    """
    pools = [_Pool.of(said.astype(np.float64), truth, targets) for said in (first, second)]
    which = np.split(_equal_mass(np.concatenate([pool.confidences for pool in pools])), 2)
    bins = int(max(one.max() for one in which)) + 1
    one, other = (pool.in_bins(part, bins).gaps for pool, part in zip(pools, which))
    return one, other


def corrected_error(gap: Floats, share: Floats, spread: Floats) -> Floats:
    """The expected calibration error without what chance adds to it, never below 0: [..., bins] -> [...].

    gap: mean confidence minus accuracy of each bin (nan: no rows); share: of the rows; spread: variance of the gap.
    `sum share (gap^2 - spread)` estimates the mean squared gap without bias (Kumar et al., NeurIPS 2019,
    arXiv:1909.10155). What is taken off is by how much noise makes larger the absolute value of gaps drawn from a
    normal with this mean square around the mean gap.
    """
    gap = np.where(share > 0, gap, 0.0)
    square = np.maximum((share * (gap**2 - spread)).sum(axis=-1, keepdims=True), 0.0)
    mean = (share * gap).sum(axis=-1, keepdims=True)
    mean = np.sign(mean) * np.minimum(np.abs(mean), np.sqrt(square))
    between = np.maximum(square - mean**2, 0.0)
    inflation = _folded(mean, between + spread) - _folded(mean, between)
    found: Floats = np.maximum((share * (np.abs(gap) - inflation)).sum(axis=-1), 0.0)
    return found


def _folded(mean: Floats, variance: Floats) -> Floats:
    """The mean absolute value of a normal."""
    deviation = np.sqrt(np.maximum(variance, 1e-18))
    ratio = np.broadcast_to(mean / deviation / math.sqrt(2), np.broadcast_shapes(mean.shape, variance.shape))
    error_function = torch.erf(torch.from_numpy(ratio.copy())).numpy()
    found: Floats = deviation * math.sqrt(2 / math.pi) * np.exp(-(ratio**2)) + mean * error_function
    return found


def chance(pool: _Pool, whole: _Parts, units: Ints | None, resamples: int, seed: int) -> tuple[float, float]:
    """How often a calibrated model would show so large a calibration error, and so large an offset: two p-values.

    Right answers are drawn from the stated probabilities (consistency resampling, Broecker and Smith 2007), a bin's as
    a binomial of its mean, whose variance is not below that of its rows. units: what is judged at once where
    answers hang together (a group, the labels of a row); then the signs of all gaps of a unit are flipped at random as
    well, which keeps what they share, and the larger p counts: each of the two is too sure where the other is not.
    """
    rng = np.random.default_rng([seed, resamples])
    n = whole.count.astype(np.int64)
    right = rng.binomial(n, np.clip(whole.confidence, 0.0, 1.0), size=(resamples, len(n)))
    nulls = [whole.confidence * n - right]
    if units is not None:
        gaps = np.zeros((int(units.max()) + 1, len(n)))
        np.add.at(gaps, units, pool.gaps)
        signs = (rng.integers(2, size=len(gaps)) * 2.0 - 1.0 for _ in range(resamples))
        nulls.append(np.stack([one @ gaps for one in signs]))
    seen = whole.gap * n

    def p(of: npt.NDArray[np.float64], null: npt.NDArray[np.float64]) -> float:
        return float((1 + (null >= of - 1e-9).sum()) / (1 + len(null)))

    return (
        max(p(np.abs(seen).sum(), np.abs(null).sum(axis=1)) for null in nulls),
        max(p(np.abs(seen.sum()), np.abs(null.sum(axis=1))) for null in nulls),
    )


@dataclass(frozen=True)
class _Parts:
    """Bins of some rows, [..., bins]: how many decisions, their share, confidence, accuracy and gap between the two."""

    count: Floats
    share: Floats
    confidence: Floats
    accuracy: Floats
    gap: Floats
    scores: Floats  # [..., 2]: log loss and Brier score

    @property
    def mean_confidence(self) -> Floats:
        return np.asarray((self.share * np.nan_to_num(self.confidence)).sum(axis=-1))

    @property
    def mean_accuracy(self) -> Floats:
        return np.asarray((self.share * np.nan_to_num(self.accuracy)).sum(axis=-1))


@dataclass(frozen=True)
class _Pool:
    """All decisions in bins of equally many. A weighted sum over the rows of `table` is all that a resample needs."""

    confidences: Floats  # of each decision, [M]
    right: Bools  # whether it is right
    owner: Ints  # its row
    scores: Floats  # log loss and Brier score of each row, [N, 2]
    which: Ints  # each decision's bin, [M]
    bins: int

    @classmethod
    def of(cls, probabilities: Floats, truth: npt.NDArray[np.generic], targets: Targets) -> _Pool:
        rows, classes = probabilities.shape
        if targets.task == "multiclass":
            labels = truth.astype(np.int64)
            own = np.clip(probabilities[np.arange(rows), labels], LEAST, 1.0)
            losses = -np.log(own)
            squares = (probabilities**2).sum(axis=1) - 2 * probabilities[np.arange(rows), labels] + 1
            sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
            owner = np.arange(rows)
        else:
            yes = truth.astype(np.bool_)
            own = np.clip(np.where(yes, probabilities, 1 - probabilities), LEAST, 1.0)
            losses, squares = -np.log(own).mean(axis=1), ((probabilities - yes) ** 2).mean(axis=1)
            sure, right = np.maximum(probabilities, 1 - probabilities).ravel(), ((probabilities > 0.5) == yes).ravel()
            owner = np.repeat(np.arange(rows), classes)
        which = _equal_mass(sure)
        return cls(sure, right, owner, np.stack([losses, squares], axis=1), which, int(which.max()) + 1)

    def in_bins(self, which: Ints, bins: int) -> _Pool:
        """The same decisions in other bins."""
        return replace(self, which=which, bins=bins)

    @cached_property
    def table(self) -> Floats:
        """Each row's decisions, confidences and right ones by bin, then its log loss, its Brier score and 1."""
        rows = len(self.scores)
        cells = self.owner * self.bins + self.which

        def placed(values: npt.NDArray[np.generic] | None) -> Floats:
            counted = np.bincount(cells, values, minlength=rows * self.bins)
            return counted.reshape(rows, self.bins).astype(np.float64)

        parts = [placed(None), placed(self.confidences), placed(self.right), self.scores, np.ones((rows, 1))]
        return np.concatenate(parts, axis=1)

    @property
    def gaps(self) -> Floats:
        """Each row's confidences minus its right decisions, by bin: [N, bins]."""
        return self.table[:, self.bins : 2 * self.bins] - self.table[:, 2 * self.bins : 3 * self.bins]

    def parts(self, sums: Floats) -> _Parts:
        """Weighted sums of the table's rows, [..., 3 bins + 3], as bins; nan where a resample drew nothing of one."""
        count, sure, right = (sums[..., i * self.bins : (i + 1) * self.bins] for i in range(3))
        with np.errstate(invalid="ignore"):
            confidence, accuracy = sure / count, right / count
        share = count / count.sum(axis=-1, keepdims=True)
        return _Parts(count, share, confidence, accuracy, confidence - accuracy, sums[..., -3:-1] / sums[..., -1:])


def _equal_mass(sure: Floats) -> Ints:
    """The bin of each confidence, numbered from the lowest: at most 15 of equally many, ties in one."""
    wanted = max(1, min(MOST_BINS, len(sure) // BIN_ROWS))
    edges = np.unique(np.quantile(sure, np.linspace(0, 1, wanted + 1)[1:-1]))
    _, which = np.unique(np.searchsorted(edges, sure, side="left"), return_inverse=True)
    return which.astype(np.int64)


def _offset(whole: _Parts, parts: _Parts, units: Ints, confidence: float, counts: Sequence[int]) -> Interval:
    """Mean confidence minus accuracy; where all decisions are right (or wrong) their share has Wilson's interval."""
    sure, right = float(whole.mean_confidence), float(whole.mean_accuracy)
    if 0 < right < 1:
        offsets = parts.mean_confidence - parts.mean_accuracy
        return percentile_interval(sure - right, offsets, confidence, None, units=counts)
    low, high = wilson(right, float(units.max() + 1), confidence)
    return Interval.of(sure - right, sure - high, sure - low, "wilson")


def _bins(pool: _Pool, whole: _Parts, parts: _Parts, ways: Sequence[Ints], confidence: float) -> tuple[Bin, ...]:
    inside = pool.table[:, : pool.bins] > 0  # [N, bins]
    counts = [[len(np.unique(way[has])) for way in ways] for has in inside.T]
    return tuple(
        Bin(
            low=round(float(pool.confidences[pool.which == b].min()), 6),
            high=round(float(pool.confidences[pool.which == b].max()), 6),
            rows=int(whole.count[b]),
            confidence=round(float(whole.confidence[b]), 6),
            accuracy=percentile_interval(
                float(whole.accuracy[b]),
                parts.accuracy[..., b],
                confidence,
                float(counts[b][0]),
                units=counts[b],
            ),
        )
        for b in range(pool.bins)
    )


def _state(found: bool, error: Interval, offset: Interval) -> State:
    if found:
        return "warn" if max(error.value, abs(offset.value)) >= SLIGHT else "ok"
    return "unclear" if max(abs(offset.low), abs(offset.high)) > WIDE else "ok"


def _text(
    state: State,
    found: bool,
    whole: _Parts,
    error: Interval,
    offset: Interval,
    temperature: float | None,
    rows: int,
    targets: Targets,
) -> str:
    what = "decisions are right" if targets.task == "multilabel" else "rows are right"
    means = f"it is {whole.mean_confidence:.1%} sure on average, and {whole.mean_accuracy:.1%} of its {what}"
    if state == "unclear":
        return (
            f"Can't tell from {rows:,} row{'' if rows == 1 else 's'} whether the model is as sure as it is right: "
            f"{means}; anything from {_side(offset.low)} to {_side(offset.high)} fits."
        )
    if not found:
        return (
            f"The model is about as sure as it is right: {means}, a difference of {_points(offset.value)} points "
            f"({_points(offset.low)} to {_points(offset.high)}), which chance may explain."
        )
    if offset.low > 0:
        way = f"too sure by {_points(offset.value)} points ({_points(offset.low)} to {_points(offset.high)})"
    elif offset.high < 0:
        way = f"not sure enough by {_points(-offset.value)} points ({_points(-offset.high)} to {_points(-offset.low)})"
    else:
        way = (
            f"too sure of some rows and not sure enough of others, by {_points(error.value)} points on average "
            f"({_points(error.low)} to {_points(error.high)})"
        )
    if state == "ok":
        return f"The model is {way}, which is little: {means}."
    remedy = (
        "Set tune.calibrate=true, which corrects it on validation rows."
        if temperature is None
        else f"Its logits are divided by {temperature:.3g}, which suited the validation rows better than these."
    )
    return f"The model is {way}: {means}. {remedy}"


def _side(value: float) -> str:
    return f"{_points(abs(value))} points {'too sure' if value > 0 else 'not sure enough'}"


def _points(value: float) -> str:
    return f"{100 * value + 0.0:.1f}"
