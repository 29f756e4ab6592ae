"""The alerts that docs/retraining.md describes, on a server: what fails, is refused or never comes is told."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from documents import activated, blocks
from scheduling import scheduling_server, wait_for

PAGE, SECTION = "docs/retraining.md", "Tell someone"
REASON = 'Refused: "not" surely better.\nSecond line.'
RUNS = f"""
from prefect import flow
from prefect.states import Completed
from tl_flows.retraining.flow import retrain

@flow(name="tl-retrain")
def ended(state, message):
    return Completed(name=state, message=message)

@flow(name="another")
def other():
    raise ValueError("none of ours")

ended("Promoted", "better")
ended("Refused", {REASON!r})
other(return_state=True)
retrain("nowhere", return_state=True)
"""


@contextmanager
def address() -> Iterator[tuple[str, list[str]]]:
    """An address to call, and what it was told so far."""
    told: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: a test's output is its own."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", told
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_the_documented_alerts_fire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scheduling_server(tmp_path / "home", monkeypatch) as server, address() as (hook, told):
        environment = {**activated(), "PREFECT_API_URL": server}

        def run(commands: str) -> str:
            said = commands.replace("http://127.0.0.1:4200/api", server).replace("https://chat.example.org/hook", hook)
            done = subprocess.run(
                ["bash", "-euc", said], cwd=tmp_path, env=activated(), check=False, stdout=-1, stderr=-2, text=True
            )
            assert done.returncode == 0, done.stdout
            return done.stdout

        make_block, create = blocks(PAGE, SECTION, "sh")
        (alerts,) = blocks(PAGE, SECTION, "yaml")
        block_id = run(make_block).split()[-1]
        quick = alerts.replace(": ID", f": {block_id}").replace("within: 93600", "within: 10")
        (tmp_path / "alerts.yaml").write_text(quick, encoding="utf-8")
        listed = run(f"export PREFECT_API_URL={server}; {create}")
        assert "Created 2 automation(s)" in listed
        subprocess.run([sys.executable, "-c", RUNS], env=environment, cwd=tmp_path, check=True, capture_output=True)
        wait_for(lambda: len([text for text in told if "hours" not in text]) >= 2)
        wait_for(lambda: "tl: no retrain has ended for 26 hours" in told)
        fired = sorted(text.partition(": ")[2] for text in told if "hours" not in text)
        assert len(fired) == 2
        assert fired[0].startswith("Failed: Flow run encountered an exception: UserError: ")
        assert fired[1] == f"Refused: {REASON}"
