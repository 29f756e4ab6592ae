"""The page: self-contained, deterministic, safe against hostile names, complete for every task."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import diagnosed
import pyarrow as pa
import pytest
import tunings
from pydantic import TypeAdapter
from reports import (
    DEMOS,
    classified,
    full_demo,
    hostile_demo,
    image_demo,
    multilabel_demo,
    regression_demo,
    samples_of,
    text_demo,
)

from tl_core.errors import FormatError
from tl_core.report import DataFacts, Example, ReportFacts, RunSummary, Sample, Tuning, render_report, write_plots
from tl_core.report.scale import Scale
from tl_core.types import Task

ALL = DEMOS | {f"all {state}": lambda state=state: full_demo(state) for state in diagnosed.STATES}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask about."""

    VOID = frozenset({"meta", "img", "br", "input", "link", "hr", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module", params=ALL)
def demo(request: pytest.FixtureRequest) -> ReportFacts:
    return ALL[request.param]()


def test_the_page_is_well_formed_accessible_and_needs_nothing_else(demo: ReportFacts) -> None:
    text = render_report(demo)
    page = Page(text)
    assert len(text.encode()) < 5_000_000
    assert len(page.of("script")) == 1
    script = text.split("<script>")[1].split("</script>")[0]
    assert len(script.encode()) < 15_000
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert not page.of("link")
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\s*(https?:)?//""", text)
    assert all(a["href"].startswith("#") for a in page.of("a"))  # type: ignore[union-attr]
    targets = {attrs.get("id") for _, attrs in page.tags}
    assert {a["href"][1:] for a in page.of("a")} <= targets  # type: ignore[index]
    assert {attrs["aria-labelledby"] for attrs in page.of("section")} <= targets
    assert len(page.of("main")) == len(page.of("h1")) == len(page.of("header")) == len(page.of("nav")) == 1
    assert len(page.of("caption")) == len(page.of("table"))
    assert all("alt" in img for img in page.of("img"))
    named = [svg for svg in page.of("svg") if svg.get("role") == "img"]
    assert all(svg.get("aria-label") for svg in named)
    assert not re.search(r"\bNone\b", text)
    assert not re.search(r"\bnan\b", text)


def test_the_same_facts_give_the_same_bytes(demo: ReportFacts) -> None:
    assert render_report(demo) == render_report(demo)


def test_facts_survive_their_file(demo: ReportFacts, tmp_path: Path) -> None:
    demo.save(tmp_path / "facts.json")
    assert render_report(ReportFacts.load(tmp_path / "facts.json")) == render_report(demo)


def test_unreadable_facts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    for content, message in (
        ('{"format": 99, "facts": {}}', "has format 99, this tl reads up to 4; update tl"),
        ('{"format": 1, "facts": {}}', "unreadable report facts .*evaluate again"),
        ("{", "unreadable report facts"),
    ):
        path.write_text(content)
        with pytest.raises(FormatError, match=message):
            ReportFacts.load(path)


def test_facts_of_an_older_tl_are_read(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    text_demo().save(path)
    value = json.loads(path.read_text())
    value["format"] = 3
    for key in ("diagnostics", "samples"):
        del value["facts"][key]
    for example in value["facts"]["examples"]:
        for key in ("kind", "row", "explanation", "twin"):
            del example[key]
    path.write_text(json.dumps(value))
    assert render_report(ReportFacts.load(path)) == render_report(text_demo())


def test_the_verdicts_come_first_then_what_to_do_then_the_numbers() -> None:
    text = render_report(full_demo())
    ids = ["verdict", "next", "result", "ranking", "training", "classes", "confusions", "rows", "curves", "checks",
           "leakage", "labels", "shift", "subgroups", "subgroups-2", "calibration", "unusual", "robustness", "errors",
           "mislabelled", "leaked", "unlike", "data", "provenance"]  # fmt: skip
    places = [text.index(f'id="{part}"', text.index("<main")) for part in ids]
    assert places == sorted(places)
    assert text.index("Clearly above its floors", text.index("<main")) < places[1]
    accuracy = text_demo().evaluation.summary["accuracy"]
    assert f"<b>{accuracy.value:.3f}</b>" in text
    assert "floor: random weights" in text
    assert 'class="verdict unclear"' in render_report(image_demo())


def test_a_cell_leads_to_its_rows() -> None:
    page = Page(render_report(full_demo()))
    cells = [a for a in page.of("a") if a.get("data-at")]
    bodies = {body["id"] for body in page.of("tbody") if body.get("id")}
    assert cells
    assert {str(a["href"])[1:] for a in cells} == bodies
    assert not [a for a in Page(render_report(text_demo())).of("a") if a.get("data-at")]


def test_a_gallery_says_how_each_row_got_into_it() -> None:
    text = render_report(full_demo())
    for part in (
        "quality 0.000, train split", "the same bytes", "2.10 times the threshold", "What the model looked at",
        "repeats <bdi>train/000.png</bdi> of the train split", "suggested <b><bdi>cancel order</bdi></b>",
    ):  # fmt: skip
        assert part in text
    assert "3 more</summary>" in text  # 9 mislabelled, 6 at once


def test_each_state_is_told_in_words() -> None:
    for state, word in (("ok", "nothing found"), ("warn", "act on it"), ("unclear", "can&#39;t tell")):
        text = render_report(full_demo(state))
        assert text.count(f">{word}</span>") >= 2 * 8  # in the overview and at each check
        assert "scratch: the network is too large for evaluate.scratch_minutes" in text
    assert "What was looked for" not in render_report(text_demo())


def test_hostile_text_stays_text() -> None:
    evil = '"><script>alert(1)</script>\u202e\udcff\x00'
    text = render_report(hostile_demo(evil))
    page = Page(text)
    assert len(page.of("script")) == 1  # the page's own
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert "&lt;script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    text.encode("utf-8")


def test_huge_facts_keep_the_page_under_five_megabytes() -> None:
    names = tuple(f"a class with a rather long name, number {i}, {'x' * 60}" for i in range(1000))
    base = full_demo()
    bad = {"id": "i" * 500, "split": "test", "reason": "r" * 5000}
    evaluation = classified(names, 4000, signal=1.0, resamples=2)
    twin = Sample(1, "e", "a", fragment="<p>" + "z" * 50_000 + "</p>")
    kinds = ("worst", "mislabelled", "leaked", "unusual")
    facts = dataclasses.replace(
        base,
        evaluation=evaluation,
        examples=[
            Example(f"e{i}", "a", "b", "<p>" + "y" * 200_000 + "</p>", kind=kinds[i % 4], explanation="x" * 90_000,
                    twin=twin)
            for i in range(40)
        ],
        samples=[dataclasses.replace(s, fragment="<p>" + "w" * 9_000 + "</p>") for s in samples_of(evaluation)][:2000],
        data=DataFacts("v", {"test": dict.fromkeys(names, 1)}, ["note"] * 500, [bad] * 5000),
        config="k: v\n" * 100_000,
    )  # fmt: skip
    text = render_report(facts)
    assert 3_000_000 < len(text.encode()) < 5_000_000
    assert "5,000 quarantined rows, the first 200 of them" in text
    assert "The 300 weakest of 1000" in text
    assert "Shown are the 60 of 1000 classes with the most errors" in text
    assert "would make this page too large" in text


def test_a_run_without_extras_has_no_empty_sections() -> None:
    facts = dataclasses.replace(
        text_demo(), ranking=None, tuning=None, examples=(), run=None, config="", data=DataFacts("v", {})
    )
    page = Page(render_report(facts))
    # to the content, from the one verdict, and the sections
    assert [a["href"] for a in page.of("a")] == [
        "#main", "#result", "#result", "#classes", "#confusions", "#curves", "#data", "#provenance"
    ]  # fmt: skip
    assert "Seconds per step" not in render_report(facts)


def test_scales_have_round_ticks() -> None:
    assert Scale(0, 1).ticks() == [(0, "0"), (20, "0.2"), (40, "0.4"), (60, "0.6"), (80, "0.8"), (100, "1")]
    assert Scale(0.01, 1000, log=True).ticks() == [
        (0, "0.01"),
        (20, "0.1"),
        (40, "1"),
        (60, "10"),
        (80, "100"),
        (100, "1000"),
    ]
    assert Scale(0, 1).at(-3) == 0


@pytest.mark.parametrize("task", ["multiclass", "regression", "multilabel"])
def test_plot_files_hold_what_dvc_draws(task: Task, tmp_path: Path) -> None:
    facts = {"multiclass": text_demo, "regression": regression_demo, "multilabel": multilabel_demo}[task]()
    table = pa.table({"label": ["a,b", "c", None], "predicted": ["c", "c", None]})
    written = write_plots(facts.evaluation, table, tmp_path, tuning=facts.tuning)
    names = [path.name for path in written]
    expected = {
        "multiclass": ["confusion.csv", "classes.csv", "precision_recall.csv", "roc.csv"],
        "regression": ["scatter.csv"],
        "multilabel": ["classes.csv", "precision_recall.csv", "roc.csv"],
    }
    assert names == [*expected[task], "path.csv", "learning_curve.csv"]
    if task != "multilabel":
        with written[0].open(newline="") as stream:
            assert list(csv.DictReader(stream)) == [
                {"actual": "a,b", "predicted": "c"},
                {"actual": "c", "predicted": "c"},
            ]
    assert (tmp_path / "path.csv").read_text().startswith("strength,train,val,val_loss\n1000.0,0.82,")
    assert (tmp_path / "learning_curve.csv").read_text().startswith("share,rows,value,low,high\n0.1,206,0.71,")
    fitted = TypeAdapter(Tuning).validate_python(tunings.by_auto(probe=None, curve=None))
    write_plots(facts.evaluation, table, tmp_path, tuning=fitted)
    assert (tmp_path / "history.csv").read_text().startswith("epoch,loss,train,val_loss,val,lr\n1,")
    assert not (tmp_path / "path.csv").exists()
    assert not (tmp_path / "learning_curve.csv").exists()
    json.dumps(facts.evaluation.flat_metrics(), allow_nan=False)


def test_plot_files_have_the_curves_and_the_reliability_diagram(tmp_path: Path) -> None:
    evaluation, found = text_demo().evaluation, diagnosed.calibration()
    table = pa.table({"label": ["a"], "predicted": ["a"]})
    write_plots(evaluation, table, tmp_path, calibration=found)
    with (tmp_path / "reliability.csv").open(newline="") as stream:
        bins = list(csv.DictReader(stream))
    assert [float(line["accuracy"]) for line in bins] == [b.accuracy.value for b in found.bins]
    for name, kind, y in (("precision_recall.csv", "pr", "precision"), ("roc.csv", "roc", "true_positive_rate")):
        with (tmp_path / name).open(newline="") as stream:
            lines = list(csv.DictReader(stream))
        curves = [curve for curve in evaluation.curves if curve.kind == kind]
        assert [(line["class"], float(line[y])) for line in lines] == [
            (c.label, p[1]) for c in curves for p in c.points
        ]
    write_plots(evaluation, table, tmp_path)
    assert not (tmp_path / "reliability.csv").exists()


def test_a_summary_is_read_back_from_the_reports_facts(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    facts = text_demo()
    facts.save(path)
    summary = RunSummary.load(path)
    assert summary == facts.summary()
    assert (summary.metric, summary.n_test, summary.state) == ("accuracy", 126, "above")
    assert summary.choice.endswith("and the cheapest of them; P(best) 20%, expected regret 0.8 points")
    assert [floor.title for floor in summary.floors] == ["commonest class", "random weights"]
    path.write_text('{"format": 1, "facts": {}}')
    with pytest.raises(FormatError, match=r"no summary in .*report\.json: KeyError; evaluate again"):
        RunSummary.load(path)
