"""Watchers hear of every change of the model registry, and can spoil none."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from filelock import FileLock
from tl_flows import cli, mirrors
from tl_flows.mirrors import Told, tell_registry
from tl_flows.model_registry import ModelRegistry
from tl_flows.registry_json import registry_json
from tl_flows.retraining import flow
from tl_flows.retraining.outcome import Outcome
from versions import commit_run, git, make_project, outputs, registered, report

from tl_core import hookimpl
from tl_core.plugins import given_plugins

Watch = Callable[..., None]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder of its repository, which is the working folder, with a run as HEAD."""
    root = make_project(tmp_path / "repository", "demo/birds")
    monkeypatch.chdir(root)
    commit_run(root, outputs(b"one", report(0.8)))
    return root


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Install just these as the plugins that watch: name -> the hook."""

    def install(**hooks: Callable[..., Any]) -> None:
        modules = {name: ModuleType(name) for name in hooks}
        for name, module in modules.items():
            module.tl_registry_changed = hookimpl(hooks[name])  # type: ignore[attr-defined]
        plugins = given_plugins(modules.items())
        monkeypatch.setattr("tl_flows.mirrors.installed_plugins", lambda groups: plugins)

    return install


def test_each_change_is_told_with_all_that_is_registered(project: Path, watch: Watch) -> None:
    heard: list[dict[str, Any]] = []
    watch(tl_sees=lambda registry, project: heard.append(registry | {"project": project}))
    assert cli.main(["registry", "register", "--why", "the first"]) == 0
    commit_run(project, outputs(b"two"))
    for arguments in (["register"], ["promote", "v1", "--why", "x"], ["promote", "v2", "--why", "y"]):
        assert cli.main(["registry", *arguments]) == 0
    assert cli.main(["registry", "rollback", "--why", "calls came in"]) == 0
    assert [told["aliases"] for told in heard] == [
        {"champion": None, "challenger": "v1"},
        {"champion": None, "challenger": "v2"},
        {"champion": "v1", "challenger": "v2"},
        {"champion": "v2", "challenger": None},
        {"champion": "v1", "challenger": None},
    ]
    last = heard[-1]
    assert [version["name"] for version in last["versions"]] == ["v1", "v2"]
    first = last["versions"][0]
    assert [event["why"] for event in first["history"]] == ["the first", "x", "calls came in"]
    assert first["facts"]["report"] == hashlib.md5(report(0.8)).hexdigest()
    top = project.parents[1]
    assert {key: last[key] for key in ("name", "model", "repository", "history_id", "path", "project")} == {
        "name": "birds",
        "model": "demo/birds:model",
        "repository": str(top),
        "history_id": git(project, "rev-list", "--max-parents=0", "HEAD"),
        "path": "demo/birds/artifacts/tune/model",
        "project": project,
    }


def test_a_watcher_that_fails_changes_no_outcome(
    project: Path, watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(registry: dict[str, Any]) -> None:
        raise OSError("the server is down")

    watch(tl_fails=fails, tl_says=lambda registry: f"mirrored {len(registry['versions'])}")
    assert cli.main(["registry", "register"]) == 0
    assert cli.main(["registry", "promote", "v1", "--why", "x"]) == 0
    told = capsys.readouterr()
    assert told.out.endswith("`tl registry push` shares it\nv1 is the champion\n")
    line = "tl: plugin tl_fails failed in tl_registry_changed: the server is down\n"
    assert told.err == f"mirrored 1\n{line}" * 2
    champion = ModelRegistry.open(project).state().champion
    assert champion is not None
    assert champion.name == "v1"
    assert cli.main(["registry", "mirror"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("mirrored 1\n", line)


def test_two_processes_tell_one_after_the_other_so_that_the_newest_is_told_last(project: Path, watch: Watch) -> None:
    told: list[list[str]] = []
    telling, registered_meanwhile, overtaken = threading.Event(), threading.Event(), threading.Event()

    def slowly(registry: dict[str, Any]) -> None:
        if not telling.is_set():
            telling.set()
            assert registered_meanwhile.wait(60)
            assert not overtaken.wait(3)  # the other one is at the lock by now
        else:
            overtaken.set()
        told.append([version["name"] for version in registry["versions"]])

    registered(project, 1)
    watch(tl_slow=slowly)
    first = threading.Thread(target=tell_registry, args=(project,))
    first.start()
    assert telling.wait(60)
    registered(project, 1)
    registered_meanwhile.set()
    assert tell_registry(project) == Told(("tl_slow",))
    first.join()
    assert told == [["v1"], ["v1", "v2"]]


def test_who_waits_too_long_for_another_one_says_so(
    project: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(tl_sees=lambda registry: pytest.fail("told although another process tells"))
    monkeypatch.setattr(mirrors, "LOCK_SECONDS", 0.01)
    with FileLock(ModelRegistry.open(project).common / mirrors.LOCK):
        (line,) = tell_registry(project).failures
    assert "another process has been telling them" in line
    assert line.endswith("`tl registry mirror` tells them")


def test_what_keeps_watchers_from_being_told_is_said_too(
    project: Path, watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch(tl_sees=lambda: None)
    (project / "params.yaml").write_text("registry: {name: a/b}\n")
    assert cli.main(["registry", "register"]) == 0
    assert capsys.readouterr().err == (
        "tl: no watcher was told what is registered: config key 'registry.name' can't be 'a/b': allowed: null, or up "
        "to 200 letters, digits and any of . _ + - and blanks, the first a letter or digit\n"
    )
    assert cli.main(["registry", "mirror"]) == 1


def test_a_mirror_that_is_missing_or_switched_off_is_an_error(
    project: Path, watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch()
    assert tell_registry(project) == Told()
    assert cli.main(["registry", "mirror"]) == 2
    assert "no installed plugin mirrors the registry; `pip install" in capsys.readouterr().err
    watch(tl_off=lambda: None)
    assert cli.main(["registry", "mirror"]) == 2
    assert "nothing was sent, tl_off is switched off" in capsys.readouterr().err


def test_the_models_name_is_the_parameters_or_the_main_folders(project: Path, watch: Watch, tmp_path: Path) -> None:
    names: list[str] = []
    watch(tl_sees=lambda registry: names.append(registry["name"]))
    tree = tmp_path / "tree"
    git(project, "worktree", "add", "-q", "--detach", str(tree))
    for folder in (project, tree / "demo" / "birds"):
        assert tell_registry(folder).failures == ()
    (project / "params.yaml").write_text("registry: {name: our birds}\n")
    assert tell_registry(project).failures == ()
    assert names == ["birds", "birds", "our birds"]


@pytest.mark.parametrize(
    ("remotes", "address"),
    [
        ({"origin": "https://me:secret@git.example.org/birds.git"}, "https://git.example.org/birds.git"),
        ({"origin": "https://token@git.example.org/birds.git"}, "https://git.example.org/birds.git"),
        ({"origin": "ssh://git:secret@git.example.org:22/birds"}, "ssh://git@git.example.org:22/birds"),
        ({"origin": "git@git.example.org:birds.git", "b": "/x"}, "git@git.example.org:birds.git"),
        ({"team": "../birds.git"}, "{parent}/birds.git"),
        ({"a": "/x", "b": "/y"}, "{parent}/repository"),
    ],
)
def test_the_repositorys_address_has_no_password(
    project: Path, tmp_path: Path, remotes: dict[str, str], address: str
) -> None:
    for name, url in remotes.items():
        git(project, "remote", "add", name, url)
    told = registry_json(ModelRegistry.open(project), "birds")["repository"]
    assert told == address.format(parent=tmp_path)


def test_a_shallow_clone_does_not_say_how_its_history_began(project: Path, tmp_path: Path) -> None:
    registered(project, 2)
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{project.parents[1]}", str(shallow))
    git(shallow, "fetch", "-q", "--tags", "--depth=1")
    told = registry_json(ModelRegistry.open(shallow / "demo" / "birds"), "birds")
    assert (told["history_id"], len(told["versions"])) == ("", 2)


@pytest.mark.parametrize("state", ["promoted", "refused", "failed", "nothing new"])
def test_each_retrain_ends_with_telling_the_watchers(
    state: Any, project: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise OSError("the server is down")

    registered(project, 1)
    monkeypatch.setattr(flow, "create_markdown_artifact", lambda *arguments, **more: None)
    watch(tl_says=lambda registry: f"mirrored {registry['versions'][0]['name']}", tl_fails=fails)
    with caplog.at_level(logging.INFO, flow.log.name):
        flow._tell(Outcome(state, "so it is"), cast(Any, SimpleNamespace(main=project, made_good=None)))
    assert caplog.messages == ["mirrored v1", "plugin tl_fails failed in tl_registry_changed: the server is down"]
