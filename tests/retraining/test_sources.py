"""Which data a retrain takes: the project's own as they lie, others that are named, or those of a commit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from messages import lines, write_rows
from tl_flows import versioning
from tl_flows.engine import open_project
from tl_flows.git import git
from tl_flows.registry_state import Version
from tl_flows.retraining.sources import Asked, bring_data
from tl_flows.retraining.worktree import Worktree
from tl_flows.stage_process import StageError, run_dvc

from tl_core.errors import UserError

TABLE = Path("data", "messages.csv")


def dvc(project: Path, *arguments: str) -> None:
    run_dvc(project, arguments, lambda line: None, 60.0)


def commit_rows(project: Path, count: int, seed: int) -> str:
    write_rows(project / TABLE, lines(count, seed=seed))
    dvc(project, "commit", "--force", "--quiet", "data.dvc")
    git(project, "add", "data.dvc")
    git(project, "commit", "--quiet", "--message", f"{count} rows")
    return git(project, "rev-parse", "HEAD")


def brought(project: Path, asked: Asked, commit: str) -> tuple[str, str]:
    """The table in the worktree, and how the worktree stands to what its commit records."""
    tree = Worktree.at(project, commit)
    bring_data(project, asked, tree, commit, None)
    found = versioning.tracked(tree.project, tree.project / "data")
    assert found is not None
    return (tree.project / TABLE).read_text(encoding="utf-8"), found.state


def test_a_revision_has_its_own_data_whatever_was_there_before(project: Path) -> None:
    first = git(project, "rev-parse", "HEAD")
    one = (project / TABLE).read_text(encoding="utf-8")
    second = commit_rows(project, 90, seed=1)
    two = (project / TABLE).read_text(encoding="utf-8")
    write_rows(project / TABLE, lines(60, seed=2))  # and what lies in the project is something else again
    of_commit = Asked(revision="HEAD")
    assert brought(project, of_commit, first) == (one, "recorded")
    assert brought(project, of_commit, second) == (two, "recorded")
    assert brought(project, Asked(), second) == ((project / TABLE).read_text(encoding="utf-8"), "modified")
    assert brought(project, of_commit, second) == (two, "recorded")
    assert brought(project, of_commit, first) == (one, "recorded")


def test_what_a_killed_retrain_recorded_is_not_the_commits(project: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    one = (project / TABLE).read_text(encoding="utf-8")
    write_rows(project / TABLE, lines(60, seed=2))
    tree = Worktree.at(project, commit)
    bring_data(project, Asked(), tree, commit, None)
    dvc(tree.project, "commit", "--force", "--quiet", "data.dvc")
    kept = Worktree.at(project, commit, keep=True)
    assert kept.kept
    bring_data(project, Asked(revision="HEAD"), kept, commit, None)
    assert (kept.project / TABLE).read_text(encoding="utf-8") == one
    assert git(kept.root, "status", "--porcelain") == ""


def test_the_data_of_a_revision_come_from_the_remote(project: Path, tmp_path: Path) -> None:
    one = (project / TABLE).read_text(encoding="utf-8")
    remote = tmp_path / "remote"
    dvc(project, "remote", "add", "--default", "store", str(remote))
    git(project, "commit", "--quiet", "--all", "--message", "a remote")
    dvc(project, "push", "--quiet")
    for gone in (project / ".dvc" / "cache", project / "data"):
        shutil.rmtree(gone)
    commit = git(project, "rev-parse", "HEAD")
    assert brought(project, Asked(revision="HEAD"), commit) == (one, "recorded")


def test_a_remote_that_is_away_may_be_back_later_and_none_at_all_is_a_fault(project: Path, tmp_path: Path) -> None:
    for gone in (project / ".dvc" / "cache", project / "data"):
        shutil.rmtree(gone)
    of_commit, commit = Asked(revision="HEAD"), git(project, "rev-parse", "HEAD")
    with pytest.raises(UserError, match=r"the data that data\.dvc of commit .* dvc remote add -d NAME URL"):
        brought(project, of_commit, commit)
    dvc(project, "remote", "add", "--default", "store", str(tmp_path / "away"))
    git(project, "commit", "--quiet", "--all", "--message", "a remote")
    with pytest.raises(StageError, match=r"the data that data\.dvc of commit .* can't be fetched") as told:
        brought(project, of_commit, git(project, "rev-parse", "HEAD"))
    assert told.value.may_pass


def test_data_that_are_gone_are_not_yesterdays(project: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    brought(project, Asked(), commit)
    (project / "data").rename(project / "elsewhere")
    with pytest.raises(UserError, match=r"no data in .*/data; put them back .*--data, or .*--revision HEAD"):
        brought(project, Asked(), commit)


def test_data_that_a_pull_has_left_behind_are_refused_and_a_commits_are_not(project: Path) -> None:
    first = git(project, "rev-parse", "HEAD")
    second = commit_rows(project, 90, seed=1)
    two = (project / TABLE).read_text(encoding="utf-8")
    git(project, "checkout", "--quiet", first)
    dvc(project, "checkout", "--quiet", "data.dvc")
    git(project, "checkout", "--quiet", "-")
    with pytest.raises(UserError, match=rf"that of commit {first[:12]}: data\.dvc has moved on"):
        brought(project, Asked(), second)
    assert brought(project, Asked(revision="HEAD"), second) == (two, "recorded")


def test_data_that_another_machine_has_newer_ones_of_are_retrained_on_all_the_same(project: Path) -> None:
    first = git(project, "rev-parse", "HEAD")
    one = (project / TABLE).read_text(encoding="utf-8")
    last_year = (1.7e9, 1.7e9)
    os.utime(project / TABLE, last_year)
    bring_data(project, Asked(), Worktree.at(project, first), first, None)
    git(project, "checkout", "--quiet", "--detach")
    second = commit_rows(project, 90, seed=1)
    git(project, "tag", "model@v2")
    git(project, "checkout", "--quiet", "main")
    write_rows(project / TABLE, lines(120, seed=0))
    os.utime(project / TABLE, last_year)
    latest = Version("v2", "model@v2", second, 0, "", "", None)
    for _ in range(2):  # the night after a failed one as well
        again = Worktree.at(project, first)
        bring_data(project, Asked(), again, first, latest)
        engine = open_project(again.project, {})
        engine.record_data()
        assert (again.project / TABLE).read_text(encoding="utf-8") == one
        found = versioning.tracked(again.project, engine.data)
        assert found is not None
        assert found.state == "recorded"


def test_what_the_user_has_broken_since_the_commit_costs_no_retrain(project: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    one = (project / TABLE).read_text(encoding="utf-8")
    (project / "dvc.yaml").write_text("stages: [half an ed")
    assert brought(project, Asked(), commit) == (one, "recorded")
