"""Comparisons of runs whose data differ: rows that only one of them has, by features that are stored already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tl_core.evaluation import evaluate_predictions, predictions_table
from tl_core.manifest import Manifest
from tl_core.manifest.table import SCHEMA
from tl_core.report import BackboneFacts, ComparedRun, DataFacts, ReportFacts, compare_runs, render_comparison
from tl_core.report.compare_shift import DataShift, data_shift
from tl_core.store import FeatureStore, Space
from tl_core.types import END, Targets

TWO = Targets("multiclass", ("no", "yes"))
NET = "a" * 64
HOW: dict[str, Any] = {"confidence": 0.9, "resamples": 50, "seed": 0}


def digest(number: int) -> str:
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def label(number: int) -> str:
    return TWO.classes[number % 2]


def feature(number: int, moved: bool) -> np.ndarray:
    """What is stored of a content: its class, noise, and where it has moved that."""
    x = np.random.default_rng(number).normal(size=16).astype(np.float32)
    x[0] += 2 * (number % 2)
    x[1] += 4 * moved
    return x


def run(
    name: str,
    numbers: Sequence[int],
    wrong: Sequence[int] = (),
    *,
    backbone: str = NET,
    relabelled: Mapping[int, str] | None = None,
    groups: Sequence[str] | None = None,
    targets: Targets = TWO,
) -> ComparedRun:
    """A run on contents by number, every third of which is a test row, that errs on those that are wrong."""
    labels = [(relabelled or {}).get(number, label(number)) for number in numbers]
    columns = {
        "id": [f"{name}/{place}" for place in range(len(numbers))], "digest": [digest(number) for number in numbers],
        "source": ["x"] * len(numbers), "inline": [True] * len(numbers), "label": labels,
        "split": ["test" if number % 3 == 0 else "train" for number in numbers],
        "group": pa.array(groups or [None] * len(numbers), pa.string()),
        "reason": pa.array([None] * len(numbers), pa.string()),
    }  # fmt: skip
    column = None if groups is None else "speaker"
    table = pa.table(columns, schema=SCHEMA)
    manifest = Manifest(table, "text", targets, "", (), name, group_column=column)
    tested = manifest.rows("test")
    truth = manifest.target_array(tested)
    given = np.where([numbers[row] in wrong for row in tested], (truth + 1) % 2, truth)
    said = np.where(np.eye(len(targets.classes))[given] > 0, 0.9, 0.1)
    evaluation = evaluate_predictions(targets.task, targets, said, truth, confidence=0.9, resamples=20, seed=0)
    facts = ReportFacts(
        "Text: net", "text", DataFacts(name, manifest.counts()), BackboneFacts("net", "package", backbone), "probe",
        evaluation,
    )  # fmt: skip
    return ComparedRun(name, facts, manifest, predictions_table(manifest, tested, said))


def stored(folder: Path, numbers: Sequence[int], moved: Sequence[int] = (), precision: str = "float32") -> Path:
    store = FeatureStore(folder)
    dtype = np.dtype(np.float32 if precision == "float32" else np.float16)
    rows = np.stack([feature(number, number in moved) for number in numbers]).astype(dtype)
    with store.writer(Space(NET, END, precision), (16,), dtype, "test") as writer:
        writer.append([digest(number) for number in numbers], rows)
    return folder


OLD, NEW = range(0, 240), range(60, 360)  # 60 went, 120 came


def test_new_rows_of_another_kind_are_told_with_what_they_cost(tmp_path: Path) -> None:
    came = range(240, 360)
    store = stored(tmp_path / "store", range(360), moved=came)
    wrong = [number for number in came if number % 2]
    reference, other = run("old", OLD), run("new", NEW, wrong)
    found = data_shift(reference, other, [store], **HOW)
    assert found.notes == ()
    added, removed = found.tests
    assert (added.name, added.kind) == ("rows that only new has against those of old", "version")
    assert added.text.startswith("Rows that only new has against those of old: the rows can be told apart")
    assert (added.state, added.rows) == ("warn", (120, 240))
    assert added.auc.low > 0.9
    assert added.cost is not None
    assert added.cost.value == pytest.approx(-0.5)  # half of its 40 new test rows are wrong, none of the 60 others
    assert "There, accuracy is " in added.text
    assert (removed.name, removed.rows) == ("rows that only old has against those of new", (60, 300))
    assert removed.cost is not None
    assert removed.cost.value == 0
    assert data_shift(reference, other, [store], **HOW) == found
    comparison = compare_runs([reference, other], stores=[store], resamples=50)
    page = render_comparison(comparison)
    assert added.text in page
    assert '<a href="#shift-1">the shift of the data</a>' in page
    assert comparison.as_json()["pairs"][0]["shift"]["tests"][0]["text"] == added.text


def test_rows_of_the_same_kind_are_not_called_a_shift(tmp_path: Path) -> None:
    found = data_shift(run("old", OLD), run("new", NEW), [stored(tmp_path, range(360))], **HOW)
    assert [test.state for test in found.tests] == ["ok", "ok"] or "unclear" in {test.state for test in found.tests}
    assert all("can't tell" in test.text or "no difference seen" in test.text for test in found.tests)


def test_the_same_contents_are_nothing_to_compare(tmp_path: Path) -> None:
    reference = run("old", OLD)
    same = run("new", [*reversed(OLD), 3, 4], relabelled={5: "no"})  # in another order, some twice, one relabelled
    assert data_shift(reference, same, [], **HOW) == DataShift()
    assert 'id="shift-1"' not in render_comparison(compare_runs([reference, same], resamples=20))


def test_only_rows_that_came_or_only_rows_that_went(tmp_path: Path) -> None:
    store = stored(tmp_path, range(360))
    (came,) = data_shift(run("old", OLD), run("new", range(360)), [store], **HOW).tests
    (went,) = data_shift(run("old", range(360)), run("new", OLD), [store], **HOW).tests
    assert (came.name, went.name) == (
        "rows that only new has against those of old", "rows that only old has against those of new",
    )  # fmt: skip
    assert came.rows == went.rows == (120, 240)


def test_features_are_looked_for_in_all_stores_in_one_precision(tmp_path: Path) -> None:
    moved = range(240, 360)
    parts = [stored(tmp_path / "old", OLD), stored(tmp_path / "new", range(200, 360), moved), tmp_path / "nowhere"]
    stored(tmp_path / "old", range(300), precision="bfloat16")
    runs = run("old", OLD), run("new", NEW)
    found = data_shift(*runs, parts, **HOW)
    assert found == data_shift(*runs, [stored(tmp_path / "one", range(360), moved)], **HOW)
    assert found.tests[0].state == "warn"


def test_rows_without_features_are_left_out_and_counted(tmp_path: Path) -> None:
    runs = run("old", OLD), run("new", NEW)
    store = stored(tmp_path / "store", range(30, 250))
    found = data_shift(*runs, [store], **HOW)
    added, removed = found.tests
    assert (added.state, added.rows) == ("unclear", (10, 210))
    assert "too few rows of the same classes to compare (10 and 210 rows)" in added.text
    assert removed.rows == (30, 190)
    assert found.notes == (
        f"140 of 360 rows were left out, because their features of net are not in the feature store ({store}). "
        "`tl run` in the run's folder computes them, in the same extract.precision for both runs.",
    )
    nothing = data_shift(*runs, [], **HOW)
    assert nothing.tests == ()
    assert nothing.notes[0].startswith("360 of 360 rows were left out, because their features of net are not in a feat")
    assert not (tmp_path / "nowhere").exists()
    page = render_comparison(compare_runs(runs, stores=[store], resamples=20))
    assert "140 of 360 rows were left out" in page


def test_a_damaged_row_is_left_out_too(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", range(360))
    (shard,) = (store / "v2").glob("*/*.rows")
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(bytes(data))
    found = data_shift(run("old", OLD), run("new", NEW), [store], **HOW)
    assert found.notes[0].startswith("1 of 360 rows were left out")
    assert sum(found.tests[0].rows) == 359


def test_other_backbones_are_not_compared(tmp_path: Path) -> None:
    store = stored(tmp_path, range(360))
    reference, other = run("old", OLD), run("new", NEW, backbone="b" * 64)
    found = data_shift(reference, other, [store], **HOW)
    assert found.tests == ()
    assert found.notes == (
        "Whether the rows that only one of them has are of another kind was not looked at: net has other weights or "
        "settings in new than in old. Run both with one backbone (select.backbones) to compare their rows.",
    )
    facts = replace(other.facts, backbone=replace(other.facts.backbone, name="wide"))
    (note,) = data_shift(reference, replace(other, facts=facts), [store], **HOW).notes
    assert "the features of old are of net, those of new of wide." in note


def test_a_class_that_only_one_run_knows_is_another_balance(tmp_path: Path) -> None:
    three = Targets("multiclass", ("maybe", "no", "yes"))
    came = dict.fromkeys(range(240, 300), "maybe")
    found = data_shift(
        run("old", OLD), run("new", NEW, targets=three, relabelled=came), [stored(tmp_path, range(360))], **HOW
    )
    added = found.tests[0]
    assert added.state == "warn"
    assert "classes are in another balance: 50% of the rows would have to be of other classes" in added.text


def test_what_both_have_is_labelled_as_the_run_says_whose_rows_are_compared(tmp_path: Path) -> None:
    renamed = {number: "yes" for number in range(60, 240) if number % 3 == 0}
    wrong = [number for number in renamed if number % 2 == 0]
    store = stored(tmp_path, range(360))
    added = data_shift(run("old", OLD), run("new", NEW, wrong, relabelled=renamed), [store], **HOW).tests[0]
    assert added.cost is not None
    assert added.cost.value == pytest.approx(0.5)  # by its own labels half of the shared test rows are wrong


def test_groups_are_dealt_whole(tmp_path: Path) -> None:
    def speaker(number: int) -> str:
        return f"speaker {number // 80}" if number < 240 else f"late speaker {number // 60}"

    moved = range(240, 360)
    store = stored(tmp_path, range(360), moved)
    by_rows = data_shift(run("old", OLD), run("new", range(360)), [store], **HOW).tests[0]
    runs = [run(name, of, groups=[speaker(number) for number in of]) for name, of in (("a", OLD), ("b", range(360)))]
    by_groups = data_shift(*runs, [store], **HOW).tests[0]
    assert by_rows.p < 0.01
    assert by_groups.p > 0.05  # five speakers can be dealt in ten ways
    assert by_groups.state != "warn"
    one_knows = data_shift(run("a", OLD), runs[1], [store], **HOW).tests[0]
    assert one_knows.rows == (120, 240)


@pytest.mark.parametrize("count", [1, 3])
def test_a_handful_of_rows_can_not_tell(tmp_path: Path, count: int) -> None:
    store = stored(tmp_path, range(360))
    found = data_shift(run("old", range(4)), run("new", range(4 + count)), [store], **HOW)
    assert [(test.state, test.rows) for test in found.tests] == [("unclear", (count, 4))]
