"""A small DVC project, and the settings that keep the flows' tests to themselves."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_folders import own_folders  # noqa: F401 - a fixture for all tests here
from tl_flows import prefect_env

Git = Callable[..., None]


@pytest.fixture
def git() -> Git:
    """Run git in a folder."""

    def run(root: Path, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)

    return run


STAGES = f"""\
stages:
  version:
    cmd: '"{sys.executable}" stage.py version'
    deps: [data, stage.py]
    params: [seed]
    outs: [artifacts/version]
  select:
    cmd: '"{sys.executable}" stage.py select'
    deps: [artifacts/version, stage.py]
    outs: [artifacts/select]
"""

STAGE = """\
import json, pathlib, sys
step = sys.argv[1]
out = pathlib.Path("artifacts", step)
out.mkdir(parents=True, exist_ok=True)
(out / "names.txt").write_text("".join(sorted(p.name for p in pathlib.Path("data").rglob("*"))))
run = pathlib.Path(".tl/run")
run.mkdir(parents=True, exist_ok=True)
(run / f"{step}.json").write_text(json.dumps({"seconds": 1.5, "rows": 3, "chosen": "tiny", "why": "pinned"}))
print(f"did {step}", flush=True)
"""


@pytest.fixture
def dvc_project(tmp_path: Path, git: Git) -> Path:
    """A git repository with DVC, three tracked files and two stages that have never run."""
    from tl_flows.versioning import initialise

    root = tmp_path / "project"
    (root / "data" / "a").mkdir(parents=True)
    for name in ("a/1.txt", "a/2.txt", "3.txt"):
        (root / "data" / name).write_text(f"text of {name}\n")
    (root / "dvc.yaml").write_text(STAGES)
    (root / "stage.py").write_text(STAGE)
    (root / "params.yaml").write_text("seed: 0 # of everything\n\ndata: {path: data/a}\n")
    (root / ".gitignore").write_text(".tl/\n")
    git(root, "init", "-q")
    initialise(root, git=True)
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=root, check=True)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


@pytest.fixture
def sub_project(dvc_project: Path, git: Git) -> Path:
    """A project in a folder of the same repository, over a part of the same tracked data."""
    root = dvc_project / "demo" / "sub"
    root.mkdir(parents=True)
    (root / "dvc.yaml").write_text(STAGES.replace("[data,", "[../../data/a,"))
    (root / "stage.py").write_text(STAGE.replace('"data"', '"../../data/a"'))
    (root / "params.yaml").write_text("seed: 0\ndata: {path: ../../data/a}\n")
    git(dvc_project, "add", "-A")
    git(dvc_project, "commit", "-qm", "sub-project")
    return root


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a temporary Prefect server for the whole session."""
    quiet = {**prefect_env.QUIET, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quiet.items():
            patch.setenv(name, value)
        from prefect.settings import PREFECT_API_URL
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=60):
            yield str(PREFECT_API_URL.value())


@pytest.fixture
def logs_to_server(prefect_server: str) -> str:
    """That server; flow runs send it tl's log lines, which Prefect arranges as it is imported and each test undoes."""
    import prefect.main  # noqa: F401
    from prefect.logging.configuration import setup_logging

    if not logging.getLogger(prefect_env.LOGGER).handlers:
        setup_logging(incremental=False)
    return prefect_server
