"""Versions that are pushed from one machine serve on another, and no tag travels without its model."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tl_flows import cli, sharing
from tl_flows.bundles import bundle_at
from tl_flows.dvc_objects import objects_at
from tl_flows.model_registry import ModelRegistry
from tl_flows.retraining.outcome import Outcome
from tl_flows.retraining.pushing import REMEDY, pushed
from tl_flows.sharing import push
from tl_flows.stage_process import StageError
from versions import cached, commit_run, facts_of, git, make_project, outputs, registered

from tl_core.errors import UserError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder of its repository, with two versions, a bare git remote and a DVC remote."""
    repository = tmp_path / "repository"
    root = make_project(repository, "demo/sub")
    git(tmp_path, "init", "-q", "--bare", "hub.git")
    git(root, "remote", "add", "origin", str(tmp_path / "hub.git"))
    with (repository / ".dvc" / "config").open("a") as config:
        config.write(f"    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n")
    registered(root, 2).promote("v1", expected_champion=None, why="good")
    git(root, "push", "-q", "origin", "main")
    monkeypatch.chdir(root)
    monkeypatch.setattr(sharing, "PAUSES", ())
    return root


def other(tmp_path: Path) -> Path:
    """The project on another machine: a clone, with no DVC cache."""
    git(tmp_path, "clone", "-q", "-b", "main", "hub.git", "other")
    return tmp_path / "other" / "demo" / "sub"


def in_store(tmp_path: Path, data: bytes) -> bool:
    """Whether DVC's remote has a file, or a folder's list of files, of these bytes."""
    md5 = hashlib.md5(data).hexdigest() + (".dir" if data.startswith(b"[{") else "")
    return (tmp_path / "store" / "files" / "md5" / md5[:2] / md5[2:]).is_file()


def test_the_champion_of_one_machine_serves_on_another(project: Path, tmp_path: Path) -> None:
    done = push(project)
    assert (done.versions, len(done.tags), done.kept_back) == (("v1", "v2"), 5, {})
    there = other(tmp_path)
    champion = ModelRegistry.open(there).state().champion
    assert champion is not None
    assert (bundle_at(there, champion.commit) / "head.safetensors").read_bytes() == b"model 1"
    again = push(project)
    assert (again.versions, again.tags) == (("v1", "v2"), ())  # champion and challenger, looked at once more


def test_only_the_versions_that_are_named(project: Path, tmp_path: Path) -> None:
    done = push(project, ["champion"])
    assert done.versions == ("v1",)
    assert set(done.tags) == {"demo/sub=model@v1.0.0", "demo/sub=model#challenger#1", "demo/sub=model#champion#3"}
    assert in_store(tmp_path, b"model 1")
    assert not in_store(tmp_path, b"model 2")
    assert [version.name for version in ModelRegistry.open(other(tmp_path)).state().versions] == ["v1"]


def test_tags_that_were_pushed_alone_get_their_model(project: Path, tmp_path: Path) -> None:
    git(project, "push", "-q", "--tags", "origin")
    assert push(project).tags == ()
    assert in_store(tmp_path, b"model 1")


