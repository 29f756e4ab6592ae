"""What reproductions are judged by: differences of files, of metrics, of code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tl_flows.code_version import FILE, installed_code
from tl_flows.reproduction.closeness import Closeness, closeness
from tl_flows.reproduction.code import code_of
from tl_flows.reproduction.contents import changes
from tl_flows.reproduction.lock import read_lock
from tl_flows.reproduction.verdict import Difference, judge
from tl_flows.retraining.worktree import Worktree

from tl_core.errors import UserError


@pytest.mark.parametrize(("flipped", "outcome"), [(1, "within tolerance"), (2, "different")])
def test_rows_that_are_predicted_otherwise_count_as_well(flipped: int, outcome: str) -> None:
    output = Difference("tune", "output", "model", "a", "b")
    close = Closeness(0.0, rows=100, otherwise=flipped)
    assert judge("v1", [output], True, close, 0.01)[0] == outcome
    assert judge("v1", [output], False, close, 1.0)[0] == "different"
    told = Difference("version", "code", "tl-code.json", "a", "b")
    assert judge("v1", [told], True, close, 0.0)[0] == "identical"


def test_json_is_told_by_keys_and_tables_by_columns(tmp_path: Path) -> None:
    one, other = tmp_path / "then", tmp_path / "now"
    for folder, value, rows in ((one, {"a": 1, "b": [1, 2]}, ["x", "y"]), (other, {"b": [1, 3], "c": {}}, ["x", "z"])):
        folder.mkdir()
        (folder / "facts.json").write_text(json.dumps(value))
        pq.write_table(pa.table({"id": [0, 1], "label": rows}), folder / "table.parquet")
        (folder / "same.bin").write_bytes(b"1")
    (one / "bits.bin").write_bytes(b"1")
    (other / "bits.bin").write_bytes(b"2")
    (other / "new.bin").write_bytes(b"")
    assert changes(one, other) == [
        ("bits.bin", "1 bytes", "1 bytes, others"),
        ("facts.json: a", "1", "absent"),
        ("facts.json: b.1", "2", "3"),
        ("facts.json: c", "absent", "{}"),
        ("new.bin", "absent", "present"),
        ("table.parquet: label of 1 of 2 rows, first row 1", "y", "z"),
    ]
    assert changes(one, one) == []


def predictions(path: Path, values: list[str] | list[float]) -> Path:
    pq.write_table(pa.table({"id": [str(i) for i in range(len(values))], "predicted": values}), path)
    return path


def test_metrics_are_close_by_the_largest_difference(tmp_path: Path) -> None:
    then, now = predictions(tmp_path / "a", [1.0, 200.0]), predictions(tmp_path / "b", [1.005, 203.0])
    found = closeness(({"mae": 10.0, "r2": 0.5}, {"mae": 10.2, "r2": 0.51}), (then, now), 0.01)
    assert found.metric == "mae"
    assert math.isclose(found.difference, 0.02)
    assert (found.rows, found.otherwise) == (2, 1)
    assert not found.within(0.02)
    assert found.within(0.5)


@pytest.mark.parametrize("now", [{"x": 1.0, "y": 1.0}, {}, {"x": None}, {"x": "1"}, {"x": True}])
def test_metrics_that_can_not_be_compared_are_far_apart(tmp_path: Path, now: dict[str, object]) -> None:
    found = closeness(({"x": 0.9}, now), (None, tmp_path), 1.0)
    assert not found.within(1.0)
    assert "not at hand" in found.describe()


@pytest.mark.parametrize("text", ["{", "", "stages: 3", "stages: {version: {deps: [1]}}", "stages: {version: {}}"])
def test_a_lock_without_a_whole_run_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="`tl run` and commit it anew"):
        read_lock(text, "dvc.lock of commit abc")


def test_other_code_than_made_the_run_is_named(project: Path) -> None:
    code = installed_code()
    code["tl_core"] = {**code["tl_core"], "sha256": "0" * 64}
    code["tl_text"] = {**code["tl_text"], "version": "0.0.1"}
    code["tl_gone"] = {"version": "3", "sha256": ""}
    del code["tl_image"]
    (project / FILE).write_text(json.dumps(code))
    found = code_of(project, Worktree(project, project))
    assert found.differs == (
        f"tl_core {code['tl_core']['version']} is installed with other content than made the run",
        "tl_gone 3 was part of the run and is not installed",
        f"tl_image {installed_code()['tl_image']['version']} is installed, which the run did without",
        f"tl_text 0.0.1 made the run, {installed_code()['tl_text']['version']} is installed",
    )
    assert found.folders == ()
