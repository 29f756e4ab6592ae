"""`tl registry`, and the models of the registry in `tl predict`, `explain`, `report` and `compare`."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from reports import full_demo
from tl_flows import cli, prediction_io
from tl_flows.bundles import bundle_at, digest_at
from tl_flows.commands.compare import OUTPUTS, find_runs
from tl_flows.model_names import bundle_named
from tl_flows.model_registry import ModelRegistry
from tl_flows.version_facts import facts_at
from versions import cached, commit_run, git, make_project, outputs, report

from tl_core.bundle import ModelBundle
from tl_core.config import validate
from tl_core.errors import UserError
from tl_core.registry import Registry
from tl_core.steps import extract, select, tune, version
from tl_core.workspace import Workspace


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder of its repository, which is the working folder, with two runs as HEAD~1 and HEAD."""
    root = make_project(tmp_path / "repository", "demo/sub")
    monkeypatch.chdir(root)
    commit_run(root, outputs(b"one", report(0.8)))
    (root / "code.py").write_text("changed = True\n")
    commit_run(root, outputs(b"two", report(0.9, data="data two", rows=120, config="seed: 1\ntune: {lr: 0.1}\n")))
    return root


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert cli.main(list(arguments)) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_a_model_is_registered_promoted_and_rolled_back(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "registry", "list").startswith("no model is registered here; `tl registry register`")
    assert said(capsys, "registry", "history").startswith("nothing was registered or promoted here yet")
    told = said(capsys, "registry", "register", "HEAD~1", "--why", "the first")
    assert told == "v1: accuracy 0.800 (0.750 to 0.850); `tl registry push` shares it\n"
    assert json.loads(said(capsys, "registry", "register", "--json"))["facts"]["data_version"] == "data two"
    assert said(capsys, "registry", "promote", "v1", "--why", "it is [good]") == "v1 is the champion\n"
    assert said(capsys, "registry", "promote", "challenger", "--why", "more") == "v2 is the champion instead of v1\n"
    event = json.loads(said(capsys, "registry", "rollback", "--why", "calls came in", "--json"))
    assert (event["version"], event["was"], event["kind"], event["why"]) == ("v1", "v2", "rollback", "calls came in")
    rows = [line.split() for line in said(capsys, "registry", "list").splitlines() if line.strip().startswith("v")]
    assert [(row[0], row[3]) for row in rows[1:]] == [("v2", "data"), ("v1", "champion")]
    versions = json.loads(said(capsys, "registry", "list", "--json"))
    assert [(v["name"], v["aliases"]) for v in versions] == [("v2", []), ("v1", ["champion"])]
    assert versions[0]["facts"]["metric"]["value"] == 0.9
    assert versions[0]["facts"]["bundle"] == digest_at(project, "HEAD")
    history = said(capsys, "registry", "history")
    assert "it is [good]" in history  # not taken for rich's markup
    assert history.index("rollback") < history.index("promote") < history.index("challenge")
    assert json.loads(said(capsys, "registry", "history", "--json"))[0]["kind"] == "rollback"
    shown = said(capsys, "registry", "show", "champion")
    for text in (
        "v1",
        "accuracy 0.800 (0.750 to 0.850), 90% interval, 200 test rows",
        "data one",
        "the first",
        "rollback",
    ):
        assert text in shown


