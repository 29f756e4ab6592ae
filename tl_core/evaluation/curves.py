"""How well scores put the rows of a class first: ROC and precision-recall curves, and the areas under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tl_core.evaluation.bootstrap import Bools, Interval, Numbers

Floats32 = npt.NDArray[np.float32]

MAX_POINTS = 100  # of a curve: more can't be told apart in a picture
MAX_LABELS = 30  # with curves: past that nobody looks at them


@dataclass(frozen=True)
class Curve:
    """A curve of one class (or label) against all others, from the surest rows on.

    points: `roc` (false positive rate, true positive rate), `pr` (recall, precision), rounded to 4 decimals; area:
    AUROC, or average precision, of the full curve; chance: the area of guesses.
    """

    label: str
    kind: Literal["roc", "pr"]
    points: tuple[tuple[float, float], ...]
    area: Interval
    chance: float


@dataclass(frozen=True)
class Scored:
    """What a class's curves are made from. scores: [N]; truth: bool [N], of both kinds; then its two areas."""

    label: str
    scores: Numbers
    truth: Bools
    auroc: Interval
    average_precision: Interval


def draw_curves(classes: Sequence[Scored]) -> tuple[Curve, ...]:
    """Both curves of each class, those with the least average precision first; at most 30 classes."""
    import torch
    from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

    found = []
    for one in sorted(classes, key=lambda c: c.average_precision.value)[:MAX_LABELS]:
        scores = torch.from_numpy(np.ascontiguousarray(one.scores))
        target = torch.from_numpy(one.truth.astype(np.int64))
        precision, recall, _ = (t.double().numpy() for t in binary_precision_recall_curve(scores, target))
        recall, precision = recall[-2::-1], precision[-2::-1]  # from the surest row on; the last is no row's
        rising = np.diff(recall, prepend=0.0) > 0  # what average precision is the mean of
        recall, precision = recall[rising], precision[rising]
        opened = np.append(0.0, recall), np.append(precision[0], precision)
        fpr, tpr, _ = (t.double().numpy() for t in binary_roc(scores, target))
        found += [
            Curve(one.label, "pr", _thinned(*opened), one.average_precision, round(float(one.truth.mean()), 6)),
            Curve(one.label, "roc", _thinned(fpr, tpr), one.auroc, 0.5),
        ]
    return tuple(found)


def _thinned(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Points of the curve at about equal distances along it, both ends among them."""
    walked = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    even = np.searchsorted(walked, np.linspace(0.0, walked[-1], MAX_POINTS)[:-1])
    taken = np.unique(np.append(even, len(x) - 1))
    return tuple((round(float(x[i]), 4), round(float(y[i]), 4)) for i in taken)


class Ranking:
    """One class's rows by falling score, for its areas on rows that are weighted anew again and again.

    The order is cut into blocks that end with the rows of a score that some positive row has; what comes after the
    last of them changes neither area.
    """

    def __init__(self, scores: Numbers, truth: Bools) -> None:
        order = np.argsort(-scores, kind="stable")
        ranked, positive = scores[order], truth[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1
        starts = np.append(0, ends[:-1])
        found = np.cumsum(positive)[ends - 1]
        rising = np.diff(found, prepend=0) > 0  # scores at which recall rises
        starts, ends, found = starts[rising], ends[rising], found[rising]
        self._order = order[: ends[-1]] if ends.size else order[:0]
        self._starts = np.append(0, ends[:-1])
        self._positives = self._order[positive[: len(self._order)]]
        self._positive_starts = np.append(0, found[:-1])
        block = np.repeat(np.arange(len(ends)), ends - starts)
        rows = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends)]) if ends.size else starts
        tied = ~positive[rows]  # negative rows with the score of a positive one: half of them count as below it
        self._tied, self._tied_block = order[rows[tied]], block[tied]

    def areas(self, weights: Floats32, total: float) -> tuple[float, float]:
        """AUROC and average precision of rows that count weights [N] times, total in all.

        Average precision is the sum over scores of precision times gain in recall. nan without a positive row, AUROC
        also without a negative one.
        """
        if not self._positives.size:
            return np.nan, np.nan
        gained = np.add.reduceat(weights[self._positives], self._positive_starts).astype(np.float64)
        seen = np.add.reduceat(weights[self._order], self._starts).astype(np.float64).cumsum()
        found = gained.cumsum()
        positives = found[-1]
        if not positives:
            return np.nan, np.nan
        precision = float((gained * found / np.maximum(seen, 1)).sum() / positives)
        if positives >= total:
            return np.nan, precision
        before = seen - found
        if self._tied.size:
            before -= np.bincount(self._tied_block, weights[self._tied], len(before)) / 2
        return float(1 - (gained * before).sum() / (positives * (total - positives))), precision
