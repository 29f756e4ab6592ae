"""A server for one run: a whole run with it, quiet, and nothing left when the run is killed."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from filelock import FileLock, Timeout
from scheduling import wait_for
from tl_flows.flow_session import FlowSession
from tl_flows.prefect_env import Server, answers
from tl_flows.stage_process import StageError
from tl_flows.temporary_server import LocalServer

from tl_core.errors import UserError

RUN = """\
import sys, time
import tl_core.steps
from pathlib import Path
from tl_core.config import RunConfig
from tl_core.workspace import STEPS, write_json
from tl_flows import prefect_env
from tl_flows.flow_session import FlowSession

def fake(step):
    def run(config, registry, workspace):
        if step == sys.argv[1]:
            print("waiting", flush=True)
            time.sleep(60)
        return {"seconds": 0.1, "rows": 1, "chosen": "c", "why": "w", "strategy": "probe", "watch": "accuracy",
                "validation": 1.0, "verdict": "v"}
    return run

for step in STEPS:
    setattr(tl_core.steps, step, fake(step))
prefect_env.find_server = lambda: prefect_env.Server(None, {})
FlowSession(Path("home").resolve()).call(Path("out").resolve(), {})
"""


def wait_for_states(database: Path, states: list[str]) -> None:
    """Wait until the server has recorded just these states of finished tasks; it takes some seconds over it."""
    end = time.monotonic() + 30
    found: list[str] = []
    while found != states and time.monotonic() < end:
        time.sleep(0.2)
        with contextlib.closing(sqlite3.connect(database)) as connection:
            rows = connection.execute("select state_type from task_run where state_type != 'RUNNING'")
            found = [row[0] for row in rows]
    assert found == states


def test_a_run_is_quiet_and_recorded_and_leaves_no_server_when_it_is_killed(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, "evaluate"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "waiting\n"
    (server,) = psutil.Process(run.pid).children()
    assert "tl_flows.temporary_server" in server.cmdline()
    wait_for_states(tmp_path / "home" / "prefect.db", ["COMPLETED"] * 4)
    run.send_signal(signal.SIGKILL)
    out, err = run.communicate()
    assert (out, err) == ("", "")
    psutil.wait_procs([server], timeout=30)
    assert not server.is_running()


def test_a_server_that_can_not_start_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('no server today')\n")
    server = LocalServer(tmp_path / "home")
    starting = FileLock(tmp_path / "home" / "starting.lock")
    try:
        started = time.monotonic()
        with pytest.raises(Timeout):  # another run's server would make the same tables of the new database
            starting.acquire(timeout=0)
        with pytest.raises(StageError, match=r"did not start; its log: .*temporary-server\.log"):
            server.wait()
        assert time.monotonic() - started < 60
        assert "no server today" in server.log.read_text()
        with starting.acquire(timeout=0):
            pass
        monkeypatch.setattr("tl_flows.project.LITTLE_BYTES", 1 << 60)  # more than any disk has free
        with pytest.raises(UserError, match=r"the disk of .*home is full \(.* MB free\), and .* runs there; free some"):
            server.wait()
    finally:
        server.stop()


def test_a_server_that_is_killed_while_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    server = LocalServer(tmp_path / "home")
    first = server.process
    try:
        wait_for(lambda: (tmp_path / "home" / "prefect.db").exists())  # half of its tables are made
        first.kill()
        server.wait()
        assert server.process is not first
        assert wait_for(lambda: answers(server.url, 1.0))
    finally:
        server.stop()
    with pytest.raises(StageError, match="did not start"):  # once stopped it stays so
        server.wait()
    monkeypatch.setattr("tl_flows.temporary_server.RESTARTS", 0)  # as after a tenth one
    server = LocalServer(tmp_path / "home")
    try:
        server.process.kill()
        with pytest.raises(StageError, match="did not start"):
            server.wait()
    finally:
        server.stop()


def test_after_a_server_that_did_not_start_no_other_call_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dead:
        def __init__(self, home: Path) -> None:
            starts.append(home)
            self.url = "http://127.0.0.1:9/api"

        def wait(self) -> None:
            raise StageError("did not start")

    starts: list[Path] = []
    monkeypatch.setattr("tl_flows.flow_session.LocalServer", Dead)
    monkeypatch.setattr("tl_flows.prefect_env.find_server", lambda: Server(None, {}))
    monkeypatch.setattr("tl_flows.prefect_env.configure", lambda *_: None)
    monkeypatch.setitem(sys.modules, "tl_flows.flow", SimpleNamespace(pipeline=None))
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", "")
    session = FlowSession(tmp_path)
    for _ in range(2):
        with pytest.raises(StageError, match="did not start"):
            session.call(tmp_path)
    assert starts == [tmp_path]
