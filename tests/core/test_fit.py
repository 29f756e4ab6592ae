"""What is told before anything is computed: licences, classes, and what a plugin's loader finds in a few samples."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tl_core.config import RunConfig, validate
from tl_core.errors import DecodeError
from tl_core.manifest import Manifest, scan
from tl_core.selection import fit
from tl_core.selection.fit import Warnings, lines, look, warnings_for
from tl_core.types import BackboneSpec, Facts, FitWarning, Loader, Source


class Words(Loader):
    """Texts that are measured by their length; remembers what it was asked for."""

    modality = "words"
    extensions: ClassVar[frozenset[str]] = frozenset({".words"})
    inline = True

    def __init__(self) -> None:
        self.seen: list[Source] = []

    def decode(self, source: Source) -> str:
        text = source.read_text() if isinstance(source, Path) else source
        if not text:
            raise DecodeError("empty")
        return text

    def render(self, source: Source) -> str:
        return f"<p>{self.decode(source)}</p>"

    def measure(self, source: Source) -> Facts:
        self.seen.append(source)
        return {"length": len(self.decode(source))}

    def misfits(self, spec: BackboneSpec, facts: Sequence[Facts]) -> list[FitWarning]:
        longest = max(float(fact["length"]) for fact in facts)
        if longest <= spec.takes.get("length", longest):
            return []
        return [FitWarning("length", f"the longest has {longest:.0f} letters", "cut it")]


def spec(name: str, licence: str | None = "MIT", **takes: Any) -> BackboneSpec:
    def never(spec: BackboneSpec, seed: int | None) -> Any:
        raise AssertionError("built before anything may be computed")

    return BackboneSpec(name, "words", "hub", f"owner/{name}", never, licence=licence, takes=takes)


def table(folder: Path, counts: dict[str, int], **data: Any) -> tuple[Manifest, RunConfig]:
    """A manifest of training rows only, but for one row of each class in validation and test."""
    rows = ["text,label,split"]
    for label, count in counts.items():
        for i in range(count):
            rows.append(f"{label} {'x' * (i % 50)} {i},{label},train")
        rows += [f"{label} {split} row,{label},{split}" for split in ("val", "test")]
    path = folder / "rows.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    config = validate({"modality": "words", "data": {"path": str(path)}, **data})
    return scan(path, config, [Words()], progress=False), config


@pytest.fixture
def balanced(tmp_path: Path) -> tuple[Manifest, RunConfig]:
    return table(tmp_path, {"a": 30, "b": 30})


def told(manifest: Manifest, config: RunConfig) -> list[str]:
    return [f"{w.text}; {w.remedy}" for w in warnings_for([], manifest, Words(), config, None).data]


# licences and grouping


def test_licences_are_told_with_a_remedy_and_grouped(balanced: tuple[Manifest, RunConfig]) -> None:
    manifest, config = balanced
    specs = [
        spec("free"),
        spec("nc", "CC-BY-NC-4.0"),
        spec("gpl", "GPL-3.0"),
        spec("odd", "custom"),
        spec("none", None),
    ]
    specs += [spec("nc2", "CC-BY-NC-4.0")]
    found = warnings_for(specs, manifest, Words(), config, None)
    assert "free" not in found.backbones
    choose = "choose one that `tl backbones words --licence permissive` lists"
    assert lines(found) == [
        f"nc, nc2: the licence (CC-BY-NC-4.0) allows no commercial use; for any such use {choose}",
        "gpl: the licence (GPL-3.0) wants what is made from the weights shared under the same terms; where you can't "
        f"share your model so, {choose}",
        f"odd: the licence (custom) is none that tl knows; read the terms where the weights come from, or {choose}",
        f"none: no licence is stated; read the terms where the weights come from, or {choose}",
    ]
    json.dumps([dataclasses.asdict(w) for ws in found.backbones.values() for w in ws])


def test_many_backbones_share_a_line() -> None:
    warning = FitWarning("length", "too long", "cut it")
    found = Warnings([FitWarning("classes", "few rows", "add some")], {f"net{i}": [warning] for i in range(6)})
    assert lines(found) == ["data: few rows; add some", "net0, net1, net2 and 3 more: too long; cut it"]


# classes


def test_enough_rows_of_each_class_say_nothing(balanced: tuple[Manifest, RunConfig]) -> None:
    assert told(*balanced) == []


def test_few_rows_of_a_class(tmp_path: Path) -> None:
    manifest, config = table(tmp_path, {"a": 30, "b": 4, "c": 5, "d": 1})
    assert told(manifest, config) == [
        "2 of 4 classes have fewer than 5 training rows (d: 1, b: 4): how well they are told apart can't be judged; "
        "add samples of them, merge them with others or leave them out; 5 rows each are the least"
    ]


def test_more_classes_than_the_sample_holds(tmp_path: Path) -> None:
    counts = {f"c{i}": 6 for i in range(30)}
    manifest, config = table(tmp_path, counts, select={"sample": 40})
    assert told(manifest, config) == [
        "the ranking's sample of 40 rows (select.sample) can't hold 2 of each of 30 classes; raise it: "
        "--set select.sample=60"
    ]
    assert told(*table(tmp_path, counts, select={"sample": 60})) == []
    assert told(*table(tmp_path, {"a": 6, "b": 6}, select={"sample": 20})) == []


def test_a_dominant_class(tmp_path: Path) -> None:
    manifest, config = table(tmp_path, {"no": 90, "yes": 10})
    assert told(manifest, config) == [
        "90.0% of the training rows are 'no': always answering that gives an accuracy of 0.900; judge by macro_f1, "
        "which the report shows too, and against that floor; or add samples of the others"
    ]
    assert told(*table(tmp_path, {"no": 79, "yes": 21})) == []


def test_multilabel_counts_labels_and_regression_none(tmp_path: Path) -> None:
    manifest, config = table(tmp_path, {"a|b": 20, "a": 20, "c": 3}, data={"task": "multilabel"})
    assert [line.partition(":")[0] for line in told(manifest, config)] == [
        "1 of 3 labels have fewer than 5 training rows (c"
    ]
    assert told(*table(tmp_path, {str(i / 7): 1 for i in range(60)}, data={"task": "regression"})) == []


# the look at the samples


def test_the_look_goes_by_digest_and_is_remembered(balanced: tuple[Manifest, RunConfig], tmp_path: Path) -> None:
    manifest, _ = balanced
    first, again = Words(), Words()
    facts = look(manifest, first, tmp_path / "cache")
    assert len(facts) == len(first.seen) == 60
    assert look(manifest, again, tmp_path / "cache") == facts
    assert again.seen == []
    assert look(manifest, again, None) == facts
    assert len(again.seen) == 60


@pytest.mark.parametrize("version", ["version", "measure_version"])
def test_a_new_version_looks_again(
    balanced: tuple[Manifest, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    look(balanced[0], Words(), tmp_path)
    monkeypatch.setattr(Words, version, 2)
    again = Words()
    look(balanced[0], again, tmp_path)
    assert len(again.seen) == 60


def test_so_many_samples_and_no_more(
    balanced: tuple[Manifest, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "LOOKED_AT", 10)
    loader = Words()
    few = look(balanced[0], loader, tmp_path)
    assert len(few) == 10
    digests = sorted(balanced[0].digests(balanced[0].rows("train")))[:10]
    chosen = {sample.source for sample in balanced[0].samples(balanced[0].rows("train")) if sample.digest in digests}
    assert set(loader.seen) == chosen


def test_test_rows_are_never_looked_at(balanced: tuple[Manifest, RunConfig]) -> None:
    loader = Words()
    look(balanced[0], loader, None)
    assert not any("test row" in str(source) or "val row" in str(source) for source in loader.seen)


def test_what_can_not_be_measured_or_has_changed_is_left_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for label in ("a", "b"):
        (data / label).mkdir(parents=True)
        for i in range(20):
            (data / label / f"{i}.words").write_text(f"{label} {i}")
    config = validate({"modality": "words", "data": {"path": str(data)}})
    manifest = scan(data, config, [Words()], progress=False)
    training = [sample.source for sample in manifest.samples(manifest.rows("train"))]
    changed, gone = training[:2]
    assert isinstance(changed, Path)
    assert isinstance(gone, Path)
    changed.write_text("quite another text")
    gone.unlink()
    assert len(look(manifest, Words(), tmp_path / "cache")) == len(training) - 2


def test_misfits_of_each_backbone(balanced: tuple[Manifest, RunConfig]) -> None:
    manifest, config = balanced
    found = warnings_for(
        [spec("short", length=10), spec("long", length=1000), spec("any")], manifest, Words(), config, None
    )
    assert found == Warnings([], {"short": [FitWarning("length", "the longest has 34 letters", "cut it")]})


def test_a_plugin_that_fails_does_not_stop_the_run(balanced: tuple[Manifest, RunConfig]) -> None:
    class Broken(Words):
        def misfits(self, spec: BackboneSpec, facts: Sequence[Facts]) -> list[FitWarning]:
            raise KeyError("height")

    manifest, config = balanced
    assert lines(warnings_for([spec("net")], manifest, Broken(), config, None)) == [
        "net: how it suits the data can't be told: KeyError: 'height'; report this to the author of the words plugin"
    ]

    class Blind(Words):
        def measure(self, source: Source) -> Facts:
            raise RuntimeError("no codec")

    assert lines(warnings_for([spec("net", length=1)], manifest, Blind(), config, None)) == []


def test_a_loader_without_measures_says_nothing(balanced: tuple[Manifest, RunConfig]) -> None:
    class Plain(Words):
        measure = Loader.measure
        misfits = Loader.misfits

    manifest, config = balanced
    assert warnings_for([spec("net")], manifest, Plain(), config, None) == Warnings([], {})
