"""What tests of shift come to, all together: which differences are beyond chance, which matter, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tl_core.diagnostics.results import Shift, ShiftTest, State
from tl_core.diagnostics.separation import Separation
from tl_core.evaluation import Interval, metric_title
from tl_core.evaluation.metrics import watch_name
from tl_core.evaluation.result import points
from tl_core.types import Targets, Task

Kind = Literal["split", "group", "version"]

SLIGHT = 0.6  # AUC below which sets differ surely at most by a little
BLIND = 0.65  # AUC that an interval must exclude where nothing was found, to call it nothing
UNEVEN = 0.1  # of AUC between two classes, from which the one that moved most is named
BALANCE = 0.1  # share of rows in other classes from which a split or a version is worth a warning
SEVERAL = 6  # values of a column, most of which differ from the others, make differing the usual thing: of fewer,
# one that differs makes the others differ from all the rest
HARMLESS = 0.05  # of the watched metric: a group that surely costs less is different, but no worse


@dataclass(frozen=True)
class Found:
    """What the tests say of two sets of rows, before it is known how many such pairs there are.

    column: the attribute whose value the first set has; rows: of either set; parts: None where there are too few;
    classes: each with its AUC, most moved first; moved, balance_p: see `other_balance`; cost: the watched metric on the
    first set minus that on the other.
    """

    name: str
    kind: Kind
    column: str
    rows: tuple[int, int]
    parts: Separation | None
    classes: tuple[tuple[str, float], ...]
    moved: float
    balance_p: float
    cost: Interval | None

    @property
    def p(self) -> float:
        """Of both tests together (Bonferroni)."""
        return 1.0 if self.parts is None else min(1.0, 2 * min(self.parts.p, self.parts.mmd_p))


@dataclass(frozen=True)
class _Verdict:
    """A finding among all others.

    p: corrected; apart, unbalanced: beyond chance; usual: most values of its column are apart from the others.
    """

    found: Found
    p: float
    apart: bool
    unbalanced: bool
    usual: bool
    tests: int


def judged(found: Sequence[Found], targets: Targets, confidence: float) -> list[ShiftTest]:
    """The tests with their states and sentences; a difference counts at 1 - confidence for all together."""
    corrected = holm([one.p for one in found] + [one.balance_p for one in found])
    ps, balances = corrected[: len(found)], corrected[len(found) :]
    level = 1 - confidence + 1e-9
    tested = Counter(one.column for one in found)
    apart = Counter(one.column for one, p in zip(found, ps) if p <= level)
    usual = {column for column, count in tested.items() if column and count >= SEVERAL and apart[column] > count / 2}
    return [
        _test(_Verdict(one, p, p <= level, balance <= level, one.column in usual, len(found)), targets, confidence)
        for one, p, balance in zip(found, ps, balances)
    ]


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm, Scandinavian Journal of Statistics 1979)."""
    corrected, least = [1.0] * len(ps), 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, ps[at] * (len(ps) - rank)))
        corrected[at] = least
    return corrected


def _test(verdict: _Verdict, targets: Targets, confidence: float) -> ShiftTest:
    one, parts = verdict.found, verdict.found.parts
    said = f"{one.name[0].upper()}{one.name[1:]}: "
    if parts is None:
        nothing = Interval.of(0.5, 0.0, 1.0, "none")
        said += f"too few rows of the same classes to compare ({one.rows[0]} and {one.rows[1]} rows)."
        return ShiftTest(one.name, one.kind, "unclear", said, one.rows, nothing, 1.0, 0.0, 1.0, (), one.cost)
    if verdict.apart:
        state, text = _apart(verdict, parts, targets, confidence)
    elif parts.auc.high >= BLIND:
        state, text = "unclear", f"can't tell whether the rows differ ({_figures(verdict, parts, confidence)})."
        text += " They come from too few groups to say." if parts.whole else ""
    else:
        state, text = "ok", f"no difference seen ({_figures(verdict, parts, confidence)})."
    if verdict.unbalanced:
        what = "values" if targets.task == "regression" else "classes"
        text += f" {'Their' if verdict.apart else 'Only their'} {what} are in another balance: {one.moved:.0%} of the "
        text += f"rows would have to be of other {what}."
        if one.kind != "group" and one.moved >= BALANCE:
            state = "warn"
    return ShiftTest(
        one.name, one.kind, state, said + text, one.rows, parts.auc, parts.p, parts.mmd, parts.mmd_p, one.classes,
        one.cost,
    )  # fmt: skip


