"""Retrains by the clock and on new data: what is watched, when it starts, and what a server is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from documents import activated, blocks
from messages import lines, write_rows
from scheduling import ask, flow_runs, scheduling_server, wait_for
from tl_flows.commands.schedule import schedule
from tl_flows.retraining.attempt import Attempt
from tl_flows.retraining.schedule import Schedule, Watch, fingerprint, watch_of

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


@pytest.mark.parametrize(("state", "starts"), [("", True), ("failed", True), ("refused", False), (None, False)])
def test_what_the_last_retrain_left_undone_is_started_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str | None, starts: bool
) -> None:
    started: list[str] = []
    monkeypatch.setattr("tl_flows.retraining.schedule._start", started.append)
    (tmp_path / "data").mkdir()
    if state is not None:
        Attempt.begin("base", 1_000.0).but(state=state).keep(tmp_path)
    watch = watch_of(Schedule(tmp_path, None, "UTC", 5.0, {}), tmp_path / "data")
    assert watch.look() is starts
    assert started == [tmp_path.name] * starts
    assert not watch.look()


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


@pytest.mark.slow
def test_a_schedule_creates_runs_and_new_data_start_one(project: Path, server: str) -> None:
    command = [sys.executable, "-m", "tl_flows", "schedule", "--cron", "0 3 * * *", "--watch", "0.02"]
    process = subprocess.Popen(
        [*command, "--timezone", "Europe/Berlin"], cwd=project, env=os.environ.copy(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        (deployment,) = wait_for(lambda: ask(server, "deployments/filter"))
        assert deployment["name"] == project.name
        assert deployment["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"
        assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        by_clock = wait_for(lambda: [run for run in flow_runs(server) if run["auto_scheduled"]])
        assert by_clock[0]["parameters"]["folder"] == str(project)
        write_rows(project / "data" / "messages.csv", lines(150, seed=3))
        wait_for(lambda: flow_runs(server, "RUNNING"))
        for commands in blocks("docs/retraining.md", "By the clock", "sh"):
            said = commands.replace("http://127.0.0.1:4200/api", server).replace("NAME", project.name)
            subprocess.run(["bash", "-euc", said], cwd=project, env=activated(), check=True)
        wait_for(lambda: len(flow_runs(server, "CANCELLED")) == 2)  # the one that runs has the only place
        (by_http,) = [run for run in flow_runs(server) if run["idempotency_key"] == "2026-11-21"]
        assert by_http["deployment_id"] == deployment["id"]
    finally:
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "the data have changed: a retrain was started" in told


# a signal that comes while Prefect's runner adds the deployment, or connects, where it takes an end for a lost server
EARLY = """
import asyncio, os, signal, sys
from tl_flows.cli import main
place, name = sys.argv[1:3]
sys.argv[1:3] = []

def patch(runner):
    before = getattr(runner, place)
    def add(self, *given, **named):
        os.kill(os.getpid(), getattr(signal, name))
        return before(self, *given, **named)
    async def enter(self):
        os.kill(os.getpid(), getattr(signal, name))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("taken for a fault", flush=True)
        return await before(self)
    setattr(runner, place, add if place == "add_deployment" else enter)

from tl_flows import prefect_env
configure = prefect_env.configure
def configured(*given):
    configure(*given)
    from prefect.runner import Runner
    patch(Runner)
prefect_env.configure = configured
sys.exit(main())
"""


@pytest.mark.slow
def test_the_first_signal_ends_it_while_it_starts(project: Path, server: str) -> None:
    for place, name in (("add_deployment", "SIGTERM"), ("__aenter__", "SIGTERM"), ("__aenter__", "SIGINT")):
        process = subprocess.Popen(
            [sys.executable, "-c", EARLY, place, name, "schedule", "--cron", "0 3 * * *"], cwd=project,
            env=os.environ.copy(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            told, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, told) == (0, "taken for a fault\n" * (place == "__aenter__"))


SECOND = """
import asyncio, os, signal, sys
from tl_flows.retraining.runner import _stay

class Runs:
    started = False

    async def start(self):
        self.started = True
        try:
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
            await asyncio.sleep(60)
        finally:
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
            await asyncio.sleep(0.2)  # what a retrain under way needs to end
            print("ended whole", flush=True)

try:
    asyncio.run(_stay(Runs(), []))
except asyncio.CancelledError:
    print("and left", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_second_signal_does_not_break_off_the_ending(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", SECOND, name], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ended whole\nand left\n")
