"""From predictions and truth to an Evaluation: one function for the model and for its floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tl_core.evaluation.bootstrap import (
    FEW_GROUPS,
    Floats,
    Interval,
    Numbers,
    count_of,
    percentile_interval,
    resample_weights,
    units_of,
    ways_to_resample,
)
from tl_core.evaluation.curves import Curve, Scored, draw_curves
from tl_core.evaluation.metrics import (
    RANKED,
    Column,
    Measure,
    Multiclass,
    Multilabel,
    Regression,
    measure,
    watch_name,
)
from tl_core.evaluation.result import ClassRow, Evaluation, Floor
from tl_core.intervals import wilson
from tl_core.types import Targets, Task
from tl_core.watch import metric_title

MAX_CONFUSION = 1000  # classes; past that nobody reads the matrix and it weighs more than the predictions
MAX_PAIRS = 500  # points of a scatter picture
RANKED_WORK = 5e8  # rows that AUROC and average precision may go through: about three seconds
RANKED_CALL = 2000  # rows that take as long as the calls around a class
MIN_RANKED = 200  # resamples of them in any case


def evaluate_predictions(
    task: Task,
    targets: Targets,
    predictions: Numbers,
    truth: npt.NDArray[np.generic],
    *,
    confidence: float,
    resamples: int,
    seed: int,
    groups: Sequence[str] | None = None,
    floors: Mapping[str, Numbers] | None = None,
) -> Evaluation:
    """Every metric of the task with its interval, and how far the model is above each floor.

    predictions: probabilities [N, C], or values [N] for regression; truth: int64 [N], multi-hot [N, C] or float [N];
    groups: group of each row, resampled whole; floors: predictions of the same form by name (`majority`,
    `random_init`). The same seed gives the same resamples, so that model and floors are compared pairwise.
    Raises UserError where there are no rows or predictions are not finite.
    """
    if task != targets.task:
        raise ValueError(f"task {task} with targets for {targets.task}")
    units = units_of(len(truth), groups)
    model = measure(targets, predictions, truth, units)
    rivals = {name: measure(targets, values, truth, units) for name, values in (floors or {}).items()}
    ways = ways_to_resample(units)
    counts = [count_of(way) for way in ways]
    ranked = _ranked_resamples(model, len(truth), resamples)
    draws = np.empty((len(model.columns), len(ways), resamples))
    rival_draws = {name: np.empty((len(ways), resamples)) for name in rivals}
    for w, way in enumerate(ways):
        for r, weights in enumerate(resample_weights(way, resamples, seed)):
            draws[:, w, r] = model.resampled(weights, ranked=r < ranked)
            for name, rival in rivals.items():
                rival_draws[name][w, r] = rival.watch(weights)

    point = model.point()
    intervals = _intervals(model, point, draws, confidence, counts)
    summary = {c.metric: interval for c, interval in zip(model.columns, intervals) if c.label is None and interval}
    watch = watch_name(targets)
    per_class = _class_rows(model, targets, intervals)
    notes = _notes(model, point, intervals, units, groups, confidence, resamples, seed)
    if ranked < resamples:
        notes.append(f"Intervals of AUROC and average precision: {ranked} of the resamples, as they take long.")
    return Evaluation(
        task=task,
        watch=watch,
        summary=summary,
        per_class=per_class,
        confusion=_confusion(model),
        pairs=_pairs(model),
        floors={
            name: _floor(rival, rival_draws[name], summary[watch], draws[0], confidence, counts)
            for name, rival in rivals.items()
        },
        n_test=len(truth),
        confidence=confidence,
        notes=tuple(notes),
        curves=_curves(model, per_class),
    )


def _ranked_resamples(model: Measure, rows: int, resamples: int) -> int:
    """How many of the resamples have AUROC and average precision: decided by the size of the task, never by a clock."""
    classes = sum(column.metric in RANKED and column.label is not None for column in model.columns) / len(RANKED)
    return min(resamples, max(MIN_RANKED, int(RANKED_WORK / max(1, classes * (rows + RANKED_CALL)))))


def _interval(column: Column, value: float, draws: Floats, confidence: float, counts: Sequence[int]) -> Interval:
    """A column's interval; a number that is undefined on the test rows counts as 0, without an interval."""
    if np.isnan(value):
        return Interval.of(0.0, 0.0, 0.0, "none")
    return percentile_interval(float(value), draws, confidence, column.trials, units=counts)


def _intervals(
    model: Measure, point: Floats, draws: Floats, confidence: float, counts: Sequence[int]
) -> list[Interval | None]:
    """One interval per column, None for an undefined number of a class."""
    columns = model.columns
    found = [
        None
        if np.isnan(value) and column.label is not None
        else _interval(column, value, column_draws, confidence, counts)
        for column, value, column_draws in zip(columns, point, draws)
    ]
    for i, (column, value) in enumerate(zip(columns, point)):
        interval = found[i]
        if column.mean_of and interval and interval.method == "none" and not np.isnan(value):
            # every class is at 0 or 1: the mean of the classes' bounds, which is on the wide side
            parts = [
                (v, c)
                for v, c in zip(point, columns)
                if c.label is not None and c.metric == column.mean_of and not np.isnan(v)
            ]
            bounds = [wilson(float(v), c.trials, confidence) for v, c in parts if c.trials]
            low, high = np.mean(bounds, axis=0)
            found[i] = Interval.of(interval.value, float(low), float(high), "wilson mean")
    return found


