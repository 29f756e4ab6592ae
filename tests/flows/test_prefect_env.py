"""Which Prefect server a run uses, and that its settings stay the user's where he has set them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tl_flows import prefect_env

from tl_core.errors import UserError


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    http = HTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/api"
    http.shutdown()
    thread.join()
    http.server_close()


NOWHERE = "http://127.0.0.1:9/api"


def profile(text: str) -> None:
    folder = Path(os.environ["HOME"]) / ".prefect"
    folder.mkdir()
    (folder / "profiles.toml").write_text(text)


def test_the_environment_comes_first(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    assert prefect_env.find_server() == prefect_env.Server(server, {})


def test_a_named_server_that_does_not_answer_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOWHERE)
    with pytest.raises(UserError, match=r"no Prefect server answers there; start it with `prefect server start`"):
        prefect_env.find_server()


def test_the_users_profile_comes_next(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_env, "LOCAL_SERVER", NOWHERE)
    profile(f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{server}"\nPREFECT_LOGGING_LEVEL = "DEBUG"\n')
    found = prefect_env.find_server()
    assert found.url == server
    assert found.settings["PREFECT_LOGGING_LEVEL"] == "DEBUG"


def test_a_profile_whose_server_is_off_does_not_stop_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_env, "LOCAL_SERVER", NOWHERE)
    profile(f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{NOWHERE}"\n')
    assert prefect_env.find_server().temporary


def test_then_a_local_server_and_at_last_a_temporary_one(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_env, "LOCAL_SERVER", server)
    assert prefect_env.find_server() == prefect_env.Server(server, {"PREFECT_API_URL": server})
    monkeypatch.setattr(prefect_env, "LOCAL_SERVER", NOWHERE)
    assert prefect_env.find_server().temporary


def test_settings_that_the_user_made_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PREFECT_LOGGING_LEVEL": "DEBUG", "NO_PROXY": "localhost,.example.org"})
    prefect_env.configure(tmp_path, {"PREFECT_API_URL": "here"})
    assert os.environ["PREFECT_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["PREFECT_HOME"] == str(tmp_path)
    assert os.environ["PREFECT_API_URL"] == "here"
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "localhost,.example.org,127.0.0.1"
