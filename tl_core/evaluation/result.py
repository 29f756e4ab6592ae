"""What an evaluation found: plain numbers, ready for JSON, the report and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from tl_core.evaluation.bootstrap import Interval
from tl_core.evaluation.curves import Curve
from tl_core.types import Task


def points(amount: float, task: Task) -> str:
    """A difference of the watched metric in hundredths; R² has no such name for them."""
    if task == "regression":
        return f"{amount:.2f} of R²"
    return f"{amount * 100:.0f} points" if round(amount * 100) >= 2 else f"{amount * 100:.1f} points"


@dataclass(frozen=True)
class ClassRow:
    """One class (or label) on the test rows; a number is None where it is undefined there.

    support: rows that have it; predicted: rows that were given it.
    """

    name: str
    support: int
    predicted: int
    precision: Interval | None
    recall: Interval | None
    f1: Interval | None
    average_precision: Interval | None = None
    auroc: Interval | None = None


@dataclass(frozen=True)
class Floor:
    """What must be beaten: the watch metric of a model that learned little or nothing.

    gain: the model's watch metric minus the floor's, both on the same resamples.
    """

    value: Interval
    gain: Interval


@dataclass(frozen=True)
class Evaluation:
    """The result on the test split.

    watch: the metric that floors and verdict are about; confusion: counts [actual][predicted], None for other
    tasks and past 1,000 classes; pairs: (actual, predicted) of up to 500 rows evenly over the range, regression
    only; notes: how the numbers were made, in sentences; curves: both of each class, the worst classes first (of two
    classes the second's).
    """

    task: Task
    watch: str
    summary: dict[str, Interval]
    per_class: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    pairs: tuple[tuple[float, float], ...]
    floors: dict[str, Floor]
    n_test: int
    confidence: float
    notes: tuple[str, ...]
    curves: tuple[Curve, ...] = ()

    def flat_metrics(self) -> dict[str, float]:
        """The flat numbers of metrics.json: each metric with `_low` and `_high`, `floor_*`, `n_test`."""
        flat: dict[str, float] = {"confidence": self.confidence, "n_test": self.n_test}
        for name, interval in self.summary.items():
            flat |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        return flat | {f"floor_{name}": floor.value.value for name, floor in self.floors.items()}
