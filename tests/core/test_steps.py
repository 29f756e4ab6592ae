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
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.workspace import Workspace


def settings(data: Path, /, **sections: Any) -> RunConfig:
    return validate({"data": {"path": str(data), **sections.pop("data", {})}, **sections})


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
    for name in ("report.html", "report.json", "predictions.parquet"):
        assert (ws.step("evaluate") / name).stat().st_size > 0


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