def _floor(
    rival: Measure, rival_draws: Floats, ours: Interval, our_draws: Floats, confidence: float, counts: Sequence[int]
) -> Floor:
    value = _interval(rival.columns[0], rival.point()[0], rival_draws, confidence, counts)
    gain = percentile_interval(ours.value - value.value, our_draws - rival_draws, confidence, None, units=counts)
    if gain.method == "none":  # the difference never changed: as far apart as the two intervals allow
        gain = Interval.of(gain.value, ours.low - value.high, ours.high - value.low, "wilson")
    return Floor(value=value, gain=gain)


def _class_rows(model: Measure, targets: Targets, intervals: list[Interval | None]) -> tuple[ClassRow, ...]:
    if isinstance(model, Multiclass):
        support = np.bincount(model.truth, minlength=model.classes)
        predicted = np.bincount(model.predicted, minlength=model.classes)
    elif isinstance(model, Multilabel):
        support, predicted = model.truth.sum(axis=0), model.given.sum(axis=0)
    else:
        return ()
    rates: list[dict[str, Interval | None]] = [{} for _ in targets.classes]
    for column, interval in zip(model.columns, intervals):
        if column.label is not None:
            rates[column.label][column.metric] = interval
    return tuple(
        ClassRow(name=name, support=int(support[c]), predicted=int(predicted[c]), **rates[c])
        for c, name in enumerate(targets.classes)
    )


def _curves(model: Measure, rows: Sequence[ClassRow]) -> tuple[Curve, ...]:
    if isinstance(model, Multiclass):
        truth = [model.truth == c for c in range(model.classes)]
    elif isinstance(model, Multilabel):
        truth = list(model.truth.T)
    else:
        return ()
    drawn = slice(1, None) if isinstance(model, Multiclass) and model.classes == 2 else slice(None)
    classes = list(zip(rows, model.probabilities.T, truth))[drawn]
    return draw_curves(
        [Scored(r.name, p, t, r.auroc, r.average_precision) for r, p, t in classes if r.auroc and r.average_precision]
    )


def _confusion(model: Measure) -> tuple[tuple[int, ...], ...] | None:
    if not isinstance(model, Multiclass) or model.classes > MAX_CONFUSION:
        return None
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    counts = multiclass_confusion_matrix(
        torch.from_numpy(model.predicted), torch.from_numpy(model.truth), num_classes=model.classes
    )
    return tuple(tuple(row) for row in counts.tolist())


def _pairs(model: Measure) -> tuple[tuple[float, float], ...]:
    if not isinstance(model, Regression):
        return ()
    order = np.argsort(model.truth, kind="stable")
    taken = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MAX_PAIRS)).round().astype(int))]
    return tuple((round(float(model.truth[i]), 6), round(float(model.values[i]), 6)) for i in taken)


def _notes(
    model: Measure,
    point: Floats,
    intervals: list[Interval | None],
    units: npt.NDArray[np.int64],
    groups: Sequence[str] | None,
    confidence: float,
    resamples: int,
    seed: int,
) -> list[str]:
    count = int(units.max()) + 1
    grouped = groups is not None and len(set(groups)) > 1
    what = f"{count} whole groups" if grouped else f"{count} test rows"
    notes = [f"Intervals: {confidence:.0%} bootstrap, {resamples} resamples of {what}, seed {seed}."]
    if groups is not None and not grouped:
        notes.append("The test rows are one single group: the intervals say nothing about other groups.")
    elif grouped and count < FEW_GROUPS:
        notes.append(
            f"Only {count} groups in the test split: each interval also spans the one over single rows, and may "
            "still be too narrow for new groups."
        )
    overall = [(c, v, i) for c, v, i in zip(model.columns, point, intervals) if c.label is None and i is not None]
    undefined = [metric_title(c.metric) for c, v, _ in overall if np.isnan(v)]
    if undefined:
        notes.append(f"Undefined on these test rows and given as 0: {', '.join(undefined)}.")
    for method, text in (
        ("wilson", "Wilson interval of a proportion"),
        ("wilson mean", "mean of the classes' Wilson intervals"),
        ("none", "no interval can be had"),
    ):
        names = [metric_title(c.metric) for c, v, i in overall if i.method == method and not np.isnan(v)]
        if names:
            notes.append(f"Every resample gave the same {', '.join(names)}: {text}.")
    if any(i is not None and i.method == "wilson" and c.label is not None for c, i in zip(model.columns, intervals)):
        notes.append("Numbers of a class that every resample agreed on have Wilson intervals.")
    if not isinstance(model, Regression):
        defined = [not np.isnan(v) for c, v in zip(model.columns, point) if c.metric == "f1"]
        if not all(defined):
            notes.append(
                f"Means over classes run over the {sum(defined)} of {len(defined)} that occur in the test split; "
                "in a resample, over those that it drew."
            )
    return notes
