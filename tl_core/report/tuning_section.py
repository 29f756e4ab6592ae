"""What the report's section on training shows: sentences first, then pictures and tables, ready for the template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tl_core.evaluation import Interval, metric_title
from tl_core.report.lines import Lines
from tl_core.report.plots import Bar, comparison_bars
from tl_core.report.templates import first_up, listed, number, quantity
from tl_core.report.tuning import Candidate, FinetuneFacts, Gap, TrainedFacts, Tuning
from tl_core.report.tuning_pictures import (
    curve_picture,
    ends_of,
    pairs_picture,
    probe_pictures,
    rate_picture,
    search_picture,
    training_pictures,
)

UPDATES = {
    "all": "all their weights", "biases": "their biases alone", "norms": "their norms alone",
    "lora": "a low-rank adapter (LoRA), merged", "dora": "a low-rank adapter (DoRA), merged",
    "ia3": "an adapter of scales (IA3), merged",
}  # fmt: skip
VERDICTS = {
    "more data would help": "More data would help", "more data would not help": "More data would not help",
    "can't tell": "Can't tell whether more data would help",
}  # fmt: skip
NAMED = 6  # trained segments that are named


@dataclass(frozen=True)
class Finding:
    """A statement in the section: a few words, then a sentence. warned: it needs looking at."""

    title: str
    text: str
    warned: bool = False


@dataclass(frozen=True)
class Row:
    """A strategy in the table of auto's trial."""

    candidate: Candidate
    chosen: bool
    bar: Bar | None


@dataclass(frozen=True)
class Numbers:
    """A table that says what pictures say."""

    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Group:
    """Pictures that belong together, with their caption and their numbers."""

    title: str
    caption: str
    pictures: list[Lines]
    numbers: Numbers | None = None


@dataclass(frozen=True)
class TuningSection:
    """Everything that the template asks for. importance: (setting, share, bar) of the search."""

    tuning: Tuning
    metric: str
    reason: str
    lead: str
    result: str
    findings: list[Finding]
    rows: list[Row]
    groups: list[Group]
    facts: list[tuple[str, str]]
    importance: list[tuple[str, float]]

    @property
    def losses(self) -> bool:
        """Whether the trial has log losses to show."""
        return any(row.candidate.log_loss is not None for row in self.rows)


def tuning_section(tuning: Tuning) -> TuningSection:
    """The section's contents."""
    metric = metric_title(tuning.watch)
    found = tuning.search
    return TuningSection(
        tuning=tuning,
        metric=metric,
        reason=tuning.reason(),
        lead=leads(tuning, metric),
        result=_result(tuning, metric),
        findings=_findings(tuning),
        rows=_rows(tuning),
        groups=_groups(tuning, metric),
        facts=_facts(tuning),
        importance=sorted(found.importance.items(), key=lambda item: (-item[1], item[0])) if found else [],
    )


def leads(tuning: Tuning, metric: str) -> str:
    """By how much the trial's best leads the probe, or the probe the next; empty where there is nothing to compare."""
    tried = tuning.decision.tried if tuning.decision else []
    if len(tried) < 2:
        return ""
    first, others = tried[0], tried[1:]
    second = next((c for c in others if c.strategy == "probe"), others[0])
    if second.gap is None:
        return ""
    if second.gap == 0:
        return f"{first.strategy} and {second.strategy} are equal in {metric}. "
    text = f"{first.strategy} leads {second.strategy} by {tuning.amount(second.gap, metric)}"
    if second.gap_low is None or second.gap_high is None:
        return f"{text}. "
    ends = f"({tuning.difference(second.gap_low)} to {tuning.difference(second.gap_high)})"
    return f"{text} {ends}{'' if second.gap_low > 0 else ', which these rows cannot tell from nothing'}. "


def _result(tuning: Tuning, metric: str) -> str:
    """What came out on the validation rows, and where on the way."""
    text = f"{first_up(metric)} {number(tuning.validation)} on the validation rows"
    if tuning.finetune:
        facts = tuning.finetune
        text += f", with the weights of epoch {facts.best_epoch} of {len(facts.history)}"
        if facts.stopped and not facts.diverged:
            text += f"; it ended early: {facts.stopped}"
    elif tuning.probe:
        text += f", at the L2 strength {tuning.probe.strength:g}"
        if tuning.probe.refit:
            text += "; then fitted again on training and validation rows together"
    return text


def _findings(tuning: Tuning) -> list[Finding]:
    found = []
    if tuning.start:
        found.append(Finding("Warm start" if tuning.start.used else "No warm start", tuning.start.text))
    if tuning.gap:
        found.append(Finding(_gap_title(tuning, tuning.gap), tuning.gap.text, tuning.gap.memorised))
    if tuning.finetune and tuning.finetune.diverged:
        text = f"{tuning.finetune.stopped}; the model has the weights of epoch {tuning.finetune.best_epoch}"
        found.append(Finding("It broke off", text, True))
    if tuning.curve:
        text = tuning.curve.text.removeprefix(f"{tuning.curve.verdict}: ")  # the title says it
        found.append(Finding(VERDICTS[tuning.curve.verdict], text))
    if tuning.search:
        found.append(Finding("Searched", _searched(tuning)))
    if tuning.finetune and tuning.finetune.found_lr:
        found.append(Finding("Learning rate", f"a range test set it to {tuning.finetune.found_lr.lr:.2g}"))
    if tuning.temperature is not None:
        found.append(Finding("Calibrated", _calibrated(tuning.temperature)))
    return found


def _gap_title(tuning: Tuning, gap: Gap) -> str:
    if gap.memorised:
        return "It has memorised training rows"
    title = f"A gap of {tuning.amount(gap.gap)}"
    if gap.low is None or gap.high is None:
        return title
    return f"{title} ({tuning.difference(gap.low)} to {tuning.difference(gap.high)})"


