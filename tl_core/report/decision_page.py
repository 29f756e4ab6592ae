"""The page of a decision: may the new model serve, by which rules, and on which rows do the two models differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tl_core.evaluation import Interval, metric_title
from tl_core.gate import Change, Decision, Rule
from tl_core.report.contest import Contest
from tl_core.report.difference import Difference
from tl_core.report.plots import Bar
from tl_core.report.scale import Scale
from tl_core.report.templates import HERE, listed, render

FOLD = 15  # rows of a table that are shown at once; the others unfold
GALLERY_FIRST = 6
TITLES = {
    "metric": "Metric", "floors": "Floors", "newest": "Newest rows", "classes": "Classes", "groups": "Groups",
    "calibration": "Calibration", "former": "Former test set", "known": "Known classes", "latency": "Latency",
    "size": "Size",
}  # fmt: skip
COLOURS = {"pass": "good", "fail": "bad", "can't tell": "open", "skipped": "plain"}
PLACES = {
    "classes": "classes",
    "newest": "places",
    "former": "places",
    "known": "places",
    "groups": "groups",
}  # where a rule's details are


@dataclass(frozen=True)
class DecisionFacts:
    """What `render_decision` shows.

    title: of the project; version: the new model's; promoted: whether it serves now; note: why it does not although
    the gate let it pass; incoming: what came in, in words; differences: of data, configuration and what the models are
    made of, by heading, None where the champion's report is not at hand; code: changed files, None where git can't
    tell; report: where the new model's own report lies, relative to the page.
    """

    title: str
    version: str
    promoted: bool
    contest: Contest
    note: str = ""
    incoming: str = ""
    differences: Mapping[str, Sequence[Difference]] | None = field(default_factory=dict)
    code: Sequence[str] | None = ()
    report: str | None = None


@dataclass(frozen=True)
class Gauge:
    """A measured number with its interval against a limit: percent positions.

    harm: from where to where it would be too little, or too much; zero: of no change, None off the scale.
    """

    bar: Bar
    limit: float
    harm: tuple[float, float]
    zero: float | None
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Place:
    """Rows on which both models were measured."""

    name: str
    change: Change
    gauge: Gauge


def render_decision(facts: DecisionFacts) -> str:
    """One self-contained HTML page without script; the same facts give the same text.

    All is escaped but the fragments of samples.
    """
    contest = facts.contest
    decision = contest.decision
    champion = decision.champion.name if decision.champion else None
    context = {
        "facts": facts,
        "contest": contest,
        "decision": decision,
        "champion": champion,
        "report_style": (HERE / "report.css").read_text(encoding="utf-8"),
        "state": "above" if facts.promoted else "below" if _failed(decision) or facts.note else "unclear",
        "headline": _headline(facts, champion),
        "metric": metric_title(decision.metric),
        "lead": next((_gauge(rule) for rule in decision.rules if rule.name == "metric"), None),
        "rules": [
            (rule, TITLES.get(rule.name, rule.name), COLOURS[rule.state], _gauge(rule)) for rule in decision.rules
        ],
        "about": PLACES,
        "next": list(_next_steps(facts, champion)),
        "places": list(_places(decision)),
        "classes": _dumbbells(decision, "classes"),
        "groups": _dumbbells(decision, "groups"),
        "sides": _sides(facts, champion),
        "folded": FOLD,
        "gallery_first": GALLERY_FIRST,
        "data": _data(contest),
        "label_word": "label" if contest.task == "multilabel" else "class",
        "values": contest.task == "regression",
        "level": f"{decision.confidence:.0%}",
    }
    return render("decision.html", context)


def _headline(facts: DecisionFacts, champion: str | None) -> str:
    if facts.promoted:
        return f"Promoted: {facts.version} " + (
            f"takes the place of {champion}" if champion else "is the first to serve"
        )
    if facts.note:
        return f"Not promoted: {facts.version} was better, but came too late"
    return (
        f"Refused: {facts.version}; {champion} stays" if champion else f"Refused: {facts.version}; no model serves yet"
    )


def _failed(decision: Decision) -> bool:
    return any(rule.state == "fail" for rule in decision.rules) or not decision.rules


def _dumbbells(decision: Decision, name: str) -> list[tuple[Change, float, float]]:
    """The parts of a rule, each with where its two scores lie between 0 and 1."""
    parts = next((rule.parts for rule in decision.rules if rule.name == name), ())
    scale = Scale(0.0, 1.0)
    return [(part, scale.at(part.first), scale.at(part.second)) for part in parts]


def _gauge(rule: Rule) -> Gauge | None:
    """The rule's number on a scale that holds its interval, its limit and 0; None where nothing was measured."""
    if rule.value is None or rule.limit is None or rule.state == "skipped":
        return None
    interval = rule.interval or Interval.of(rule.value, rule.value, rule.value, "none")
    return _gauged(interval, rule.limit, high_is_harm=rule.name in ("calibration", "latency", "size"))


