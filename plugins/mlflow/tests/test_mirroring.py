"""The hook sends the registry in a process of its own, and costs a line where MLflow is not there."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import tl_mlflow
from mlflow_server import Server
from registries import registry

from tl_core.plugins import Answers, given_plugins

Tell = Callable[..., Answers]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Tell the plugin what is registered, as the commands do."""
    plugins = given_plugins([("tl_mlflow", tl_mlflow)])
    project = tmp_path / "project"
    project.mkdir()
    return lambda **more: plugins.tell("tl_registry_changed", registry=registry(**more), project=project)


def test_nothing_is_sent_where_no_server_is_named(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    assert tell() == Answers({"tl_mlflow": None}, [])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tell(count=0).said == {"tl_mlflow": "mlflow    nothing is registered yet"}


def test_a_server_gets_versions_and_aliases_once(tell: Tell, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    line = f"mlflow    model 'birds': 2 versions, v2 is the champion: {server.url}/#/models/birds"
    assert tell(champion=2) == Answers({"tl_mlflow": line}, [])
    assert [(body["name"], body["run_id"]) for body in server.sent("model-versions/create")] == [("birds", "r1")] * 2
    assert server.sent("runs/search")[0]["filter"] == "tags.report_md5 = 'r1'"
    assert server.aliases == {"champion": "2"}
    before = len(server.calls)
    assert tell(champion=2).failures == []
    assert {name for name, _ in server.calls[before:]} == {"registered-models/get", "model-versions/search"}


def test_a_relative_address_means_the_projects_folder(
    tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert tell(count=1).said == {"tl_mlflow": "mlflow    model 'birds': 1 version, no champion"}
    with closing(sqlite3.connect(tmp_path / "project" / "mlflow.db")) as database:
        assert database.execute("SELECT name, version FROM model_versions").fetchall() == [("birds", 1)]


def test_a_server_that_is_not_there_or_refuses_costs_a_line(
    tell: Tell, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    remedy = (
        "what tl has registered and promoted stands, and MLflow has not all of it (`tl registry mirror` sends it "
        "again, as does the next promotion or retrain)"
    )
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{address}")
        failed = "plugin tl_mlflow failed in tl_registry_changed: MLflow at http://"
        assert tell() == Answers({}, [f"{failed}{address}: Connection refused; {remedy}"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    server.fails = "model-versions/create"
    [line] = tell().failures
    assert line.endswith(f"the database is full; {remedy}")
