"""The gate's guards: what must not have become worse, whatever the watched metric says.

A guard fails where harm beyond its limit was measured and is more than chance explains. That little was measured is not
that there is none: each says how much harm can't be ruled out, and with gate.strict that must be within the limit too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from tl_core.config import GateConfig
from tl_core.diagnostics.gaps import Rated
from tl_core.evaluation import Interval, metric_title
from tl_core.evaluation.bootstrap import Bools, Ints, Numbers
from tl_core.evaluation.metrics import watch_name
from tl_core.gate.changes import Change, ClassScores, RowScores, Scores, changes
from tl_core.gate.decision import Rule, State
from tl_core.gate.further import advice, further_rows
from tl_core.types import Targets

LEAST = 10  # rows of a group: with fewer, no fall that is usual could be seen
MOST_PARTS = 50  # listed in a decision


@dataclass(frozen=True, eq=False)
class Answers:
    """What champion (first) and challenger (second) say of the same rows.

    first, second: probabilities [N, C], or values [N]; truth: as `evaluate_predictions` takes it; groups: resampled
    whole; columns: values to compare results by.
    """

    targets: Targets
    first: Numbers
    second: Numbers
    truth: npt.NDArray[np.generic]
    groups: tuple[str, ...] | None
    columns: Mapping[str, Sequence[str | None]]

    def __len__(self) -> int:
        return len(self.truth)

    def at(self, rows: Bools) -> Answers:
        """Those of some rows."""
        places = np.flatnonzero(rows).tolist()
        return replace(
            self,
            first=self.first[rows],
            second=self.second[rows],
            truth=self.truth[rows],
            groups=None if self.groups is None else tuple(self.groups[i] for i in places),
            columns={name: [values[i] for i in places] for name, values in self.columns.items()},
        )

    def rated(self) -> tuple[Rated, Rated] | None:
        """Both as sums over rows; None where the watched metric is undefined."""
        first, second = (Rated.of(said, self.truth, self.targets) for said in (self.first, self.second))
        return None if first is None or second is None else (first, second)


@dataclass(frozen=True)
class Draws:
    """How guards are judged: the gate's settings, and what chance is drawn by."""

    settings: GateConfig
    resamples: int
    seed: int

    def changes(self, scores: Scores, answers: Answers) -> tuple[Change, ...]:
        """What changed in each part."""
        return changes(
            scores,
            len(answers),
            confidence=self.settings.confidence,
            resamples=self.resamples,
            seed=self.seed,
            groups=answers.groups,
        )


def rows_rule(name: str, what: str, answers: Answers, drop: float, draws: Draws) -> Rule:
    """Whether the watched metric has fallen on some of the rows; what: these rows, in a few words."""
    rated = answers.rated() if len(answers) else None
    if rated is None:
        why = "there are none" if not len(answers) else "their values don't differ"
        return Rule(name, "skipped", f"Not compared on {what}: {why}.", limit=-drop)
    found = draws.changes(RowScores(*rated, [(np.zeros(len(answers), np.int64), [what])]), answers)
    title = metric_title(watch_name(answers.targets))
    rule = _judged(name, found, len(answers), drop, draws.settings, f"{title} on {{part}}")
    gain = found[0].gain
    if rule.state == "pass" and gain.low <= 0 <= gain.high:
        rule = replace(rule, text=f"{rule.text} Too few rows to say whether it has risen or fallen there.")
    return rule


def classes_rule(answers: Answers, known: Sequence[str], draws: Draws) -> Rule:
    """Whether F1 of a class that the champion knows has fallen."""
    drop = draws.settings.class_drop
    if answers.targets.task == "regression":
        return Rule("classes", "skipped", "No classes: the labels are numbers.", limit=-drop)
    found = draws.changes(ClassScores(answers.targets, answers.first, answers.second, answers.truth, known), answers)
    if not found:
        return Rule("classes", "skipped", "No test row has a class that the champion knows.", limit=-drop)
    return _judged("classes", found, len(answers), drop, draws.settings, "F1 of '{part}'")