def _gauged(interval: Interval, limit: float, *, high_is_harm: bool) -> Gauge:
    low, high = min(interval.low, limit, 0.0), max(interval.high, limit, 0.0)
    air = 0.08 * ((high - low) or 0.02)
    scale = Scale(low - air, high + air)
    at = [scale.at(value) for value in (interval.value, interval.low, interval.high)]
    edge = scale.at(limit)
    return Gauge(
        Bar("", "model", interval, *at),
        edge,
        (edge, 100.0) if high_is_harm else (0.0, edge),
        scale.at(0.0),
        scale.ticks(4),
    )


def _places(decision: Decision) -> Iterator[Place]:
    """The sets of rows on which the watched metric was compared: the test set first."""
    for rule in decision.rules:
        if rule.name == "metric" and rule.interval and decision.champion and decision.champion.score:
            after = decision.challenger.score
            if after is not None and rule.limit is not None:
                change = Change(
                    "the test set", decision.test_set.judged, decision.champion.score.value, after.value, rule.interval,
                    1.0, 1.0,
                )  # fmt: skip
                yield Place("the test set", change, _gauged(rule.interval, rule.limit, high_is_harm=False))
        elif rule.name in ("newest", "former", "known") and rule.parts and rule.limit is not None:
            part = rule.parts[0]
            yield Place(part.name, part, _gauged(part.gain, rule.limit, high_is_harm=False))


def _sides(facts: DecisionFacts, champion: str | None) -> list[tuple[str, str, Any]]:
    """(address, title, rows) of the rows that changed sides, those that were lost first."""
    if champion is None:
        return []
    contest, values = facts.contest, facts.contest.task == "regression"
    titles = (f"Nearer in {champion}", f"Nearer in {facts.version}") if values else (
        f"Right in {champion}, wrong in {facts.version}", f"Wrong in {champion}, right in {facts.version}"
    )  # fmt: skip
    both = (("lost", titles[0], contest.lost), ("won", titles[1], contest.won))
    return [(anchor, title, side) for anchor, title, side in both if side.count]


def _next_steps(facts: DecisionFacts, champion: str | None) -> Iterator[tuple[str, str, str]]:
    """What a person may do now, each with the reason and where on the page more is said (or nothing)."""
    decision, used = facts.contest.decision, facts.contest.decision.test_set
    for rule in decision.rules:
        if rule.state == "fail" and rule.parts and rule.name in PLACES:
            yield f"Look at what failed: {TITLES[rule.name].lower()}", rule.text, PLACES[rule.name]
    if not decision.promote and facts.contest.lost.count:
        yield (
            "Look at the rows that the new model lost",
            "They tell wrong labels as well as a weak model, the surest new errors first.",
            "lost",
        )
    if decision.further_rows:
        yield (
            f"Label about {decision.further_rows:,} more test rows",
            "So many would decide what can't be told yet in four of five cases, if the difference is as measured.",
            "test-set",
        )
    if used.uses > facts.contest.max_uses:
        yield (
            "Freeze a test set of freshly labelled rows",
            f"This one has decided {used.uses} times (gate.max_uses is {facts.contest.max_uses}).",
            "test-set",
        )
    if facts.promoted and champion:
        yield f"Go back if need be: `tl registry rollback {champion}`", "The former model then serves again.", ""
    elif not facts.promoted:
        yield f"Decide otherwise: `tl registry promote {facts.version}`", "A person's word goes over the gate's.", ""


def _data(contest: Contest) -> str:
    """What happened to the data, in words."""
    if contest.data is None:
        return ""
    kinds = ("added", "removed", "modified", "relabelled")
    told = [f"{getattr(contest.data, kind):,} {kind}" for kind in kinds if getattr(contest.data, kind)]
    return f"{listed(told)}, {contest.data.unchanged:,} unchanged" if told else "the same rows"