def _searched(tuning: Tuning) -> str:
    search = tuning.search
    assert search is not None
    text = f"{search.trials:,} setting{'s' if search.trials != 1 else ''} tried"
    if search.pruned:
        text += f", {search.pruned:,} of them stopped early"
    if search.best.settings:
        text += f"; the best: {listed([f'{key} = {_value(value)}' for key, value in search.best.settings.items()])}"
    if search.best.value is not None:
        best = f"{metric_title(search.watch)} {number(search.best.value)}"
        text += f", with {best} on validation rows (the best of many looks better there than it is)"
    return text


def _calibrated(temperature: float) -> str:
    if abs(temperature - 1) < 0.005:
        return "validation found nothing to correct in how sure it is (temperature 1.00)"
    was = "too sure" if temperature > 1 else "not sure enough"
    return f"it was {was} of its answers, so logits are divided by {temperature:.2f}, found on validation"


def _rows(tuning: Tuning) -> list[Row]:
    decision = tuning.decision
    if decision is None:
        return []
    tried = decision.tried
    measures = [c.measure for c in tried if c.measure]
    bars: Sequence[Bar | None] = (
        comparison_bars([Interval.of(*c.measure) if c.measure else None for c in tried], ends_of(measures))
        if measures
        else []
    )
    rows = [Row(c, c.strategy == decision.chosen, bar) for c, bar in zip(tried, bars, strict=True)]
    return rows + [Row(c, c.strategy == decision.chosen, None) for c in decision.skipped]


def _groups(tuning: Tuning, metric: str) -> list[Group]:
    groups = []
    if tuning.finetune:
        rate = tuning.finetune.found_lr and rate_picture(tuning.finetune.found_lr)
        drawn = training_pictures(tuning.finetune, metric) + ([rate] if rate else [])
        caption = "The validation rows chose the epoch; test rows had no part in it."
        groups.append(Group("The training", caption, drawn, _epochs(tuning.finetune, metric)))
    if tuning.contrastive and (drawn_pairs := pairs_picture(tuning.contrastive)):
        caption = "No epoch is chosen: the last one's weights are taken."
        groups.append(Group("The tuning by pairs", caption, [drawn_pairs]))
    if tuning.probe:
        drawn = probe_pictures(tuning.probe, metric)
        caption = "The validation rows chose the strength; test rows had no part in it."
        title = "The probe's path"
        if tuning.finetune:
            title = "The probe that it " + ("started from" if tuning.strategy == "lp_ft" else "is compared with")
        numbers = Numbers(
            "The probe's path in numbers",
            ["L2 strength", f"{first_up(metric)}, training", f"{first_up(metric)}, validation", "Loss, validation"],
            [[f"{s.strength:g}", *map(_number, (s.train, s.val, s.val_loss))] for s in tuning.probe.path],
        )
        groups.append(Group(title, caption, drawn, numbers))
    if tuning.curve and (drawn_curve := curve_picture(tuning.curve, metric, 1.0 if tuning.unit else math.inf)):
        numbers = Numbers(
            "The learning curve in numbers",
            ["Share", "Training rows", first_up(metric), "Interval"],
            [
                [f"{100 * p.share:.0f}%", f"{p.rows:,}", number(p.value), _interval(p.low, p.high)]
                for p in tuning.curve.points
            ],
        )
        caption = (
            "A probe on growing shares of the training and validation rows, judged on those of them that were held out."
        )
        groups.append(Group("Would more data help?", caption, [drawn_curve], numbers))
    if tuning.search and (drawn_search := search_picture(tuning.search, metric_title(tuning.search.watch))):
        groups.append(Group("The search", "Each trial is judged on validation rows.", [drawn_search]))
    return groups


def _epochs(facts: FinetuneFacts, metric: str) -> Numbers:
    title = first_up(metric)
    return Numbers(
        "The epochs in numbers",
        ["Epoch", "Loss, training", "Loss, validation", f"{title}, training", f"{title}, validation", "Learning rate"],
        [
            [f"{e.epoch}", *map(_number, (e.loss, e.val_loss, e.train, e.val)), "–" if e.lr is None else f"{e.lr:.2g}"]
            for e in facts.history
        ],
    )


def _facts(tuning: Tuning) -> list[tuple[str, str]]:
    """How it was trained, as names and values."""
    facts = tuning.finetune or tuning.contrastive
    if facts is None:
        return []
    segments = list(facts.trained_segments)
    names = listed(segments) if len(segments) <= NAMED else f"{len(segments)}, from {segments[0]} to {segments[-1]}"
    rows = [
        ("trained segments", names or "none"),
        ("updated", f"{UPDATES.get(facts.update, facts.update)}: {quantity(facts.trained_parameters)} parameters"),
        ("computed in", facts.precision),
    ]
    if facts.memory_batch is not None:
        rows.append(("rows at once", f"{facts.memory_batch:,}"))
    if facts.ema:
        rows.append(("averaged", f"the model is a moving average of the weights, with decay {facts.ema:g}"))
    if facts.wise < 1:
        rows.append(
            ("interpolated", f"{100 * facts.wise:.0f}% of the tuned weights, the rest where they started (WiSE-FT)")
        )
    if facts.cut or facts.cut_why:
        rows.append(("stored states", _stored(facts)))
    return rows


def _stored(facts: TrainedFacts) -> str:
    cut = facts.cut
    if cut is None:
        return f"none: {facts.cut_why}"
    views = f", {cut.views} views of each" if cut.views else ""
    return f"{cut.rows:,} rows{views}, {quantity(cut.bytes)}B; {facts.cut_why or f'before {cut.name}'}"


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{number(low)} to {number(high)}"
