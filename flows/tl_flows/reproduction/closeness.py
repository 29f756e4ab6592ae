"""How far apart two runs are: the largest difference of a metric, and the rows that are predicted otherwise."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Closeness:
    """metric, then, now: where metrics differ most, None where they are equal or can't be compared.

    difference: of these, as a share of what it was where that is above 1; infinite where they can't be compared. rows:
    of the test split, with those that are predicted otherwise; None where then's predictions are not at hand.
    """

    difference: float
    metric: str | None = None
    then: float | None = None
    now: float | None = None
    rows: int | None = None
    otherwise: int | None = None

    def within(self, tolerance: float) -> bool:
        """Whether each metric is, and the share of rows that are predicted otherwise."""
        share = self.otherwise / self.rows if self.rows and self.otherwise else 0.0
        return self.difference <= tolerance and share <= tolerance

    def describe(self) -> str:
        """`accuracy 0.812 then, 0.814 now; 1 of 257 test rows is predicted otherwise`."""
        metrics = "all metrics are equal"
        if not math.isfinite(self.difference):
            metrics = f"metric {self.metric} is there once only, or is no number" if self.metric else "no metrics"
        elif self.metric is not None:
            metrics = f"the largest difference of a metric is {self.metric}, {self.then:g} then and {self.now:g} now"
        if self.rows is None or self.otherwise is None:
            return f"{metrics}; then's predictions are not at hand (`dvc fetch` where they were pushed)"
        verb = "is" if self.otherwise == 1 else "are"
        return f"{metrics}; {self.otherwise:,} of {self.rows:,} test rows {verb} predicted otherwise"


def closeness(
    metrics: tuple[Mapping[str, Any], Mapping[str, Any]], predictions: tuple[Path | None, Path], tolerance: float
) -> Closeness:
    """How far now's metrics and predictions are from then's. tolerance: up to which numbers count as the same."""
    difference, metric, then, now = _furthest(*metrics)
    rows, otherwise = _otherwise(predictions[0], predictions[1], tolerance) if predictions[0] else (None, None)
    return Closeness(difference, metric, then, now, rows, otherwise)


def read_metrics(text: str) -> dict[str, Any]:
    """The metrics in a metrics.json; none where it holds something else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _furthest(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, str | None, Any, Any]:
    if not one or not other:
        return math.inf, None, None, None
    worst: tuple[float, str | None, Any, Any] = (0.0, None, None, None)
    for name in dict.fromkeys((*one, *other)):
        then, now = one.get(name), other.get(name)
        if then == now and name in one and name in other:
            continue
        apart = _apart(then, now)
        if apart > worst[0]:
            worst = (apart, name, then, now)
    return worst


def _apart(then: Any, now: Any) -> float:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (then, now)):
        return abs(then - now) / max(1.0, abs(then))  # type: ignore[no-any-return]
    return math.inf


def _otherwise(then: Path, now: Path, tolerance: float) -> tuple[int, int]:
    """Rows of a predictions.parquet, and how many of them are predicted otherwise."""
    import pyarrow.parquet as pq

    one, other = (pq.read_table(path, columns=["id", "predicted"]).to_pylist() for path in (then, now))
    if [row["id"] for row in one] != [row["id"] for row in other]:
        return max(len(one), len(other)), max(len(one), len(other))
    pairs = [(a["predicted"], b["predicted"]) for a, b in zip(one, other, strict=True)]
    return len(pairs), sum(a != b and not _apart(a, b) <= tolerance for a, b in pairs)