def test_what_two_versions_differ_in(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for revision in ("HEAD~1", "HEAD"):
        said(capsys, "registry", "register", revision)
    told = said(capsys, "registry", "diff", "v1", "challenger")
    for line in (
        "data: version: data one -> data two", "data: train rows: 100 -> 120", "data: train rows of cat: 100 -> 120",
        "config: seed: 0 -> 1", "config: tune.lr: not set -> 0.1", "code: demo/sub/code.py",
    ):  # fmt: skip
        assert f"\n{line}\n" in told
    assert "0.8000 (0.7500 to 0.8500)   0.9000 (0.8500 to 0.9500)" in told
    assert "made of" not in told
    assert "dvc.lock" not in told
    found = json.loads(said(capsys, "registry", "diff", "1", "2", "--json"))
    assert (found["first"], found["code"]) == ("v1", ["demo/sub/code.py"])
    assert "the same data, configuration and code" in said(capsys, "registry", "diff", "v1", "v1")


def test_a_diff_names_every_report_that_is_missing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for revision in ("HEAD~1", "HEAD"):
        said(capsys, "registry", "register", revision)
    shutil.rmtree(project.parents[1] / ".dvc" / "cache")
    lines = said(capsys, "registry", "diff", "v1", "v2", code=2).splitlines()
    assert [line.partition(": the results of revision")[0] for line in lines] == ["tl: v1", "tl: v2"]


def test_a_model_that_is_not_at_hand_is_promoted_with_a_warning(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "registry", "register")
    shutil.rmtree(project.parents[1] / ".dvc" / "cache")
    assert cli.main(["registry", "promote", "v1", "--why", "trained elsewhere"]) == 0
    told = capsys.readouterr()
    assert told.out == "v1 is the champion\n"
    assert told.err.startswith("tl: this machine can't serve it yet: the results of revision")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["registry", "promote", "v1", "--why", "x"], "no version v1: no model is registered here; `tl registry"),
        (["registry", "rollback", "--why", "x"], "there was no champion before now; name a version: `tl reg"),
        (["registry", "register", "nowhere"], "git knows no revision 'nowhere'"),
        (["predict", "champion", "f"], "no champion: no model is registered here"),
        (["predict", "v7", "f"], "no version v7: no model is registered here"),
        (["predict", "champoin", "f"], "no model champoin; did you mean champion? A folder that holds one works too"),
        (["explain", "challenger", "f"], "no challenger: no model is registered here"),
        (["report", "champion"], "no champion: no model is registered here"),
        (["compare", "champion", "challenger"], "no champion: no model is registered here"),
        (["compare", "v7", "."], "git knows no revision 'v7' here"),
    ],
)  # fmt: skip
def test_names_that_mean_nothing_yet(
    project: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, *arguments, code=2).startswith(f"tl: {text}")


def test_outside_of_a_project_names_need_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "lies in no tl project" in said(capsys, "registry", "list", code=2)
    for command in (["predict", "champion", "f"], ["report", "v3"]):
        told = said(capsys, *command, code=2)
        assert told.startswith(
            f"tl: no folder {command[1]} here, and as a name of the model registry it needs a project"
        )


def test_a_bundle_comes_out_of_the_cache_whole_and_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = outputs(b"two")
    folder = bundle_at(project, "HEAD")
    digest = digest_at(project, "HEAD")
    assert folder == project / ".tl" / "bundles" / digest / "model"
    assert (folder / "head.safetensors").read_bytes() == files["artifacts/tune/model/head.safetensors"]
    assert (folder.parent / "tune.json").read_bytes() == b"{}"
    assert hashlib.md5((folder.parent / "files.json").read_bytes()).hexdigest() == digest
    assert not (folder / "head.safetensors").stat().st_mode & 0o222
    assert sorted(p.name for p in folder.parents[1].iterdir()) == [digest, "lock"]
    monkeypatch.setattr("tl_flows.versioning.folder_at", lambda *_: pytest.fail("fetched again"))
    assert bundle_at(project, "HEAD") == folder


def test_a_bundle_that_was_changed_or_half_removed_is_made_anew(project: Path) -> None:
    folder = bundle_at(project, "HEAD")
    head = folder / "head.safetensors"
    head.chmod(0o644)
    head.write_bytes(b"xxx")
    assert bundle_at(project, "HEAD") == folder
    assert head.read_bytes() == b"two"
    head.unlink()
    bundle_at(project, "HEAD")
    assert head.read_bytes() == b"two"
    left = folder.parents[1] / "new" / "model"  # of a process that was killed
    left.mkdir(parents=True)
    (folder.parent / "files.json").unlink()
    bundle_at(project, "HEAD")
    assert not left.exists()


