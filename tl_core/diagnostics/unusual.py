"""Which test rows are unlike everything the model has learnt from, and how good it is on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tl_core.diagnostics.results import OutOfDistribution, State, Unusual
from tl_core.evaluation import Interval, metric_title
from tl_core.evaluation.bootstrap import (
    Floats,
    Numbers,
    percentile_interval,
    resample_weights,
    units_of,
    ways_to_resample,
)
from tl_core.evaluation.metrics import Measure, measure, watch_name
from tl_core.reference import Reference
from tl_core.types import Targets

SHOWN = 24  # most unusual rows
POINTS = 20  # of the curve
LEAST_ROWS = 10  # behind a point of the curve, and behind what is said of rejected rows
VAGUE = 4  # times the share that may be rejected: an interval up to there leaves the question open


def unusual(
    reference: Reference,
    features: npt.NDArray[np.float32],
    predictions: Numbers,
    truth: npt.NDArray[np.generic],
    targets: Targets,
    ids: Sequence[str],
    rows: Sequence[int],
    *,
    confidence: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> OutOfDistribution:
    """How many test rows the reference would reject, and how good the model is on those and on the others.

    features: float32 [N, D] of the test rows in the reference's space; predictions, truth: as `evaluate_predictions`
    takes them; ids, rows: the test rows' ids and numbers in the manifest. The state is `warn` where more rows are
    rejected than chance explains for rows like the validation rows that the threshold was chosen on. Raises UserError
    where there are no rows or predictions are not finite, ValueError on features of another width.
    """
    units = units_of(len(truth), groups)
    scores = reference.scores(features)
    out = scores > 1
    model = measure(targets, predictions, truth, units)
    ways = ways_to_resample(units)
    draws = np.full((3, len(ways), resamples), np.nan)  # share rejected, metric on accepted and on refused rows
    for w, way in enumerate(ways):
        for r, weights in enumerate(resample_weights(way, resamples, seed)):
            draws[0, w, r] = weights[out].sum() / weights.sum()
            draws[1, w, r] = _watched(model, weights * ~out)
            draws[2, w, r] = _watched(model, weights * out)
    every, familiar, strange = (
        [len(np.unique(way[chosen])) for way in ways] for chosen in (np.ones(len(out), np.bool_), ~out, out)
    )
    rejected = percentile_interval(float(out.mean()), draws[0], confidence, float(every[0]), units=every)
    proportion = model.columns[0].trials is not None
    parts = [
        _interval(_watched(model, chosen.astype(np.float64)), found, confidence, counts, proportion)
        for chosen, found, counts in ((~out, draws[1], familiar), (out, draws[2], strange))
    ]
    gap = None
    if parts[0] is not None and parts[1] is not None and int(out.sum()) >= LEAST_ROWS:
        fewer = [min(both) for both in zip(familiar, strange)]
        gap = percentile_interval(
            parts[0].value - parts[1].value, draws[1] - draws[2], confidence, None, units=fewer
        )  # fmt: skip
    state = _state(reference, rejected, int(out.sum()), len(out), confidence)
    order = np.argsort(-scores, kind="stable")
    return OutOfDistribution(
        state=state,
        text=_text(state, reference, rejected, parts[0], parts[1], gap, metric_title(watch_name(targets))),
        threshold=round(reference.threshold, 6),
        kept=reference.kept,
        rejected=rejected,
        accepted=parts[0],
        refused=parts[1],
        curve=_curve(model, order[::-1]),
        rows=tuple(Unusual(int(rows[i]), ids[i], round(float(scores[i]), 6)) for i in order[:SHOWN]),
    )


def surplus(reference: Reference, rejected: int, rows: int) -> float:
    """The probability that so many of `rows` rows like the validation rows, or more, lie above the threshold.

    The share of all such rows that lies above the j-th of M distances follows Beta(M + 1 - j, j), the count among the
    rows a beta-binomial. It takes rows for drawn one by one.
    """
    above = float((reference.distances > reference.threshold).sum()) + 1
    within = len(reference.distances) + 1 - above
    counts = range(rejected, rows + 1)
    logs = [
        math.lgamma(rows + 1) - math.lgamma(x + 1) - math.lgamma(rows - x + 1)
        + math.lgamma(x + above) + math.lgamma(rows - x + within) - math.lgamma(rows + above + within)
        - math.lgamma(above) - math.lgamma(within) + math.lgamma(above + within)
        for x in counts
    ]  # fmt: skip
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def _watched(model: Measure, weights: Floats) -> float:
    return model.watch(weights) if weights.any() else math.nan


def _interval(
    value: float, draws: Floats, confidence: float, units: Sequence[int], proportion: bool
) -> Interval | None:
    """None where the metric is not defined on these rows."""
    if math.isnan(value):
        return None
    return percentile_interval(value, draws, confidence, float(units[0]) if proportion else None, units=units)


def _curve(model: Measure, familiar: npt.NDArray[np.int64]) -> tuple[tuple[float, float], ...]:
    """(share kept, metric) with the most familiar rows first, from the share that holds ten rows."""
    points = []
    for point in range(1, POINTS + 1):
        count = math.ceil(len(familiar) * point / POINTS)
        weights = np.zeros(len(familiar))
        weights[familiar[:count]] = 1.0
        value = _watched(model, weights)
        if (count >= LEAST_ROWS or point == POINTS) and not math.isnan(value):
            points.append((round(count / len(familiar), 6), round(value, 6)))
    return tuple(points)


def _state(reference: Reference, rejected: Interval, count: int, rows: int, confidence: float) -> State:
    expected = 1 - reference.kept
    if rejected.low > expected and surplus(reference, count, rows) < (1 - confidence) / 2:
        return "warn"
    return "unclear" if _few(reference) or rejected.high > VAGUE * expected else "ok"


def _few(reference: Reference) -> bool:
    """Whether no distance of a validation row is large enough to keep as many as it should."""
    return (len(reference.distances) + 1) * (1 - reference.kept) < 1 - 1e-9


def _text(
    state: State,
    reference: Reference,
    rejected: Interval,
    accepted: Interval | None,
    refused: Interval | None,
    gap: Interval | None,
    metric: str,
) -> str:
    share = f"{rejected.value:.1%} of the test rows ({rejected.low:.1%} to {rejected.high:.1%})"
    expected = f"{1 - reference.kept:.0%} of rows like the validation rows"
    if state == "warn":
        said = f"{share} are unlike the training rows, against about {expected}: some are of a kind not learnt from."
    elif state == "ok":
        said = f"{share} are unlike the training rows, no more than chance explains: about {expected} are."
    elif _few(reference):
        said = (
            f"{len(reference.distances)} validation rows are too few to choose a threshold that keeps "
            f"{reference.kept:.0%}; above the largest of their distances lie {share}."
        )
    else:
        said = f"Can't tell whether more test rows than usual are unlike the training rows: {share}, about {expected}."
    if gap is None or accepted is None or refused is None:
        return said
    scores = f"{metric[:1].upper()}{metric[1:]} is {accepted.value:.3f} on the others and {refused.value:.3f} on these"
    if gap.low > 0:
        return f"{said} {scores}, less by {gap.value:.3f} ({gap.low:.3f} to {gap.high:.3f}): have them checked."
    return f"{said} {scores}; whether the model is worse on them can't be told."
