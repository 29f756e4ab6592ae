"""A committed project over a table of messages, and the settings that keep retrains' tests to themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from messages import lines, write_rows
from own_folders import own_folders  # noqa: F401 - a fixture for all tests here
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
