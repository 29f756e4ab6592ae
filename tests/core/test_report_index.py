"""The page over several runs: self-contained, safe, true to the numbers."""

from __future__ import annotations

import dataclasses
import html.parser
from typing import Any

import pytest

from tl_core.report import FloorSummary, IndexEntry, RunSummary, render_index

FLOORS = (FloorSummary("majority", "commonest class", 0.125), FloorSummary("random_init", "random weights", 0.551))
TEXT = RunSummary(
    title="Text: minilm", modality="text", backbone="minilm", strategy="probe", metric="accuracy", value=0.875,
    low=0.84, high=0.906, confidence=0.9, n_test=1256, floors=FLOORS, state="above",
    headline="Clearly above its floors", sentence="Accuracy 0.875 (90% interval 0.840 to 0.906) on 256 test rows.",
    meaning="pretrained features beat the same network with random weights by 27 to 38 points: pretraining helps here",
)  # fmt: skip
IMAGE = dataclasses.replace(
    TEXT, modality="image", value=0.61, low=0.55, high=0.66, state="unclear", headline="Not clearly above its floors"
)
ENTRY = IndexEntry("demo/text", TEXT, "../.tl/report.html", "demo/text/artifacts/tune/model", 12.34)


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str, cls: str = "") -> list[dict[str, Any]]:
        return [a for name, a in self.tags if (name == tag and cls in (a.get("class") or "").split()) or not cls]


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_one_to_many_projects(count: int) -> None:
    entries = [dataclasses.replace(ENTRY, name=f"project {i}") for i in range(count)]
    text = render_index(entries)
    page = Page(text)
    assert not page.open
    assert f"{count} project{'' if count == 1 else 's'}" in text
    assert text.count('href="../.tl/report.html"') == 2 * count
    assert text == render_index(entries)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe")]
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_the_picture_shows_interval_and_floors_to_scale() -> None:
    page = Page(render_index([ENTRY, dataclasses.replace(ENTRY, summary=IMAGE)]))
    whiskers = [a for tag, a in page.tags if tag == "line" and a.get("class") == "whisker" and "%" in (a["x1"] or "")]
    assert [(a["x1"], a["x2"]) for a in whiskers] == [("84.0%", "90.6%"), ("55.0%", "66.0%")]
    dots = [a["cx"] for tag, a in page.tags if tag == "circle" and "%" in (a["cx"] or "")]
    assert dots == ["55.1%", "87.5%", "55.1%", "61.0%"]
    assert [a["x1"] for tag, a in page.tags if tag == "line" and a.get("y1") == "4" and "%" in (a["x1"] or "")] == [
        "12.5%", "12.5%"
    ]  # fmt: skip


def test_each_project_has_its_verdict_in_words() -> None:
    text = render_index([ENTRY, dataclasses.replace(ENTRY, summary=IMAGE, seconds=0)])
    assert text.count("Pretrained features beat the same network with random weights by 27 to 38 points") == 2
    assert '<section class="verdict above"' in text
    assert '<section class="verdict unclear"' in text
    assert "text · probe on minilm · 1,256 test rows · 12.3 s" in text
    assert "image · probe on minilm · 1,256 test rows · up to date" in text


def test_a_failed_project_is_shown_with_its_fault_and_without_numbers() -> None:
    text = render_index([IndexEntry("demo/<b>", error="the data of data.dvc are missing\n& more")])
    assert "At a glance" not in text
    assert "demo/&lt;b&gt;" in text
    assert "the data of data.dvc are missing\n&amp; more" in text
    assert "no result on test rows" in text


def test_a_metric_below_zero_widens_the_scale() -> None:
    worse = dataclasses.replace(TEXT, metric="R²", value=-0.3, low=-0.35, high=0.1, floors=FLOORS[:1])
    whiskers = Page(render_index([dataclasses.replace(ENTRY, summary=worse)])).tags
    assert [a["x1"] for tag, a in whiskers if a.get("class") == "whisker"][1] == "3.57%"  # from -0.4 to 1