def test_what_the_workspace_holds_is_never_used(project: Path) -> None:
    path = project / "artifacts" / "tune" / "model" / "head.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half written by a run")
    assert (bundle_at(project, "HEAD") / path.name).read_bytes() == b"two"


def test_a_damaged_cache_is_named_and_nothing_is_kept(project: Path) -> None:
    repository = project.parents[1]
    md5 = hashlib.md5(b"two").hexdigest()
    cached(repository, md5).write_bytes(b"too")
    with pytest.raises(
        UserError, match=rf"is damaged in DVC's cache or remote: model/head.safetensors has md5 .* {md5}"
    ):
        bundle_at(project, "HEAD")
    assert [p.name for p in (project / ".tl" / "bundles").iterdir()] == ["lock"]
    cached(repository, md5).unlink()
    with pytest.raises(
        UserError, match=r"are not at hand: .*head.safetensors.*; check it out and run `tl run`, or `dvc"
    ):
        bundle_at(project, "HEAD")
    cached(repository, f"{digest_at(project, 'HEAD')}.dir").unlink()
    shutil.rmtree(repository / ".dvc" / "tmp", ignore_errors=True)
    with pytest.raises(UserError, match="are not at hand"):
        bundle_at(project, "HEAD")


def test_a_bundle_comes_from_the_remote_where_the_cache_has_none(project: Path, tmp_path: Path) -> None:
    repository = project.parents[1]
    (repository / ".dvc" / "cache" / "files").rename(tmp_path / "files")
    with (repository / ".dvc" / "config").open("a") as config:
        config.write(f"    remote = r\n['remote \"r\"']\n    url = {tmp_path}\n")
    commit = commit_run(project, outputs(b"two"))
    shutil.rmtree(repository / ".dvc" / "cache")
    assert (bundle_at(project, commit) / "head.safetensors").read_bytes() == b"two"


