"""How good the model is on the test split, how sure that is, and whether it beats its floors."""

from __future__ import annotations

from tl_core.evaluation.bootstrap import Interval
from tl_core.evaluation.curves import Curve
from tl_core.evaluation.evaluate import evaluate_predictions
from tl_core.evaluation.floors import majority_predictions
from tl_core.evaluation.paired import ClassDifference, McNemar, Paired, class_differences, paired
from tl_core.evaluation.predictions import predictions_table, worst_rows, write_predictions
from tl_core.evaluation.result import ClassRow, Evaluation, Floor
from tl_core.evaluation.verdict import Verdict, decisive, floor_title, meaning, transfer, verdict
from tl_core.watch import metric_title

__all__ = [
    "ClassDifference",
    "ClassRow",
    "Curve",
    "Evaluation",
    "Floor",
    "Interval",
    "McNemar",
    "Paired",
    "Verdict",
    "class_differences",
    "decisive",
    "evaluate_predictions",
    "floor_title",
    "majority_predictions",
    "meaning",
    "metric_title",
    "paired",
    "predictions_table",
    "transfer",
    "verdict",
    "worst_rows",
    "write_predictions",
]
