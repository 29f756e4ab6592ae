"""`tl compare`: runs side by side, what they share, what is refused, the page and the JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tl_flows import cli
from tl_flows.commands.compare import find_runs
from tl_flows.project import outside_workspace
from tl_flows.versioning import initialise

from tl_core.config import RunConfig
from tl_core.errors import FormatError, UserError
from tl_core.evaluation import evaluate_predictions, predictions_table, write_predictions
from tl_core.manifest import Manifest
from tl_core.report import (
    BackboneFacts,
    ComparedRun,
    Comparison,
    DataFacts,
    ReportFacts,
    compare_runs,
    render_comparison,
)
from tl_core.store import FeatureStore, Space
from tl_core.types import Targets

CLASSES = ("cat", "cow", "dog")
CONFIG = "seed: 0\nselect:\n  preset: balanced\n  backbones: []\n"
ROWS = 120


@dataclasses.dataclass
class Made:
    """A run to be written: its test rows with predictions."""

    targets: Targets
    labels: Sequence[str]
    predictions: np.ndarray
    ids: Sequence[str] = ()
    digests: Sequence[str] = ()
    groups: Sequence[str] | None = None
    config: str = CONFIG
    backbone: str = "resnet18"
    inline: bool = False
    torch: str = "2.9"

    def write(self, root: Path) -> Path:
        n = len(self.labels)
        ids = self.ids or [f"{i:03d}.png" for i in range(n)]
        table = pa.table(
            {
                "id": ids, "digest": self.digests or [f"md5 {i}" for i in ids], "source": ids,
                "inline": [self.inline] * n, "label": list(self.labels), "split": ["test"] * n,
                "group": pa.array(self.groups or [None] * n, pa.string()), "reason": pa.array([None] * n, pa.string()),
            }
        )  # fmt: skip
        version = f"version of {len(set(ids))} {self.labels[0]} {self.digests[:1]}"
        manifest = Manifest(table, "image", self.targets, "", (), version)
        manifest.save(root / "artifacts" / "version" / "manifest.parquet")
        rows = manifest.rows("test")
        evaluated = root / "artifacts" / "evaluate"
        write_predictions(predictions_table(manifest, rows, self.predictions), evaluated / "predictions.parquet")
        evaluation = evaluate_predictions(
            self.targets.task, self.targets, self.predictions, manifest.target_array(rows),
            confidence=0.9, resamples=100, seed=0,
        )  # fmt: skip
        ReportFacts(
            title=f"Image: {self.backbone}",
            modality="image",
            data=DataFacts(version, manifest.counts()),
            backbone=BackboneFacts(self.backbone, "package", f"print-of-{self.backbone}"),
            strategy="probe",
            evaluation=evaluation,
            provenance={"torch": self.torch},
            config=self.config,
        ).save(evaluated / "report.json")
        return root


def said(labels: Sequence[str], errors: float, seed: int = 0, classes: Sequence[str] = CLASSES) -> np.ndarray:
    """Probabilities that favour the right class but in a share of rows, the same rows at every share."""
    rng = np.random.default_rng(seed)
    right = np.asarray([list(classes).index(label) for label in labels])
    given = np.where(rng.random(len(labels)) < errors, (right + 1) % len(classes), right)
    values = np.eye(len(classes))[given] * 3 + rng.random((len(labels), len(classes)))
    shares: np.ndarray = values / values.sum(1, keepdims=True)
    return shares


LABELS = [CLASSES[i % 3] for i in range(ROWS)]
ANIMALS = Targets("multiclass", CLASSES)


def made(errors: float, **changed: Any) -> Made:
    return Made(ANIMALS, LABELS, said(LABELS, errors), **changed)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A weaker run and a better one of the same rows, in folders old/ and new/ here."""
    monkeypatch.chdir(tmp_path)
    config = CONFIG.replace("balanced", "best")
    return made(0.35).write(tmp_path / "old"), made(0.1, config=config, backbone="vit", torch="2.10").write(
        tmp_path / "new"
    )


def compared(*roots: Path) -> Comparison:
    return compare_runs([ComparedRun.load(root.name, root / "artifacts") for root in roots], resamples=200)


