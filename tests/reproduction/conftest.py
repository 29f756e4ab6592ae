"""A committed run of a project whose five steps are one small script."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from own_folders import own_folders  # noqa: F401 - a fixture for all tests here
from small_pipeline import STAGE, commit, dvc, pipeline, write_labels
from tl_flows.git import git
from tl_flows.versioning import initialise


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 labelled rows, run and committed."""
    root = tmp_path_factory.mktemp("made") / "shop"
    (root / "data").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("OMP_NUM_THREADS", "1")
        git(root, "init", "--quiet", "--initial-branch=main")
        initialise(root, git=True)
        write_labels(root, "a" * 80 + "b" * 20)
        (root / "stage.py").write_text(STAGE)
        (root / "dvc.yaml").write_text(pipeline())
        (root / "params.yaml").write_text("seed: 0\nmodality: text\ndata: {path: data}\n")
        (root / ".gitignore").write_text(".tl/\n/artifacts/*/*\n!/artifacts/evaluate/metrics.json\n")
        dvc(root, "add", "data")
        dvc(root, "repro")
        commit(root, "a run")
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that project, which the test works in."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = shutil.copytree(made, tmp_path / "shop", symlinks=True)
    monkeypatch.chdir(root)
    return root
