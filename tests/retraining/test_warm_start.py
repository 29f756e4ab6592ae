"""Where a retrain's training begins: at the champion's model where it runs at all; that alone is no reason to run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tl_flows import versioning
from tl_flows.bundles import FOLDER, digest_at
from tl_flows.git import git
from tl_flows.model_registry import ModelRegistry
from tl_flows.params import edit_params
from tl_flows.retraining.night import Night
from tl_flows.retraining.sources import Asked
from tl_flows.retraining.warm_start import WarmStart, fetch_start
from versions import facts_of, registered
from versions import make_project as make_empty

from tl_core.config import load_config, validate
from tl_core.errors import UserError
from tl_core.workspace import STEPS

OUTPUTS = {"tune": "tune/tune.json tune/model/bundle.json", "evaluate": "evaluate/metrics.json evaluate/report.json"}
EVALUATED = "predictions.parquet report.html model_card.md plots/x.csv"


def commit(root: Path, message: str) -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(root, "rev-parse", "HEAD")


def repro(root: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def cheapened(root: Path) -> None:
    """Steps that only write the parameters into all of their outputs."""
    text = (root / "dvc.yaml").read_text()
    for step in STEPS:
        files = OUTPUTS.get(step, f"{step}/out.json").split()
        files += [f"evaluate/{name}" for name in EVALUATED.split()] if step == "evaluate" else []
        made = "; ".join(
            f"mkdir -p {shlex.quote(str(Path('artifacts', file).parent))}; cp params.yaml artifacts/{file}"
            for file in files
        )
        text, count = re.subn(rf"cmd: .*tl {step}$", f"cmd: {made}", text, flags=re.MULTILINE)
        assert count == 1, text
    (root / "dvc.yaml").write_text(text)


def steps(night: Night) -> None:
    night.prepare()
    for step in STEPS:
        if step == "tune":
            night._choose_start()
        night.engine.run(step)


def start_in(folder: Path) -> str | None:
    return load_config(folder / "params.yaml").tune.start


def test_what_a_promotion_and_a_change_do(project: Path) -> None:
    cheapened(project)
    edit_params(project / "params.yaml", {"tune.start": "champion"})
    commit(project, "cheap steps")
    repro(project)
    registry, first = ModelRegistry.open(project), commit(project, "a run")
    registry.register(first, facts_of(project, first))
    registry.promote("v1", expected_champion=None, why="first")

    night = Night(project, Asked())
    steps(night)  # of a worktree that is new, so that outputs are missing
    assert start_in(night.tree.project) == "champion"  # as v1 was made
    assert night.nothing_new()

    edit_params(project / "params.yaml", {"tune.epochs": 3})
    commit(project, "other epochs")
    digest = digest_at(project, first)
    night = Night(project, Asked())
    steps(night)
    tree = night.tree.project
    assert start_in(tree) == digest
    assert not night.repeats()
    assert (project / FOLDER / digest / "model" / "bundle.json").is_file()
    assert start_in(project) == "champion"

    edit_params(tree / "params.yaml", {"tune.start": None})
    assert set(versioning.stale_stages(tree, STEPS)) == {"tune", "evaluate"}
    edit_params(tree / "params.yaml", {"tune.start": digest})
    second = night.tree.commit("a night")
    registry.register(second, facts_of(project, second))
    registry.promote("v2", expected_champion="v1", why="better")

    night = Night(project, Asked())
    night.prepare()  # v2 serves now, and was made from v1's model
    assert start_in(night.tree.project) == digest
    assert night.nothing_new()
    assert night.idle().reason == "data, code and parameters are those of v2"

    edit_params(project / "params.yaml", {"gate.min_gain": 0.01})
    commit(project, "a stricter gate")
    night = Night(project, Asked())
    night.prepare()
    assert night.nothing_new()  # a model is judged once
    assert night.idle().reason == (
        "data, code and parameters are those of v2 but for the rules of `gate`, which judge the next model; "
        "`tl registry promote v2` promotes this one by hand"
    )


def test_what_the_parameters_of_a_commit_ask_for(tmp_path: Path) -> None:
    root = make_empty(tmp_path / "shop")
    registry = registered(root, 1)
    (latest,) = registry.state().versions
    plain = git(root, "rev-parse", "HEAD")
    assert WarmStart.of(root, plain, latest).edits == {}
    (root / "params.yaml").write_text("tune: {start: champion}\n")
    asks = commit(root, "start from the champion")
    assert WarmStart.of(root, asks, None).edits == {"tune.start": None}
    assert WarmStart.of(root, asks, latest).edits == {"tune.start": None}
    (root / "params.yaml").write_text("tune: {sta: champion}\n")
    with pytest.raises(UserError, match=r"unknown config key 'tune\.sta'"):
        WarmStart.of(root, commit(root, "a slip"), latest)
    (root / "params.yaml").write_text("- seed\n")
    with pytest.raises(UserError, match=r"unreadable params\.yaml in commit [0-9a-f]{12}: it holds no keys"):
        WarmStart.of(root, commit(root, "another"), latest)


def test_the_model_is_fetched_by_its_md5(tmp_path: Path) -> None:
    root = make_empty(tmp_path / "shop")
    versions = registered(root, 2).state().versions
    first, second = (digest_at(root, version.commit) for version in versions)
    for nothing in (None, "champion"):
        fetch_start(root, validate({"tune": {"start": nothing}}))
    assert not (root / FOLDER).exists()
    fetch_start(root, validate({"tune": {"start": second}}))
    assert [path.name for path in (root / FOLDER).iterdir() if path.is_dir()] == [second]
    assert json.loads((root / FOLDER / second / "model" / "bundle.json").read_text()) == {"format": 2}
    with pytest.raises(UserError) as refused:
        fetch_start(root, validate({"tune": {"start": "0" * 32}}))
    assert str(refused.value) == (
        f"config key 'tune.start' can't be '{'0' * 32}': no registered version has a model of this md5; allowed: null, "
        f"champion, {first} (v1), {second} (v2)"
    )
    with pytest.raises(UserError) as refused:
        validate({"tune": {"start": "v1"}})
    assert str(refused.value) == (
        "config key 'tune.start' can't be 'v1': allowed: null, champion, or the md5 of a registered model, which "
        "`tl registry show v3` tells"
    )
