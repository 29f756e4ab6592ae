"""`tl explain`: one page, every fault told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tl_flows import cli

from tl_core import Identity, Overlay, Prepared, Saliency, Targets, linear_heads
from tl_core.bundle import ModelBundle
from tl_core.types import Backbone, Loader, Source, State


class Shouts(Loader):
    """Texts whose letters are the words."""

    modality = "shouts"
    extensions = frozenset({".shout"})
    inline = True

    def decode(self, source: Source) -> str:
        return source if isinstance(source, str) else source.read_text()

    def render(self, source: Source) -> str:
        return ""

    def overlay(self, source: Source, saliencies: Any) -> Overlay:
        told = tuple(self._strongest(self.decode(source), saliency) for saliency in saliencies)
        return Overlay(f"<p>{' '.join(told)}</p>", told)

    def _strongest(self, text: str, saliency: Saliency) -> str:
        return text[int(saliency.heats[0].values[0].argmax())]


class Table(torch.nn.Embedding):
    def forward(self, state: Any) -> Any:
        return {"x": super().forward(state["x"])} if isinstance(state, dict) else super().forward(state)


class Mean(torch.nn.Module):
    def forward(self, state: State) -> State:
        return {"x": state["x"].mean(dim=1)}


class Letters(Backbone):
    def prepare(self, decoded: str) -> Prepared:
        return Prepared(({"x": torch.tensor([ord(c) % 32 for c in decoded])},))

    def collate(self, windows: Any) -> State:
        return {"x": torch.stack([w["x"] for w in windows])}

    def places(self, decoded: str) -> list[list[int]]:
        return [list(range(len(decoded)))]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModelBundle:
    """A model of the letter a against the letter b, whatever bundle is asked for."""
    targets = Targets("multiclass", ("a", "b"))
    head: Any = next(h for h in linear_heads("shouts") if h.task == "multiclass").build(32, targets)
    with torch.no_grad():
        head.linear.weight[0, 1] = head.linear.weight[1, 2] = 9.0
    table = Table(32, 32, _weight=torch.eye(32))
    backbone = Letters([("table", table), ("pool", Mean())], 32, Identity("0" * 64, {}, "letters"))
    facts = {"backbone": {"name": "<letters>"}, "precision": "float32"}
    bundle = ModelBundle(
        Shouts(), backbone.requires_grad_(False).eval(), head.eval(), targets, facts, torch.device("cpu"), ("a note",)
    )
    monkeypatch.setattr(ModelBundle, "load", lambda *_: bundle)
    monkeypatch.setattr("tl_core.registry.load_registry", lambda: SimpleNamespace(loaders=lambda: [bundle.loader]))
    return bundle


def test_prints_where_and_writes_a_page(
    model: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.shout").write_text("xxbxa")
    Path("table.csv").write_text("text\nyyya\n")
    assert cli.main(["explain", "m", "one.shout", "table.csv", "gone.shout", "--text", "ba", "--class", "b"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "one.shout  b, 0.50: b",
        "table.csv:2  b, 0.10: y",
        "gone.shout  error: missing file",
        "text 1  b, 0.50: b",
        "4 samples in explain.html",
    ]
    assert err.splitlines() == [
        "tl: a note",
        "tl: 1 of 4 samples could not be explained; their error says why",
    ]
    page = Path("explain.html").read_text()
    assert "What <bdi>&lt;letters&gt;</bdi> looked at" in page
    assert "<p>Can&#39;t" not in page
    assert "<p>Can't tell what the model looked at: missing file.</p>" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    first = page
    assert cli.main(["explain", "m", "one.shout", "table.csv", "gone.shout", "--text", "ba", "--class", "b"]) == 0
    assert Path("explain.html").read_text() == first


def test_without_a_class_the_predicted_one(model: ModelBundle, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.html"
    assert cli.main(["explain", "m", "--text", "axx", "--text", "bxx", "--output", str(page)]) == 0
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["text 1  a", "text 2  b"]
    assert page.is_file()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "tl: nothing to explain: name files, folders or tables, or give --text TEXT\n"),
        (["--text", "a", "--class", "c", "--class", "d"],
         "tl: no class 'c'; the model knows a, b\ntl: no class 'd'; the model knows a, b\n"),
        (["many.csv"], "tl: 51 samples are too many for one page, which takes 50; name fewer\n"),
        (["--text", "a", "--out", "file/page.html"], "tl: can't write file/page.html: "),
    ],
)  # fmt: skip
def test_faults(
    arguments: list[str], text: str, model: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    model.notes = ()
    Path("many.csv").write_text("text\n" + "a\n" * 51)
    Path("file").write_text("")
    assert cli.main(["explain", "m", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_a_folder_that_is_no_bundle(capsys: Any) -> None:
    assert cli.main(["explain", "nowhere", "a.txt"]) == 2
    assert "nowhere is no model bundle" in capsys.readouterr().err
