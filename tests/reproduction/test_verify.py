"""What is pinned against what is there: all faults at once, one line each."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_pipeline import write_labels
from tl_flows import cli
from tl_flows.git import git

from tl_core.pins import Pins


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = cli.main(["verify", *arguments, "--json"])
    told = capsys.readouterr()
    assert told.out, told.err
    return code, {item["name"]: item for item in json.loads(told.out)}


def test_several_faults_are_named_at_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, items = verify(capsys)
    assert code == 0
    assert {item["state"] for item in items.values()} == {"whole"}
    assert len(items) == 8
    rows = project / "data" / "rows.csv"
    before = rows.stat()
    write_labels(project, "b" + "a" * 79 + "b" * 20)  # of the same size
    os.utime(rows, ns=(before.st_atime_ns, before.st_mtime_ns))
    (project / "data" / "more.csv").touch()
    (project / "artifacts" / "tune" / "model" / "head.bin").unlink()
    shutil.rmtree(project / "artifacts" / "extract")
    Pins(weights={"./nowhere": "1" * 64}).keep(project)
    code, items = verify(capsys)
    assert code == 3
    assert {name: item["state"] for name, item in items.items() if item["state"] != "whole"} == {
        "data": "changed", "artifacts/extract": "missing", "artifacts/tune": "changed", "./nowhere": "missing",
    }  # fmt: skip
    assert items["data"]["detail"].startswith("1 added (more.csv), 1 changed (rows.csv); ")
    assert items["artifacts/tune"]["detail"] == "1 missing (model/head.bin); `tl run` makes it anew"
    assert cli.main(["verify"]) == 3
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == ["what", "name", "state", "detail"]
    assert told[-1].endswith("; `tl cache verify` checks the stored features")


def test_a_version_is_verified_in_the_cache_and_against_its_tag(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / "artifacts")
    before = git(project, "status", "--porcelain")
    code, items = verify(capsys, "HEAD")
    assert code == 0, items
    assert items["HEAD"]["kind"] == "model"
    objects = [path for path in (project / ".dvc/cache/files").rglob("*") if path.is_file()]
    labels = next(path for path in objects if path.read_bytes().startswith(b"id,label"))
    labels.chmod(0o644)
    labels.write_bytes(labels.read_bytes().replace(b"a", b"c"))
    head = next(path for path in objects if path.read_bytes() == b"\x000.0")
    head.unlink()
    shutil.rmtree(project / ".tl" / "bundles")
    code, items = verify(capsys, "HEAD")
    assert code == 3
    assert {name: item["state"] for name, item in items.items() if item["state"] != "whole"} == {
        "data": "changed", "artifacts/tune": "missing", "HEAD": "missing",
    }  # fmt: skip
    assert "delete them from DVC's cache, then `dvc fetch`" in items["data"]["detail"]
    assert git(project, "status", "--porcelain") == before


def test_other_weights_than_pinned_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Pins(weights={"all-minilm-l6-v2-first3": "1" * 64}).keep(project)
    code, items = verify(capsys)
    found = items["all-minilm-l6-v2-first3"]
    assert (code, found["state"]) == (3, "changed")
    assert found["detail"].endswith(
        "instead of 111111111111; put the pinned ones back, or tl backbones --unpin all-minilm-l6-v2-first3"
    )
