"""The page of a decision: what it says first, that it says it all, that nothing in it is taken for HTML."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import decisions
import pytest
from decisions import DEMOS, demo

from tl_core.evaluation import Interval
from tl_core.gate import Rule
from tl_core.report.decision_page import DecisionFacts, _gauge, render_decision


class Parsed(HTMLParser):
    """Headings, visible text and tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self._quiet = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.words.append(" " if tag in ("td", "th", "tr", "li", "dd") else "")
        self._quiet = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._quiet = False

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def shown(facts: DecisionFacts) -> str:
    return Parsed(render_decision(facts)).text


def test_the_sentence_comes_first_then_each_rule_with_its_verdict() -> None:
    facts = DEMOS["refused"]()
    text = shown(facts)
    decision = facts.contest.decision
    assert text.index("Refused: v3; v2 stays") < text.index(decision.sentence.replace("-", "−")[:60])
    place = text.index("The rules")
    for rule in decision.rules:
        assert (place := text.find(f"{rule.state} {rule.text[:30]}".replace(" -", " −"), place)) > 0, rule.name


@pytest.mark.parametrize(
    ("name", "headline"),
    [
        ("promoted", "Promoted: v3 takes the place of v2"),
        ("too late", "Not promoted: v3 was better, but came too late"),
        ("first model", "Promoted: v1 is the first to serve"),
        ("same model", "Refused: v3; v2 stays"),
    ],
)
def test_the_headline_says_who_serves(name: str, headline: str) -> None:
    text = shown(DEMOS[name]())
    assert headline in text
    assert ("v2 is not the champion any more." in text) == (name == "too late")


def test_both_models_stand_side_by_side_on_each_kind_of_rows_class_and_group() -> None:
    facts = demo()
    text = shown(facts)
    assert re.search(r"The test set 600 0\.823 0\.892 \+0\.068 \+0\.055 to \+0\.093", text)
    assert re.search(r"Test rows that are new since the champion 60 0\.867 0\.917 \+0\.050", text)
    parts = facts.contest.decision.rule("classes").parts
    assert [part.gain.value for part in parts] == sorted(part.gain.value for part in parts)
    places = [text.index(f"{part.name} {part.rows} ", text.index("Each class F1")) for part in parts]
    assert places == sorted(places)
    assert "camera is 'old' 400" in text
    assert "sign u 12 0.831" in text


def test_rows_that_changed_sides_show_their_content_and_both_answers() -> None:
    facts = DEMOS["can't tell"]()
    page = render_decision(facts)
    assert "Right in v2, wrong in v3: 9" in shown(facts)
    assert "Wrong in v2, right in v3: 45" in shown(facts)
    assert page.count('<p class="text">where is parcel 3, it should have come on monday</p>') == 2
    assert "labelled sign d v2 sign d 0.90 v3 sign g 0.61" in shown(facts)
    assert "24 are shown." in shown(facts)


def test_further_labels_and_wear_become_things_to_do() -> None:
    facts = DEMOS["can't tell"]()
    decision = facts.contest.decision
    assert decision.further_rows
    assert f"Label about {decision.further_rows:,} more test rows" in shown(facts)
    assert "has made 7 decisions, this one included; past 50 (gate.max_uses) it counts as worn" in shown(facts)
    worn = dataclasses.replace(facts, contest=dataclasses.replace(facts.contest, max_uses=5))
    assert "This one has decided 7 times (gate.max_uses is 5)." in shown(worn)
    assert "tl registry promote v3" in shown(facts)
    assert "tl registry rollback v2" in shown(DEMOS["promoted"]())


def test_what_changed_time_and_size_are_told_or_said_to_be_unknown() -> None:
    text = shown(demo())
    assert (
        "Data: 312 added, 4 removed, 1 modified and 7 relabelled, 2,400 unchanged. Since the last retrain: 312" in text
    )
    assert "tune.minutes 10 20" in text
    assert "Code: 1 changed file" in text
    assert "v2 12.41 46.8 v3 11.9 46.8" in text
    bare = shown(DEMOS["nothing at hand"]())
    assert "The champion's report is not at hand, so configuration and libraries can't be compared." in bare
    assert "Code: git lacks one of the two commits." in bare


def test_the_picture_shades_what_is_not_let_pass() -> None:
    metric = _gauge(Rule("metric", "pass", "", 0.03, Interval.of(0.03, 0.01, 0.05), 0.02))
    assert metric is not None
    assert metric.harm == (0.0, metric.limit)
    assert metric.zero is not None
    assert metric.zero < metric.bar.low < metric.limit < metric.bar.at < metric.bar.high  # type: ignore[operator]
    size = _gauge(Rule("size", "fail", "", 90.0, None, 50.0))
    assert size is not None
    assert size.harm == (size.limit, 100.0)
    assert size.bar.at == size.bar.low == size.bar.high
    assert _gauge(Rule("size", "skipped", "", 90.0)) is None


def test_hostile_text_stays_text_and_nothing_is_loaded() -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    page = render_decision(decisions.hostile(evil))
    assert not {"script", "img", "link", "iframe"} & set(Parsed(page).tags)
    assert "default-src 'none'" in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


@pytest.mark.parametrize("name", DEMOS)
def test_the_same_facts_give_the_same_page(name: str) -> None:
    page = render_decision(DEMOS[name]())
    assert page == render_decision(DEMOS[name]())
    assert len(page.encode()) < 300_000
    assert "None" not in Parsed(page).text
