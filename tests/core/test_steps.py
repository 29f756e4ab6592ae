"""The five steps over files, on the tests' time-series plugin."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tl_core.config import RunConfig, validate
from tl_core.errors import UserError
from tl_core.registry import Registry
from tl_core.report import ReportFacts
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.steps.select_step import candidates
from tl_core.workspace import Workspace


def settings(data: Path, /, **sections: Any) -> RunConfig:
    tune = sections.pop("tune", {"strategy": "probe"})
    return validate({"data": {"path": str(data), **sections.pop("data", {})}, "tune": tune, **sections})


def workspace(tmp_path: Path, name: str = "out") -> Workspace:
    return Workspace(root=tmp_path / name, store=tmp_path / "store", cache=tmp_path / "cache")


def pipeline(config: RunConfig, registry: Registry, ws: Workspace) -> dict[str, dict[str, Any]]:
    done = {"version": version(config, registry, ws)}
    for name, step in {"select": select, "extract": extract, "tune": tune, "evaluate": evaluate}.items():
        done[name] = step(config, registry, ws)
    return done


def outputs(ws: Workspace) -> dict[str, bytes]:
    folder = ws.root / "artifacts"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_whole_way(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    ws = workspace(tmp_path)
    done = pipeline(settings(waves), timeseries, ws)
    metrics = json.loads(ws.metrics.read_text())
    assert metrics["n_test"] == 18
    assert metrics["floor_majority"] == pytest.approx(1 / 3, abs=1e-6)
    assert metrics["accuracy"] > 0.8
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"]
    assert 0 <= metrics["floor_random_init"] <= 1
    assert done["select"]["chosen"] == "gaussian-derivatives"
    assert done["extract"]["computed"] + done["extract"]["reused"] == 90
    assert done["tune"]["strategy"] == "probe"
    for name in ("report.html", "report.json", "predictions.parquet", "model_card.md"):
        assert (ws.step("evaluate") / name).stat().st_size > 0
    diagnostics = ReportFacts.load(ws.step("evaluate") / "report.json").diagnostics
    assert diagnostics is not None
    assert diagnostics.calibration is not None
    assert diagnostics.skipped == ("groups: no column (data.group, data.attributes) has two values of ten test rows",)


def test_what_is_not_looked_at_is_told(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    def skipped(name: str, **settings_of: Any) -> tuple[str, ...] | None:
        ws = workspace(tmp_path, name)
        pipeline(settings(waves, evaluate=settings_of), timeseries, ws)
        found = ReportFacts.load(ws.step("evaluate") / "report.json").diagnostics
        return None if found is None else found.skipped

    assert skipped("off", diagnostics=False) is None
    told = skipped("no robustness", robustness=0, baseline=False, explain=0)
    assert told is not None
    assert told[-1] == "robustness: evaluate.robustness is 0"


def test_the_same_bytes_again_and_nothing_computed(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    config = settings(waves)
    pipeline(config, timeseries, workspace(tmp_path, "first"))
    again = pipeline(config, timeseries, workspace(tmp_path, "second"))
    assert outputs(workspace(tmp_path, "first")) == outputs(workspace(tmp_path, "second"))
    assert again["extract"]["computed"] == 0
    assert again["extract"]["reused"] == 90
    assert again["select"]["computed"] == 0


def test_an_emptied_store_gives_the_same_bytes(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    config = settings(waves)
    ws = workspace(tmp_path)
    pipeline(config, timeseries, ws)
    before = outputs(ws)
    shutil.rmtree(tmp_path / "store")
    tune(config, timeseries, ws)  # readers recompute what the store has lost
    evaluate(config, timeseries, ws)
    assert outputs(ws) == before


def test_finetuning(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    config = settings(waves, tune={"strategy": "finetune", "epochs": 2})
    ws = workspace(tmp_path)
    done = pipeline(config, timeseries, ws)
    assert done["tune"]["trained_segments"] == ["filters", "pool"]
    assert (ws.model / "backbone.safetensors").is_file()
    assert json.loads(ws.metrics.read_text())["accuracy"] > 0.5
    first = outputs(ws)
    tune(config, timeseries, ws)
    evaluate(config, timeseries, ws)
    assert outputs(ws) == first


def test_regression_and_multilabel(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    files = sorted(waves.rglob("*.npy"))
    value = {"slow": 0, "noise": 1, "fast": 2}
    labels = {
        "regression": [f"{value[f.parent.name] + rng.normal(0, 0.01):.4f}" for f in files],
        "multilabel": ["|".join(w for w in ("a", "s") if w in f.parent.name) for f in files],
    }
    names = {"regression": ("r2", "label"), "multilabel": ("micro_f1", "labels")}
    for task, column in labels.items():
        watch, header = names[task]
        with (waves / "metadata.csv").open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["file", header])
            rows.writerows([f.relative_to(waves).as_posix(), label] for f, label in zip(files, column, strict=True))
        ws = workspace(tmp_path, task)
        done = pipeline(settings(waves), timeseries, ws)
        assert done["version"]["task"] == task
        metrics = json.loads(ws.metrics.read_text())
        assert metrics[f"{watch}_low"] <= metrics[watch] <= metrics[f"{watch}_high"]
        assert metrics["floor_majority"] < metrics[watch]
        assert "floor_random_init" in metrics


def test_bad_files_are_named_and_keep_their_rows(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    (waves / "fast" / "002.npy").write_bytes(b"")
    ws = workspace(tmp_path)
    done = pipeline(settings(waves, data={"max_bad": 0.05}), timeseries, ws)
    assert done["version"]["quarantined"] == 1
    with ws.quarantine.open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert (row["id"], row["reason"]) == ("fast/002.npy", "empty file")
    table = pq.read_table(ws.step("evaluate") / "predictions.parquet")
    assert {"row", "id", "label", "predicted", "reason"} <= set(table.column_names)


def test_too_many_bad_files_stop_the_run(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    for i in range(3):
        (waves / "slow" / f"00{i}.npy").write_bytes(b"no series")
    ws = workspace(tmp_path)
    with pytest.raises(UserError) as caught:
        version(settings(waves), timeseries, ws)
    assert "slow/000.npy" in str(caught.value)
    assert str(ws.quarantine) in str(caught.value)
    assert len(ws.quarantine.read_text().splitlines()) == 4
    assert not ws.manifest.exists()


def test_what_changed_since_last_time(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    ws = workspace(tmp_path)
    config = settings(waves)
    version(config, timeseries, ws)
    (waves / "fast" / "000.npy").unlink()
    np.save(waves / "fast" / "new.npy", np.arange(50.0))
    np.save(waves / "slow" / "000.npy", np.arange(60.0))
    (waves / "slow" / "001.npy").rename(waves / "noise" / "moved.npy")
    changes = version(config, timeseries, ws)["changes"]
    assert (changes["added"], changes["removed"], changes["modified"]) == (2, 2, 1)


def test_adding_samples_computes_just_those(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    ws = workspace(tmp_path)
    config = settings(waves)
    pipeline(config, timeseries, ws)
    np.save(waves / "fast" / "new.npy", np.sin(np.arange(100.0)))
    (waves / "slow" / "029.npy").rename(waves / "slow" / "renamed.npy")
    done = pipeline(config, timeseries, ws)
    assert done["select"]["computed"] + done["extract"]["computed"] == 1


@pytest.mark.parametrize("step", [select, extract, tune, evaluate])
def test_a_step_without_its_inputs_says_what_to_run(step: Any, timeseries: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run `tl (version|select|extract|tune)` first"):
        step(RunConfig(), timeseries, workspace(tmp_path))


def test_an_unknown_backbone_has_near_names(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    config = settings(waves, select={"backbones": ["gaussian-derivative"]})
    ws = workspace(tmp_path)
    version(config, timeseries, ws)
    with pytest.raises(UserError, match="did you mean gaussian-derivatives"):
        select(config, timeseries, ws)


def table(folder: Path, header: list[str], rows: list[list[object]]) -> Path:
    """A metadata.csv over series of different content."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", *header])
        for i, row in enumerate(rows):
            np.save(folder / f"{i}.npy", rng.normal(size=50))
            writer.writerow([f"{i}.npy", *row])
    return folder


