"""A Prefect server that schedules runs, as `prefect server start` runs it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tl_flows import prefect_env


@contextmanager
def scheduling_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on a free port; the environment is quiet and has its home."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
