"""prefect.yaml on a real server. Some versions of the server's libraries never create scheduled runs, in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scheduling import scheduling_server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Prefect server with its scheduler."""
    with scheduling_server(tmp_path / "home", monkeypatch) as url:
        yield url


@pytest.mark.slow
def test_the_deployment_is_accepted_and_its_schedule_creates_runs(server: str, tmp_path: Path) -> None:
    text = (ROOT / "prefect.yaml").read_text()
    assert "active: false" in text
    (tmp_path / "prefect.yaml").write_text(text.replace("active: false", "active: true"))
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    environment = {**os.environ, "PREFECT_API_URL": server, "COLUMNS": "200"}  # no column is cut short

    def prefect(*arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    prefect("work-pool", "create", "local", "--type", "process")
    assert "'tl-retrain/nightly' successfully created" in " ".join(prefect("deploy", "--all").split())
    end = time.monotonic() + 60
    while "SCHEDU" not in (listed := prefect("flow-run", "ls", "--flow-name", "tl-retrain")):
        assert time.monotonic() < end, listed
        time.sleep(1)
