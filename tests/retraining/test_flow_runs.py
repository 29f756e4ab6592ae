"""Flow runs whose process is gone: noted until the server knows their end, and closed by the next retrain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tl_flows.retraining import flow_runs
from tl_flows.retraining.attempt import sole_retrain


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that the server was asked about; it knows the end of those whose name says so."""
    runs: list[str] = []

    def closed(run: str) -> bool:
        runs.append(run)
        return "away" not in run

    monkeypatch.setattr(flow_runs, "_closed", closed)
    return runs


def test_dead_ones_are_closed_and_those_alive_left(tmp_path: Path, gone: int, asked: list[str]) -> None:
    flow_runs._write(tmp_path, {"dead": gone, "alive": os.getppid()})
    flow_runs.put_on_record(tmp_path, "mine")
    assert asked == ["dead"]
    assert flow_runs._noted(tmp_path) == {"alive": os.getppid(), "mine": os.getpid()}


def test_one_that_the_server_could_not_be_told_of_stays_noted(tmp_path: Path, gone: int, asked: list[str]) -> None:
    flow_runs._write(tmp_path, {"server away": gone})
    flow_runs.close_dead(tmp_path)
    flow_runs.close_dead(tmp_path)
    assert asked == ["server away"] * 2
    assert flow_runs._noted(tmp_path) == {"server away": gone}


def test_while_a_retrain_runs_nothing_is_closed(tmp_path: Path, gone: int, asked: list[str]) -> None:
    flow_runs._write(tmp_path, {"dead": gone})
    with sole_retrain(tmp_path):
        flow_runs.close_dead(tmp_path)
    assert asked == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"runs": {"a": "x"}}', '{"format": 1}'])
def test_a_damaged_record_is_begun_anew(tmp_path: Path, asked: list[str], text: str) -> None:
    file = tmp_path / flow_runs.FILE
    file.parent.mkdir(parents=True)
    file.write_text(text)
    flow_runs.put_on_record(tmp_path, "mine")
    assert flow_runs._noted(tmp_path) == {"mine": os.getpid()}
