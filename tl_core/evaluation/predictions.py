"""The predictions table: every row of the test split in manifest order, quarantined ones included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tl_core.evaluation.bootstrap import DIGITS, Bools, Floats, Ints, Numbers
from tl_core.types import Targets

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

FORMAT_VERSION = 1


def predictions_table(
    manifest: Manifest, rows: Ints, predictions: Numbers, *, split: str = "test", separator: str = "|"
) -> pa.Table:
    """One line for each row of the split; a quarantined one has a reason and nulls instead of a prediction.

    rows: the manifest rows that predictions [N, C] (or [N]) belong to. Columns: row, id, split, label, predicted
    (class name, label names joined by separator, or value), probability (of the predicted class; multi-label: of
    the least sure decision; null for regression), correct (null for regression), reason, then `p_<class>` each.
    """
    targets = manifest.targets
    table = manifest.table
    splits = np.asarray(table["split"].to_pylist(), dtype=object)
    lines = np.flatnonzero(splits == split)
    position = np.searchsorted(lines, rows)
    if len(rows) != len(predictions) or not np.array_equal(lines[position.clip(max=max(len(lines) - 1, 0))], rows):
        raise ValueError(
            f"{len(predictions)} predictions don't belong to the {len(lines)} {split} rows of the manifest"
        )

    def placed(values: list[object], kind: pa.DataType) -> pa.Array:
        full: list[object] = [None] * len(lines)
        for where, value in zip(position.tolist(), values):
            full[where] = value
        return pa.array(full, kind)

    truth = manifest.target_array(rows)
    predicted, probability, correct = decided(targets, predictions, truth, separator)
    source = table.take(pa.array(lines))
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "row": pa.array(lines, pa.int64()),
        "id": source["id"],
        "split": source["split"],
        "label": source["label"],
        "predicted": placed(predicted, pa.float64() if targets.task == "regression" else pa.string()),
        "probability": placed(probability, pa.float32()),
        "correct": placed(correct, pa.bool_()),
        "reason": source["reason"],
    }
    missing = np.ones(len(lines), dtype=bool)
    missing[position] = False
    for c, name in enumerate(targets.classes):
        values = np.zeros(len(lines), np.float32)
        values[position] = np.round(predictions[:, c].astype(np.float64), DIGITS)
        columns[f"p_{name}"] = pa.array(values, mask=missing)
    return pa.table(columns).replace_schema_metadata({"tl.predictions.format": str(FORMAT_VERSION)})


def write_predictions(table: pa.Table, path: Path) -> None:
    """Write the table as Parquet; the same table gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def worst_rows(targets: Targets, predictions: Numbers, truth: npt.NDArray[np.generic], limit: int) -> Ints:
    """Positions of the most confident errors, worst first.

    Multiclass: wrong rows whose true class got the least probability; multi-label: rows with the most wrongly
    rated label; regression: the largest errors.
    """
    values = predictions.astype(np.float64)
    badness: Floats
    wrong: Bools
    if targets.task == "multiclass":
        labels = truth.astype(np.int64)
        badness = 1 - values[np.arange(len(labels)), labels]
        wrong = values.argmax(axis=1) != labels
    elif targets.task == "multilabel":
        distance = np.abs(values - truth.astype(np.float64))
        badness = distance.max(axis=1)
        wrong = ((values > 0.5) != truth.astype(np.bool_)).any(axis=1)
    else:
        badness = np.abs(values - truth.astype(np.float64))
        wrong = badness > 0
    order = np.argsort(-np.round(badness, DIGITS), kind="stable")
    return order[wrong[order]][:limit].astype(np.int64)


def decided(
    targets: Targets, predictions: Numbers, truth: npt.NDArray[np.generic], separator: str
) -> tuple[list[object], list[object], list[object]]:
    """What each row was given, with which probability, and whether that is right, as the predictions table has it.

    predictions: probabilities [N, C] or values [N]; for regression the last two are None in each row.
    """
    if targets.task == "regression":
        nothing: list[object] = [None] * len(predictions)
        return np.round(predictions.astype(np.float64), DIGITS).tolist(), nothing, nothing
    if targets.task == "multiclass":
        best = predictions.argmax(axis=1)
        names: list[object] = [targets.classes[c] for c in best]
        top = np.round(predictions.max(axis=1).astype(np.float64), DIGITS)
        return names, top.tolist(), (best == truth.astype(np.int64)).tolist()
    given = predictions > 0.5
    names = [separator.join(name for name, yes in zip(targets.classes, row) if yes) for row in given]
    sure = np.round(np.maximum(predictions, 1 - predictions).min(axis=1).astype(np.float64), DIGITS)
    return names, sure.tolist(), (given == truth.astype(np.bool_)).all(axis=1).tolist()