def _apart(verdict: _Verdict, parts: Separation, targets: Targets, confidence: float) -> tuple[State, str]:
    """State and sentences of rows that differ beyond chance."""
    one, cost = verdict.found, verdict.found.cost
    state: State = "warn"
    if parts.auc.low <= 0.5 and parts.mmd_p < parts.p:
        how = "the rows differ, in a way that a linear classifier does not see"
    elif parts.auc.value < SLIGHT:
        state, how = "warn" if cost is not None and cost.high < 0 else "ok", "the rows differ, though only a little"
    else:
        how = "the rows can be told apart by their features"
    if one.kind == "group" and state == "warn" and (cost is None or cost.high >= 0):
        # where most speakers differ from the others, each does for being one; what it costs is for subgroups() to say
        state = "ok" if verdict.usual or (cost is not None and cost.low > -HARMLESS) else "warn"
    text = f"{how} ({_figures(verdict, parts, confidence)})."
    if verdict.usual:
        text = f"{text[:-1]}, as with most values of {one.column}."
    if cost is not None:
        text += _costs(cost, targets)
    if len(one.classes) > 1 and one.classes[0][1] - one.classes[-1][1] > UNEVEN:
        text += f" Most moved: '{one.classes[0][0]}' (AUC {one.classes[0][1]:.2f})."
    return state, text


def _figures(verdict: _Verdict, parts: Separation, confidence: float) -> str:
    auc = parts.auc
    among = f" for {verdict.tests} comparisons" if verdict.tests > 1 else ""
    return f"AUC {auc.value:.2f}, {confidence:.0%} interval {auc.low:.2f} to {auc.high:.2f}; p {verdict.p:.2g}{among}"


def _costs(cost: Interval, targets: Targets) -> str:
    task, title = targets.task, metric_title(watch_name(targets))
    if cost.high < 0:
        return f" There, {title} is {_points(-cost.high, task)} to {_points(-cost.low, task)} lower."
    if cost.low > 0:
        return f" There, {title} is {_points(cost.low, task)} to {_points(cost.high, task)} higher."
    lower, higher = _points(max(0.0, -cost.low), task), _points(max(0.0, cost.high), task)
    return f" What that costs can't be told: there, {title} may be {lower} lower or {higher} higher."


def _points(amount: float, task: Task) -> str:
    """A difference in a sentence that names the metric already."""
    return points(amount, task).removesuffix(" of R²")


def _weight(test: ShiftTest) -> tuple[bool, bool, float]:
    """What is said first: what surely costs, then splits, then what differs most."""
    return test.cost is not None and test.cost.high < 0, test.kind != "group", test.auc.value


def overall(tests: Sequence[ShiftTest]) -> Shift:
    """The tests as one: the worst state, and the sentence of what weighs most."""
    of: dict[State, list[ShiftTest]] = {state: [t for t in tests if t.state == state] for state in ("warn", "unclear")}
    many = f"{len(tests)} comparisons" if len(tests) > 1 else "1 comparison"
    if of["warn"]:
        worst = max(of["warn"], key=_weight)
        text = f"{len(of['warn'])} of {many} show a shift. {worst.text}"
        return Shift("warn", text, tuple(tests))
    if of["unclear"]:
        more = len(of["unclear"]) - 3
        names = ", ".join(test.name for test in of["unclear"][:3]) + (f" and {more} more" if more > 0 else "")
        return Shift("unclear", f"{many}: no shift that surely matters; can't tell for {names}.", tuple(tests))
    return Shift("ok", f"{many}: no shift that matters.", tuple(tests))