def test_a_full_disk_is_told_as_such(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("dvc.api.DVCFileSystem.get_file", full)
    with pytest.raises(OSError, match="No space left"):
        bundle_at(project, "HEAD")
    assert [p.name for p in (project / ".tl" / "bundles").iterdir()] == ["lock"]


def _fetch(root: Path, go: Any, out: Any) -> None:
    go.wait()
    out.put((bundle_at(root, "HEAD") / "head.safetensors").read_bytes())


def test_several_processes_at_once_find_it_whole(project: Path) -> None:
    bundle_at(project, "HEAD")  # what is imported is there before the fork
    shutil.rmtree(project / ".tl")
    fork = multiprocessing.get_context("fork")
    go, out = fork.Barrier(3), fork.Queue()
    tasks = [fork.Process(target=_fetch, args=(project, go, out)) for _ in range(3)]
    for task in tasks:
        task.start()
    assert [out.get(timeout=60) for _ in tasks] == [b"two"] * 3
    for task in tasks:
        task.join()


def test_worktrees_share_what_was_fetched(project: Path, tmp_path: Path) -> None:
    folder = bundle_at(project, "HEAD")
    git(project, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    shutil.rmtree(project.parents[1] / ".dvc" / "cache")
    assert bundle_at(tmp_path / "tree" / "demo" / "sub", "HEAD") == folder


def test_a_path_wins_over_a_name_and_that_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "champion").mkdir()
    assert bundle_named(Path("champion")) == (Path("champion"), None)
    assert (
        "tl: champion is taken as the path that is here; for the model registry's champion" in capsys.readouterr().err
    )
    assert bundle_named(Path("nowhere")) == (Path("nowhere"), None)
    assert "champion is no model bundle" in said(capsys, "predict", "champion", "f", code=2)


def test_the_report_of_a_version_is_made_of_its_commit(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full_demo().save(project.parent / "report.json")
    commit_run(project, outputs(b"three", (project.parent / "report.json").read_bytes()))
    said(capsys, "registry", "register")
    lines = said(capsys, "report", "v1").splitlines()
    assert lines[0].startswith("Result: above its floors.")
    assert lines[-1] == str(project / ".tl" / "report-v1.html")
    assert Path(lines[-1]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (project / "artifacts").exists()


def test_versions_are_compared_by_their_names(project: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        kept = {f"artifacts/{output}": name.encode() for output in OUTPUTS if output != "evaluate/report.json"}
        commit_run(project, outputs(name.encode()) | kept, name)
        registry = ModelRegistry.open(project)
        registry.register("HEAD", facts_at(project, "HEAD"))
    registry.promote("v1", expected_champion=None, why="")
    scratch = iter((tmp_path / "a", tmp_path / "b"))
    places = find_runs(["champion", "challenger"], lambda: next(scratch))
    assert [(name, place.root) for name, place in places.items()] == [("champion", project), ("challenger", project)]
    for place, name in zip(places.values(), (b"one", b"two")):
        assert (place.artifacts / "version" / "manifest.parquet").read_bytes() == name


def test_facts_of_an_unreadable_report_are_refused(project: Path) -> None:
    commit_run(project, outputs(b"three", b'{"summary": {}}'))
    with pytest.raises(UserError, match=r"report.json of commit \w{12} can't be read \(KeyError\); run `tl run` with"):
        facts_at(project, "HEAD")


def test_the_champion_predicts_as_the_run_did(
    waves: Path, timeseries: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real model, from training to a prediction by its name, after the workspace has lost it."""
    root = make_project(tmp_path / "repository")
    config = validate({"data": {"path": str(waves)}, "tune": {"strategy": "probe"}})
    workspace = Workspace(root, tmp_path / "store", tmp_path / "cache")
    version(config, timeseries, workspace)
    for step in (select, extract, tune):
        step(config, timeseries, workspace)
    files = sorted(waves.rglob("*.npy"))[::20]
    before = ModelBundle.load(workspace.model, timeseries).predict(files)
    made = {p.relative_to(root).as_posix(): p.read_bytes() for p in workspace.step("tune").rglob("*") if p.is_file()}
    commit_run(root, made | {"artifacts/evaluate/report.json": report()})
    shutil.rmtree(root / "artifacts")
    registry = ModelRegistry.open(root)
    registry.register("HEAD", facts_at(root, "HEAD"))
    registry.promote("v1", expected_champion=None, why="")
    monkeypatch.chdir(root)
    after = prediction_io.opened(Path("champion"), timeseries, None).predict(files)
    assert after == before


def test_weights_in_the_project_are_found_from_any_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {
        "format": 2, "modality": "text", "task": "multiclass", "classes": ["a", "b"], "head": "linear",
        "precision": "float32", "backbone": {"request": "./nets/a"}, "trained_segments": [], "training": {},
    }  # fmt: skip
    files = outputs(b"x") | {"artifacts/tune/model/bundle.json": json.dumps(facts).encode()}
    commit_run(project, files)
    ModelRegistry.open(project).register("HEAD", facts_at(project, "HEAD"))
    (project / "inner").mkdir()
    monkeypatch.chdir(project / "inner")
    asked: list[tuple[Path, str | None]] = []

    def load(folder: Path, registry: Registry, backbone: str | None) -> ModelBundle:
        asked.append((folder, backbone))
        return cast(ModelBundle, SimpleNamespace(notes=()))

    monkeypatch.setattr(prediction_io.ModelBundle, "load", load)
    prediction_io.opened(Path("v1"), cast(Registry, None), None)
    prediction_io.opened(Path("v1"), cast(Registry, None), "elsewhere")
    assert [backbone for _, backbone in asked] == [str(project / "nets" / "a"), "elsewhere"]
