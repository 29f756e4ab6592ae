"""Small CSV files that `dvc plots` draws and compares between revisions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from tl_core.diagnostics.results import Calibration
from tl_core.evaluation import Evaluation
from tl_core.report.tuning import Tuning
from tl_core.workspace import write_text

_FILES = frozenset({
    "confusion.csv", "scatter.csv", "classes.csv", "path.csv", "history.csv", "learning_curve.csv",
    "precision_recall.csv", "roc.csv", "reliability.csv",
})  # fmt: skip


def write_plots(
    evaluation: Evaluation,
    table: pa.Table,
    folder: Path,
    *,
    tuning: Tuning | None = None,
    calibration: Calibration | None = None,
) -> list[Path]:
    """Write the plot files into folder and return them.

    table: the predictions table; tuning: how the model was trained. Files: `confusion.csv` (actual, predicted of each
    test row; multiclass), `scatter.csv` (the same as numbers; regression), `classes.csv` (precision, recall and F1 of
    each class or label), `precision_recall.csv` and `roc.csv` (curves of at most 30 classes), `reliability.csv` (the
    bins of the calibration), `path.csv` (the probe's strengths), `history.csv` (the epochs of a fine-tuning),
    `learning_curve.csv`. What another task or strategy has left there is removed.
    """
    written: dict[str, str] = {}
    if evaluation.task != "multilabel":
        seen = [r for r in table.select(["label", "predicted"]).to_pylist() if r["predicted"] is not None]
        name = "confusion.csv" if evaluation.task == "multiclass" else "scatter.csv"
        written[name] = _csv(["actual", "predicted"], ([r["label"], r["predicted"]] for r in seen))
    if evaluation.per_class:
        rates = ("precision", "recall", "f1")
        rows = [
            [row.name, row.support, *(_value(getattr(row, rate)) for rate in rates)] for row in evaluation.per_class
        ]
        written["classes.csv"] = _csv(["class", "support", *rates], rows)
    for name, kind, axes in (
        ("precision_recall.csv", "pr", ("recall", "precision")),
        ("roc.csv", "roc", ("false_positive_rate", "true_positive_rate")),
    ):
        points = [[c.label, *point] for c in evaluation.curves if c.kind == kind for point in c.points]
        written |= {name: _csv(["class", *axes], points)} if points else {}
    if calibration:
        bins = [[b.confidence, b.accuracy.value, b.accuracy.low, b.accuracy.high, b.rows] for b in calibration.bins]
        written["reliability.csv"] = _csv(["confidence", "accuracy", "low", "high", "rows"], bins)
    written |= _of_tuning(tuning) if tuning else {}
    for name in _FILES - written.keys():
        (folder / name).unlink(missing_ok=True)
    for name, text in written.items():
        write_text(folder / name, text)
    return [folder / name for name in written]


def _of_tuning(tuning: Tuning) -> dict[str, str]:
    steps = {
        "path.csv": tuning.probe.path if tuning.probe else (),
        "history.csv": tuning.finetune.history if tuning.finetune else (),
        "learning_curve.csv": tuning.curve.points if tuning.curve else (),
    }
    return {name: _csv(vars(rows[0]), (vars(row).values() for row in rows)) for name, rows in steps.items() if rows}


def _value(interval: Any) -> float | None:
    return None if interval is None else float(interval.value)


def _csv(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()
