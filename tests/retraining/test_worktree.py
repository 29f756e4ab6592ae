"""A retrain works in a worktree of its own: git's files by commit, all others stay, the user's are never touched."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
from tl_flows import versioning
from tl_flows.git import git
from tl_flows.retraining.worktree import Worktree

from tl_core.errors import UserError


def make_repository(root: Path, project: str = "") -> Path:
    """A committed DVC repository with a file in its project's folder; the project's folder."""
    root.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=root, check=True)
    versioning.initialise(root, git=True)
    folder = root / project
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "params.yaml").write_text("seed: 0\n")
    (root / ".gitignore").write_text(".tl/\n/data\n")
    commit(root, "first")
    return folder


def commit(root: Path, message: str) -> str:
    git(root, "add", "--all")
    git(root, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "--quiet", "--message", message)
    return git(root, "rev-parse", "HEAD")


@pytest.mark.parametrize("inside", ["", "demo/image"])
def test_gits_files_are_those_of_the_commit_and_the_rest_stays(tmp_path: Path, inside: str) -> None:
    main = make_repository(tmp_path / "repo", inside)
    first = git(main, "rev-parse", "HEAD")
    (main / "params.yaml").write_text("seed: 1\n")
    second = commit(main, "second")
    (main / "params.yaml").write_text("seed: 2, not committed\n")

    tree = Worktree.at(main, first)
    assert (tree.project / "params.yaml").read_text() == "seed: 0\n"
    (tree.root / "data").mkdir()
    (tree.root / "data" / "big.bin").write_text("fetched")
    (tree.project / "stray.txt").write_text("of a killed run")
    (tree.project / "params.yaml").write_text("edited")
    again = Worktree.at(main, second)
    assert again == tree
    assert (again.project / "params.yaml").read_text() == "seed: 1\n"
    assert (again.root / "data" / "big.bin").read_text() == "fetched"
    assert not (again.project / "stray.txt").exists()
    assert (main / "params.yaml").read_text() == "seed: 2, not committed\n"
    assert git(main, "rev-parse", "--abbrev-ref", "HEAD") == "main"


def test_the_cache_is_the_main_worktrees_and_other_local_settings_come_along(tmp_path: Path) -> None:
    main = make_repository(tmp_path / "repo")
    (main / ".dvc" / "config.local").write_text("['remote \"r\"']\n    password = p%40ss\n")
    tree = Worktree.at(main, "HEAD")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(tree.root / ".dvc" / "config.local")
    assert settings["cache"]["dir"] == str(main / ".dvc" / "cache")
    assert settings["'remote \"r\"'"]["password"] == "p%40ss"
    elsewhere = tmp_path / "elsewhere"
    (main / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {elsewhere}\n")
    Worktree.at(main, "HEAD")
    settings.read(tree.root / ".dvc" / "config.local")
    assert settings["cache"]["dir"] == str(elsewhere)
    assert git(tree.root, "status", "--porcelain") == ""


def test_what_a_killed_run_left_is_mended(tmp_path: Path) -> None:
    main = make_repository(tmp_path / "repo")
    tree = Worktree.at(main, "HEAD")
    lock = Path(tree.root, git(tree.root, "rev-parse", "--git-path", "index.lock"))
    lock.write_text("")
    Worktree.at(main, "HEAD")
    assert not lock.exists()
    (tree.root / ".git").unlink()  # the folder has lost its link
    assert (Worktree.at(main, "HEAD").project / "params.yaml").is_file()
    subprocess.run(["rm", "-rf", str(tree.root)], check=True)  # somebody cleaned up
    assert (Worktree.at(main, "HEAD").project / "params.yaml").is_file()
    (tree.root / ".git").write_text("half")
    assert (Worktree.at(main, "HEAD").project / "params.yaml").is_file()


def test_a_copied_project_has_a_worktree_of_its_own(tmp_path: Path) -> None:
    main = make_repository(tmp_path / "repo")
    tree = Worktree.at(main, "HEAD")
    shutil.copytree(main, tmp_path / "copy", symlinks=True)
    other = Worktree.at(tmp_path / "copy", "HEAD")
    (other.project / "params.yaml").write_text("of the copy")
    other.commit("in the copy")
    assert (tree.project / "params.yaml").read_text() == "seed: 0\n"
    assert git(tree.root, "rev-parse", "HEAD") == git(main, "rev-parse", "HEAD")
    assert git(tree.root, "status", "--porcelain") == ""


def test_a_commit_is_on_no_branch_and_takes_what_another_commit_has(tmp_path: Path) -> None:
    main = make_repository(tmp_path / "repo", "p")
    tree = Worktree.at(main, "HEAD")
    (tree.project / "dvc.lock").write_text("night 1\n")
    night = tree.commit("Night 1")
    assert git(main, "branch", "--contains", night) == ""
    assert git(main, "rev-parse", "HEAD") != night
    tree.reset("HEAD~1")
    assert not (tree.project / "dvc.lock").exists()
    tree.take(night, ["dvc.lock", "gate"])
    assert (tree.project / "dvc.lock").read_text() == "night 1\n"
    assert not (main / "dvc.lock").exists()


def test_a_commit_without_the_project_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    root.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    (root / ".gitignore").write_text(".tl/\n")
    commit(root, "before DVC")
    versioning.initialise(root, git=True)
    with pytest.raises(UserError, match=r"is not part of commit [0-9a-f]{12}; commit it: git add \.dvc"):
        Worktree.at(root, "HEAD")


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a git repository"):
        Worktree.at(tmp_path, "HEAD")
