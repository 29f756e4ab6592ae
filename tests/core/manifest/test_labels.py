"""Which task the labels ask for, and targets as arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tl_core.errors import UserError

from .sources import read, reasons, table, texts


@pytest.mark.parametrize(
    ("labels", "header", "task"),
    [
        (["a", "b"], "label", "multiclass"),
        (["1", "2", "5"], "rating", "multiclass"),
        (["0.5", "1.5", "2"], "score", "regression"),
        ([str(i) for i in range(30)], "score", "regression"),
        (["a|b", "b", ""], "label", "multilabel"),
        (["a", "b"], "Tags", "multilabel"),
    ],
)
def test_the_task_shows_in_the_labels(tmp_path: Path, labels: list[str], header: str, task: str) -> None:
    rows = [(f"sentence {i}", labels[i % len(labels)]) for i in range(45)]
    manifest = read(table(tmp_path / "a.csv", rows, ("text", header)))
    assert manifest.targets.task == task
    assert f"task {task} (guessed; data.task sets it)" in manifest.notes
    assert not manifest.quarantined()


def test_lists_are_labels(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "topics": [["b", "a", "b"], [], ["c"], None][i % 4]} for i in range(20)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    manifest = read(path, "data.label=topics")
    assert manifest.table["label"].to_pylist()[:4] == ["a|b", "", "c", ""]
    assert manifest.target_array(np.arange(4)).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert manifest.target_array(np.arange(4)).dtype == np.float32
    with pytest.raises(UserError, match=r"label 'a' .*holds data.separator 'a'"):
        read(path, "data.label=topics", "data.separator=a")


def test_targets(tmp_path: Path) -> None:
    numbers = read(table(tmp_path / "n.csv", [(f"text {i}", i / 2) for i in range(30)], ("text", "score")))
    assert numbers.target_array(np.array([3, 1])).tolist() == [1.5, 0.5]
    assert numbers.counts() == {"train": {"rows": 18}, "val": {"rows": 6}, "test": {"rows": 6}}
    words = read(table(tmp_path / "w.csv", [*texts(), ("no label here", "")]))
    assert words.target_array(np.array([0, 1])).tolist() == [1, 0]
    assert words.target_array(np.array([], int)).shape == (0,)
    with pytest.raises(ValueError, match="row 12 has no label"):
        words.target_array(np.array([0, 12]))


def test_unusable_labels(tmp_path: Path) -> None:
    rows = [(f"text {i}", v) for i, v in enumerate([*[i / 4 for i in range(30)], "inf", "nan", "", "much", "1_0"])]
    manifest = read(table(tmp_path / "a.csv", rows, ("text", "score")), "data.task=regression")
    assert list(reasons(manifest).values()) == [
        "label 'inf' is no finite number", "label 'nan' is no finite number", "no label",
        "label 'much' is no finite number", "label '1_0' is no finite number",
    ]  # fmt: skip
