"""Retrains by the clock and on new data: what is watched, when it starts, and what a server is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from messages import lines, write_rows
from scheduling import scheduling_server
from tl_flows.commands.schedule import schedule
from tl_flows.retraining.schedule import Watch, fingerprint

from tl_core.errors import UserError


def test_a_change_starts_once_it_has_come_to_rest(tmp_path: Path) -> None:
    started: list[str] = []
    watch = Watch(tmp_path, started.append)
    assert not watch.look()
    (tmp_path / "a.txt").write_text("half")
    assert not watch.look()
    (tmp_path / "a.txt").write_text("whole now")
    assert not watch.look()
    assert watch.look()
    assert started == [fingerprint(tmp_path)]
    assert not watch.look()
    (tmp_path / "a.txt").unlink()
    assert [watch.look(), watch.look(), watch.look()] == [False, True, False]


def test_what_is_put_back_before_it_rested_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("kept")
    started: list[str] = []
    watch = Watch(tmp_path, started.append)
    (tmp_path / "b.txt").write_text("by mistake")
    assert not watch.look()
    (tmp_path / "b.txt").unlink()
    assert [watch.look(), watch.look()] == [False, False]
    assert started == []


def test_a_start_that_fails_is_tried_again_at_the_next_look(tmp_path: Path) -> None:
    calls: list[str] = []

    def start(key: str) -> None:
        calls.append(key)
        if len(calls) == 1:
            raise ConnectionError("the server is away")
        stop.set()

    stop = threading.Event()
    watch = Watch(tmp_path, start)
    (tmp_path / "a.txt").write_text("new")
    watch.stay(0.01, stop)
    assert calls == [fingerprint(tmp_path)] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], r'say when: --cron "0 3 \* \* \*"'),
        (["--watch", "5", "--revision", "origin/main"], "leave one of them out"),
        (["--watch", "5", "--data", "nowhere"], "nothing to watch: .*nowhere is not there"),
    ],
)
def test_what_makes_no_schedule_is_refused(project: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        CliRunner().invoke(schedule, [str(project), *arguments], catch_exceptions=False, standalone_mode=False)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with scheduling_server(tmp_path / "prefect", monkeypatch) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        yield url


def ask(url: str, path: str, **what: Any) -> Any:
    request = urllib.request.Request(
        f"{url}/{path}", json.dumps(what).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_schedule_creates_runs_and_new_data_start_one(project: Path, server: str) -> None:
    command = [sys.executable, "-m", "tl_flows", "schedule", "--cron", "0 3 * * *", "--watch", "0.02"]
    process = subprocess.Popen(
        [*command, "--timezone", "Europe/Berlin"], cwd=project, env=os.environ.copy(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        _wait(lambda: ask(server, "deployments/filter"))
        (deployment,) = ask(server, "deployments/filter")
        assert deployment["name"] == project.name
        assert deployment["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"
        assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        by_clock = _wait(lambda: [run for run in _runs(server) if run["auto_scheduled"]])
        assert by_clock[0]["parameters"]["folder"] == str(project)
        write_rows(project / "data" / "messages.csv", lines(150, seed=3))
        _wait(lambda: [run for run in _runs(server) if run["state_type"] == "RUNNING"])
    finally:
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    assert "the data have changed: a retrain was started" in told


def _runs(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(url, "flow_runs/filter")
    return found


def _wait(look: Any) -> Any:
    end = time.monotonic() + 120
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found
