"""Whether the model is worse for some: the watched metric by the values of one column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tl_core.diagnostics.gaps import Gap, Rated, gaps
from tl_core.diagnostics.results import GroupScore, State, Subgroups
from tl_core.evaluation import metric_title
from tl_core.evaluation.bootstrap import FEW_GROUPS, Ints, Numbers
from tl_core.evaluation.metrics import watch_name
from tl_core.evaluation.result import points
from tl_core.types import Targets, Task

LEAST = 10  # rows of a value: with fewer, no gap that is usual could be seen
TOLERATED = 0.1  # a gap that can't be larger than this is none to act on
OTHERS = "other values"


def subgroups(
    predictions: Numbers,
    truth: npt.NDArray[np.generic],
    targets: Targets,
    values: Sequence[str | None],
    column: str,
    *,
    confidence: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Subgroups | None:
    """The watched metric by value of a column, each value against all other rows; None if there is nothing to compare.

    predictions, truth: of the test rows, as `evaluate_predictions` takes them; values: the column, None where a row
    has no value (it only counts among the others). Values of fewer than 10 rows are pooled as `other values`. groups:
    resampled whole as well as row by row; may be the column itself. R² of a value counts errors against the spread of
    all test rows.
    """
    rated = Rated.of(predictions, truth, targets)
    if rated is None:
        return None
    names, codes = _parts(rated, values)
    if not names:
        return None
    found = gaps(
        rated, codes, comparisons=len(names), confidence=confidence, resamples=resamples, seed=seed, groups=groups
    )
    order = sorted(range(len(names)), key=lambda v: (found[v].gap.value, names[v]))
    lines = tuple(GroupScore(names[v], found[v].rows, found[v].score, found[v].gap) for v in order)
    below = [v for v in order if found[v].gap.high < 0]
    faint = min(range(len(names)), key=lambda v: (found[v].gap.low, names[v]))
    title = metric_title(watch_name(targets))
    if below:
        state: State = "warn"
        text = _worse(column, names[below[0]], found[below[0]], title, targets, confidence, len(names))
        text += _few_groups(codes == below[0], groups)
    elif found[faint].gap.low < -TOLERATED:
        state, part = "unclear", found[faint]
        text = (
            f"Can't tell whether results depend on {column}: where it is '{names[faint]}' ({part.rows} rows), {title} "
            f"may be up to {_points(-part.gap.low, targets.task)} lower than elsewhere."
        )
    else:
        state = "ok"
        lowest = _points(max(0.0, -found[faint].gap.low), targets.task)
        text = (
            f"No value of {column} does surely worse than the others, and none can be more than {lowest} behind them "
            f"in {title} ({_scope(confidence, len(names))})."
        )
    worst = names[below[0]] if below else None
    return Subgroups(column, state, text + _left_out(values, names, codes), worst, lines)


def _parts(rated: Rated, values: Sequence[str | None]) -> tuple[list[str], Ints]:
    """Names of the parts that are compared, and the part of each row (-1: none)."""
    if len(values) != len(rated.gained):
        raise ValueError(f"{len(values)} values for {len(rated.gained)} rows")
    counts = Counter(value for value in values if value is not None)
    large = sorted(value for value, count in counts.items() if count >= LEAST)
    place = {value: code for code, value in enumerate(large)}
    pool = len(large)
    codes = np.array([-1 if value is None else place.get(value, pool) for value in values], np.int64)
    names = [*large, OTHERS]
    possible = rated.possible > 0

    def comparable(code: int) -> bool:
        inside = codes == code
        enough = LEAST <= int(inside.sum()) <= len(codes) - LEAST
        return enough and bool(possible[inside].any()) and bool(possible[~inside].any())

    kept = [code for code in range(len(names)) if comparable(code)]
    renumbered = np.full(len(names) + 1, -1)  # the last stands for code -1
    renumbered[kept] = np.arange(len(kept))
    return [names[code] for code in kept], renumbered[codes]


def _worse(column: str, name: str, part: Gap, title: str, targets: Targets, confidence: float, compared: int) -> str:
    least, most = _points(-part.gap.high, targets.task), _points(-part.gap.low, targets.task)
    return (
        f"Results depend on {column}: {title} is {part.score.value:.3f} where it is '{name}' ({part.rows} rows), "
        f"against {part.rest:.3f} on all other rows; that is {least} to {most} lower ({_scope(confidence, compared)})."
    )


def _scope(confidence: float, compared: int) -> str:
    together = f", for all {compared} values together" if compared > 1 else ""
    return f"{confidence:.0%} interval{together}"


def _few_groups(inside: npt.NDArray[np.bool_], groups: Sequence[str] | None) -> str:
    """A caution where the rows of a value come from too few groups to speak for others."""
    if groups is None:
        return ""
    count = len({group for group, there in zip(groups, inside.tolist()) if there})
    if count == 1:
        return " All these rows are one single group, so this may be that group's doing alone."
    return f" These rows come from {count} groups only, and may not speak for others." if count < FEW_GROUPS else ""


def _left_out(values: Sequence[str | None], names: Sequence[str], codes: Ints) -> str:
    """What became of rows without a value, and of values with too few rows."""
    said = ""
    named = set(names)
    small = {value for value in values if value is not None and value not in named}
    if small:
        how = f"counted together as '{OTHERS}'" if OTHERS in named else "only counted among the others"
        said += f" {len(small)} {'value' if len(small) == 1 else 'values'} of too few rows: {how}."
    missing = sum(value is None for value in values)
    if missing:
        said += f" {missing} {'row has' if missing == 1 else 'rows have'} no value."
    return said


def _points(amount: float, task: Task) -> str:
    """A difference in a sentence that names the metric already."""
    return points(amount, task).removesuffix(" of R²")
