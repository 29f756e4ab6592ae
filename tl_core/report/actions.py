"""What to do next: at most five things, derived from the facts, what spoils the result before what could be better."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tl_core.evaluation import meaning, metric_title, transfer, verdict
from tl_core.report.facts import ReportFacts
from tl_core.report.templates import first_up, listed, number
from tl_core.report.units import amount, difference
from tl_core.report.verdicts import sentence

MAX_ACTIONS = 5
MATTERS = 0.1  # of a share or of R²: a gain over one answer for all that is worth something if it is true
NAMED = 3


@dataclass(frozen=True)
class Action:
    """title: what to do; why: the evidence; key: a setting or command that does it, empty where none does; about: the
    part of the page that tells more."""

    title: str
    why: str
    about: str
    key: str = ""


def actions(facts: ReportFacts) -> list[Action]:
    """The most pressing first; empty where nothing is to be done."""
    found = [action for advise in _RANKED for action in advise(facts)]
    return found[:MAX_ACTIONS]


def _floors(facts: ReportFacts) -> Iterator[Action]:
    constant = facts.evaluation.floors.get("majority")
    if constant and constant.gain.low <= 0:
        why = sentence(meaning(facts.evaluation, facts.strategy))
        lost = verdict(facts.evaluation).state == "below"  # to a floor, for which another backbone is the remedy
        if lost and constant.gain.high >= 0:
            return
        if constant.gain.value > MATTERS:  # a good score that too few rows bear out
            yield Action("Get more test rows before anything else", why, "result")
        else:
            yield Action("Look at the labels and the split before anything else", why, "errors")


def _leakage(facts: ReportFacts) -> Iterator[Action]:
    leakage = facts.diagnostics and facts.diagnostics.leakage
    if not leakage or leakage.state != "warn":
        return
    cost = ""
    if leakage.clean and leakage.score and leakage.cost:
        watch = facts.evaluation.watch
        gap = f"difference {difference(leakage.cost.low, watch)} to {amount(leakage.cost.high, watch)}"
        told = leakage.cost.low > 0 or leakage.cost.high < 0
        cost = (
            f" Without them {metric_title(watch)} is {number(leakage.clean.value)} instead of "
            f"{number(leakage.score.value)} ({gap if told else f'{gap}, which may be chance'})."
        )
    repeated = leakage.exact + leakage.near
    if repeated:
        rows = f"{repeated:,} test row{'s' if repeated != 1 else ''}"
        verb = ("repeats a row" if repeated == 1 else "repeat rows") if leakage.exact else (
            "closely resembles a row" if repeated == 1 else "closely resemble rows"
        )  # fmt: skip
        title = "Take out the copies between the splits" if leakage.exact else "Look for copies between the splits"
        yield Action(title, f"{rows} {verb} of another split.{cost}", "leakage")
    if leakage.shared_groups:
        why = (
            f"{leakage.shared_rows:,} test rows are of groups that are in training as well.{'' if repeated else cost} "
            "Where data.group is set and the data bring no split of their own, no group is divided."
        )
        yield Action("Split anew so that no group is in two splits", why, "leakage")


def _labels(facts: ReportFacts) -> Iterator[Action]:
    labels = facts.diagnostics and facts.diagnostics.labels
    if labels and labels.state == "warn" and labels.found:
        share = f"{labels.share.value:.1%} ({labels.share.low:.1%} to {labels.share.high:.1%})"
        several = facts.evaluation.task == "multilabel"
        answers = labels.rows * len(facts.evaluation.per_class) if several else labels.rows
        what = ("row" if several else "label") + ("s" if labels.found != 1 else "")
        yield Action(
            f"Check the {labels.found:,} {what} {'whose labels' if several else 'that'} "
            f"look{'s' if labels.found == 1 and not several else ''} wrong",
            f"An estimated {share} of {answers:,} {'answers (one for each row and label)' if several else 'labels'} "
            "are wrong; they mislead the model and its score.",
            "labels",
        )


def _training(facts: ReportFacts) -> Iterator[Action]:
    tuning = facts.tuning
    if tuning and tuning.finetune and tuning.finetune.diverged:
        yield Action(
            "Train with a lower learning rate",
            f"Training broke off ({tuning.finetune.stopped or 'its loss was no number any more'}).",
            "training",
            "tune.find_lr=true",
        )
    if tuning and tuning.gap and tuning.gap.memorised:
        key = "tune.strategy=probe" if tuning.finetune else ""
        yield Action("Give the model less to memorise with", sentence(tuning.gap.text), "training", key)


def _transfer(facts: ReportFacts) -> Iterator[Action]:
    said = transfer(facts.evaluation, facts.strategy)
    why = sentence(meaning(facts.evaluation, facts.strategy))
    if said == "hurts":
        why = f"{why} Pretraining that is nearer to these data may do better."
        yield Action("Try other backbones", why, "ranking" if facts.ranking else "result", "select.preset=best")
    elif said == "can't tell" and not list(_floors(facts)):
        yield Action(
            "Get more test rows before deciding on pretraining", f"{why} More rows narrow the interval.", "result"
        )


def _more_data(facts: ReportFacts) -> Iterator[Action]:
    curve = facts.tuning and facts.tuning.curve
    if not facts.tuning or not curve or curve.verdict != "more data would help":
        return
    text = curve.text.removeprefix(f"{curve.verdict}: ")
    weak = _weak_classes(facts)
    title = "Label more rows"
    if weak:
        title += f", above all of {listed(weak)}"
        text += f"; F1 of {'these' if len(weak) > 1 else 'this one'} is surely below the classes' mean"
    yield Action(title, sentence(text), "training")


def _subgroups(facts: ReportFacts) -> Iterator[Action]:
    for part in facts.diagnostics.subgroups if facts.diagnostics else ():
        worst = next((group for group in part.groups if group.name == part.worst), None)
        if worst and part.state == "warn":
            watch = facts.evaluation.watch
            gap = f"{difference(abs(worst.gap.high), watch)} to {amount(abs(worst.gap.low), watch)}"
            why = f"{first_up(metric_title(watch))} of {worst.name} is worse than that of all others by {gap}."
            yield Action(f"Add rows where {part.column} is {worst.name}", why, "subgroups")


def _calibration(facts: ReportFacts) -> Iterator[Action]:
    calibration = facts.diagnostics and facts.diagnostics.calibration
    if calibration and calibration.state == "warn":
        off = calibration.temperature is None
        yield Action(
            "Calibrate the model" if off else "Don't take its probabilities at their word",
            calibration.text,
            "calibration",
            "tune.calibrate=true" if off else "",
        )


def _shift(facts: ReportFacts) -> Iterator[Action]:
    shift = facts.diagnostics and facts.diagnostics.shift
    if shift and shift.state == "warn":
        moved = [test.name for test in shift.tests if test.state == "warn"]
        names = listed(moved[:NAMED]) + (f" and {len(moved) - NAMED} more" if len(moved) > NAMED else "")
        yield Action("Find out why the data differ, and train on rows of both kinds", f"{names}: {shift.text}", "shift")


def _robustness(facts: ReportFacts) -> Iterator[Action]:
    robustness = facts.diagnostics and facts.diagnostics.robustness
    if robustness and robustness.state == "warn" and robustness.worst:
        finetuned = bool(facts.tuning and facts.tuning.finetune)
        yield Action(
            f"Train with such rows as well, if they occur in use: {robustness.worst}",
            robustness.text,
            "robustness",
            "tune.augment=true" if finetuned else "",
        )


def _unusual(facts: ReportFacts) -> Iterator[Action]:
    unusual = facts.diagnostics and facts.diagnostics.unusual
    if unusual and unusual.state == "warn":
        yield Action("Have people decide on unusual rows", unusual.text, "unusual", "tl predict MODEL FILE")


def _quarantine(facts: ReportFacts) -> Iterator[Action]:
    bad = len(facts.data.quarantine)
    if bad:
        reasons = list(dict.fromkeys(str(row["reason"]) for row in facts.data.quarantine))
        named = listed(reasons[:NAMED]) + (" and others" if len(reasons) > NAMED else "")
        yield Action(f"Repair {bad:,} unusable row{'s' if bad != 1 else ''}", f"They took no part: {named}.", "data")


def _licence(facts: ReportFacts) -> Iterator[Action]:
    chosen = facts.ranking and facts.ranking.chosen_one
    if chosen and chosen.licence_kind == "non-commercial":
        why = f"Its licence, {chosen.licence}, allows no commercial use."
        command = f"tl backbones {facts.modality} --licence permissive"
        yield Action("Take another backbone before anything is sold", why, "ranking", command)


def _weak_classes(facts: ReportFacts) -> list[str]:
    """Classes whose F1 is surely below the mean over all, the weakest first."""
    mean = facts.evaluation.summary.get("macro_f1")
    rows = [row for row in facts.evaluation.per_class if row.f1 and mean and row.f1.high < mean.value]
    rows.sort(key=lambda row: (row.f1.value if row.f1 else 0.0, row.name))
    return [row.name for row in rows[:NAMED]]


_RANKED: tuple[Callable[[ReportFacts], Iterator[Action]], ...] = (
    _floors, _leakage, _labels, _training, _transfer, _more_data, _subgroups, _calibration, _shift, _robustness,
    _unusual, _quarantine, _licence,
)  # fmt: skip
