"""Nights of a project: a first model, nothing new, wrong labels, a kill; each ends as it should, nothing else moves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from messages import lines, write_rows
from tl_flows.git import git

TABLE = Path("data", "messages.csv")
REFUSED = 3


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tl_flows", "retrain", "--json", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def night(project: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Retrain to the end; the outcome."""
    process = start(project, *arguments)
    told, log = process.communicate()
    assert process.returncode in codes, log + told
    outcome: dict[str, Any] = json.loads(told)
    return outcome


def rules(outcome: dict[str, Any]) -> dict[str, str]:
    return {rule["name"]: rule["state"] for rule in outcome["decision"]["rules"]}


def untouched(project: Path) -> tuple[str, str, str]:
    """What a retrain must leave alone: the branch, the files that git tracks, the data."""
    return (
        git(project, "rev-parse", "HEAD", "--abbrev-ref", "HEAD"),
        git(project, "status", "--porcelain"),
        (project / TABLE).read_text(encoding="utf-8"),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_week_of_nights(project: Path, tmp_path: Path) -> None:
    before = untouched(project)
    first = night(project)
    assert (first["state"], first["version"], first["champion"]) == ("promoted", "v1", "v1")
    assert rules(first)["floors"] == "pass"
    assert Path(first["folder"], "report.html").is_file()
    assert "Promoted: v1 is the first to serve" in Path(first["folder"], "decision.html").read_text(encoding="utf-8")

    idle = night(project)
    assert (idle["state"], idle["version"], idle["champion"]) == ("nothing new", "v1", "v1")

    assert untouched(project) == before
    write_rows(project / TABLE, [*lines(120, seed=0), *lines(90, seed=1, wrong=True)])
    worse = night(project, codes=(REFUSED,))
    assert (worse["state"], worse["version"], worse["champion"]) == ("refused", "v2", "v1")
    assert rules(worse)["metric"] in ("fail", "can't tell")
    page = Path(worse["folder"], "decision.html").read_text(encoding="utf-8")
    assert "Refused: v2; v1 stays" in page
    assert "What changed since v1" in page

    write_rows(project / TABLE, [*lines(120, seed=0), *lines(90, seed=2)])
    calm = shutil.copytree(project, tmp_path / "calm" / "shop", symlinks=True)
    undisturbed = night(calm, codes=(0, REFUSED))
    killed = start(project)
    attempt = project / ".tl" / "retrain" / "attempt.json"
    end = time.monotonic() + 300
    while not (json.loads(attempt.read_text())["state"] == "" and json.loads(attempt.read_text())["prepared"]):
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(8)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = night(project, codes=(0, REFUSED))
    assert (done["state"], done["version"]) == (undisturbed["state"], "v3")
    assert done["decision"] == undisturbed["decision"]
    assert git(project, "tag", "--list", "model@*").splitlines() == ["model@v1.0.0", "model@v2.0.0", "model@v3.0.0"]
    assert untouched(project)[0] == before[0]