def test_a_version_without_its_model_is_kept_back(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached(project.parents[1], hashlib.md5(b"model 1").hexdigest()).unlink()
    assert cli.main(["registry", "push", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["kept_back"] == {"v1": "demo/sub/artifacts/tune"}
    assert told.err.startswith("tl: v1 was kept back, its tags too: demo/sub/artifacts/tune of its run is neither in")
    tags = git(project, "ls-remote", "--tags", "--refs", "origin")
    assert "v2.0.0" in tags
    assert "v1.0.0" not in tags
    assert "champion" not in tags
    assert in_store(tmp_path, b"model 2")


def test_a_model_that_only_the_remote_has_is_enough(project: Path, tmp_path: Path) -> None:
    push(project, ["v1"])
    shutil.rmtree(project.parents[1] / ".dvc" / "cache")
    assert push(project, ["v1"]).kept_back == {}


def test_tags_wait_for_the_models(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").write_text("a file where the remote's folder should be")
    with pytest.raises(StageError, match="the models can't be pushed to DVC's remote"):
        push(project)
    assert git(project, "ls-remote", "--tags", "origin") == ""
    pauses: list[float] = []

    def mend(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            (tmp_path / "store").unlink()

    monkeypatch.setattr(sharing, "PAUSES", (5.0, 30.0, 120.0))
    monkeypatch.setattr(sharing, "sleep", mend)
    assert len(push(project).tags) == 5
    assert pauses == [5.0, 30.0]


def test_a_git_remote_that_is_away_is_a_fault_that_may_pass(project: Path, tmp_path: Path) -> None:
    (tmp_path / "hub.git").rename(tmp_path / "away.git")
    with pytest.raises(StageError, match="git's remote origin can't be used"):
        push(project)


def test_who_pushes_second_is_told(project: Path, tmp_path: Path) -> None:
    push(project)
    theirs = ModelRegistry.open(other(tmp_path))
    theirs.promote("v2", expected_champion="v1", why="theirs")
    push(theirs.root)
    ModelRegistry.open(project).promote("v2", expected_champion="v1", why="ours")
    with pytest.raises(UserError, match="origin has others' demo/sub=model#champion#4: somebody registered or promo"):
        push(project)


def test_missing_remotes_are_named(project: Path) -> None:
    with pytest.raises(UserError, match="git has no remote 'hub' here; there are: origin"):
        push(project, remote="hub")
    config = project.parents[1] / ".dvc" / "config"
    config.write_text("[core]\n    analytics = false\n")
    with pytest.raises(UserError, match="DVC has no remote that models could be pushed to: dvc remote add -d NAME URL"):
        push(project)
    git(project, "remote", "remove", "origin")
    with pytest.raises(UserError, match=r"git has no remote in .*: git remote add origin URL"):
        push(project)


def test_data_travel_with_their_version(project: Path, tmp_path: Path) -> None:
    """The whole of a folder that projects share: DVC takes a folder's list in a remote for all of its files."""
    repository = project.parents[1]
    entries = []
    for name in ("elsewhere/b.txt", "sub/a.txt"):
        md5 = hashlib.md5(name.encode()).hexdigest()
        cached(repository, md5).parent.mkdir(parents=True, exist_ok=True)
        cached(repository, md5).write_text(name)
        entries.append({"md5": md5, "relpath": name})
    listing = json.dumps(entries).encode()
    md5 = hashlib.md5(listing).hexdigest() + ".dir"
    cached(repository, md5).parent.mkdir(parents=True, exist_ok=True)
    cached(repository, md5).write_bytes(listing)
    (repository / "data.dvc").write_text(f"outs:\n- md5: {md5}\n  hash: md5\n  path: data\n")
    text = (project / "dvc.yaml").read_text().replace("  version:\n", "  version:\n    deps: [../../data/sub]\n")
    (project / "dvc.yaml").write_text(text.replace("- artifacts/tune", "- artifacts/tune: {push: false}"))
    commit = commit_run(project, outputs(b"model 3"))
    ModelRegistry.open(project).register(commit, facts_of(project, commit))
    part = {one.output for one in objects_at(project, commit).objects}
    assert part == {"data/sub", "demo/sub/artifacts/tune", "demo/sub/artifacts/evaluate"}
    assert push(project, ["v3"]).kept_back == {}
    for data in (b"model 3", b"sub/a.txt", b"elsewhere/b.txt", listing):
        assert in_store(tmp_path, data)
    cached(repository, hashlib.md5(b"elsewhere/b.txt").hexdigest()).unlink()
    assert push(project, ["v3"]).kept_back == {}  # the remote has it


def test_what_a_retrain_can_not_push_is_in_its_outcome(project: Path, tmp_path: Path) -> None:
    outcome = Outcome("promoted", "Better.", "v2", "v2")
    (tmp_path / "hub.git").rename(tmp_path / "away.git")
    told = pushed(project, outcome)
    assert (told.state, told.version, told.exit_code) == ("promoted", "v2", 0)
    assert told.reason.startswith("Better. Not pushed: git's remote origin can't be used: ")
    assert told.reason.endswith(f" ({REMEDY})")
    (tmp_path / "away.git").rename(tmp_path / "hub.git")
    assert pushed(project, outcome) is outcome
    assert "champion" in git(project, "ls-remote", "--tags", "origin")
    commit = commit_run(project, outputs(b"model 3"))
    ModelRegistry.open(project).register(commit, facts_of(project, commit))
    cached(project.parents[1], hashlib.md5(b"model 3").hexdigest()).unlink()
    assert pushed(project, outcome).reason == (
        "Better. Not pushed: v3 lacks demo/sub/artifacts/tune (neither DVC's cache nor its remote has it: `tl registry "
        "push` on the machine that trained it)"
    )
