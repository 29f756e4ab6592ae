"""All scores of one candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tl_core.intervals import wilson
from tl_core.selection.scores.h_score import h_score_without
from tl_core.selection.scores.jackknife import deal_parts, half_samples, halves, jackknife
from tl_core.selection.scores.knn import knn_among
from tl_core.selection.scores.logme import logme_without
from tl_core.selection.scores.nleep import nleep_without
from tl_core.selection.scores.rows import Axes, on_axes, varies
from tl_core.torch_threads import one_torch_thread
from tl_core.types import Task


@dataclass(frozen=True)
class Score:
    """A score and its interval."""

    value: float
    low: float
    high: float


def scores_of(
    features: Tensor,
    targets: Tensor,
    task: Task,
    *,
    groups: Sequence[str] | None = None,
    confidence: float = 0.9,
    seed: int = 0,
) -> dict[str, Score]:
    """Every score that is defined for the task, by name: logme, h_score, knn, nleep; none where no target varies.

    features: float32 [N, D]; targets: int64 [N], multi-hot [N, C] or float [N]; groups: rows of one group are left
    out together, and are no neighbours. An interval says where the score would lie on other samples of as many rows
    (see `jackknife` and, for knn, `half_samples`). Scores of several candidates on the same rows move together: where
    intervals overlap, the scores may still tell them apart. Raises ValueError on features that aren't finite.
    """
    with one_torch_thread():  # many small steps
        return _scores(on_axes(features), targets.to(features.device), task, groups, confidence, seed)


def _scores(
    axes: Axes, targets: Tensor, task: Task, groups: Sequence[str] | None, confidence: float, seed: int
) -> dict[str, Score]:
    if not varies(targets):
        return {}
    part = deal_parts(targets, task, seed, groups)
    found = {"logme": logme_without(axes, targets, task, part)}
    if task != "regression":
        found["h_score"] = h_score_without(axes, targets, task, part)
    if task == "multiclass":
        found["nleep"] = nleep_without(axes, targets, task, part, seed)
    scores = {
        name: Score(value, *jackknife(value, without, part, confidence)) for name, (value, without) in found.items()
    }
    pairs = halves(part, seed)
    value, *of_halves = knn_among(axes, targets, task, groups, pairs)
    low, high = half_samples(value, of_halves, pairs, int(part.max()) + 1, confidence)
    if task == "multiclass":  # where every row is right, so is every half
        least, most = wilson(value, len(targets), confidence)
        low, high = max(0.0, min(low, least)), min(1.0, max(high, most))
    return scores | {"knn": Score(value, low, high)}
