"""`tl init`, and the reference project that has the same shape."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tl_flows import versioning
from tl_flows.scaffold import init_project, params_text, pipeline_text

from tl_core.config import RunConfig, describe, load_config
from tl_core.errors import UserError
from tl_core.registry import load_registry
from tl_core.weights import weights_here
from tl_core.workspace import STEPS

ROOT = Path(__file__).parents[2]
PROJECTS = [(".", "text"), ("demo/image", "image"), ("demo/audio", "audio")]


def stages_of(text: str) -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load(text)["stages"]
    return stages


@pytest.fixture
def repository(tmp_path: Path, git: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "mine"
    (root / "my photos" / "cat").mkdir(parents=True)
    (root / "my photos" / "cat" / "1.txt").write_text("x")
    git(root, "init", "-q")
    monkeypatch.chdir(root)
    return root


def test_a_project_around_the_data(repository: Path) -> None:
    told = list(init_project(repository, Path("my photos"), git=True))
    assert told == [
        "made a DVC project (.dvc/)",
        "wrote params.yaml",
        "wrote dvc.yaml",
        "added 10 lines to .gitignore",
        "wrote tl-code.json",
        "tracked my photos with DVC (my photos.dvc)",
        "next: tl run",
    ]
    assert load_config(repository / "params.yaml").data.path == "my photos"
    assert set(versioning.stale_stages(repository, STEPS)) == set(STEPS)
    found = versioning.tracked(repository, repository / "my photos")
    assert found is not None
    assert (found.file, found.state) == ("my photos.dvc", "recorded")
    config = (repository / ".dvc" / "config").read_text().lower()
    assert "analytics = false" in config
    assert "autostage = true" in config


def test_nothing_is_overwritten(repository: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        (repository / name).write_text("seed: 1\n" if name == "params.yaml" else "stages: {}\n")
    (repository / ".gitignore").write_text("mine\n.tl/\n")
    told = list(init_project(repository, Path("my photos"), git=True))
    assert "kept params.yaml, which is here already" in told
    assert "kept dvc.yaml, which is here already" in told
    assert (repository / "params.yaml").read_text() == "seed: 1\n"
    assert (repository / ".gitignore").read_text().startswith("mine\n.tl/\n.prefect/\n")
    assert "kept how my photos is tracked" in list(init_project(repository, Path("my photos"), git=True))


def test_data_elsewhere_are_watched_but_not_versioned(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    told = list(init_project(repository, tmp_path / "other", git=True))
    assert told[-2] == f"{tmp_path / 'other'} lies outside the repository: watched, but not versioned"


def test_a_project_in_a_folder_of_a_repository_that_is_there(repository: Path) -> None:
    list(init_project(repository, Path("my photos"), git=True))
    inner = repository / "demo" / "cats"
    inner.mkdir(parents=True)
    told = list(init_project(inner, Path("my photos") / "cat", git=True))
    assert told == [
        "kept the DVC repository that this folder lies in (../..)",
        "wrote params.yaml",
        "wrote dvc.yaml",
        "added 10 lines to .gitignore",
        "wrote tl-code.json",
        "kept how ../../my photos/cat is tracked",
        "next: tl run",
    ]
    assert not (inner / ".dvc").exists()
    assert load_config(inner / "params.yaml").data.path == "../../my photos/cat"
    stages = stages_of((inner / "dvc.yaml").read_text())
    assert stages["version"]["deps"][0] == "../../my photos/cat"
    assert stages["tune"]["cmd"] == 'PATH="$PATH:../../.venv/bin" tl tune'
    assert set(versioning.stale_stages(inner, STEPS)) == set(STEPS)


def test_without_git_the_user_chooses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `git init` first, or `tl init --no-git`"):
        list(init_project(tmp_path, None, git=True))
    told = list(init_project(tmp_path, None, git=False))
    assert told[0] == "made a DVC project (.dvc/)"
    assert "dvc add data" in told[-1]


def test_data_that_are_not_there(repository: Path) -> None:
    with pytest.raises(UserError, match="no such data: nowhere"):
        list(init_project(repository, Path("nowhere"), git=True))


def test_params_hold_every_key_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(params_text("data"))
    assert load_config(path) == RunConfig()
    assert sorted(keys_of(yaml.safe_load(path.read_text()))) == sorted(name for name, *_ in describe())


def keys_of(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all values, those in sections of sections too."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.parametrize(("folder", "modality"), PROJECTS)
def test_the_repositorys_own_projects_have_the_stages_that_init_writes(folder: str, modality: str) -> None:
    root = ROOT / folder
    up = "../../" if folder != "." else ""
    code = {f"{up}tl_core", f"{up}plugins/{modality}/tl_{modality}", f"{up}flows/tl_flows"}
    config = load_config(root / "params.yaml")
    assert config.data.path == f"{up}data/{modality}"
    assert config.data.group is not None
    assert all(weights_here(load_registry().backbone(name, modality)) for name in config.select.backbones)
    written = stages_of(pipeline_text(config.data.path, f"{up}.venv"))
    found = stages_of((root / "dvc.yaml").read_text())
    assert list(found) == list(written) == list(STEPS)
    for step in STEPS:
        expected = {dep for dep in written[step]["deps"] if dep != "tl-code.json"}
        assert set(found[step]["deps"]) == expected | code
        assert {k: v for k, v in written[step].items() if k != "deps"} == {
            k: v for k, v in found[step].items() if k != "deps"
        }
    assert all((root / path).is_dir() for path in code)


@pytest.mark.parametrize(("folder", "modality"), PROJECTS)
def test_every_parameter_that_a_stage_names_exists(folder: str, modality: str) -> None:
    sections = set(RunConfig.model_fields) | {name for name, *_ in describe()}
    for stage in stages_of((ROOT / folder / "dvc.yaml").read_text()).values():
        assert set(stage["params"]) <= sections


@pytest.mark.parametrize(("folder", "modality"), PROJECTS)
def test_stages_find_tl_in_the_repositorys_own_environment(folder: str, modality: str) -> None:
    environment = os.path.relpath(ROOT / ".venv", ROOT / folder)
    for name, stage in stages_of((ROOT / folder / "dvc.yaml").read_text()).items():
        assert stage["cmd"] == f'PATH="$PATH:{environment}/bin" tl {name}'


def test_the_deployment_names_a_flow_that_is_there() -> None:
    (deployment,) = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    path, _, function = deployment["entrypoint"].partition(":")
    assert re.search(rf"@flow\(.*\)\ndef {function}\(", (ROOT / path).read_text())
    assert not any(schedule["active"] for schedule in deployment["schedules"])


def test_the_application_can_be_called_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "tl_flows", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tl, version ")
