"""A stranger's modality: installed by pip from a copy, found by entry point, keeps the contract, runs in `tl run`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).resolve().parents[1] / "plugin_timeseries"

SUITE = """
import numpy as np, pytest
from tl_core.testing import ModalityContract

def write(path, values):
    np.save(path, values)
    return path

class TestTimeseries(ModalityContract):
    @pytest.fixture
    def plugin(self):
        import tl_timeseries
        return tl_timeseries

    @pytest.fixture
    def good(self, tmp_path):
        t = np.linspace(0, 1, 50)
        return [write(tmp_path / f"{k}.npy", np.sin(2 * np.pi * k * t)) for k in (1, 3, 9)]

    @pytest.fixture
    def bad(self, tmp_path):
        (tmp_path / "empty.npy").touch()
        (tmp_path / "text.npy").write_text("not an array")
        return {
            "empty": tmp_path / "empty.npy",
            "unreadable": tmp_path / "text.npy",
            "8 values": write(tmp_path / "short.npy", np.zeros(3)),
            "no numbers": write(tmp_path / "nan.npy", np.full(20, np.nan)),
        }

    @pytest.fixture
    def backbone(self, plugin):
        return plugin.tl_backbones()[0]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin installed by pip from a temporary copy of its project."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copytree(SOURCE, folder / "project", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(folder / "site"),
    ]
    subprocess.run([*command, str(folder / "project")], check=True, capture_output=True)
    return folder / "site"


def run(site: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(cwd / "cache")}
    return subprocess.run([sys.executable, "-m", *command], cwd=cwd, env=env, capture_output=True, text=True)


def test_it_is_found_by_its_entry_point(site: Path, tmp_path: Path) -> None:
    done = run(site, "tl_flows", "plugins", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tl_timeseries" in done.stdout


def test_it_keeps_the_contract(site: Path, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = run(site, "pytest", "-q", "-p", "no:cacheprovider", "test_suite.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]


def test_it_runs_through_tl_run(site: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shape in {"slow": 2, "fast": 11, "noise": 0}.items():
        folder = tmp_path / "series" / name
        folder.mkdir(parents=True)
        for i in range(40):
            wave = np.sin(np.linspace(0, 2 * np.pi * shape, 100) + rng.uniform(0, 6)) if shape else 0
            np.save(folder / f"{i:02d}.npy", wave + rng.normal(0, 0.4, 100))
    done = run(site, "tl_flows", "run", "--data", "series", "--set", "tune.minutes=0", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "tl-run" / "metrics.json").read_text())
    assert metrics["accuracy"] > metrics["floor_majority"]
    assert metrics["n_test"] == 24
    report = (tmp_path / "tl-run" / "report.html").read_text(encoding="utf-8")
    assert "gaussian-derivatives" in report
