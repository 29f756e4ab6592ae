"""Versions, aliases and rollback as tags of real git repositories; promotions that race, are killed or can't write."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gto import api
from tl_flows import model_registry
from tl_flows.model_registry import LOCK, ModelRegistry, model_name
from tl_flows.version_facts import VersionFacts, Watched
from versions import commit_run, facts_of, git, make_project, outputs, registered

from tl_core.errors import FormatError, UserError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "repository")


def gto_aliases(project: Path, name: str = "model") -> dict[str, str | None]:
    shown = api.show(project)[name]["stage"]
    return {alias: version.removesuffix(".0.0") if version else None for alias, version in shown.items()}


def test_a_commit_becomes_a_version_and_the_challenger(project: Path) -> None:
    commit = commit_run(project, outputs(b"one"))
    registry = ModelRegistry.open(project)
    facts = facts_of(project, commit, 0.912, decision="Better by 2 points\nfor sure.", why="nightly", test_set="t1")
    version = registry.register("HEAD", facts)
    assert (version.name, version.tag, version.commit, version.by) == ("v1", "model@v1.0.0", commit, "tests")
    assert version.said == "v1: accuracy 0.912 (0.862 to 0.962); Better by 2 points for sure."
    assert version.facts == facts
    state = registry.state()
    assert (state.champion, state.challenger, state.versions) == (None, version, (version,))
    assert state.history[0].why == "nightly"
    told = json.loads(git(project, "tag", "-l", "--format=%(contents:body)", "model@v1.0.0"))
    assert (told["format"], told["bundle"], told["test_set"]) == (1, facts.bundle, "t1")


def test_one_commit_is_one_version(project: Path) -> None:
    registry = registered(project, 1)
    (first,) = registry.state().versions
    assert registry.register(first.commit, facts_of(project, first.commit, 0.5)) == first
    assert len(registry.state().history) == 1


def test_a_killed_registration_is_completed_by_the_next(project: Path) -> None:
    registry = registered(project, 1)
    (first,) = registry.state().versions
    git(project, "tag", "-d", "model#challenger#1")
    assert registry.state().challenger is None
    assert first.facts
    assert registry.register(first.commit, first.facts) == first
    assert registry.state().challenger == first


def test_the_bundle_must_be_that_of_the_commit(project: Path) -> None:
    first = commit_run(project, outputs(b"one"))
    facts = facts_of(project, first)
    commit_run(project, outputs(b"two"))
    registry = ModelRegistry.open(project)
    with pytest.raises(UserError, match=r"commit \w{12} holds another model \(\w{12}\) than the one to be registered"):
        registry.register("HEAD", facts)
    (project / "dvc.lock").unlink()
    git(project, "commit", "-qam", "no lock")
    with pytest.raises(UserError, match=r"holds no tuned model of the project .*: its dvc.lock has no artifacts/tune"):
        registry.register("HEAD", facts)
    with pytest.raises(UserError, match="git knows no revision 'nowhere'"):
        registry.register("nowhere", facts)
    assert registry.state().versions == ()


def test_champions_follow_each_other_and_gto_reads_the_same(project: Path) -> None:
    registry = registered(project, 3)
    assert registry.promote("v1", expected_champion=None, why="first").was is None
    event = registry.promote("2", expected_champion="v1", why="better")
    assert (event.version, event.was, event.kind, event.by, event.why) == ("v2", "v1", "promote", "tests", "better")
    state = registry.state()
    assert [v.name for v in state.versions if "champion" in state.aliases(v)] == ["v2"]
    assert (state.challenger or state.versions[0]).name == "v3"
    assert gto_aliases(project) == {"champion": "v2", "challenger": "v3"}
    registry.promote("v3", expected_champion="v2", why="")
    assert registry.state().challenger is None  # it is no challenger any more, whatever its tag says
    # many within a second, and back: GTO orders by seconds
    names = ["v1", "v3", "v2", "v1", "v2"]
    for before, name in zip(["v3", *names], names):
        registry.promote(name, expected_champion=before, why="")
        assert gto_aliases(project)["champion"] == name
    assert [e.number for e in registry.state().history] == list(range(1, 12))
    shown = api.show(project, "model")
    assert [v["version"] for v in shown] == ["v3.0.0", "v2.0.0", "v1.0.0"]
    assert len(api.history(project, "model")) >= 14


def test_each_rollback_goes_one_further_back(project: Path) -> None:
    registry = registered(project, 4)
    for before, name in zip([None, "v1", "v2"], ["v1", "v2", "v3"]):
        registry.promote(name, expected_champion=before, why="")
    assert registry.rollback(expected_champion="v3", why="bad").version == "v2"
    registry.promote("v4", expected_champion="v2", why="")
    assert registry.rollback(expected_champion="v4", why="").version == "v2"
    assert registry.rollback(expected_champion="v2", why="").version == "v1"
    with pytest.raises(UserError, match="there was no champion before v1; name a version"):
        registry.rollback(expected_champion="v1", why="")
    assert registry.rollback("v3", expected_champion="v1", why="").kind == "rollback"
    assert gto_aliases(project)["champion"] == "v3"


def test_who_comes_late_is_told_who_won(project: Path) -> None:
    registry = registered(project, 3)
    registry.promote("v1", expected_champion=None, why="")
    registry.promote("v2", expected_champion="v1", why="better")
    before = registry.state()
    told = r"v2 is the champion by now \(promote by tests, .*\), and this was decided against v1; nothing was changed"
    with pytest.raises(UserError, match=told):
        registry.promote("v3", expected_champion="v1", why="")
    with pytest.raises(UserError, match="this was decided when there was no champion"):
        registry.rollback("v1", expected_champion=None, why="")
    with pytest.raises(UserError, match="v2 is the champion already"):
        registry.promote("v2", expected_champion="v2", why="")
    assert registry.state() == before


def test_unknown_names_are_answered_with_what_there_is(project: Path) -> None:
    registry = ModelRegistry.open(project)
    with pytest.raises(UserError, match="no champion: no model is registered here; `tl registry register` registers"):
        registry.state().version("champion")
    registered(project, 3)
    git(project, "tag", "-a", "model@v10.0.0", "HEAD~1", "-m", "by hand")
    git(project, "tag", "-d", "model@v2.0.0")
    git(project, "tag", "model@v11.0.0")  # without a message: GTO takes no notice of it, nor does tl
    state = registry.state()
    assert [v.name for v in state.versions] == ["v1", "v3", "v10"]
    assert state.version("v3.0.0") == state.version("3") == state.version("v3")
    with pytest.raises(UserError, match="no champion yet; `tl registry promote VERSION` makes one of v1, v3, v10"):
        state.version("champion")
    with pytest.raises(UserError, match="no version v13; did you mean v"):
        state.version("v13")
    registry.promote("v3", expected_champion=None, why="")
    with pytest.raises(UserError, match="no challenger: the last one was promoted"):
        registry.state().version("challenger")


def test_what_gto_did_is_understood(project: Path) -> None:
    registry = registered(project, 2)
    last = commit_run(project, outputs(b"by hand"))
    api.register(project, "model", last, bump_major=True)
    api.assign(project, "model", "champion", version="v3.0.0")
    state = registry.state()
    assert (state.champion, state.version("v3").facts) == (state.version("v3"), None)
    registry.promote("v1", expected_champion="v3", why="")
    api.unassign(project, "model", version="v1.0.0", stage="champion")
    state = registry.state()
    assert state.champion == state.version("v3")
    assert state.history[-1].kind == "unassign"
    api.deregister(project, "model", version="v3.0.0")
    assert registry.state().champion is None
    assert registry.state().find("v3") is None
    commit = commit_run(project, outputs(b"after"))
    assert registry.register(commit, facts_of(project, commit)).name == "v4"  # a number is never used twice


def test_a_newer_tl_is_told(project: Path) -> None:
    registry = registered(project, 1)
    git(project, "tag", "-a", "model#champion#9", "-m", 'said\n\n{"format": 2}')
    with pytest.raises(FormatError, match="the tag model#champion#9 has format 2, this tl reads up to 1; update tl"):
        registry.state()
    git(project, "tag", "-d", "model#champion#9")
    commit = commit_run(project, outputs(b"next"))
    git(project, "tag", "-a", "model@v2.0.0", commit, "-m", 'said\n\n{"format": 2}')
    with pytest.raises(FormatError, match="versions of format 2, this tl reads up to 1; update tl"):
        registry.state()


@pytest.mark.parametrize("value", [None, [], {"format": "1"}, {"format": 1, "bundle": 3}])
def test_facts_that_are_none_are_none(value: object) -> None:
    assert VersionFacts.from_json(value) is None


def test_projects_of_one_repository_have_their_own_models(project: Path) -> None:
    other = make_project(project, "demo/image")
    mine, theirs = registered(project, 2), registered(other, 1)
    assert (mine.name, theirs.name) == ("model", "demo/image:model")
    mine.promote("v2", expected_champion=None, why="")
    assert theirs.state().champion is None
    assert theirs.state().versions[0].tag == "demo/image=model@v1.0.0"
    assert gto_aliases(project, "demo/image:model") == {"champion": None, "challenger": "v1"}


@pytest.mark.parametrize("folder", ["bilder é", "-x", "a..b", "a/.hidden", "x.lock", "a=b", "é", "ü"])
def test_any_folder_has_a_name_that_git_and_gto_take(project: Path, folder: str) -> None:
    registry = registered(make_project(project, folder), 1)
    assert api.show(project, registry.name)[0]["version"] == "v1.0.0"
    names = [model_name(f) for f in (folder, f"{folder}é", f"{folder}/é", "demo/image", "a_b", "a-b")]
    assert len(set(names)) == 6


def test_worktrees_detached_heads_and_shallow_clones_share_it(project: Path, tmp_path: Path) -> None:
    registry = registered(project, 2)
    registry.promote("v1", expected_champion=None, why="")
    git(project, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    linked = ModelRegistry.open(tmp_path / "tree")
    commit = commit_run(tmp_path / "tree", outputs(b"from the worktree"))
    linked.register(commit, facts_of(tmp_path / "tree", commit))
    linked.promote("v3", expected_champion="v1", why="")
    assert registry.state() == linked.state()
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{project}", "shallow")
    shallow = ModelRegistry.open(tmp_path / "shallow")
    assert shallow.state().find("v3") is None  # a shallow clone has no tags of other commits
    git(tmp_path / "shallow", "fetch", "-q", "--tags", "--depth", "1")
    assert shallow.state() == registry.state()
    shallow.rollback(expected_champion="v3", why="")
    registry.rollback("v2", expected_champion="v3", why="")
    with pytest.raises(subprocess.CalledProcessError):  # promoted here and there: the second push is refused
        git(tmp_path / "shallow", "push", "-q", "--tags")


def test_without_an_identity_the_user_of_the_machine_signs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = commit_run(project, outputs(b"one"))
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{who}_NAME")
        monkeypatch.delenv(f"GIT_{who}_EMAIL")
    git(project, "config", "user.useConfigOnly", "true")
    git(project, "config", "tag.gpgSign", "true")
    monkeypatch.setattr("getpass.getuser", lambda: "nightly")
    registry = ModelRegistry.open(project)
    assert registry.register(commit, facts_of(project, commit)).by == "nightly"
    assert registry.promote("v1", expected_champion=None, why="").by == "nightly"


def test_without_git_or_commits_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model registry for .*; versions are git tags: make a repository with"):
        ModelRegistry.open(tmp_path)
    project = make_project(tmp_path / "empty")
    registry = ModelRegistry.open(project)
    assert registry.state().versions == ()
    facts = VersionFacts("d", "c", "c", "b", Watched("accuracy", 0.9, 0.8, 1.0, 0.9, 200))
    with pytest.raises(UserError, match=r"has no commit yet; `tl run`, then `git add -A` and `git commit`"):
        registry.register("HEAD", facts)


def _promote(root: Path, version: str, expected: str | None, go: object, out: object) -> None:
    go.wait()  # type: ignore[attr-defined]
    try:
        event = ModelRegistry.open(root).promote(version, expected_champion=expected, why="race")
        out.put(("won", event.version))  # type: ignore[attr-defined]
    except UserError as error:
        out.put(("lost", str(error)))  # type: ignore[attr-defined]


ROUNDS = 12


def test_of_several_processes_that_promote_at_once_exactly_one_wins(project: Path) -> None:
    registry = registered(project, 4)
    fork = multiprocessing.get_context("fork")
    champion = None
    for _ in range(ROUNDS):
        go, out = fork.Barrier(3), fork.Queue()
        rivals = [v.name for v in registry.state().versions if v.name != champion][:3]
        tasks = [fork.Process(target=_promote, args=(project, name, champion, go, out)) for name in rivals]
        for task in tasks:
            task.start()
        said = [out.get(timeout=60) for _ in tasks]
        for task in tasks:
            task.join()
        (winner,) = [name for state, name in said if state == "won"]
        losers = [text for state, text in said if state == "lost"]
        assert len(losers) == 2
        assert all(text.startswith(f"{winner} is the champion by now") for text in losers)
        now = registry.state().champion
        assert now is not None
        assert now.name == winner == gto_aliases(project)["champion"]
        champion = winner
    promotions = [e for e in registry.state().history if e.alias == "champion"]
    assert len(promotions) == ROUNDS
    assert all(one.was == before for one, before in zip(promotions[1:], [p.version for p in promotions]))


def test_without_the_lock_the_tags_number_decides(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registered(project, 3)
    registry.promote("v1", expected_champion=None, why="")
    create = ModelRegistry._create
    monkeypatch.setattr(ModelRegistry, "_locked", lambda self: contextlib.nullcontext())

    def late(self: ModelRegistry, tag: str, *arguments: object) -> bool:
        monkeypatch.setattr(ModelRegistry, "_create", create)
        registry.promote("v2", expected_champion="v1", why="came between")
        return create(self, tag, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelRegistry, "_create", late)
    with pytest.raises(UserError, match="v2 is the champion by now"):
        registry.promote("v3", expected_champion="v1", why="")
    champion = registry.state().champion
    assert champion is not None
    assert champion.name == "v2"


FOREVER = """
import sys
from pathlib import Path
from tl_flows.model_registry import ModelRegistry
registry = ModelRegistry.open(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    champion = registry.state().champion
    registry.promote("v2" if champion.name == "v1" else "v1", expected_champion=champion.name, why="again")
"""


def test_a_kill_at_any_instant_leaves_it_whole(project: Path) -> None:
    registry = registered(project, 2)
    registry.promote("v1", expected_champion=None, why="")
    rng = random.Random(0)
    before = 2
    for _ in range(6):
        task = subprocess.Popen(
            [sys.executable, "-c", FOREVER, str(project)], stdout=subprocess.PIPE, start_new_session=True
        )
        assert task.stdout
        assert task.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.5, 1.0))
        os.killpg(task.pid, signal.SIGKILL)
        task.communicate()
        state = registry.state()
        numbers = [event.number for event in state.history]
        assert numbers == sorted(set(numbers))
        assert state.champion is not None
        assert gto_aliases(project)["champion"] == state.champion.name
        promotions = [e for e in state.history if e.alias == "champion"]
        assert all(one.was == last.version != one.version for last, one in itertools.pairwise(promotions))
        other = "v1" if state.champion.name == "v2" else "v2"
        event = registry.promote(other, expected_champion=state.champion.name, why="after the kill")
        assert event.number > before
        before = event.number
    git(project, "fsck", "--strict")


def test_the_locks_of_the_dead_are_free(project: Path) -> None:
    registry = registered(project, 2)
    (registry.common / LOCK).write_text("99999999")
    refs = registry.common / "refs" / "tags"
    for tag in ("model#champion#3", "model#champion#4", "model@v3.0.0"):
        (refs / f"{tag}.lock").touch()  # git was killed while it made them
    assert registry.promote("v1", expected_champion=None, why="").number == 5
    commit = commit_run(project, outputs(b"three"))
    assert registry.register(commit, facts_of(project, commit)).name == "v4"


def _hold(path: Path, held: object) -> None:
    from filelock import FileLock

    with FileLock(path):
        held.set()  # type: ignore[attr-defined]
        time.sleep(60)


def test_a_live_holder_is_waited_for_and_named_by_its_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registered(project, 1)
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    holder = fork.Process(target=_hold, args=(registry.common / LOCK, held))
    holder.start()
    assert held.wait(30)
    monkeypatch.setattr(model_registry, "LOCK_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"another process has held .*tl-registry\.lock for 0 s; end it, then try"):
        registry.promote("v1", expected_champion=None, why="")
    holder.kill()
    holder.join()
    assert registry.promote("v1", expected_champion=None, why="").version == "v1"


def test_a_registry_that_cannot_be_locked_is_told(project: Path) -> None:
    registry = registered(project, 1)
    (registry.common / LOCK).unlink(missing_ok=True)
    (registry.common / LOCK).mkdir()
    told = r"the model registry can't be written, nothing was changed \(.*\); mend the rights, or free some space, in"
    with pytest.raises(UserError, match=told):
        registry.promote("v1", expected_champion=None, why="")


def _full(root: Path, out: object) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # what a full disk does: no byte can be added to a file
    try:
        ModelRegistry.open(root).promote("v2", expected_champion="v1", why="")
        code = 0
    except UserError as error:
        code = 3 if "the model registry can't be written, nothing was changed" in str(error) else 4
    os._exit(code)


def test_a_full_disk_changes_nothing(project: Path) -> None:
    registry = registered(project, 2)
    registry.promote("v1", expected_champion=None, why="")
    before = registry.state()
    task = multiprocessing.get_context("fork").Process(target=_full, args=(project, None))
    task.start()
    task.join()
    assert task.exitcode == 3
    assert registry.state() == before
    assert registry.promote("v2", expected_champion="v1", why="").version == "v2"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_repository_can_be_read_and_says_so_on_writing(project: Path) -> None:
    registry = registered(project, 2)
    folders = [registry.common, *(p for p in registry.common.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert len(registry.state().versions) == 2
        with pytest.raises(UserError, match="the model registry can't be written, nothing was changed"):
            registry.promote("v1", expected_champion=None, why="")
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_damaged_repository_is_told(project: Path) -> None:
    registry = registered(project, 1)
    tag = git(project, "rev-parse", "model@v1.0.0")
    (registry.common / "objects" / tag[:2] / tag[2:]).unlink()
    with pytest.raises(UserError, match=rf"the model registry can't be read \(.*{tag}.*\); `git fsck` says what is"):
        registry.state()
    shutil.rmtree(registry.common / "refs")
    (registry.common / "HEAD").unlink()
    with pytest.raises(UserError, match="no model registry for"):
        ModelRegistry.open(project)


LOGGING = """
import logging, os, sys
from pathlib import Path

class Kept(logging.Handler):
    def close(self):
        print("closed")

kept = Kept()
from tl_flows.model_registry import ModelRegistry
ModelRegistry.open(Path(sys.argv[1])).state()
assert "gto" in sys.modules
print(logging.getLogger("gto").handlers, flush=True)
os._exit(0)
"""


def test_reading_it_closes_no_log_of_a_run(project: Path) -> None:
    registered(project, 1)
    done = subprocess.run([sys.executable, "-c", LOGGING, str(project)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
