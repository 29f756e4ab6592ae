"""A Prefect server that schedules runs, as `prefect server start` runs it, and the ways to ask it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import urllib3
from tl_flows import prefect_env

Found = TypeVar("Found")


@contextmanager
def scheduling_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on a free port; the environment is quiet and has its home."""
    port = free_port()
    for name, value in {**prefect_env.QUIET, "PREFECT_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/api"
    try:
        end = time.monotonic() + 90
        while not prefect_env.answers(url, 1.0):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(url: str, path: str, **what: Any) -> Any:
    """What a server's API answers to a POST; a busy database (503) is asked again, as Prefect's own clients do."""
    again = urllib3.Retry(
        10, read=False, status_forcelist=[503], allowed_methods=None, backoff_factor=0.1, backoff_max=3
    )
    with urllib3.PoolManager() as pool:
        answer = pool.request("POST", f"{url}/{path}", json=what, retries=again, timeout=60)
    assert answer.status < 300, answer.data
    return answer.json()


def flow_runs(url: str, state: str | None = None) -> list[dict[str, Any]]:
    """The flow runs that a server knows, those in a type of state where one is named."""
    found: list[dict[str, Any]] = ask(url, "flow_runs/filter")
    return [run for run in found if state in (None, run["state_type"])]


def wait_for(look: Callable[[], Found], seconds: float = 120) -> Found:
    """Look until something is found."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found