def split_of(i: int) -> str:
    return "train" if i < 10 else "val" if i < 14 else "test"


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (["label"], [["ab"[i % 2]] for i in range(6)], "2 usable samples are left for training, at least 4 are needed"),
        (["labels"], [["x"] for _ in range(20)], "all training samples have the same label"),
        (["label", "split"], [[1.5 if i < 10 else i / 7, split_of(i)] for i in range(20)], "have the same label"),
        (["label"], [[f"{i}e39"] for i in range(1, 20)], "label '1e39' is no finite number"),
    ],
)
def test_data_that_nothing_can_be_learnt_from(
    header: list[str], rows: list[list[object]], message: str, timeseries: Registry, tmp_path: Path
) -> None:
    task = "regression" if "." in str(rows[0][0]) or "e" in str(rows[0][0]) else "auto"
    data = table(tmp_path / "data", header, rows)
    with pytest.raises(UserError, match=message):
        version(settings(data, data={"task": task}), timeseries, workspace(tmp_path))


def test_a_sample_of_a_nearly_constant_value_is_ranked(timeseries: Registry, tmp_path: Path) -> None:
    data = table(tmp_path / "data", ["label"], [[7.5 if i % 40 == 39 else 0] for i in range(200)])
    config, ws = settings(data, data={"task": "regression"}, select={"sample": 20}), workspace(tmp_path)
    version(config, timeseries, ws)
    select(config, timeseries, ws)
    assert json.loads(ws.ranking.read_text())["candidates"][0]["status"] == "ranked"


