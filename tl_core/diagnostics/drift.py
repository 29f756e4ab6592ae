"""Whether new rows are still of the kind that a model was made for, told without labels by what its bundle keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_core.diagnostics.drift_result import AnswerShare, Drift, DriftState, Strange
from tl_core.diagnostics.drift_tests import (
    Array,
    Rows,
    Side,
    answer_tests,
    feature_tests,
    joined,
    shares,
    ways_to_trade,
)
from tl_core.diagnostics.drift_words import Effects, sentence, verdict
from tl_core.diagnostics.separation import LEAST
from tl_core.diagnostics.shift_verdict import holm
from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import (
    Bools,
    Floats,
    Ints,
    percentile_interval,
    resample_weights,
    ways_to_resample,
)
from tl_core.held import answered, group_codes
from tl_core.reference import NOISE, Reference, sampled, unit
from tl_core.types import Targets

ALARM_RATE = 0.05
MOST_TESTED = 3000  # new rows that tests see; more tells no more than how small a difference is
VAGUE = 4  # times the share of unusual rows that is expected: an interval up to there leaves the question open
LISTED = 24  # strangest rows
MOST_ANSWERS = 20  # whose share changed most


@dataclass(frozen=True, eq=False)
class _Known:
    """What the reference says of rows that are known. side: held-out rows; rows, groups: for the tests of features,
    training rows among them where the backbone has learnt nothing from these; right: of the held-out rows."""

    side: Side
    rows: Rows
    groups: Ints | None
    right: Bools | None


def drift(
    reference: Reference,
    features: Rows,
    predictions: Array,
    targets: Targets,
    ids: Sequence[str],
    *,
    frozen: bool,
    groups: Sequence[str] | None = None,
    named: bool = True,
    alarm_rate: float = ALARM_RATE,
    permutations: int = 1000,
    resamples: int = 1000,
    seed: int = 0,
) -> Drift:
    """Hold new rows against a bundle's reference.

    features: float32 [N, D] in the reference's space; predictions: decoded, [N, C] or [N]; ids: what rows are called;
    frozen: the backbone is as it was before training, so that its training rows are as good to compare with as held-out
    ones; groups: rows of one group are not independent; named: they are the data's own groups, not just copies of one
    content. The state is `drift` where a test says so at alarm_rate for all tests together (Holm, 1979), `too few`
    where drift that matters could have been missed. Raises ValueError without rows, where something is not finite, or
    the width is another.
    """
    if len(features) == 0 or not np.isfinite(features).all() or not np.isfinite(predictions).all():
        raise ValueError(f"drift needs rows with finite features and predictions; got {len(features)} rows")
    of = np.arange(len(features))
    codes = None if groups is None else group_codes(groups)
    said, sure = answered(predictions, targets.task)
    rows = _stored(features)
    new = Side(reference.scores(rows), said, sure, codes)
    known = _known(reference, frozen)
    how = {"permutations": max(permutations, math.ceil(12 / alarm_rate)), "seed": seed}
    some = sampled(of, seed, MOST_TESTED)
    found, each = answer_tests(known.side, _part(new, some), targets, **how)
    both = None
    if min(len(known.rows), len(some)) >= LEAST:
        trade = joined(known.groups, None if codes is None else codes[some], (len(known.rows), len(some)))
        both = feature_tests(known.rows, rows[some], trade, confidence=1 - alarm_rate, resamples=resamples, **how)
    if both is not None:
        found += both[0]
    corrected = holm([one.p for one in found])
    effects = Effects(
        unusual=_share(new, alarm_rate, resamples, seed),
        expected=1 - reference.kept,
        auc=None if both is None else both[1],
        task=targets.task,
    )
    alarms = [p <= alarm_rate + 1e-9 for p in corrected]
    tests = tuple(sentence(one, p, alarm, effects) for one, p, alarm in zip(found, corrected, alarms))
    gap = None if any(alarms) else _gap(known.side, _part(new, some), len(found) / alarm_rate, effects)
    state: DriftState = "drift" if any(alarms) else "no drift" if gap is None else "too few"
    return Drift(
        state=state,
        text=verdict(state, len(of), tests, effects, gap, alarm_rate),
        rows=len(of),
        held_out=len(known.side),
        alarm_rate=alarm_rate,
        unusual=effects.unusual,
        expected=round(effects.expected, 6),
        tests=tests,
        accuracy=None if effects.strange else _accuracy(known, new, alarm_rate, resamples, seed),
        known_accuracy=None if known.right is None else round(float(known.right.mean()), 6),
        answers=_answers(known.side, new, each, targets),
        strangest=_strangest(new, predictions, ids, targets),
        notes=tuple(_notes(reference, groups is not None and named, len(some), len(of), effects)),
    )


def _stored(features: Rows) -> Rows:
    """Rows as a reference gives them back: the rounding to float16 of the known rows alone would tell them apart."""
    return unit(unit(features).astype(np.float16))


def _known(reference: Reference, frozen: bool) -> _Known:
    held = reference.held
    nothing = np.zeros((0, reference.rows.shape[1]), np.float32)
    train = unit(reference.rows) if frozen else nothing
    if held is None:
        distances = reference.distances.astype(np.float64) / max(reference.threshold, NOISE)
        return _Known(Side(distances), train, reference.groups, None)
    rows = unit(held.rows)
    side = Side(reference.scores(rows), held.said, held.sure, held.groups)
    groups = joined(reference.groups if frozen else None, held.groups, (len(train), len(rows)))
    return _Known(side, np.concatenate([train, rows]), groups, held.right)


def _part(side: Side, rows: Ints) -> Side:
    def taken(values: Any) -> Any:
        return None if values is None else values[rows]

    return Side(side.distances[rows], taken(side.said), taken(side.sure), taken(side.groups))


def _units(side: Side) -> Ints:
    if side.groups is None:
        return np.arange(len(side))
    return np.unique(side.groups, return_inverse=True)[1].astype(np.int64)


def _share(new: Side, alarm_rate: float, resamples: int, seed: int) -> Interval:
    """The share of new rows beyond the threshold."""
    out = new.distances > 1
    ways = ways_to_resample(_units(new))
    draws = np.array([[w[out].sum() / w.sum() for w in resample_weights(way, resamples, seed)] for way in ways])
    counts = [len(np.unique(way)) for way in ways]
    return percentile_interval(float(out.mean()), draws, 1 - alarm_rate, float(counts[0]), units=counts)


def _gap(known: Side, new: Side, arrangements: float, effects: Effects) -> str | None:
    """Why a drift could have been missed; None where one that matters would have been seen."""
    for side, what in ((new, "new"), (known, "held-out")):
        if len(side) < LEAST:
            return f"{len(side)} {what} rows are compared, {LEAST} are the least that tells anything"
    ways = ways_to_trade(known, new)
    if ways is not None and ways < arrangements:
        return "the rows come from too few groups: no test of so few could raise an alarm"
    if effects.unusual.high > VAGUE * effects.expected:
        return (
            f"up to {effects.unusual.high:.0%} of rows like these may be unlike the training rows, where "
            f"{effects.expected:.0%} are expected"
        )
    return None


def _accuracy(known: _Known, new: Side, alarm_rate: float, resamples: int, seed: int) -> Interval | None:
    """The share of new rows that the model is expected to be right on.

    What it was right on of the held-out rows, less what its confidence has fallen by since (difference of confidences:
    Guillory et al., ICCV 2021, arXiv:2107.03315). It takes for granted that confidence means the same as then. The
    interval is of what these rows will show, so that their own luck is in it.
    """
    side = known.side
    if known.right is None or side.sure is None or new.sure is None or len(side) < LEAST:
        return None
    # its mean: by how much held-out rows went better than the model said
    excess: Floats = known.right - side.sure.astype(np.float64)
    sure = new.sure.astype(np.float64)
    value = float(np.clip(sure.mean() + excess.mean(), 0, 1))
    weights = zip(
        resample_weights(_units(side), resamples, seed), resample_weights(_units(new), resamples, seed + 1), strict=True
    )
    draws = [np.average(sure, weights=some) + np.average(excess, weights=held) for held, some in weights]
    units, mine = (len(np.unique(_units(one))) for one in (side, new))
    luck = np.random.default_rng(seed).binomial(mine, np.clip(draws, 0, 1)) / mine  # of these very rows
    return percentile_interval(
        value, luck, 1 - alarm_rate, float(mine), units=[min(units, mine)]
    )  # fmt: skip


def _answers(known: Side, new: Side, each: Floats, targets: Targets) -> tuple[AnswerShare, ...]:
    """The classes whose share of the answers changed most, first."""
    if known.said is None or new.said is None or targets.task == "regression":
        return ()
    before, now = shares(known.said, targets), shares(new.said, targets)
    order = sorted(range(len(before)), key=lambda c: (each[c], -abs(now[c] - before[c]), c))[:MOST_ANSWERS]
    return tuple(
        AnswerShare(targets.classes[c], round(float(before[c]), 6), round(float(now[c]), 6), float(each[c]))
        for c in order
    )


def _strangest(new: Side, predictions: Array, ids: Sequence[str], targets: Targets) -> tuple[Strange, ...]:
    def said(row: int) -> str:
        if targets.task == "regression":
            return f"{float(predictions[row]):.6g}"
        if targets.task == "multiclass":
            return targets.classes[int(predictions[row].argmax())]
        return "|".join(name for name, p in zip(targets.classes, predictions[row].tolist()) if p > 0.5)

    order = np.argsort(-new.distances, kind="stable")[:LISTED].tolist()
    return tuple(Strange(ids[row], round(float(new.distances[row]), 4), said(row)) for row in order)


def _notes(reference: Reference, grouped: bool, tested: int, rows: int, effects: Effects) -> list[str]:
    found = []
    if effects.strange:
        found.append(
            f"{effects.unusual.value:.0%} of the new rows are unlike all that was learned from: what the model says of "
            "them, and how sure it is, is not to be relied on. Therefore no accuracy is foretold."
        )
    if reference.held is None:
        found.append(
            "The bundle was made by an older tl and keeps no held-out rows: answers and confidence were not compared. "
            "Train again to have them compared."
        )
    if not grouped:
        named = f" (in training: {reference.group_column})" if reference.group_column else ""
        found.append(
            "New rows are taken as independent. Frames of one video or clips of one speaker are not, and raise false "
            f"alarms: name what they have in common with --group{named}."
        )
    if tested < rows:
        found.append(f"The tests saw {tested:,} of the {rows:,} new rows, drawn at random.")
    found.append("Without labels nobody sees that a class has changed its meaning while its samples look the same.")
    return found
