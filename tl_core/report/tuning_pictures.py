"""The pictures of the report's section on training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tl_core.report.lines import Lines, Series, finite, picture
from tl_core.report.templates import first_up, number
from tl_core.report.tuning import ContrastiveFacts, FinetuneFacts, FoundRate, LearningCurve, ProbeFacts, SearchFacts

TRAIN, VAL = 0, 1  # the styles of what is measured on training and on validation rows, the same in each picture
BLOWN = 1.5  # a range test is drawn up to so many times the way down from its first loss


def training_pictures(facts: FinetuneFacts, metric: str) -> list[Lines]:
    """Metric, loss and learning rate over the epochs."""
    epochs, best = facts.history, facts.best_epoch

    def over_epochs(title: str, *series: Series) -> Lines | None:
        words = f"{title} over {len(epochs)} epochs. Best epoch: {best}. The table below says the same in numbers."
        return picture(title, "epoch", words, series, chosen=best, chosen_title=f"best epoch: {best}")

    return _drawn(
        over_epochs(
            first_up(metric),
            Series("training rows", TRAIN, finite([(e.epoch, e.train) for e in epochs])),
            Series("validation rows", VAL, finite([(e.epoch, e.val) for e in epochs])),
        ),
        over_epochs(
            "Loss",
            Series("training rows", TRAIN, finite([(e.epoch, e.loss) for e in epochs])),
            Series("validation rows", VAL, finite([(e.epoch, e.val_loss) for e in epochs])),
        ),
        over_epochs("Learning rate", Series("of the backbone", TRAIN, finite([(e.epoch, e.lr) for e in epochs]))),
    )


def pairs_picture(facts: ContrastiveFacts) -> Lines | None:
    """The loss of pairs over the epochs."""
    points = finite([(epoch, loss) for epoch, loss in enumerate(facts.losses, 1)])
    words = f"Loss of pairs over {len(facts.losses)} epochs"
    if points:
        words += f", from {number(points[0][1])} to {number(points[-1][1])}"
    return picture("Loss of pairs", "epoch", f"{words}.", [Series("training rows", TRAIN, points)])


def probe_pictures(facts: ProbeFacts, metric: str) -> list[Lines]:
    """Metric and loss over the strength of the regularisation."""
    path, taken = facts.path, facts.strength

    def over_strengths(title: str, *series: Series) -> Lines | None:
        words = f"{title} over {len(path)} L2 strengths. Taken: {taken:g}. The table below says the same in numbers."
        axis = "L2 strength (log scale)"
        return picture(title, axis, words, series, log=True, chosen=taken, chosen_title=f"taken: {taken:g}")

    return _drawn(
        over_strengths(
            first_up(metric),
            Series("training rows", TRAIN, finite([(s.strength, s.train) for s in path])),
            Series("validation rows", VAL, finite([(s.strength, s.val) for s in path])),
        ),
        over_strengths("Loss", Series("validation rows", VAL, finite([(s.strength, s.val_loss) for s in path]))),
    )


def rate_picture(found: FoundRate) -> Lines | None:
    """Loss over the learning rate of a range test, as far as it says anything: it ends by blowing up."""
    points = finite([(rate, loss) for rate, loss in found.points])
    if not points:
        return None
    first, lowest = points[0][1], min(loss for _, loss in points)
    top = lowest + BLOWN * ((first - lowest) or abs(first) or 1.0)
    ends = (lowest - 0.06 * (top - lowest), top)
    kept = next((i + 1 for i in range(len(points)) if all(loss > top for _, loss in points[i:])), len(points))
    return picture(
        "Range test of the learning rate",
        "learning rate (log scale)",
        f"Loss over a rising learning rate, from {points[0][0]:.2g} to {points[-1][0]:.2g}. Taken: {found.lr:.2g}.",
        [Series("loss", TRAIN, points[:kept])],
        log=True,
        ends=ends,
        chosen=found.lr,
        chosen_title=f"taken: {found.lr:.2g}",
    )


def curve_picture(curve: LearningCurve, metric: str, most: float = math.inf) -> Lines | None:
    """Metric over the number of training rows, and what twice as many are expected to bring.

    most: the largest value that the metric can have.
    """
    points = sorted(curve.points, key=lambda p: p.rows)
    band = [(float(p.rows), p.low, p.high) for p in points if p.low is not None and p.high is not None]
    series = [Series("measured, with its interval", TRAIN, [(float(p.rows), p.value) for p in points], band)]
    words = f"{first_up(metric)} over the number of rows to learn from"
    if points and curve.gain is not None:
        last = points[-1]
        low, high = (curve.gain if end is None else end for end in (curve.gain_low, curve.gain_high))
        ahead = [(float(last.rows), last.value), (2.0 * last.rows, min(last.value + curve.gain, most))]
        cone = [
            (float(last.rows), last.value, last.value),
            (2.0 * last.rows, min(last.value + low, most), min(last.value + high, most)),
        ]
        series.append(Series("expected of twice the rows", VAL, ahead, cone))
        words += f", from {number(points[0].value)} on {points[0].rows} to {number(last.value)} on {last.rows}"
    return picture(first_up(metric), "rows to learn from", f"{words}. {first_up(curve.verdict)}.", series)


def search_picture(facts: SearchFacts, metric: str) -> Lines | None:
    """The best value so far over the trials, as steps; only where it rose is drawn."""
    found = finite([(float(i + 1), value) for i, value in enumerate(facts.values)])
    steps: list[tuple[float, float]] = []
    for trial, value in found:
        if not steps:
            steps = [(trial, value)]
        elif value != steps[-1][1]:
            steps += [(trial, steps[-1][1]), (trial, value)]
    if found and steps[-1][0] < found[-1][0]:
        steps.append((found[-1][0], steps[-1][1]))
    words = f"Best {metric} so far over {facts.trials} trials"
    if found:
        words += f", from {number(found[0][1])} to {number(found[-1][1])}"
    return picture(f"Best {metric} so far", "trial", f"{words}.", [Series("best so far", TRAIN, steps)])


def _drawn(*pictures: Lines | None) -> list[Lines]:
    return [p for p in pictures if p is not None]


def ends_of(measures: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """A range that holds all (value, low, high), with a little air."""
    low, high = min(m[1] for m in measures), max(m[2] for m in measures)
    air = 0.06 * ((high - low) or 0.02)
    return low - air, high + air
