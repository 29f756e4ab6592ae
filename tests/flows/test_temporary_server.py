"""A server for one run: a whole run with it, quiet, and nothing left when the run is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tl_flows.stage_process import StageError
from tl_flows.temporary_server import TemporaryServer

RUN = """\
import sys, time
import tl_core.steps
from pathlib import Path
from tl_core.config import RunConfig
from tl_core.workspace import STEPS, write_json
from tl_flows import prefect_env, runs

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
runs._flow(Path("out").resolve(), {}, prefect_env.Server(None, {}), Path("home").resolve())
print("done", flush=True)
"""


def start(folder: Path, wait_in: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, wait_in],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_run_is_quiet_and_recorded_and_a_killed_one_leaves_no_server(tmp_path: Path) -> None:
    run = start(tmp_path, "no step")
    out, err = run.communicate(timeout=120)
    assert (run.returncode, out, err) == (0, "done\n", "")
    with sqlite3.connect(tmp_path / "home" / "prefect.db") as database:
        states = [tuple(row) for row in database.execute("select state_type from task_run")]
    database.close()
    assert states == [("COMPLETED",)] * 5

    killed = start(tmp_path, "tune")
    assert killed.stdout is not None
    assert killed.stdout.readline() == "waiting\n"
    (server,) = psutil.Process(killed.pid).children()
    assert "tl_flows.temporary_server" in server.cmdline()
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    psutil.wait_procs([server], timeout=5)
    assert not server.is_running()


def test_a_server_that_can_not_start_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('no server today')\n")
    server = TemporaryServer(tmp_path / "home")
    try:
        started = time.monotonic()
        with pytest.raises(StageError, match=r"did not start; its log: .*temporary-server\.log"):
            server.wait()
        assert time.monotonic() - started < 60
        assert "no server today" in server.log.read_text()
    finally:
        server.stop()
