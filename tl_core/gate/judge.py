"""May the challenger take the champion's place? Every rule, judged on rows that neither has learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tl_core.config import GateConfig
from tl_core.evaluation import Evaluation, Interval, Paired, floor_title, metric_title, paired
from tl_core.evaluation.metrics import watch_name
from tl_core.gate.calibration_guard import calibration_rule
from tl_core.gate.changes import RowScores
from tl_core.gate.contest import Asked, Candidate
from tl_core.gate.decision import Decision, Rule, SetUse, State, Stood
from tl_core.gate.further import advice, further_rows
from tl_core.gate.guards import (
    Answers,
    Draws,
    classes_rule,
    groups_rule,
    limit_rule,
    rows_rule,
)
from tl_core.manifest import TestSet

MUST_BEAT = ("majority", "baseline")  # floors that a first model is held against
ORDER: tuple[State, ...] = ("fail", "can't tell", "pass")


def judge(
    asked: Asked,
    challenger: Candidate,
    champion: Candidate | None,
    test_set: TestSet,
    settings: GateConfig,
    *,
    uses: int = 0,
    evaluation: Evaluation | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Decision:
    """The decision on a challenger.

    champion: None for a first model, which is judged by `evaluation`, its own; uses: earlier decisions on this test
    set. It is promoted where the metric rule (for a first model: the floors) passes, no other rule fails, and nothing
    that is asked for remains untold.
    """
    judged = asked.frozen & ~asked.learned
    rules, scores = _rules(asked, challenger, champion, evaluation, Draws(settings, resamples, seed))
    promote = bool(rules) and rules[0].state == "pass" and all(rule.state in ("pass", "skipped") for rule in rules)
    found = asked.set_match
    return Decision(
        promote=promote,
        sentence=_sentence(promote, rules, challenger.name, None if champion is None else champion.name),
        rules=rules,
        further_rows=_further(rules),
        metric=watch_name(asked.targets),
        confidence=settings.confidence,
        challenger=Stood(challenger.name, challenger.digest, scores[1]),
        champion=None if champion is None else Stood(champion.name, champion.digest, scores[0]),
        test_set=SetUse(
            version=test_set.version,
            hash=test_set.hash,
            rows=len(test_set),
            judged=int(judged.sum()),
            gone=len(found.gone),
            relabelled=len(found.relabelled),
            quarantined=len(found.quarantined),
            learned=int((asked.frozen & asked.learned).sum()),
            newest=int((asked.newest & ~asked.learned).sum()),
            uses=uses + 1,
        ),
        warnings=tuple(_warnings(asked, settings, uses + 1)),
    )


def _rules(
    asked: Asked,
    challenger: Candidate,
    champion: Candidate | None,
    evaluation: Evaluation | None,
    draws: Draws,
) -> tuple[tuple[Rule, ...], tuple[Interval | None, Interval | None]]:
    """The rules, the deciding one first, and the watched metric of champion and challenger; no rule for one model."""
    settings = draws.settings
    if champion is not None and champion.digest == challenger.digest:
        return (), (None, None)
    limits = (
        limit_rule("latency", challenger.milliseconds, settings.max_latency_ms),
        limit_rule("size", challenger.megabytes, settings.max_megabytes),
    )
    if champion is None:
        score = None if evaluation is None else evaluation.summary[evaluation.watch]
        return (floors_rule(evaluation, settings), *limits), (None, score)
    every = Answers(
        asked.targets, champion.predictions, challenger.predictions, asked.truth, asked.groups, asked.columns
    )
    metric, result = metric_rule(every.at(asked.frozen & ~asked.learned), champion.name, challenger.name, draws)
    rules = (metric, *_guards(asked, every, champion, challenger, draws), *limits)
    return rules, (None, None) if result is None else (result.first, result.second)


def _further(rules: Sequence[Rule]) -> int | None:
    """Rows that would decide all that is open; None where something failed, nothing is open or a number is lacking."""
    counts = [rule.further_rows for rule in rules if rule.state == "can't tell"]
    known = [count for count in counts if count is not None]
    failed = any(rule.state == "fail" for rule in rules)
    return max(known) if known and len(known) == len(counts) and not failed else None


def metric_rule(answers: Answers, champion: str, challenger: str, draws: Draws) -> tuple[Rule, Paired | None]:
    """Whether the watched metric is surely higher than the champion's by more than gate.min_gain.

    By the lower end of the paired interval, and where any gain will do also by an exact test: McNemar's for rows of
    one class each that stand alone, else one that trades the models' answers on whole groups. The interval alone
    promotes a little too often. The second value is the comparison, None where there was nothing to compare.
    """
    settings, targets = draws.settings, answers.targets
    rated = answers.rated() if len(answers) else None
    if rated is None:
        why = "no row of the test set is left" if not len(answers) else "the test rows' values don't differ"
        text = f"Can't compare the two: {why} that neither model has learned from."
        return Rule("metric", "can't tell", text, limit=settings.min_gain), None
    result = paired(
        targets, answers.first, answers.second, answers.truth, groups=answers.groups, confidence=settings.confidence,
        resamples=draws.resamples, seed=draws.seed, side="one", names=(champion, challenger),
    )  # fmt: skip
    gain, least = result.difference, settings.min_gain
    p = None
    if least == 0 and result.differ != 0:
        p = result.mcnemar.p if targets.task == "multiclass" and result.mcnemar is not None else None
        if p is None:
            whole = (np.zeros(len(answers), np.int64), ["all"])
            p = draws.changes(RowScores(*rated, [whole]), answers)[0].better
    state: State = "can't tell"
    if gain.low > least and (p is None or p <= 1 - settings.confidence):
        state = "pass"
    elif gain.high <= least and result.differ != 0:
        state = "fail"
    undecided = state == "can't tell" and result.differ != 0
    more = further_rows(gain, least, len(answers), settings.confidence, p) if undecided else None
    return Rule("metric", state, _compared(result, state, least, p, more), gain.value, gain, least, more), result


def floors_rule(evaluation: Evaluation | None, settings: GateConfig) -> Rule:
    """Whether a first model is surely better than the commonest answer, and not worse than a probe on plain features.

    With gate.strict it must be surely better than both. The intervals of its evaluation are brought to the gate's
    confidence as those of a normal.
    """
    if evaluation is None or "majority" not in evaluation.floors:
        return Rule(
            "floors", "can't tell", "There is no champion, and nothing that a first model could be held against."
        )
    confidence, normal = settings.confidence, NormalDist()
    wider = normal.inv_cdf(confidence) / normal.inv_cdf((1 + evaluation.confidence) / 2)
    gains: dict[str, Interval] = {}
    states: dict[str, State] = {}
    for name in [name for name in MUST_BEAT if name in evaluation.floors]:
        found = evaluation.floors[name].gain
        value, low, high = found.value, found.low, found.high
        gains[name] = Interval.of(value, value - (value - low) * wider, value + (high - value) * wider)
        enough = gains[name].low > 0 or (name != "majority" and not settings.strict and gains[name].high >= 0)
        states[name] = "pass" if enough else "fail" if gains[name].high < 0 else "can't tell"
    decides = min(gains, key=lambda name: (ORDER.index(states[name]), gains[name].low, name))
    gain, state = gains[decides], states[decides]
    more = further_rows(gain, 0.0, evaluation.n_test, confidence) if state == "can't tell" else None
    told = []
    for name, one in gains.items():
        says = "surely above" if one.low > 0 else "below" if one.high < 0 else "not surely above"
        value = evaluation.floors[name].value.value
        ends = _ends(one, confidence)
        told.append(f"{says} {value:.3f} ({floor_title(name, evaluation.task)}): {one.value:+.3f} ({ends})")
    text = (
        f"No champion to compare with. {_title(evaluation.watch)} "
        f"{evaluation.summary[evaluation.watch].value:.3f} on {evaluation.n_test:,} test rows is {'; '.join(told)}."
    )
    return Rule("floors", state, text + advice(more), gain.value, gain, 0.0, more)


def _guards(asked: Asked, every: Answers, champion: Candidate, challenger: Candidate, draws: Draws) -> Iterator[Rule]:
    """What must not have become worse."""
    settings, counts = draws.settings, ~asked.learned
    judged = every.at(asked.frozen & counts)
    newest = every.at(asked.newest & counts)
    yield rows_rule("newest", "test rows that are new since the champion", newest, settings.newest_drop, draws)
    if len(judged):
        yield classes_rule(judged, champion.classes, draws)
        yield groups_rule(judged, draws)
        yield calibration_rule(judged, draws)
    former = every.at(asked.former & counts)
    yield rows_rule("former", "rows of the test set that was replaced", former, settings.forgetting, draws)
    new = sorted(set(challenger.classes) - set(champion.classes))
    if new:
        known = judged.at(_of_known(judged, champion.classes))
        yield rows_rule("known", "test rows of classes that the champion knows", known, settings.forgetting, draws)


def _of_known(answers: Answers, classes: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Rows with no class beside these."""
    new = np.array([name not in set(classes) for name in answers.targets.classes])
    if answers.truth.ndim == 2:
        has_new: npt.NDArray[np.bool_] = (answers.truth.astype(np.bool_) & new).any(axis=1)
        return ~has_new
    found: npt.NDArray[np.bool_] = ~new[answers.truth.astype(np.int64)]
    return found


