"""A committed project over a table of messages, and the settings that keep retrains' tests to themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from messages import lines, write_rows
from tl_flows.git import git
from tl_flows.params import edit_params
from tl_flows.scaffold import init_project

SETTINGS = {
    "select.backbones": ["all-minilm-l6-v2-first3"],
    "tune.strategy": "probe",
    "tune.curve": False,
    "evaluate.diagnostics": False,
    "evaluate.explain": 0,
    "evaluate.bootstrap": 200,
}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's caches, profile or git settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "tests")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "tests@example.org")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """120 rows of three topics in data/messages.csv, committed; nothing has been run."""
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    write_rows(root / "data" / "messages.csv", lines(120, seed=0))
    list(init_project(root, root / "data", git=True))
    edit_params(root / "params.yaml", SETTINGS)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "start")
    return root
