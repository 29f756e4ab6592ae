"""Where a run works and what it may write to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tl_flows import project

from tl_core.config import RunConfig, StoreConfig
from tl_core.errors import UserError

PIPELINE = "stages: {version: {cmd: tl version}}\n"


def make_project(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "params.yaml").write_text("seed: 0\n")
    return root.resolve()


def test_a_project_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert project.find_project(below) is None  # a DVC folder without a pipeline is none of ours
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    assert project.find_project(below) == tmp_path.resolve()
    with pytest.raises(UserError, match=r"has no params\.yaml; `tl init` writes one"):
        project.require_project(below)


def test_a_repository_may_hold_several_projects(tmp_path: Path) -> None:
    repository = make_project(tmp_path / "repository")
    (repository / ".dvc").mkdir()
    inner = make_project(repository / "demo" / "image")
    (inner / "artifacts").mkdir()
    assert project.find_project(inner / "artifacts") == inner
    assert project.find_project(inner.parent) == repository
    other = repository / "cleaning"  # a pipeline of somebody else's: not tl's
    other.mkdir()
    (other / "dvc.yaml").write_text("stages: {clean: {cmd: clean}}\n")
    assert project.find_project(other) == repository
    (inner / "dvc.yaml").write_text("stages: [")
    assert project.find_project(inner) == inner  # DVC says what is wrong with it
    apart = make_project(repository / "apart")
    (apart / ".git").mkdir()  # a git repository of its own has its own history of data
    assert project.find_project(apart) is None
    nested = repository / "nested"  # what lies above a repository's root is none of its projects
    (nested / ".dvc").mkdir(parents=True)
    assert project.find_project(nested) is None


def test_named_projects_are_checked_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_project(tmp_path)
    (root / ".dvc").mkdir()
    inner = make_project(root / "demo" / "image")
    (root / "data").mkdir()
    monkeypatch.chdir(root)
    assert project.named_projects([".", "demo/image", "./demo/../demo/image"]) == [root, inner]
    (inner / "params.yaml").unlink()
    with pytest.raises(UserError) as caught:
        project.named_projects(["demo/image", "data", "nowhere"])
    assert str(caught.value).splitlines() == [
        "the project demo/image has no params.yaml; `tl init` writes one",
        "data is no tl project (no dvc.yaml with tl's steps in a DVC repository); to learn from a folder of samples: "
        "tl run --data data",
        "no such folder: nowhere; give the folder of a project, one with a dvc.yaml",
    ]


def test_a_linked_worktree_shares_the_store_of_the_main_one(tmp_path: Path, git: Callable[..., None]) -> None:
    main = tmp_path / "main" / "sub"
    main.mkdir(parents=True)
    (main / "file").write_text("")
    git(main.parent, "init", "-q")
    git(main.parent, "add", "-A")
    git(main.parent, "commit", "-qm", "start")
    git(main.parent, "worktree", "add", "-q", str(tmp_path / "linked"))
    linked = tmp_path / "linked" / "sub"
    workspace = project.project_workspace(linked, RunConfig())
    assert workspace.root == linked
    assert workspace.store == main / ".tl" / "store"
    assert project.project_workspace(main, RunConfig()).store == main / ".tl" / "store"
    assert workspace.state == linked / ".tl"


def test_without_git_the_store_lies_in_the_folder_itself(tmp_path: Path) -> None:
    assert project.project_workspace(tmp_path, RunConfig()).store == tmp_path / ".tl" / "store"


def test_the_config_places_the_store(tmp_path: Path) -> None:
    config = RunConfig(store=StoreConfig(path="features"))
    assert project.project_workspace(tmp_path, config).store == tmp_path.resolve() / "features"


def test_outside_of_a_project_features_go_to_the_users_cache(tmp_path: Path) -> None:
    workspace = project.outside_workspace(tmp_path / "out", RunConfig())
    assert workspace.root == tmp_path / "out"
    assert workspace.store == project.cache_folder() / "store"


def test_a_cache_that_can_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"can't write to the cache folder .*; set XDG_CACHE_HOME"):
        project.cache_folder()


def test_a_second_run_into_the_same_folder_is_told_who_holds_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tl_flows.project import sole_run\n"
        "with sole_run(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"another run works in .* \(process {other.pid} on .*\); wait until it"):
            project.sole_run(tmp_path).__enter__()
    finally:
        other.kill()
        other.communicate()
    with project.sole_run(tmp_path):  # a killed run leaves no lock behind
        pass
