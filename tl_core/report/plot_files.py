"""Small CSV files that `dvc plots` draws and compares between revisions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tl_core.evaluation import Evaluation
from tl_core.workspace import write_text

_FILES = frozenset({"confusion.csv", "scatter.csv", "classes.csv", "path.csv", "history.csv"})


def write_plots(
    evaluation: Evaluation, table: pa.Table, folder: Path, *, path: Sequence[Mapping[str, Any]] = ()
) -> list[Path]:
    """Write the plot files into folder and return them.

    table: the predictions table; path: the probe's strengths or the fine-tuning's epochs. Files: `confusion.csv`
    (actual, predicted of each test row; multiclass), `scatter.csv` (the same as numbers; regression), `classes.csv`
    (precision, recall and F1 of each class or label), `path.csv` or `history.csv`. What another task or strategy has
    left there is removed.
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
    if path:
        columns = list(path[0])
        name = "path.csv" if "strength" in columns else "history.csv"
        written[name] = _csv(columns, ([point.get(c) for c in columns] for point in path))
    for name in _FILES - written.keys():
        (folder / name).unlink(missing_ok=True)
    for name, text in written.items():
        write_text(folder / name, text)
    return [folder / name for name in written]


def _value(interval: Any) -> float | None:
    return None if interval is None else float(interval.value)


def _csv(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()