def groups_rule(answers: Answers, draws: Draws) -> Rule:
    """Whether the watched metric has fallen for a value of a column, of those that have 10 rows or more."""
    drop = draws.settings.group_drop
    rated = answers.rated()
    columns = [_values(name, values) for name, values in answers.columns.items()]
    if rated is None or not any(names for _, names in columns):
        why = f"no value of data.group or data.attributes has {LEAST} test rows"
        return Rule("groups", "skipped", f"No groups to compare: {why}.", limit=-drop)
    found = draws.changes(RowScores(*rated, columns), answers)
    title = metric_title(watch_name(answers.targets))
    return _judged("groups", found, len(answers), drop, draws.settings, f"{title} where {{part}}")


def limit_rule(name: Literal["latency", "size"], value: float | None, limit: float | None) -> Rule:
    """Whether a time or a size is within its limit."""
    what, unit, key = {
        "latency": ("One sample takes", "ms", "gate.max_latency_ms"),
        "size": ("The model and the weights it needs take", "MB", "gate.max_megabytes"),
    }[name]
    if limit is None:
        measured = f"{what} {value:.4g} {unit}; no" if value is not None else "No"
        return Rule(name, "skipped", f"{measured} limit is set ({key}).", value)
    if value is None:
        return Rule(name, "can't tell", f"It was not measured, and {key} is {limit:g}.", None, None, limit)
    state: State = "pass" if value <= limit else "fail"
    return Rule(name, state, f"{what} {value:.4g} {unit}, {limit:g} are allowed ({key}).", value, None, limit)


def _judged(name: str, found: Sequence[Change], rows: int, drop: float, settings: GateConfig, seen: str) -> Rule:
    """The rule over parts of `rows` rows; seen: what is measured, with `{part}` for the part that decides."""
    alpha = 1 - settings.confidence
    harmed = [part for part in found if part.gain.value < -drop and part.worse <= alpha]
    doubtful = [part for part in found if part.gain.low < -drop]
    state: State = "fail" if harmed else "can't tell" if settings.strict and doubtful else "pass"
    more = None
    if state == "can't tell":
        decides = min(doubtful, key=lambda part: (part.gain.low, part.name))
        each = [further_rows(part.gain, -drop, rows, 1 - alpha / len(found)) for part in doubtful]
        known = [count for count in each if count is not None]
        more = max(known) if len(known) == len(each) else None
    else:
        decides = min(harmed or found, key=lambda part: (part.gain.value, part.name))
    rest = sorted((part for part in found if part is not decides), key=lambda part: (part.gain.value, part.name))
    text = (
        f"{seen.format(part=decides.name)} ({decides.rows:,} rows): {decides.first:.3f} before and "
        f"{decides.second:.3f} now ({decides.gain.value:+.3f})"
    )
    text = text[0].upper() + text[1:]
    if state == "fail":
        text += f": {f'more than the {drop:g} that is let pass, and ' if drop else ''}more than chance explains"
        text += f" (p {decides.worse:.2g}"
        text += f", for all {len(found)} together)." if len(found) > 1 else ")."
    elif state == "can't tell":
        ends = one_sided_ends(decides.gain)
        text += f": a fall beyond the {drop:g} that is let pass can't be ruled out ({ends}).{advice(more)}"
    else:
        lowest = max(0.0, -min(part.gain.low for part in found))
        text += f", the worst of {len(found)}; " if len(found) > 1 else "; "
        text += f"a fall of up to {lowest:.3f} can't be ruled out." if lowest else "surely no fall."
    return Rule(name, state, text, decides.gain.value, decides.gain, -drop, more, (decides, *rest)[:MOST_PARTS])


def one_sided_ends(interval: Interval) -> str:
    """An interval's ends, each of which holds alone, in words."""
    return f"one-sided ends {interval.low:+.3f} and {interval.high:+.3f}"


def _values(name: str, values: Sequence[str | None]) -> tuple[Ints, list[str]]:
    """The part of each row, -1 where its value is missing or has too few rows, and what the parts are called."""
    counts = Counter(value for value in values if value is not None)
    kept = sorted(value for value, count in counts.items() if count >= LEAST)
    place = {value: code for code, value in enumerate(kept)}
    codes = [-1 if value is None else place.get(value, -1) for value in values]
    return np.array(codes, np.int64), [f"{name} is '{value}'" for value in kept]
