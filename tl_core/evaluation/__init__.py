"""How good the model is on the test split, how sure that is, and whether it beats its floors."""

from __future__ import annotations

from tl_core.evaluation.bootstrap import Interval
from tl_core.evaluation.evaluate import evaluate_predictions
from tl_core.evaluation.floors import majority_predictions
from tl_core.evaluation.predictions import predictions_table, worst_rows, write_predictions
from tl_core.evaluation.result import ClassRow, Evaluation, Floor, metric_title
from tl_core.evaluation.verdict import Verdict, floor_title, meaning, verdict

__all__ = [
    "ClassRow",
    "Evaluation",
    "Floor",
    "Interval",
    "Verdict",
    "evaluate_predictions",
    "floor_title",
    "majority_predictions",
    "meaning",
    "metric_title",
    "predictions_table",
    "verdict",
    "worst_rows",
    "write_predictions",
]
