"""A run reaches MLflow, and costs little where it does not."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import tl_mlflow
from mlflow_server import Server
from tl_mlflow.child import DATABASE_SECONDS, contact_seconds
from tl_mlflow.server import without_password

from tl_core import Workspace
from tl_core.registry import load_registry

from .conftest import OUTPUTS, git

Watch = Callable[[str], list[str]]


@dataclass
class Endless:
    """A server whose first answer comes letter by letter and has no end, so that no limit between two letters helps.

    left: set when who asked has gone.
    """

    url: str
    left: threading.Event = field(default_factory=threading.Event)

    def answer(self, listening: socket.socket) -> None:
        with closing(listening.accept()[0]) as connection, suppress(OSError):
            while True:
                connection.sendall(b"H")
                time.sleep(0.1)
        self.left.set()


def test_nothing_is_sent_where_no_server_is_named(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    assert watch("evaluate") == []


@pytest.mark.parametrize("step", ["version", "select", "extract", "tune"])
def test_a_run_is_sent_once_it_is_evaluated_and_not_before(
    step: str, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert watch(step) == []


def test_finding_the_plugin_imports_nothing_heavy() -> None:
    code = "import sys, tl_mlflow; assert not {'mlflow', 'torch', 'yaml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_plugin_is_installed_as_a_watcher() -> None:
    assert "tl_mlflow" in {point.name for point in entry_points(group="tl.watchers")}
    assert "tl_mlflow" not in {point.name for point in entry_points(group="tl.plugins")}


def test_a_server_gets_everything_under_one_run(
    server: Server,
    watch: Watch,
    evaluated: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    with caplog.at_level(logging.INFO, "tl"):
        assert watch("evaluate") == []
    [created] = server.sent("runs/create")
    assert caplog.messages == [
        f"mlflow    run '{created['run_name']}' in experiment 'tl': {server.url}/#/experiments/7/runs/r1"
    ]
    batches = server.sent("runs/log-batch")
    told = {kind: [item for batch in batches for item in batch.get(kind, ())] for kind in ("params", "tags", "metrics")}
    assert {"key": "data.label", "value": "intent"} in told["params"]
    assert {"key": "strategy", "value": "lp_ft"} in told["tags"]
    flat = {(m["key"], m.get("step", 0)): m["value"] for m in told["metrics"]}
    assert (flat["accuracy", 0], flat["accuracy.low", 0], flat["accuracy.high", 0]) == (0.9, 0.85, 0.94)
    assert len([key for key in flat if key[0] == "history/val"]) == 9
    assert [body["status"] for body in server.sent("runs/update")] == ["FINISHED"]
    folder = evaluated.step("evaluate")
    assert server.files == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_local_database_gets_it_too(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "my birds")
    with caplog.at_level(logging.INFO, "tl"):
        assert watch("evaluate") == []
    assert caplog.messages[0].endswith("in experiment 'my birds'")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
        assert database.execute("SELECT value FROM metrics WHERE key = 'accuracy.low'").fetchall() == [(0.85,)]
        [(home,)] = database.execute("SELECT artifact_uri FROM runs").fetchall()
    assert sorted(path.name for path in Path(home).iterdir()) == [
        "metrics.json",
        "model_card.md",
        "report.html",
        "report.json",
    ]


def test_a_relative_address_means_the_projects_own_folder_of_retrains_too(
    evaluated: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "main")
    git(tmp_path / "main", "commit", "-q", "--allow-empty", "-m", "the project")
    git(tmp_path / "main", "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    (tmp_path / "main" / "birds").mkdir()
    shutil.move(evaluated.root, tmp_path / "tree" / "birds")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    registry = load_registry([("tl_mlflow", tl_mlflow)])
    assert registry.finished("evaluate", OUTPUTS, replace(evaluated, root=tmp_path / "tree" / "birds")) == []
    assert not (tmp_path / "tree" / "birds" / "mlflow.db").exists()
    with closing(sqlite3.connect(tmp_path / "main" / "birds" / "mlflow.db")) as database:
        assert database.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]


def test_a_server_that_is_not_there_costs_a_line(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening: connections are refused
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}")
        [line] = watch("evaluate")
        port = taken.getsockname()[1]
    assert line == (
        f"plugin tl_mlflow failed in tl_step_finished: MLflow at http://127.0.0.1:{port}: Connection refused; this run "
        "is not in it, all else is well (evaluate again to send it; MLFLOW_TRACKING_URI names the server, without it "
        "nothing is sent)"
    )


def test_a_server_that_never_comes_to_an_end_is_left(
    endless: Endless, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", endless.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    [line] = watch("evaluate")
    assert f"MLflow at {endless.url}: it does not answer; this run is not in it" in line


def test_a_server_that_fails_half_way_is_told_with_what_is_missing(
    server: Server, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    server.fails = "runs/log-batch"
    [line] = watch("evaluate")
    assert "the database is full; values and files of this run are not in it" in line
    server.fails = "mlflow-artifacts/artifacts/7/r1/artifacts/report.json"
    [line] = watch("evaluate")
    assert "files of this run are not in it" in line
    assert "values and files" not in line
    assert list(server.files) == ["report.html"]


def test_the_first_answer_may_take_as_long_as_the_users_settings_say() -> None:
    settings = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    assert contact_seconds({**settings, "MLFLOW_TRACKING_URI": "https://here"}) == 5
    slow = {**settings, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_TRACKING_URI": "databricks"}
    assert contact_seconds(slow) == 15
    assert contact_seconds({**settings, "MLFLOW_TRACKING_URI": "sqlite:///x.db"}) == DATABASE_SECONDS


def test_ctrl_c_ends_the_sending_at_once(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    sending = f"import os, pathlib, time; pathlib.Path({str(asked)!r}).write_text(str(os.getpid())); time.sleep(600)"
    heeds = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also where a job has none
    waiting = f"{heeds}; from tl_mlflow.server import _run; _run([sys.executable, '-c', {sending!r}], '', {{}})"
    process = subprocess.Popen([sys.executable, "-c", waiting], stderr=subprocess.PIPE, text=True)
    while not (asked.is_file() and asked.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in told
    with pytest.raises(ProcessLookupError):
        os.kill(int(asked.read_text()), 0)


def test_passwords_are_not_shown() -> None:
    text = "https://me:secret@host/x and postgresql://me@host/y@z"
    assert without_password(text) == "https://host/x and postgresql://host/y@z"


@pytest.fixture
def endless() -> Iterator[Endless]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        server = Endless(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread = threading.Thread(target=server.answer, args=(listening,))
        thread.start()
        yield server
        thread.join()