def test_a_better_run_is_told_with_all_that_differs(two: tuple[Path, Path]) -> None:
    result = compared(*two)
    (pair,) = result.pairs
    before, after = (float((said(LABELS, e).argmax(1) == np.arange(ROWS) % 3).mean()) for e in (0.35, 0.1))
    assert (pair.rows, pair.only_first, pair.only_second) == (ROWS, 0, 0)
    assert (pair.result.first.value, pair.result.second.value) == pytest.approx((before, after))
    assert (pair.result.state, pair.lost, pair.won) == ("better", 0, round(ROWS * (after - before)))
    assert pair.result.mcnemar
    assert pair.result.mcnemar.second_only == pair.won == len(pair.moved)
    for row in pair.moved:
        assert row.change == "won"
        assert row.second == row.label != row.first
        assert LABELS[int(row.id[:3])] == row.label
    assert [row.name for row in pair.classes] != []
    gains = [abs(row.difference.value) for row in pair.classes]
    assert gains == sorted(gains, reverse=True)
    assert [(c.key, c.first, c.second) for c in pair.config] == [("select.preset", "balanced", "best")]
    assert {c.key: (c.first, c.second) for c in pair.made_of} == {
        "backbone": ("resnet18", "vit"),
        "fingerprint": ("print-of-resnet18", "print-of-vit"),
        "torch": ("2.9", "2.10"),
    }
    assert (pair.data.added, pair.data.removed, pair.data.unchanged) == (0, 0, ROWS)
    assert [run.name for run in result.runs] == ["old", "new"]


def test_only_the_same_sample_with_the_same_label_is_shared(two: tuple[Path, Path], tmp_path: Path) -> None:
    ids = [f"{i:03d}.png" for i in range(10, ROWS + 5)]  # 10 fewer in front, 5 more at the end
    labels = [CLASSES[int(i[:3]) % 3] for i in ids]
    digests = [f"md5 {i}" for i in ids]
    digests[0] = "another content"
    labels[1] = next(name for name in CLASSES if name != labels[1])
    other = Made(ANIMALS, labels, said(labels, 0.2), ids=ids, digests=digests).write(tmp_path / "other")
    (pair,) = compared(two[0], other).pairs
    assert (pair.rows, pair.only_first, pair.only_second) == (ROWS - 12, 12, 7)
    data = pair.data
    assert (data.added, data.removed, data.modified, data.relabelled) == (5, 10, 1, 1)


