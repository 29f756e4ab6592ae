"""The server that `tl schedule` starts: its database, and what is left of a run when everything is killed at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from documents import activated
from scheduling import ask, flow_runs, free_port, wait_for
from tl_flows import prefect_env

POSTGRES = shutil.which("postgres")
SCHEDULE = """
import sys
from tl_flows import prefect_env
from tl_flows.cli import main
prefect_env.LOCAL_PORT = int(sys.argv.pop(1))
prefect_env.LOCAL_SERVER = f"http://127.0.0.1:{prefect_env.LOCAL_PORT}/api"
main()
"""


@contextmanager
def scheduled(project: Path, port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`tl schedule` with a server of its own on a port; all that it started is dead at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCHEDULE, str(port), "schedule", str(project), "--cron", "0 3 1 1 *"],
        env={**activated(), "OMP_NUM_THREADS": "1", **environment}, cwd=project,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        ended = process.poll()
        process.send_signal(signal.SIGTERM)  # the first one does, also where Prefect's runner has not started yet
        code = process.wait(60)
    assert ended is not None or code == 0


def deployment(url: str) -> str:
    """The id of the project's deployment, once `tl schedule` has made it anew."""
    wait_for(lambda: prefect_env.answers(url, 1.0))
    found = wait_for(lambda: [one for one in ask(url, "deployments/filter") if one["status"] == "READY"])
    return str(found[0]["id"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_died_with_everything_is_shown_as_crashed_and_frees_its_place(project: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    with scheduled(project, port) as process:
        started = ask(url, f"deployments/{deployment(url)}/create_flow_run")["id"]
        wait_for(lambda: flow_runs(url, "RUNNING"))
        wait_for(lambda: (project / ".tl" / "retrain" / "flow-runs.json").is_file())
        (server,) = [one for one in psutil.Process(process.pid).children() if str(port) in one.cmdline()]
        server.kill()  # by itself: it is started again, and knows what it knew
        wait_for(lambda: prefect_env.answers(url, 1.0) and flow_runs(url, "RUNNING"))
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        for one in family:
            one.send_signal(signal.SIGKILL)
        psutil.wait_procs(family[1:], timeout=30)
    with scheduled(project, port) as process:
        found = deployment(url)
        wait_for(lambda: [run for run in flow_runs(url, "CRASHED") if run["id"] == started])
        ask(url, f"deployments/{found}/create_flow_run")
        wait_for(lambda: flow_runs(url, "RUNNING"))
        assert [run["state_type"] for run in flow_runs(url) if run["id"] == started] == ["CRASHED"]
        assert not flow_runs(url, "CANCELLED")


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """The URL of an empty PostgreSQL database; it does not run as root."""
    user = {"user": "nobody", "group": "nogroup", "extra_groups": ()} if os.geteuid() == 0 else {}
    place, port = folder / "postgres", free_port()
    place.mkdir(mode=0o700)
    if user:
        shutil.chown(place, "nobody", "nogroup")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place}
    make = ["initdb", "--pgdata", "data", "--username", "tl", "--auth", "trust", "--no-sync"]
    subprocess.run(make, check=True, **user, **quiet)
    serve = ["postgres", "-D", "data", "-p", str(port), "-h", "127.0.0.1", "-k", str(place), "-F"]
    process = subprocess.Popen(serve, **user, **quiet)
    try:
        yield f"postgresql+asyncpg://tl@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(POSTGRES is None or shutil.which("initdb") is None, reason="needs PostgreSQL")
def test_its_records_lie_in_postgresql_where_that_is_named(project: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="tl-pg-") as folder:
        Path(folder).chmod(0o755)
        with database(Path(folder)) as address:
            port = free_port()
            url = f"http://127.0.0.1:{port}/api"
            with scheduled(project, port, PREFECT_SERVER_DATABASE_CONNECTION_URL=address):
                found = deployment(url)
            assert not (project / ".prefect" / "prefect.db").exists()
            with scheduled(project, port, PREFECT_SERVER_DATABASE_CONNECTION_URL=address):
                assert deployment(url) == found  # what was recorded is there again


@pytest.mark.slow
def test_a_named_database_reaches_the_server(project: Path) -> None:
    port, address = free_port(), f"sqlite+aiosqlite:///{project.parent}/records.db"
    with scheduled(project, port, PREFECT_SERVER_DATABASE_CONNECTION_URL=address):
        deployment(f"http://127.0.0.1:{port}/api")
        assert (project.parent / "records.db").is_file()
