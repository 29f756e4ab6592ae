"""Values of a column by which results are compared: names as they are, numbers of many values in quarters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tl_core.manifest.labels import parse_number

MOST_VALUES = 12  # numbers of a column that stand for themselves: months do, ages don't
NUMBERS = 0.9  # share of a column's distinct values that are numbers where it is one of numbers; the rest are words
QUARTERS = (0.25, 0.5, 0.75)


def compared(values: Sequence[str | None], rows: np.ndarray) -> list[str | None]:
    """The values [N], or where they are many different numbers the range of the quarter that each lies in.

    rows: those that tell the quarters. A range names the least and the largest number in it as they are written (`18 to
    25`); equal numbers share one, and what is no number stays as it is.
    """
    distinct = {value for row in rows.tolist() if (value := values[row]) is not None}
    numbers = {value: number for value in distinct if (number := parse_number(value)) is not None}
    if len(set(numbers.values())) <= MOST_VALUES or len(numbers) < NUMBERS * len(distinct):
        return list(values)
    known = np.array([numbers[value] for row in rows.tolist() if (value := values[row]) in numbers])
    edges = np.unique(np.quantile(known, QUARTERS, method="inverted_cdf"))  # a quarter ends with its edge
    members: dict[int, list[str]] = {}
    for value in sorted(numbers, key=lambda value: (numbers[value], value)):
        members.setdefault(int(np.searchsorted(edges, numbers[value])), []).append(value)
    names = {value: _range(texts) for texts in members.values() for value in texts}
    return [value if value is None else names.get(value, value) for value in values]


def _range(texts: Sequence[str]) -> str:
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"
