"""Test rows that training rows give away: copies, near copies, and groups on both sides of the split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tl_core.diagnostics.near_copies import beyond_chance, near_copies, whitened
from tl_core.diagnostics.results import Duplicate, GroupSplit, Leakage, State
from tl_core.evaluation import Interval, metric_title
from tl_core.evaluation.bootstrap import (
    Bools,
    Floats,
    Ints,
    Numbers,
    percentile_interval,
    resample_weights,
    units_of,
    ways_to_resample,
)
from tl_core.evaluation.metrics import Measure, measure, watch_name
from tl_core.types import Targets

MOST_LISTED = 200  # duplicates
MOST_NAMED = 3  # groups in a sentence


def leakage(
    features: npt.NDArray[np.float32],
    predictions: Numbers,
    truth: npt.NDArray[np.generic],
    targets: Targets,
    *,
    rows: Ints,
    ids: Sequence[str],
    digests: Sequence[str],
    splits: Sequence[str],
    groups: Sequence[str] | None = None,
    group_split: GroupSplit | None = None,
    confidence: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
) -> Leakage | None:
    """Rows of the test split that a row of train or val repeats, and what they do to the score.

    features: float32 [N, D] of the rows of all splits; predictions: [T, C] or [T], of the test rows in their order
    among the N; truth: of all N rows; rows: their numbers in the manifest; digests: of their content; group_split: what
    group_split() found, which is passed on. None without test rows or without others. Raises ValueError on features
    that are not finite.
    """
    split = np.asarray(splits, np.str_)
    test, other = np.flatnonzero(split == "test"), np.flatnonzero(split != "test")
    if not len(test) or not len(other):
        return None
    same = _same_content(np.asarray(digests, np.str_), truth, test, other)
    space = whitened(features)
    found = near_copies(space[test], space[other], same >= 0)
    exact, near = same >= 0, found.near & (same < 0)
    shared, with_shared = _shared(groups, test, other)

    leaked = exact | near | with_shared
    units = units_of(len(test), None if groups is None else [groups[i] for i in test.tolist()])
    score, clean, cost = (
        _scores(measure(targets, predictions, truth[test], units), leaked, units, confidence, resamples, seed)
        if leaked.any() and not leaked.all()
        else (None, None, None)
    )
    partner = np.where(exact, same, other[found.nearest])
    pairs = [
        Duplicate(
            row=int(rows[test[i]]),
            id=ids[test[i]],
            other=int(rows[partner[i]]),
            other_id=ids[partner[i]],
            other_split=str(split[partner[i]]),
            similarity=1.0 if exact[i] else round(float(found.similarity[i]), 6),
            exact=bool(exact[i]),
            differ=_differ(truth[test[i]], truth[partner[i]]),
        )
        for i in np.flatnonzero(exact | near).tolist()
    ]
    pairs.sort(key=lambda pair: (not pair.exact, -pair.similarity, pair.row))
    surely = bool(exact.any() or shared or beyond_chance(found.chance[near]))
    state: State = "warn" if surely else "unclear" if found.threshold is None else "ok"
    common, differ = int((found.common & ~exact).sum()), sum(pair.differ for pair in pairs)
    what = "values" if targets.task == "regression" else "labels"
    sentences = [
        _copies_text(len(test), int(exact.sum()), int(near.sum()), found.threshold, surely),
        f"{_count(differ, 'of these pairs has', 'of these pairs have')} {what} that differ." if differ else "",
        _common_text(common),
        _groups_text(shared, int(with_shared.sum()), len(test), groups),
        _cost_text(targets, leaked, score, clean, cost, confidence),
        "" if group_split is None else group_split.text,
    ]
    return Leakage(
        state=state,
        text=" ".join(sentence for sentence in sentences if sentence),
        exact=int(exact.sum()),
        near=int(near.sum()),
        shared_groups=shared,
        shared_rows=int(with_shared.sum()),
        threshold=None if found.threshold is None else round(found.threshold, 6),
        score=score,
        clean=clean,
        cost=cost,
        duplicates=tuple(pairs[:MOST_LISTED]),
        groups=group_split,
    )


def _same_content(digests: npt.NDArray[np.str_], truth: npt.NDArray[np.generic], test: Ints, other: Ints) -> Ints:
    """For each test row the other row with the same content, one of another label first; -1 where there is none."""
    members: dict[str, list[int]] = {}
    wanted = set(digests[test].tolist())
    for j in other.tolist():
        if str(digests[j]) in wanted:
            members.setdefault(str(digests[j]), []).append(j)
    found = np.full(len(test), -1, np.int64)
    for i, row in enumerate(test.tolist()):
        same = members.get(str(digests[row]), [])
        if same:
            found[i] = next((j for j in same if _differ(truth[row], truth[j])), same[0])
    return found


def _differ(one: object, other: object) -> bool:
    return not np.array_equal(np.asarray(one), np.asarray(other))


def _shared(groups: Sequence[str] | None, test: Ints, other: Ints) -> tuple[tuple[str, ...], Bools]:
    """Groups that test rows share with others, by name, and which test rows are theirs."""
    if groups is None:
        return (), np.zeros(len(test), bool)
    names = np.asarray(groups, object)
    shared = np.intersect1d(names[test], names[other])
    return tuple(str(name) for name in shared), np.isin(names[test], shared)


def _scores(
    said: Measure, leaked: Bools, units: Ints, confidence: float, resamples: int, seed: int
) -> tuple[Interval, Interval, Interval]:
    """The watched metric on all rows, on those that nothing gives away, and the first minus the second."""

    def both(weights: Floats) -> tuple[float, float]:
        kept = weights * ~leaked
        return said.watch(weights), said.watch(kept) if kept.any() else np.nan

    ways = ways_to_resample(units)
    draws = np.array([[both(weights) for weights in resample_weights(way, resamples, seed)] for way in ways])
    everything, clean = (_known(value) for value in both(np.ones(len(leaked))))
    trials = said.columns[0].trials
    all_units, kept_units = ([len(np.unique(way[kept])) for way in ways] for kept in (np.ones_like(leaked), ~leaked))
    few = None if trials is None else float(kept_units[0])
    return (
        percentile_interval(everything, draws[..., 0], confidence, trials, units=all_units),
        percentile_interval(clean, draws[..., 1], confidence, few, units=kept_units),
        percentile_interval(everything - clean, draws[..., 0] - draws[..., 1], confidence, None, units=all_units),
    )


def _known(value: float) -> float:
    """A number that is undefined on its rows counts as 0, as everywhere in the evaluation."""
    return 0.0 if np.isnan(value) else value


def _copies_text(tested: int, exact: int, near: int, threshold: float | None, surely: bool) -> str:
    parts = [_count(exact, "is an exact copy", "are exact copies")] if exact else []
    if near:
        parts.append(f"{_count(near, 'is a near copy', 'are near copies')} (similarity above {threshold:.2f})")
    if near and not exact and not surely:
        alike = _count(near, "resembles", "resemble")
        sentence = (
            f"None of {tested:,} test rows is an exact copy of a row in train or val; {alike} one closely (similarity "
            f"above {threshold:.2f}), as many as chance makes."
        )
    elif parts:
        sentence = f"Of {tested:,} test rows {' and '.join(parts)} of a row in train or val."
    else:
        sentence = f"None of {tested:,} test rows is an exact copy of a row in train or val"
        sentence += ", and none a near copy." if threshold is not None else "."
    if threshold is None:
        sentence += " Near copies can't be told: the test rows are too few, or most of them have the same features."
    return sentence


def _common_text(common: int) -> str:
    if not common:
        return ""
    return (
        f"{_count(common, 'more resembles', 'more resemble')} many training rows each as closely: common content such "
        "as silence or stock phrases, or many shots of one scene; not counted."
    )


def _groups_text(shared: Sequence[str], rows: int, tested: int, groups: Sequence[str] | None) -> str:
    if groups is None:
        return ""
    if not shared:
        return "No group is on both sides of the split."
    named = ", ".join(shared[:MOST_NAMED]) + (", ..." if len(shared) > MOST_NAMED else "")
    return (
        f"{_count(len(shared), 'group is', 'groups are')} both in test and in train or val ({named}), "
        f"with {rows:,} of {tested:,} test rows."
    )


def _cost_text(
    targets: Targets,
    leaked: Bools,
    score: Interval | None,
    clean: Interval | None,
    cost: Interval | None,
    confidence: float,
) -> str:
    if leaked.all():
        return "No test row is free of that, so the score says nothing about new data."
    if score is None or clean is None or cost is None:
        return ""
    title = metric_title(watch_name(targets))
    sentence = (
        f"{title[0].upper()}{title[1:]} is {score.value:.3f} on all test rows and {clean.value:.3f} on the "
        f"{int((~leaked).sum()):,} that nothing gives away"
    )
    if cost.method == "none":
        return f"{sentence}: no difference to be seen."
    difference = f"{cost.value:+.3f}, {confidence:.0%} interval {cost.low:+.3f} to {cost.high:+.3f}"
    if cost.low > 0:
        return f"{sentence}: leaked rows raise the score ({difference})."
    if cost.high < 0:
        return f"{sentence}: leaked rows lower the score ({difference})."
    return f"{sentence}: can't tell whether that changes the score ({difference})."


def _count(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"
