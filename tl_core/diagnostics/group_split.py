"""What a split that ignores groups would promise too much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tl_core.diagnostics.held_out import axes_of, held_out, learnable
from tl_core.diagnostics.results import GroupSplit
from tl_core.evaluation import metric_title
from tl_core.evaluation.bootstrap import count_of, percentile_interval, resample_weights, units_of, ways_to_resample
from tl_core.evaluation.metrics import measure, watch_name
from tl_core.selection.crossval import deal
from tl_core.types import Targets

MOST_FOLDS = 10  # with so many groups or fewer each is left out once
FOLDS = 5  # with more
LEAST = 20  # rows


def group_split(
    features: npt.NDArray[np.float32],
    truth: npt.NDArray[np.generic],
    groups: Sequence[str],
    targets: Targets,
    strength: float,
    *,
    confidence: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
) -> GroupSplit | None:
    """The watched metric of one probe, cross-validated by rows and by whole groups.

    features: float32 [N, D], truth and groups of the rows of all splits; strength: the probe's total L2 penalty. Both
    ways learn from as many rows, in as many folds; up to ten groups are left out one by one. Rows whose class no other
    group shows are judged in neither way. Resamples are of whole groups, the same for both. None where groups are fewer
    than two, or as many as rows, or leave too little to judge.
    """
    count = len(set(groups))
    if count < 2 or count == len(groups) or len(groups) < LEAST:
        return None
    folds = count if count <= MOST_FOLDS else FOLDS
    by_rows = deal(truth, targets.task, folds, seed)
    by_groups = deal(truth, targets.task, folds, seed, groups)
    judged = learnable(truth, targets, by_groups) & learnable(truth, targets, by_rows)
    kept = [group for group, known in zip(groups, judged.tolist(), strict=True) if known]
    if judged.sum() < LEAST or len(set(kept)) < 2:
        return None

    axes = axes_of(features)
    units = units_of(len(kept), kept)
    random, grouped = (
        measure(targets, held_out(axes, truth, targets, fold, strength)[judged], truth[judged], units)
        for fold in (by_rows, by_groups)
    )
    ways = ways_to_resample(units)
    counts = [count_of(way) for way in ways]
    draws = np.array(
        [
            [(random.watch(weights), grouped.watch(weights)) for weights in resample_weights(way, resamples, seed)]
            for way in ways
        ]
    )  # [ways, resamples, 2]
    everything = np.ones(len(kept))
    values = random.watch(everything), grouped.watch(everything)
    if not np.isfinite(values).all():
        return None
    trials = random.columns[0].trials
    promised = percentile_interval(values[0], draws[..., 0], confidence, trials, units=counts)
    honest = percentile_interval(values[1], draws[..., 1], confidence, trials, units=counts)
    gap = percentile_interval(values[0] - values[1], draws[..., 0] - draws[..., 1], confidence, None, units=counts)
    title = metric_title(watch_name(targets))
    left_out = len(groups) - len(kept)
    text = (
        f"Cross-validated over all {len(groups):,} rows, a probe's {title} is {honest.value:.3f} on groups that it has "
        f"not seen and {promised.value:.3f} where rows are split without regard to the {count} groups: "
    )
    difference = f"{gap.value:+.3f}, {confidence:.0%} interval {gap.low:+.3f} to {gap.high:+.3f}"
    if gap.low > 0:
        text += f"a split that ignores groups promises too much ({difference}). Judge by the first number."
    elif gap.high < 0:
        text += f"a split that ignores groups promises nothing too much here ({difference})."
    else:
        text += f"can't tell whether a split that ignores groups promises too much ({difference})."
    if left_out:
        text += f" {left_out:,} rows of classes that only one group shows were left out."
    return GroupSplit(groups=count, random=promised, grouped=honest, gap=gap, text=text)