def test_a_class_unseen_in_validation_or_test_and_odd_names(timeseries: Registry, tmp_path: Path) -> None:
    names = ["../a/b", "日本 ☃", 'c\\d,"<x>']
    rows: list[list[object]] = [[names[i % 3 if i < 10 else i % 2], split_of(i)] for i in range(20)]
    ws = workspace(tmp_path)
    pipeline(settings(table(tmp_path / "data", ["label", "split"], rows)), timeseries, ws)
    columns = pq.read_table(ws.step("evaluate") / "predictions.parquet").column_names
    assert {f"p_{name}" for name in names} <= set(columns)


def test_a_label_never_seen_in_training(timeseries: Registry, tmp_path: Path) -> None:
    rows: list[list[object]] = [["x|y" if i % 2 else "y" if i < 10 else "z", split_of(i)] for i in range(20)]
    ws = workspace(tmp_path)
    done = pipeline(settings(table(tmp_path / "data", ["labels", "split"], rows)), timeseries, ws)
    assert done["version"]["classes"] == ["x", "y", "z"]
    facts = json.loads((ws.step("evaluate") / "report.json").read_text())["facts"]
    assert facts["data"]["rows"] == {"train": 10, "val": 4, "test": 6}  # rows, not labels


def test_finetuning_takes_no_sample_that_has_changed(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    config, ws = settings(waves, tune={"strategy": "finetune", "epochs": 1}), workspace(tmp_path)
    for step in (version, select, extract):
        step(config, timeseries, ws)
    for file in waves.rglob("*.npy"):
        np.save(file, np.arange(50.0))
    with pytest.raises(UserError, match=r"has changed since it was checked \(other bytes\); run again"):
        tune(config, timeseries, ws)


def test_a_probe_leaves_nothing_of_a_finetuning_before_it(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    used, fresh = workspace(tmp_path, "used"), workspace(tmp_path, "fresh")
    pipeline(settings(waves, tune={"strategy": "finetune", "epochs": 1}), timeseries, used)
    assert (used.step("evaluate") / "plots" / "history.csv").is_file()
    for ws in (used, fresh):
        pipeline(settings(waves), timeseries, ws)
    assert outputs(used) == outputs(fresh)


def test_where_features_lie_changes_no_output(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    first, second = workspace(tmp_path, "first"), workspace(tmp_path, "second")
    pipeline(settings(waves), timeseries, first)
    pipeline(settings(waves, store={"path": str(tmp_path / "store")}), timeseries, second)
    assert outputs(first) == outputs(second)


def test_a_catalogue_name_is_no_folder_of_that_name(timeseries: Registry, tmp_path: Path) -> None:
    for folder in ("gaussian-derivatives", "weights"):
        (tmp_path / folder).mkdir()
    names = ["gaussian-derivatives", "weights", "./weights", "./gaussian-derivatives"]
    config = validate({"select": {"backbones": names}})
    found = candidates(config, timeseries, "timeseries", tmp_path)
    assert found == ["gaussian-derivatives", "./weights", "./gaussian-derivatives"]
