"""Data versions: what DVC records, what changed, what is stale."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tl_flows import versioning

from tl_core.errors import UserError

Git = Callable[..., None]


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True)


def state(root: Path, data: Path) -> tuple[str, str]:
    found = versioning.tracked(root, data)
    assert found is not None
    return found.file, found.state


def test_recorded_digests_are_md5s_of_the_files_below_the_data_folder(dvc_project: Path) -> None:
    digests = versioning.recorded_digests(dvc_project, dvc_project / "data" / "a")
    assert digests == {
        name: hashlib.md5((dvc_project / "data" / "a" / name).read_bytes()).hexdigest() for name in ("1.txt", "2.txt")
    }


def test_recorded_digests_of_a_table_are_those_of_its_folder(dvc_project: Path) -> None:
    digests = versioning.recorded_digests(dvc_project, dvc_project / "data" / "3.txt")
    assert digests is not None
    assert sorted(digests) == ["3.txt", "a/1.txt", "a/2.txt"]


def test_no_digests_where_the_data_differ_or_are_not_tracked(dvc_project: Path, tmp_path: Path) -> None:
    assert versioning.recorded_digests(dvc_project, tmp_path) is None
    (dvc_project / "data" / "a" / "1.txt").write_text("other\n")
    assert versioning.recorded_digests(dvc_project, dvc_project / "data") is None
    assert state(dvc_project, dvc_project / "data") == ("data.dvc", "modified")


def test_changes_are_told_against_the_version_that_the_stage_last_saw(dvc_project: Path) -> None:
    data = dvc_project / "data"
    first = versioning.changes(dvc_project, data, "version")
    assert first is not None
    assert first.describe() == "3 files, 46 B; no earlier version to compare with"
    dvc(dvc_project, "repro", "-q", "version")
    same = versioning.changes(dvc_project, data, "version")
    assert same is not None
    assert same.describe() == "3 files, 46 B; unchanged since the last version"
    (data / "3.txt").unlink()
    (data / "a" / "1.txt").write_text("changed\n")
    (data / "4.txt").write_text("four\n")
    dvc(dvc_project, "add", "-q", "data")
    found = versioning.changes(dvc_project, data, "version")
    assert found is not None
    assert (found.added, found.removed, found.modified) == (
        (1, 5, ("4.txt",)),
        (1, 14, ("3.txt",)),
        (1, 8, ("a/1.txt",)),
    )
    assert found.describe() == "3 files, 29 B; 1 added (5 B: 4.txt); 1 removed (14 B: 3.txt); 1 modified (8 B: a/1.txt)"


def test_missing_data_are_told_from_changed_data(dvc_project: Path) -> None:
    data = dvc_project / "data"
    data.rename(dvc_project.parent / "elsewhere")
    assert state(dvc_project, data / "a") == ("data.dvc", "missing")


@pytest.fixture
def moved_on(dvc_project: Path, sub_project: Path, git: Git) -> Callable[[], None]:
    """Leaves the project as `git pull` does where somebody else has recorded other bytes of data/a/1.txt."""
    data = dvc_project / "data"
    git(dvc_project, "branch", "-M", "main")
    (data / "a" / "1.txt").write_text("changed\n")
    assert versioning.left_behind(dvc_project, data) is None  # new data
    dvc(dvc_project, "add", "-q", "data")
    git(dvc_project, "commit", "-qam", "new data")

    def leave() -> None:
        git(dvc_project, "checkout", "-q", "-f", "HEAD~1")
        dvc(dvc_project, "checkout", "-q", "-f", "data.dvc")
        git(dvc_project, "checkout", "-q", "main")

    leave()
    return leave


def test_data_that_git_has_left_behind_are_told(
    dvc_project: Path, sub_project: Path, moved_on: Callable[[], None], tmp_path: Path
) -> None:
    data = dvc_project / "data"
    told = r"earlier version, that of commit \w{12}: data.dvc has moved on .* `dvc pull data` .* `dvc commit --force"
    assert re.search(told, versioning.left_behind(dvc_project, data) or "")
    told = r"\.\./data.dvc has moved on .* `dvc pull ../../data/a` .* `dvc add ../../data/a` makes"
    assert re.search(told, versioning.left_behind(sub_project, data / "a") or "")
    assert versioning.left_behind(sub_project, data / "3.txt") is None  # the same in both
    dvc(dvc_project, "remote", "add", "-d", "here", str(tmp_path / "remote"))
    dvc(dvc_project, "push", "-q", "data.dvc")
    (listing,) = set(re.findall(r"md5: (\w+)\.dir", (dvc_project / "data.dvc").read_text()))
    cached = dvc_project / ".dvc" / "cache" / "files" / "md5" / listing[:2] / f"{listing[2:]}.dir"
    cached.unlink()  # a pull by git brings no list of a folder's files
    assert versioning.left_behind(sub_project, data / "3.txt") is None
    assert versioning.left_behind(sub_project, data / "a") is not None
    dvc(sub_project, "pull", "-q", "../../data/a")
    assert state(sub_project, data / "a") == ("../../data.dvc", "recorded")
    assert versioning.left_behind(dvc_project, data) is None


def test_data_that_were_changed_back_are_not_left_behind(dvc_project: Path, moved_on: Callable[[], None]) -> None:
    data = dvc_project / "data"
    (data / "a" / "1.txt").write_text("text of a/1.txt\n")  # the same words, and somebody wrote them
    assert versioning.left_behind(dvc_project, data) is None
    moved_on()
    assert versioning.left_behind(dvc_project, data) is not None
    dvc(dvc_project, "commit", "--force", "-q", "data.dvc")
    assert versioning.left_behind(dvc_project, data) is None
    assert state(dvc_project, data) == ("data.dvc", "recorded")


def test_a_record_that_dvc_wrote_leaves_nothing_behind(
    dvc_project: Path, sub_project: Path, moved_on: Callable[[], None], git: Git
) -> None:
    data = dvc_project / "data"
    assert versioning.left_behind(sub_project, data / "a") is not None
    dvc(dvc_project, "checkout", "-q", "-f", "data.dvc")
    (data / "a" / "1.txt").write_text("text of a/1.txt\n")  # the delivery is undone
    (data / "3.txt").write_text("another project's news\n")
    dvc(dvc_project, "add", "-q", "data/3.txt")
    assert versioning.left_behind(sub_project, data / "a") is None
    time.sleep(1.1)  # commits know seconds
    git(dvc_project, "commit", "-qam", "another project's news")
    assert state(sub_project, data / "a") == ("../../data.dvc", "modified")
    assert versioning.left_behind(sub_project, data / "a") is None


def test_a_damaged_list_of_files_tells_nothing(
    dvc_project: Path, sub_project: Path, moved_on: Callable[[], None]
) -> None:
    (listing,) = set(re.findall(r"md5: (\w+)\.dir", (dvc_project / "data.dvc").read_text()))
    cached = dvc_project / ".dvc" / "cache" / "files" / "md5" / listing[:2] / f"{listing[2:]}.dir"
    cached.chmod(0o644)
    cached.write_text("[{")
    assert versioning.left_behind(sub_project, dvc_project / "data" / "a") is None


def test_data_newer_than_those_of_the_branch_are_not_left_behind(
    dvc_project: Path, moved_on: Callable[[], None], git: Git
) -> None:
    dvc(dvc_project, "checkout", "-q", "-f", "data.dvc")
    git(dvc_project, "tag", "model@2.0.0")
    git(dvc_project, "checkout", "-q", "HEAD~1")  # whose data.dvc knows nothing of them yet
    assert state(dvc_project, dvc_project / "data") == ("data.dvc", "modified")
    assert versioning.left_behind(dvc_project, dvc_project / "data") is None


def test_what_dvc_links_elsewhere_as_well_is_not_touched(dvc_project: Path, moved_on: Callable[[], None]) -> None:
    dvc(dvc_project, "config", "--local", "cache.type", "hardlink")
    dvc(dvc_project, "checkout", "-q", "--relink", "data.dvc")
    moved_on()
    file = dvc_project / "data" / "a" / "1.txt"
    assert file.stat().st_nlink > 1
    (dvc_project.parent / "another worktree's").hardlink_to(file)
    assert versioning.left_behind(dvc_project, dvc_project / "data") is not None


def test_without_git_no_data_are_left_behind(dvc_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dvc_project / "data" / "a" / "1.txt").write_text("changed\n")
    (dvc_project / "data.dvc").touch()
    monkeypatch.setenv("PATH", "")
    assert versioning.left_behind(dvc_project, dvc_project / "data") is None


def test_stale_stages_say_why(dvc_project: Path) -> None:
    stale = versioning.stale_stages(dvc_project, ["version", "select"])
    assert set(stale) == {"version", "select"}
    dvc(dvc_project, "repro", "-q")
    assert versioning.stale_stages(dvc_project, ["version", "select"]) == {}
    (dvc_project / "params.yaml").write_text("seed: 1\n")
    (reason,) = versioning.stale_stages(dvc_project, ["version", "select"])["version"]
    assert reason.endswith("params.yaml: seed modified")


def test_a_broken_pipeline_is_a_user_fault(dvc_project: Path) -> None:
    (dvc_project / "dvc.yaml").write_text("stages: {version: {}}\n")
    with pytest.raises(UserError, match=r"DVC can't read the project .*dvc\.yaml"):
        versioning.stale_stages(dvc_project, ["version"])


def test_a_stage_of_another_run_is_told_with_its_process(dvc_project: Path) -> None:
    other = os.getppid()  # any process that lives
    held = {str(dvc_project / "artifacts/version"): {"pid": other, "cmd": "dvc repro --single-item version"}}
    lock = dvc_project / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(json.dumps({"write": held, "read": {}}))
    told = rf"another run works in the project .* \(process {other}\); wait until it ends"
    with pytest.raises(UserError, match=told):
        versioning.stale_stages(dvc_project, ("version",))


def test_a_part_of_the_tracked_data_has_a_state_of_its_own(sub_project: Path) -> None:
    repository = sub_project.parents[1]
    part, data = repository / "data" / "a", repository / "data"
    assert state(sub_project, part) == ("../../data.dvc", "recorded")
    assert state(sub_project, data / "3.txt") == ("../../data.dvc", "recorded")
    (data / "3.txt").write_text("of another project\n")
    assert state(sub_project, part) == ("../../data.dvc", "recorded")
    assert state(sub_project, data / "3.txt") == ("../../data.dvc", "modified")
    assert state(repository, data) == ("data.dvc", "modified")
    digests = versioning.recorded_digests(sub_project, part)
    assert digests is not None
    assert sorted(digests) == ["1.txt", "2.txt"]
    (part / "2.txt").unlink()
    assert state(sub_project, part) == ("../../data.dvc", "modified")
    assert versioning.recorded_digests(sub_project, part) is None


def test_links_lead_to_the_tracked_data(sub_project: Path) -> None:
    repository = sub_project.parents[1]
    (sub_project / "here").symlink_to(repository / "data" / "a")
    assert state(sub_project, sub_project / "here") == ("../../data.dvc", "recorded")
    dvc(repository, "config", "cache.type", "symlink")
    dvc(repository, "checkout", "--relink", "data.dvc")
    file = repository / "data" / "3.txt"
    assert file.is_symlink()  # into DVC's cache
    assert state(sub_project, file) == ("../../data.dvc", "recorded")
    found = versioning.tracked(sub_project, file)
    assert found is not None
    assert found.record == ("add", "../../data/3.txt")


def test_only_the_part_of_the_project_is_recorded_and_fetched(sub_project: Path, tmp_path: Path) -> None:
    repository = sub_project.parents[1]
    part, other = repository / "data" / "a", repository / "data" / "3.txt"
    dvc(repository, "remote", "add", "-d", "here", str(tmp_path / "remote"))
    (part / "1.txt").write_text("changed\n")
    other.write_text("of another project, not to be recorded yet\n")
    found = versioning.tracked(sub_project, part)
    assert found is not None
    dvc(sub_project, *found.record)
    assert state(sub_project, part) == ("../../data.dvc", "recorded")
    assert state(repository, other) == ("data.dvc", "modified")
    dvc(repository, "push", "-q")
    shutil.rmtree(part)
    found = versioning.tracked(sub_project, part)
    assert found is not None
    assert (found.state, found.fetch) == ("missing", ("pull", "../../data/a"))
    dvc(sub_project, *found.fetch)
    assert (part / "1.txt").read_text() == "changed\n"
    assert other.read_text().startswith("of another project")
    shutil.rmtree(repository / "data")
    found = versioning.tracked(sub_project, part)
    assert found is not None
    assert (found.state, found.fetch) == ("missing", ("pull", "../../data.dvc"))


def test_changes_of_a_part_are_told_against_the_projects_own_last_run(sub_project: Path) -> None:
    repository = sub_project.parents[1]
    part = repository / "data" / "a"
    first = versioning.changes(sub_project, part, "version")
    assert first is not None
    assert first.describe() == "2 files, 32 B; no earlier version to compare with"
    dvc(sub_project, "repro", "-q", "version")
    dvc(repository, "repro", "-q", "version")  # a stage of the same name, which saw other data
    (part / "1.txt").write_text("changed\n")
    (repository / "data" / "3.txt").write_text("of another project\n")
    dvc(repository, "add", "-q", "data")
    found = versioning.changes(sub_project, part, "version")
    assert found is not None
    assert found.describe() == "2 files, 24 B; 1 modified (8 B: 1.txt)"


def test_a_sub_project_has_stages_of_its_own(sub_project: Path) -> None:
    repository = sub_project.parents[1]
    dvc(sub_project, "repro", "-q")
    assert versioning.stale_stages(sub_project, ["version", "select"]) == {}
    assert set(versioning.stale_stages(repository, ["version", "select"])) == {"version", "select"}
    dvc(repository, "repro", "-q", "--all-pipelines")
    assert versioning.stale_stages(repository, ["version", "select"]) == {}
    (repository / "data" / "3.txt").write_text("of the whole only\n")
    assert versioning.stale_stages(sub_project, ["version", "select"]) == {}
    assert set(versioning.stale_stages(repository, ["version", "select"])) == {"version"}
