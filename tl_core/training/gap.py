"""How much better a model is on the rows it learnt from than on new ones, and whether that means that it memorised.

Every model does better on its training rows; a probe with more features than rows is right on all of them and may
still be the best there is. What tells memorising from learning is how much of what was gained over saying the same of
every row (the floor) is lost on new rows: noise that was learnt by heart loses all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_core.selection.outcomes import Outcomes
from tl_core.types import HeadSpec, Task
from tl_core.watch import DEFAULT, metric_title, watch_metric

LOST = 0.5  # share of the gain over the floor that is lost on new rows, from which on a model has memorised
DRAWS = 1000
BLOCK = 100  # draws at a time: memory stays at so many weights a row
COSTLY_DRAWS = 200  # of a metric that is computed anew for each


def memorised(
    train: float,
    said: np.ndarray,
    y_val: np.ndarray,
    y_train: np.ndarray,
    spec: HeadSpec,
    *,
    confidence: float = 0.9,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """`train`, `val`, `gap` with `low` and `high`, `memorised` and `text`, as tune.json has them.

    train: the watched metric on the training rows, of the model that said `said` of the validation rows, decoded as
    watch_metric() takes them; groups: of the validation rows, drawn as one. The gap counts as positive where the model
    is worse on new rows, whichever way the metric goes. Its interval is that of the validation rows (Bayesian
    bootstrap); the training rows are the model's own, and its value on them is exact. memorised: even at the
    interval's lower end more than half of what the model gained on its training rows over the floor, the best
    constant answer, is lost on new ones. A model that is worth nothing on either is not said to have memorised.
    """
    sign = 1 if spec.higher_is_better else -1
    val = watch_metric(spec.task, said, y_val, spec.watch)
    constants = (watch_metric(spec.task, same, y_val, spec.watch) for same in _constants(spec.task, said, y_train))
    floor = max(constants, key=lambda value: sign * value)
    low, high = interval(spec, said, y_val, confidence=confidence, seed=seed, groups=groups)
    gap, ends = sign * (train - val), sorted((sign * (train - high), sign * (train - low)))
    gained = sign * (train - floor)
    learnt_noise = gained > 0 and ends[0] > LOST * gained
    lost = gap / gained if gained > 0 else 0.0
    name = metric_title(spec.watch)
    text = f"{name} is {train:.3f} on training rows and {val:.3f} on validation rows"
    if learnt_noise:
        text += (
            f": {100 * min(1.0, lost):.0f}% of what was gained over one answer for all ({floor:.3f}) is lost on new "
            "rows, so the model has memorised its training rows; look at the labels, take more rows, a stronger "
            "penalty or a frozen backbone"
        )
    return {
        "train": train,
        "val": val,
        "gap": gap,
        "low": ends[0],
        "high": ends[1],
        "memorised": bool(learnt_noise),
        "text": text,
    }


def interval(
    spec: HeadSpec,
    said: np.ndarray,
    truth: np.ndarray,
    *,
    confidence: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> tuple[float, float]:
    """The interval of the watched metric over such rows as these, by weighing them (or their groups) at random.

    The task's usual metric is weighed smoothly, with half a right and half a wrong row more (Rubin, Annals of
    Statistics 1981; Jeffreys' prior), which keeps it honest where all rows are right; others are computed on rows
    drawn with replacement.
    """
    codes = np.arange(len(truth)) if groups is None else np.unique(np.asarray(groups, object), return_inverse=True)[1]
    units, rng = int(codes.max()) + 1, np.random.default_rng(seed)
    value = watch_metric(spec.task, said, truth, spec.watch)
    if (spec.watch or DEFAULT[spec.task]) == DEFAULT[spec.task]:
        outcomes = Outcomes.of(spec.task, said, truth)
        drawn = np.concatenate(
            [
                outcomes.draws(rng.standard_gamma(1.0, (BLOCK, units))[:, codes], *rng.standard_gamma(0.5, (2, BLOCK)))
                for _ in range(DRAWS // BLOCK)
            ]
        )
    else:
        members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
        picks = (np.concatenate([members[unit] for unit in rng.integers(0, units, units)]) for _ in range(COSTLY_DRAWS))
        drawn = np.array([watch_metric(spec.task, said[rows], truth[rows], spec.watch) for rows in picks])
    low, high = np.quantile(drawn, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(min(low, value)), float(max(high, value))


def _constants(task: Task, said: np.ndarray, y_train: np.ndarray) -> list[np.ndarray]:
    """The training rows' usual answer for every row, and for labels all of them: what the metric may like best."""
    if task == "regression":
        return [np.full(len(said), y_train.mean(dtype=np.float64))]
    if task == "multilabel":
        return [np.tile(y_train.mean(axis=0, dtype=np.float64), (len(said), 1)), np.ones(said.shape)]
    return [np.tile(np.bincount(y_train, minlength=said.shape[1]).astype(np.float64), (len(said), 1))]