def _compared(result: Paired, state: State, least: float, p: float | None, more: int | None) -> str:
    """The metric rule's text."""
    beyond = f" by more than {least:g}" if least else ""
    says = {
        "pass": f"Surely higher{beyond}",
        "fail": f"Not higher{beyond}" if least else "Not higher",
        "can't tell": "Can't tell whether it is higher" + beyond
        if result.differ != 0
        else "No row is decided otherwise",
    }[state]
    text = (
        f"{says}: {metric_title(result.metric)} {result.second.value:.3f} against the champion's "
        f"{result.first.value:.3f} on {result.rows:,} test rows, {result.difference.value:+.3f} "
        f"({_ends(result.difference, result.confidence)})"
    )
    if result.mcnemar is not None and result.differ:
        text += (
            f"; {result.mcnemar.second_only:,} rows only it gets right, {result.mcnemar.first_only:,} only the champion"
        )
    if p is not None:
        text += f" (p {p:.2g})"
    return f"{text}." + advice(more)


def _sentence(promote: bool, rules: Sequence[Rule], challenger: str, champion: str | None) -> str:
    """The decision in plain words: what decided it, first."""
    if not rules:
        return f"Refused: {challenger} is the same model as the champion {champion}, byte by byte."
    first = rules[0].text
    if promote:
        return f"Promoted: {challenger}. {first}" + ("" if champion is None else " No guard failed.")
    failed = [rule for rule in rules if rule.state == "fail"]
    unknown = [rule for rule in rules if rule.state == "can't tell"]
    stopped = failed or unknown
    names = ", ".join(rule.name for rule in stopped)
    why = "failed" if failed else "can't be told"
    return f"Refused: {challenger} ({names} {why}). " + " ".join(rule.text for rule in stopped[:2])


def _warnings(asked: Asked, settings: GateConfig, uses: int) -> Iterator[str]:
    found, learned = asked.set_match, int((asked.frozen & asked.learned).sum())
    if uses > settings.max_uses:
        yield (
            f"This is decision {uses} on one test set (gate.max_uses {settings.max_uses}): what it chose suits it "
            "better than other data by now; freeze a new one from freshly labelled rows"
        )
    for why in found.due:
        yield f"The test set should be frozen anew: {why}"
    if found.quarantined:
        yield f"{len(found.quarantined):,} rows of the test set are unusable in these data, and were left out"
    if learned:
        yield f"{learned:,} rows of the test set were left out, since one of the models has learned from them"


def _ends(interval: Interval, confidence: float) -> str:
    return f"{confidence:.0%} one-sided ends {interval.low:+.3f} and {interval.high:+.3f}"


def _title(metric: str) -> str:
    title = metric_title(metric)
    return f"{title[0].upper()}{title[1:]}"