def test_rows_of_tables_are_found_by_their_text(two: tuple[Path, Path], tmp_path: Path) -> None:
    digests = [f"text {i // 2}" for i in range(ROWS)]  # each text stands there twice
    labels = [CLASSES[i // 2 % 3] for i in range(ROWS)]
    shifted = [f"table.csv:{i + 7}" for i in range(ROWS)]
    plain = [f"table.csv:{i}" for i in range(ROWS)]
    roots = [
        Made(ANIMALS, labels, said(labels, 0.2), ids=ids, digests=digests, inline=True).write(tmp_path / name)
        for name, ids in (("plain", plain), ("shifted", shifted))
    ]
    (pair,) = compared(*roots).pairs
    assert (pair.rows, pair.result.differ) == (ROWS, 0)


def test_a_class_that_only_one_run_knows_is_no_fault(two: tuple[Path, Path], tmp_path: Path) -> None:
    more = ("ant", *CLASSES)
    labels = [*LABELS[:-1], "ant"]
    wide = Made(Targets("multiclass", more), labels, said(labels, 0.35, classes=more)).write(tmp_path / "wide")
    (pair,) = compared(two[0], wide).pairs
    assert pair.rows == ROWS - 1
    right = (said(labels, 0.35, classes=more).argmax(1) == [more.index(x) for x in labels])[:-1].mean()
    assert pair.result.second.value == pytest.approx(float(right), abs=1e-6)


def test_probabilities_that_rounding_tied_keep_their_decision(tmp_path: Path) -> None:
    predictions = np.full((3, 3), 0.3)
    predictions[:, 2] += 4e-8
    root = Made(ANIMALS, ["dog", "cat", "cow"], predictions).write(tmp_path / "tied")
    other = Made(ANIMALS, ["dog", "cat", "cow"], np.eye(3)).write(tmp_path / "other")
    (pair,) = compared(root, other).pairs
    assert pair.result.first.value == pytest.approx(1 / 3)


def test_groups_of_the_reference_are_resampled_whole(tmp_path: Path) -> None:
    groups = [f"g{i // 6}" for i in range(ROWS)]
    roots = [made(e, groups=groups).write(tmp_path / str(e)) for e in (0.3, 0.2)]
    (pair,) = compared(*roots).pairs
    assert pair.result.mcnemar
    assert pair.result.mcnemar.p is None


def test_labels_and_values_are_compared_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((60, 2)) < 0.5
    texts = ["|".join(name for name, yes in zip("xy", row) if yes) for row in truth]
    scores = [1 / (1 + np.exp(-(2 * truth - 1) * s - rng.normal(size=truth.shape))) for s in (0.8, 2.5)]
    roots = [
        Made(Targets("multilabel", ("x", "y")), texts, p).write(tmp_path / name) for p, name in zip(scores, ("a", "b"))
    ]
    (pair,) = compared(*roots).pairs
    assert (pair.result.metric, pair.result.state) == ("micro_f1", "better")
    assert "Only b gets all labels of " in render_comparison(compared(*roots))
    values = rng.normal(size=60).round(3)
    roots = [
        Made(Targets("regression"), [str(v) for v in values], values + s * rng.normal(size=60)).write(tmp_path / name)
        for s, name in ((1.0, "wide"), (0.3, "near"))
    ]
    (pair,) = compared(*roots).pairs
    assert (pair.result.metric, pair.result.state, pair.classes) == ("r2", "better", ())
    assert pair.won > pair.lost > 0
    most = pair.moved[pair.lost]  # the first of those that came nearer
    gains = [abs(float(m.first) - float(m.label)) - abs(float(m.second) - float(m.label)) for m in pair.moved]
    assert gains[pair.lost] == pytest.approx(max(gains))
    assert most.change == "won"
    assert "Errors that changed most" in render_comparison(compared(*roots))


def test_what_cannot_be_compared_is_refused_at_once(two: tuple[Path, Path], tmp_path: Path) -> None:
    values = Made(Targets("regression"), ["1.0", "2.0"], np.asarray([1.0, 2.5])).write(tmp_path / "values")
    elsewhere = made(0.1, ids=[f"else {i}" for i in range(ROWS)]).write(tmp_path / "elsewhere")
    with pytest.raises(UserError) as error:
        compared(two[0], values, elsewhere)
    assert str(error.value).splitlines() == [
        "old is a multiclass run and values a regression one; compare runs of one task",
        "old and elsewhere share no test row (the same sample with the same label); evaluate both on versions of the "
        "same data, with the same seed and data.test_fraction",
    ]


def test_a_result_of_other_data_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = two
    other = made(0.1, ids=[f"else {i}" for i in range(ROWS)], digests=["x"] * ROWS).write(tmp_path / "elsewhere")
    manifest = other / "artifacts" / "version" / "manifest.parquet"
    (old / "artifacts" / "version" / "manifest.parquet").write_bytes(manifest.read_bytes())
    with pytest.raises(UserError, match="the result of old is of another version of its data; run `tl evaluate` there"):
        ComparedRun.load("old", old / "artifacts")
    (new / "artifacts" / "evaluate" / "predictions.parquet").unlink()
    with pytest.raises(FormatError, match=r"no predictions of new in .*; run `tl evaluate` there"):
        ComparedRun.load("new", new / "artifacts")


def test_the_command_prints_and_writes_a_page(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "old", "new/artifacts"]) == 0
    told = capsys.readouterr().out
    for text in (
        "accuracy", "Better than old: new has accuracy 0.", "Only new gets ", "McNemar's exact test p = ",
        "F1 in old", "sample", "data: the same rows", "config: select.preset: balanced -> best",
        "made of: backbone: resnet18 -> vit", "page: ",
    ):  # fmt: skip
        assert text in told
    page = (two[0] / "compare.html").read_text(encoding="utf-8")
    assert '<h2 id="verdict-1"><bdi>new is better than old</bdi></h2>' in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert "<script" not in page
    assert cli.main(["compare", "old", "new", "--html", "sub/page.html"]) == 0
    assert (two[0].parent / "sub" / "page.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("named", [False, True])
def test_rows_that_only_one_run_has_are_compared_by_stored_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    digests = [hashlib.md5(str(i).encode(), usedforsecurity=False).hexdigest() for i in range(ROWS)]
    Made(ANIMALS, LABELS[:60], said(LABELS[:60], 0.2), digests=digests[:60]).write(tmp_path / "old")
    made(0.2, digests=digests).write(tmp_path / "new")
    features = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    features[60:] += 3
    store = FeatureStore(tmp_path / "elsewhere" if named else outside_workspace(tmp_path / "old", RunConfig()).store)
    with store.writer(Space("print-of-resnet18", "end", "float32"), (8,), features.dtype, "test") as writer:
        writer.append(digests, features)
    kept = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    assert cli.main(["compare", "old", "new", *(["--store", "elsewhere"] if named else [])]) == 0
    told = capsys.readouterr().out
    sentence = "Rows that only new has against those of old: the rows can be told apart by their features (AUC "
    assert f"data: 60 added, 60 unchanged\nshift: {sentence}" in told
    assert f"<b>Shift.</b> {sentence}" in Path("old", "compare.html").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == kept
    if named:
        assert cli.main(["compare", "old", "new"]) == 0
        assert "shift: 120 of 120 rows were left out, because their features of resnet18 are not in " in (
            capsys.readouterr().out
        )


def test_json_is_all_that_is_printed(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "new", "old", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["format"], value["watch"], value["pairs"][0]["result"]["state"]) == (1, "accuracy", "worse")
    assert value["pairs"][0]["moved"][0]["change"] == "lost"
    assert value["runs"][1]["metrics"]["auroc"]["low"] > 0
    assert not (two[1] / "compare.html").exists()


def test_names_in_the_page_are_escaped(tmp_path: Path) -> None:
    odd = ("<b>&", "cow", "dog")
    labels = [odd[i % 3] for i in range(30)]
    roots = [
        Made(Targets("multiclass", odd), labels, said(labels, e, classes=odd)).write(tmp_path / name)
        for e, name in ((0.5, "<i>one"), (0.1, "two"))
    ]
    page = render_comparison(compared(*roots))
    assert "<b>&" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;&amp;" in page


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["old"], "tl: only one run is named (old); name at least two, the first is the reference"),
        (["old", "old/artifacts"], "tl: old/artifacts is named twice; name each run once"),
        (["old", "nowhere", "none"], "tl: no result in nowhere: neither artifacts/evaluate/report.json nor"),
    ],
)
@pytest.mark.usefixtures("two")
def test_faults_of_the_command(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", *arguments]) == 2
    told = capsys.readouterr().err
    assert text in told
    assert ("no result in none" in told) == ("none" in arguments)


def test_runs_are_called_by_their_folder_unless_two_are_alike(two: tuple[Path, Path]) -> None:
    assert list(find_runs(["old", "new/artifacts"], Path)) == ["old", "new"]
    made(0.2).write(Path("sub", "old"))
    assert list(find_runs(["old", "sub/old", "new"], Path)) == ["old", "sub/old", "new"]


def test_a_git_revision_of_the_project_is_a_run(
    tmp_path: Path, git: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "project"
    made(0.35).write(root)
    (root / "dvc.yaml").write_text("stages: {version: {cmd: 'true'}}\n")
    git(root, "init", "-q")
    initialise(root, git=True)
    monkeypatch.chdir(root)
    subprocess.run(
        [sys.executable, "-m", "dvc", "add", "-q", "artifacts/evaluate/predictions.parquet"], cwd=root, check=True
    )
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    made(0.1).write(root)
    assert cli.main(["compare", "HEAD", "."]) == 0
    assert "Better than HEAD: project has accuracy 0." in capsys.readouterr().out
    assert (root / ".tl" / "compare.html").is_file()
    assert cli.main(["compare", ".", "no-such-branch"]) == 2
    assert "git knows no revision 'no-such-branch' here" in capsys.readouterr().err
    shutil.rmtree(root / ".dvc" / "cache")
    assert cli.main(["compare", "HEAD", "."]) == 2
    assert "the results of revision 'HEAD' are not at hand" in capsys.readouterr().err
