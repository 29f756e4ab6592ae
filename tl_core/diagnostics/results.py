"""What the diagnostics find: plain numbers and sentences, ready for JSON and the report.

Numbers are rounded to 6 decimals. `text` is a plain sentence for people, with numbers and interval; `state` is what it
comes to: `ok` (looked for and not found), `warn` (found, act on it), `unclear` (the rows do not suffice to say).
Manifest rows are named by their number in the manifest and by their id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tl_core.evaluation import Interval

State = Literal["ok", "warn", "unclear"]


@dataclass(frozen=True)
class Bin:
    """Test rows whose confidence lies from low to high: how sure the model is on average, and how often it is right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: Interval


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say, on test rows.

    error: expected calibration error, corrected for what chance gives a calibrated model; offset: mean confidence
    minus accuracy (above 0: too sure); temperature: what the bundle divides logits by, None where it does not;
    log_loss, brier: proper scores; bins: the reliability diagram.
    """

    state: State
    text: str
    rows: int
    error: Interval
    offset: Interval
    log_loss: Interval
    brier: Interval
    temperature: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Duplicate:
    """A row of the test split and the row of another split that it repeats.

    similarity: cosine of their whitened features (1 where exact); exact: the same bytes; differ: their labels differ.
    """

    row: int
    id: str
    other: int
    other_id: str
    other_split: str
    similarity: float
    exact: bool
    differ: bool


@dataclass(frozen=True)
class GroupSplit:
    """The same probe cross-validated by a split that ignores groups, and by one that keeps them whole.

    gap: random minus grouped, what a split that ignores groups would promise too much.
    """

    groups: int
    random: Interval
    grouped: Interval
    gap: Interval
    text: str


@dataclass(frozen=True)
class Leakage:
    """Test rows that training rows give away.

    exact: distinct test rows with an exact duplicate in train or val; near: others with a near one; shared_groups:
    values of the group column that are in test and in train or val; threshold: the similarity from which a pair counts
    as near; score, clean, cost: the watched metric on all test rows, on those without a duplicate or shared group, and
    the first minus the second (None where nothing leaks, or everything does); duplicates: the most similar first, at
    most 200.
    """

    state: State
    text: str
    exact: int
    near: int
    shared_groups: tuple[str, ...]
    shared_rows: int
    threshold: float | None
    score: Interval | None
    clean: Interval | None
    cost: Interval | None
    duplicates: tuple[Duplicate, ...]
    groups: GroupSplit | None


@dataclass(frozen=True)
class Suspect:
    """A row whose label looks wrong. given: its label; suggested: what held-out predictions say instead; quality: 0
    (surely
    wrong) to 1, by which suspects are ranked."""

    row: int
    id: str
    split: str
    given: str
    suggested: str
    quality: float


@dataclass(frozen=True)
class LabelErrors:
    """Labels that look wrong, by cross-validated predictions over all splits.

    found: how many of `rows` are more likely wrong than right, none where the state is `unclear`; share: estimated
    share of wrong labels (multilabel: of all answers, one for each row and label); suspects: worst first, at most 200.
    """

    state: State
    text: str
    rows: int
    found: int
    share: Interval
    suspects: tuple[Suspect, ...]


@dataclass(frozen=True)
class ShiftTest:
    """Whether two sets of rows can be told apart by their features.

    name: what against what (`train against test`, `speaker anna against the others`); kind: `split`, `group`, or, in a
    comparison of runs alone, `version`; auc: of a cross-validated classifier between the two (0.5: alike), with its
    interval; p: of the permutation test; mmd, mmd_p: squared maximum mean discrepancy and its permutation p; classes:
    the classes by how far they have moved, (class, auc), most first; cost: the watched metric on the first rows minus
    that on the second, where both were predicted. Rows are compared within classes, and p-values are as of this test
    alone.
    """

    name: str
    kind: Literal["split", "group", "version"]
    state: State
    text: str
    rows: tuple[int, int]
    auc: Interval
    p: float
    mmd: float
    mmd_p: float
    classes: tuple[tuple[str, float], ...]
    cost: Interval | None


@dataclass(frozen=True)
class Shift:
    """All that was compared; the state is the worst of its parts."""

    state: State
    text: str
    tests: tuple[ShiftTest, ...]


@dataclass(frozen=True)
class GroupScore:
    """The watched metric on one group's test rows, and its gap to all other rows (below 0: worse)."""

    name: str
    rows: int
    score: Interval
    gap: Interval


@dataclass(frozen=True)
class Subgroups:
    """The watched metric by the values of one column, worst first.

    worst: the group whose gap to the others is surely below 0 and largest, None where there is none. Intervals of the
    gaps hold together at the stated confidence (they are widened for how many groups are looked at).
    """

    column: str
    state: State
    text: str
    worst: str | None
    groups: tuple[GroupScore, ...]


@dataclass(frozen=True)
class Unusual:
    """A test row that is unlike the training rows. score: its distance, in units of the threshold."""

    row: int
    id: str
    score: float


@dataclass(frozen=True)
class OutOfDistribution:
    """Rows that the model has not learnt to judge, by the distance of their features to those of training rows.

    threshold: distance above which a row is rejected, chosen so that `kept` of the validation rows stay; rejected:
    share of test rows above it; accepted, refused: the watched metric on either kind (None where there is none);
    curve: (share of rows kept, metric on them) with the most familiar first; rows: the most unusual test rows.
    """

    state: State
    text: str
    threshold: float
    kept: float
    rejected: Interval
    accepted: Interval | None
    refused: Interval | None
    curve: tuple[tuple[float, float], ...]
    rows: tuple[Unusual, ...]


@dataclass(frozen=True)
class Corruption:
    """The watched metric under one corruption. points: (severity from 1 to 5, metric, metric minus that without it)."""

    name: str
    points: tuple[tuple[int, Interval, Interval], ...]


@dataclass(frozen=True)
class Robustness:
    """What the plugin's corruptions cost, on `rows` test rows.

    plain: the metric on them as they are; worst: the corruption that costs most at its highest severity.
    """

    state: State
    text: str
    rows: int
    plain: Interval
    worst: str | None
    corruptions: tuple[Corruption, ...]


@dataclass(frozen=True)
class Diagnostics:
    """Everything that was looked at; None where it makes no sense for the data, or was turned off.

    skipped: what was not looked at, and why, in sentences.
    """

    calibration: Calibration | None = None
    leakage: Leakage | None = None
    labels: LabelErrors | None = None
    shift: Shift | None = None
    subgroups: tuple[Subgroups, ...] = ()
    unusual: OutOfDistribution | None = None
    robustness: Robustness | None = None
    skipped: tuple[str, ...] = ()
