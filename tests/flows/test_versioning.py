"""Data versions: what DVC records, what changed, what is stale."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from tl_flows import versioning

from tl_core.errors import UserError


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True)


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
    assert versioning.tracked(dvc_project, dvc_project / "data") == versioning.Tracked("data.dvc", "modified")


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
    assert versioning.tracked(dvc_project, data / "a") == versioning.Tracked("data.dvc", "missing")


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
