"""A recorded run made anew: the same to the byte, the same within a tolerance, or what differs first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_pipeline import commit, dvc, write_labels
from tl_flows import cli
from tl_flows.git import git


def reproduce(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["reproduce", *arguments, "--json"])
    told = capsys.readouterr()
    assert told.out, told.err
    return code, json.loads(told.out)


def test_the_same_to_the_byte_and_nothing_is_touched(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(project, "b" * 100)  # work in progress, which is none of its business
    (project / ".tl" / "shared").mkdir(parents=True)
    before = git(project, "status", "--porcelain"), (project / "dvc.lock").read_bytes()
    cache = sorted((project / ".dvc" / "cache").rglob("*"))
    code, made = reproduce(capsys, "HEAD")
    assert (code, made["outcome"], made["differences"]) == (0, "identical", [])
    assert made["sentence"] == "HEAD is reproduced to the byte: manifest, ranking, model, predictions and metrics"
    assert (git(project, "status", "--porcelain"), (project / "dvc.lock").read_bytes()) == before
    assert sorted((project / ".dvc" / "cache").rglob("*")) == cache
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_close_is_the_same_within_a_tolerance(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT", "0.004")
    monkeypatch.setenv("FLIPPED", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    kept = tmp_path / "kept"
    code, made = reproduce(capsys, "HEAD", "--keep", str(kept))
    assert (code, made["outcome"], made["folder"]) == (0, "within tolerance", str(kept))
    assert made["sentence"].startswith(
        "HEAD is reproduced within 0.01: the largest difference of a metric is accuracy, 0.8 then and 0.804 now; "
        "1 of 100 test rows is predicted otherwise; the first difference is in tune: artifacts/tune: model/head.bin: "
    )
    threads = {"step": "", "kind": "environment", "what": "threads", "then": "1", "now": "7"}
    assert made["differences"][-1] == threads
    assert json.loads((kept / "artifacts/evaluate/metrics.json").read_text())["accuracy"] == 0.804
    assert cli.main(["reproduce", "HEAD", "--keep", str(kept)]) == 2
    assert "exists already and is not empty; name another folder for --keep" in capsys.readouterr().err


def test_what_was_tampered_with_is_told_in_the_order_of_the_steps(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(project, "a" * 79 + "b" * 21)
    dvc(project, "add", "data")
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("seed: 0", "seed: 1"))
    metrics = project / "artifacts" / "evaluate" / "metrics.json"
    metrics.write_text(metrics.read_text().replace("0.8", "0.9"))
    commit(project, "other labels, seed and metrics, and no run")
    code = cli.main(["reproduce", "HEAD"])
    told = capsys.readouterr().out
    assert code == 3, told
    first = told.splitlines()[0]
    assert first.startswith("different: HEAD is not reproduced: the first difference is in version: data data: ")
    assert "1 modified" in first
    assert "rows.csv" in first
    for line in (
        "version      parameter seed: 0 then, 1 now",
        "version      artifacts/version: manifest.parquet: label of 1 of 100 rows, first row 79: a then, b now",
        "evaluate     artifacts/evaluate/metrics.json: accuracy: 0.9 then, 0.79 now",
        "nothing that is recorded of the environment differs",
    ):
        assert f"  {line}\n" in told


@pytest.mark.usefixtures("project")
def test_other_weights_are_no_matter_of_tolerance(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS", "w2")
    code, made = reproduce(capsys, "HEAD")
    assert (code, made["outcome"]) == (3, "different")
    assert made["sentence"] == (
        "HEAD is not reproduced: the first difference is in extract: artifacts/extract: receipt.json: "
        'backbone.weights: "w1" then, "w2" now'
    )


def test_what_can_not_be_made_anew_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "champion"]) == 2
    assert cli.main(["reproduce", "nowhere"]) == 2
    assert "git knows no revision 'nowhere'" in capsys.readouterr().err
    git(project, "rm", "--quiet", "dvc.lock")
    commit(project, "no run")
    assert cli.main(["reproduce", "HEAD"]) == 2
    fault = capsys.readouterr().err
    assert "holds no run of the project" in fault
    assert "`tl run`, commit dvc.lock, and name that commit" in fault
