"""A whole run of several projects where little can be taken for granted, with a server and DVC as they are.

The folder's name has spaces and other letters than ASCII's, the home folder can't be written, git knows no user, and no
proxy or hub answers. The steps do no learning here: they leave behind what the real ones leave.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tl_flows import engine, versioning

from tl_core.errors import UserError
from tl_core.evaluation import evaluate_predictions, majority_predictions
from tl_core.report import BackboneFacts, DataFacts, ReportFacts
from tl_core.types import Targets
from tl_core.workspace import STEPS

STAGE = """\
import json, pathlib, shutil, sys
step = sys.argv[1]
out = pathlib.Path("artifacts", step)
out.mkdir(parents=True, exist_ok=True)
(out / "out.txt").write_text(step)
if step == "evaluate":
    shutil.copy("facts.json", out / "report.json")
    (out / "metrics.json").write_text(json.dumps({"accuracy": 0.9, "n_test": 60}))
run = pathlib.Path(".tl/run")
run.mkdir(parents=True, exist_ok=True)
(run / f"{step}.json").write_text(json.dumps({
    "seconds": 1.5, "rows": 3, "chosen": "tiny", "why": "pinned", "computed": 3, "reused": 0, "strategy": "probe",
    "watch": "accuracy", "validation": 0.9, "verdict": "Fine.",
}))
"""


def write_project(root: Path, data: str, facts: ReportFacts) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lines = ["stages:"]
    for step in STEPS:
        deps = [f"{data!r}", "stage.py", *([f"artifacts/{STEPS[STEPS.index(step) - 1]}"] if step != "version" else [])]
        lines += [f"  {step}:", f"    cmd: '\"{sys.executable}\" stage.py {step}'", f"    deps: [{', '.join(deps)}]"]
        lines += ["    params: [seed]", f"    outs: [artifacts/{step}]"]
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")
    (root / "params.yaml").write_text(f"seed: 0\ndata: {{path: {data!r}}}\n")
    (root / "stage.py").write_text(STAGE)
    facts.save(root / "facts.json")


def result() -> ReportFacts:
    truth = np.arange(60) % 2
    rng = np.random.default_rng(0)
    right, random = np.eye(2)[truth] + 0.3 * rng.random((60, 2)), rng.random((60, 2))
    targets = Targets("multiclass", ("a", "b"))
    floors = {"majority": majority_predictions(targets, truth, 60), "random_init": random}
    evaluation = evaluate_predictions(
        "multiclass", targets, right, truth, confidence=0.9, resamples=200, seed=0, floors=floors
    )
    data = DataFacts("0" * 32, {"train": {"a": 9, "b": 9}, "test": {"a": 30, "b": 30}})
    return ReportFacts("Text: tiny", "text", data, BackboneFacts("tiny", "here", "0" * 64), "probe", evaluation)


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """An environment whose home takes no files, without a git user or a way out."""
    home = tmp_path / "home"
    home.mkdir()
    for name in (".cache", ".local", ".prefect", ".matplotlib", ".dvc"):
        (home / name).write_text("")  # in the way of a folder also where root runs the tests, whom no mode stops
    home.chmod(0o555)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "GIT_", "PREFECT_", "HF_"))}
    nowhere = "http://127.0.0.1:9"
    return {**kept, "HOME": str(home), "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "LC_ALL": "C"}


def test_a_run_of_two_projects(tmp_path: Path, hostile: dict[str, str]) -> None:
    root = tmp_path / "tl démo é"
    (root / "data" / "part").mkdir(parents=True)
    (root / "data" / "part" / "1.txt").write_text("one\n")
    (root / "data" / "2.txt").write_text("two\n")
    facts = result()
    write_project(root, "data", facts)
    write_project(root / "demo" / "ü b", "../../data/part", facts)

    def tl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tl_flows", *arguments]
        return subprocess.run(command, cwd=root, env=hostile, capture_output=True, text=True, timeout=240)

    subprocess.run(["git", "init", "-q"], cwd=root, env=hostile, check=True)
    assert tl("init", "data").returncode == 0
    first = tl("run", ".", "demo/ü b")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-3:] == [
        f"report of {root.name}: {root}/.tl/report.html",
        f"report of demo/ü b: {root}/demo/ü b/.tl/report.html",
        f"index: {root}/artifacts/index.html",
    ]
    assert first.stderr.count("pretraining helps here") == 2
    assert '"../demo/%C3%BC%20b/.tl/report.html"' in (root / "artifacts" / "index.html").read_text()
    shutil.rmtree(root / ".prefect")  # the second run starts no server
    second = tl("run", ".", "demo/ü b")
    assert second.stderr.count("every stage is up to date") == 2
    assert not (root / ".prefect").exists()


def test_a_project_that_can_not_be_written_says_so(dvc_project: Path) -> None:
    (dvc_project / ".tl").write_text("in the way")
    with pytest.raises(UserError, match=r"can't write to the project's folder .*\.tl: .*; work in a copy"):
        engine.open_project(dvc_project, {})


def test_a_folder_that_dvc_can_not_use_is_named(dvc_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dvc_project / "file").write_text("")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(dvc_project / "file" / "x"))
    with pytest.raises(UserError, match=r"DVC can't work in .*file.*: Not a directory; .* with DVC_SITE_CACHE_DIR"):
        versioning.tracked(dvc_project, dvc_project / "data")
