"""`tl monitor`: what it says of new data, in words, as JSON and on a page; its exit codes; every fault told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tl_flows import cli, monitoring
from tl_flows.commands import monitor as command

from tl_core.config import validate
from tl_core.registry import Registry
from tl_core.steps import extract, select, tune, version
from tl_core.workspace import Workspace


def waves(folder: Path, count: int, seed: int, cycles: tuple[float, ...] = (2, 11, 0)) -> Path:
    """Unlabelled series of the three kinds that the model knows, or of others."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        each = cycles[i % len(cycles)]
        wave = np.sin(np.linspace(0, 2 * np.pi * each, 100) + rng.uniform(0, 6)) if each else 0.0
        np.save(folder / f"{i:03d}.npy", wave + rng.normal(0, 0.5, 100))
    return folder


@pytest.fixture(scope="module", params=["probe", "finetune"])
def model(request: pytest.FixtureRequest, timeseries: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import conftest

    folder = tmp_path_factory.mktemp(request.param)
    data = conftest.write_waves(folder / "waves", per_class=60)
    config = validate({"data": {"path": str(data)}, "tune": {"strategy": request.param, "curve": False, "epochs": 1}})
    workspace = Workspace(folder / "out", folder / "store", folder / "cache")
    version(config, timeseries, workspace)
    for step in (select, extract, tune):
        step(config, timeseries, workspace)
    return workspace.model


@pytest.fixture
def here(tmp_path: Path, timeseries: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tl_core.registry.load_registry", lambda: timeseries)
    return tmp_path


def run(*arguments: object) -> int:
    return cli.main(["monitor", *map(str, arguments)])


def test_the_same_kind_is_no_drift_and_the_second_look_computes_nothing(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waves(here / "new", 60, seed=5)
    codes = [run(model, "new", "--json", f"{i}.json") for i in range(2)]
    assert codes == [0, 0]
    said = capsys.readouterr().out
    assert "no drift: No sign of drift in 60 new rows" in said
    assert "page: monitor.html" in said
    first, second = (json.loads(Path(f"{i}.json").read_text()) for i in range(2))
    assert first["computed"] == 60
    assert second["computed"] == 0
    assert {**first, "computed": 0} == second
    assert first["format"] == 1
    assert first["rows"] == 60


def test_other_waves_are_drift_on_the_terminal_and_the_page(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = waves(here / "new <b>", 40, seed=5, cycles=(5, 7))
    np.save(data / "spike.npy", np.where(np.arange(100) == 50, 1000.0, 0.0))
    (data / "empty.npy").touch()
    (data / "notes.pdf").write_text("no series")
    assert run(model, data, "--json", "all.json") == 3
    out, err = capsys.readouterr()
    assert "drift: The 41 new rows are of another kind than those the model was made for." in out
    assert "spike.npy" in out
    assert "tl: can't use empty.npy: empty file" in err
    assert f"- left out of {data}: 1 file of other kinds than timeseries" in out
    facts = json.loads(Path("all.json").read_text())
    assert facts["state"] == "drift"
    assert facts["unusable"] == [{"id": "empty.npy", "reason": "empty file"}]
    assert facts["strangest"][0]["id"] == "spike.npy"
    page = Path("monitor.html").read_text()
    assert "The new data have drifted" in page
    assert "new &lt;<wbr>b&gt;" in page or "new &lt;b&gt;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "empty.<wbr>npy" in page


def test_few_rows_have_a_code_of_their_own(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, waves(here / "new", 6, seed=5)) == 4
    assert "too few: Too few rows to tell: 6 new rows are compared" in capsys.readouterr().out


def test_copies_are_no_drift(model: Path, here: Path) -> None:
    data = waves(here / "new" / "first", 40, seed=5)
    for i in range(4):
        shutil.copytree(data, here / "new" / f"copy {i}")
    assert run(model, "new", "--json", "all.json") == 0
    facts = json.loads(Path("all.json").read_text())
    assert (facts["rows"], facts["computed"]) == (200, 40)
    assert any("independent" in note for note in facts["notes"])


def test_tables_and_their_groups(model: Path, here: Path) -> None:
    waves(here / "series", 30, seed=5)
    lines = [f"series/{i:03d}.npy,{i // 5}" for i in range(30)] + ["series/gone.npy,9", ",9", "/etc/passwd,9"]
    Path("new.csv").write_text("\n".join(["file,video", *lines]) + "\n")
    assert run(model, "new.csv", "--group", "video", "--json", "table.json") in (0, 4)
    facts = json.loads(Path("table.json").read_text())
    assert facts["rows"] == 30
    assert [row["id"] for row in facts["unusable"]] == ["new.csv:32", "new.csv:33", "new.csv:34"]
    assert "missing file" in facts["unusable"][0]["reason"]
    assert not any("independent" in note for note in facts["notes"])
    (here / "tables").mkdir()
    shutil.move("series", "tables/series")
    shutil.move("new.csv", "tables/new.csv")
    assert run(model, "tables", "--group", "folder", "--json", "folder.json") in (0, 4)  # its files, not its table
    assert json.loads(Path("folder.json").read_text())["rows"] == 30


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere"], "tl: no such folder or table: nowhere"),
        (["bare"], "tl: no timeseries files in bare; read are .npy, or tables (.csv, "),
        (["new", "--group", "video"], "tl: files in a folder have no column 'video'; list them in a table"),
        (["table.csv", "--group", "vido"], "tl: no column 'vido'; did you mean video? in table.csv; --group takes one"),
        (["table.csv", "--column", "x"], "tl: no column 'x'"),
        (["bad"], "tl: none of the 2 samples in bad is usable; 0.npy: empty file"),
        (["new", "--json", "file/x.json"], "tl: can't write file/x.json: "),
        (["new", "--retrain"], "tl: --retrain needs a model of a project's registry, and "),
        (["new", "--alarm-rate", "2"], "2.0 is not in the range 0.0005<=x<=0.5"),
    ],
)
def test_faults(arguments: list[str], text: str, model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waves(here / "new", 3, seed=5)
    Path("file").touch()
    Path("bare").mkdir()
    Path("bare/.hidden.npy").touch()
    Path("bad").mkdir()
    Path("bad/0.npy").touch()
    Path("bad/1.npy").touch()
    Path("table.csv").write_text("file,video\nnew/000.npy,a\n")
    assert run(model, *arguments) == 2
    assert text in capsys.readouterr().err


def test_a_bundle_without_a_reference(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = shutil.copytree(model, here / "older")
    facts = json.loads((older / "bundle.json").read_text())
    del facts["reference"]
    (older / "bundle.json").write_text(json.dumps(facts))
    assert run(older, waves(here / "new", 3, seed=5)) == 2
    assert "the model keeps nothing of its training rows" in capsys.readouterr().err


def test_a_name_needs_a_project(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("champion", "new") == 2
    assert "as a name of the model registry it needs a project" in capsys.readouterr().err


@pytest.mark.parametrize(("cycles", "retrains"), [((2, 11, 0), 0), ((5, 7), 1)])
def test_a_retrain_is_started_on_drift_alone(
    cycles: tuple[float, ...],
    retrains: int,
    model: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It retrains the project on the project's own data, with the time it may wait in the queue."""
    asked: list[tuple[Any, ...]] = []

    class Session:
        def retrain(self, *given: Any) -> Any:
            asked.append(given)
            return type("Outcome", (), {"state": "nothing new", "reason": "nothing is new"})()

    monkeypatch.setattr("tl_flows.runs.project_session", lambda root: Session())
    monkeypatch.setattr(command, "_project_of", lambda bundle: here)
    code = run(model, waves(here / "new", 60, seed=5, cycles=cycles), "--retrain", "--wait", "7")
    assert code == (3 if retrains else 0)
    assert asked == [(here, None, None, 24.0, 7.0)] * retrains
    out, err = capsys.readouterr()
    assert ("nothing new: nothing is new" in out) == bool(retrains)
    assert ("label some and add them to the project's data" in err) == bool(retrains)
    assert len(list((here / ".tl" / "monitor").iterdir())) == 1


def test_the_watch_is_for_programs_too(model: Path, here: Path, timeseries: Registry) -> None:
    from tl_core.bundle import ModelBundle

    workspace = Workspace(here / "out", here / "store", here / "cache")
    found = monitoring.watch(
        ModelBundle.load(model, timeseries), waves(here / "new", 25, seed=5), timeseries, workspace, alarm_rate=0.01
    )
    assert found.drift.alarm_rate == 0.01
    assert found.computed == 25
    assert found.unusable == []
