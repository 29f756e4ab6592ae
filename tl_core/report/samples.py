"""The rows behind the confusion matrix: which are kept in report.json, and how the page groups them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from tl_core.evaluation import Evaluation
from tl_core.report.facts import Sample
from tl_core.report.templates import number

MAX_SAMPLES = 1000
MAX_RIGHT = 10  # right rows of each class, the least sure ones
MAX_FRAGMENTS = 300  # rows that are rendered, which takes time
MAX_BYTES = 1_000_000  # of all fragments
IN_VAIN = 5  # fragments in a row that had no room: the rest will have none either

Render = Callable[[int], str | None]
Line = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Rows of one cell of the confusion matrix, or all errors of a task that has none.

    anchor: of the group, as the matrix's cells link to it; rows: in the test split, of which samples are those shown.
    """

    anchor: str
    actual: str
    predicted: str
    right: bool
    rows: int
    samples: list[Sample]


def choose_samples(table: pa.Table, render: Render, *, limit: int = MAX_SAMPLES) -> tuple[Sample, ...]:
    """The rows to look at of a predictions table: errors, each confusion's in turn, then right ones.

    render: the fragment of a manifest row, None where it has none; called until they weigh 1 MB together.
    """
    lines = table.select(["row", "id", "label", "predicted", "probability", "correct"]).to_pylist()
    known = [line for line in lines if line["predicted"] is not None]
    if known and known[0]["correct"] is None:  # regression
        chosen = sorted(known, key=lambda line: -abs(float(line["label"]) - float(line["predicted"])))
    else:
        chosen = _errors([line for line in known if not line["correct"]])
        chosen += _right([line for line in known if line["correct"]])
    found: list[Sample] = []
    room, vain = MAX_BYTES, 0
    for line in chosen[:limit]:
        fragment = render(int(line["row"])) if vain < IN_VAIN and len(found) < MAX_FRAGMENTS else None
        if fragment is not None:
            size = len(fragment.encode("utf-8", "replace"))
            vain = vain + 1 if size > room else 0
            room, fragment = (room, None) if size > room else (room - size, fragment)
        found.append(
            Sample(
                int(line["row"]), str(line["id"]), shown(line["label"]), shown(line["predicted"]),
                None if line["probability"] is None else round(float(line["probability"]), 4), fragment,
            )
        )  # fmt: skip
    return tuple(found)


def grouped(evaluation: Evaluation, samples: Sequence[Sample]) -> list[Group]:
    """The rows by cell of the confusion matrix, the commonest errors first; one group where there is no matrix."""
    if evaluation.confusion is None:
        return [Group("errors-all", "", "", False, len(samples), list(samples))] if samples else []
    index = {row.name: i for i, row in enumerate(evaluation.per_class)}
    cells: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        if sample.label in index and sample.predicted in index:
            cells.setdefault((index[sample.label], index[sample.predicted]), []).append(sample)
    names = list(index)
    found = [
        Group(anchor(a, p), names[a], names[p], a == p, max(evaluation.confusion[a][p], len(rows)), rows)
        for (a, p), rows in cells.items()
    ]
    return sorted(found, key=lambda group: (group.right, -group.rows, group.anchor))


def anchor(actual: int, predicted: int) -> str:
    """The address of a cell's rows on the page."""
    return f"cell-{actual}-{predicted}"


def weight(fragment: str | None) -> int:
    """Bytes of a fragment in the page."""
    return len(fragment.encode("utf-8", "replace")) if fragment else 0


def _errors(lines: list[Line]) -> list[Line]:
    """The surest errors first, each confusion's in turn."""
    cells: dict[tuple[Any, Any], list[Line]] = {}
    for line in sorted(lines, key=lambda line: -(line["probability"] or 0.0)):
        cells.setdefault((line["label"], line["predicted"]), []).append(line)
    return [line for turn in zip_longest(*cells.values()) for line in turn if line is not None]


def _right(lines: list[Line]) -> list[Line]:
    """A few of each class, the least sure first."""
    classes: dict[Any, list[Line]] = {}
    for line in sorted(lines, key=lambda line: line["probability"] or 0.0):
        classes.setdefault(line["label"], []).append(line)
    return [
        line for turn in zip_longest(*(c[:MAX_RIGHT] for c in classes.values())) for line in turn if line is not None
    ]


def shown(value: Any) -> str:
    """A label or a value as people read it."""
    return number(value) if isinstance(value, float) else str(value)
