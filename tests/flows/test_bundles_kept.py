"""Which fetched models stay in .tl/bundles, and which go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tl_flows import bundles
from tl_flows.bundles import KEPT_DAYS, bundle_at
from tl_flows.model_registry import ModelRegistry
from versions import commit_run, make_project, outputs, registered


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Four versions: v1 is the champion, v4 the challenger."""
    found = registered(make_project(tmp_path / "repository"), 4)
    found.promote("v1", expected_champion=None, why="good")
    return found


def used(registry: ModelRegistry, version: str, days_ago: float) -> Path:
    """The folder of a version's model, last used so long ago."""
    folder = bundle_at(registry.root, registry.state().version(version).commit).parent
    then = time.time() - days_ago * 86400
    os.utime(folder / "files.json", (then, then))
    return folder


def fetch_another(registry: ModelRegistry) -> Path:
    return bundle_at(registry.root, commit_run(registry.root, outputs(b"another"))).parent


def test_models_without_an_alias_go_when_nobody_has_used_them_for_long(registry: ModelRegistry) -> None:
    champion, old, recent, challenger = (
        used(registry, f"v{number}", KEPT_DAYS + days) for number, days in ((1, 1), (2, 1), (3, -1), (4, 1))
    )
    new = fetch_another(registry)
    assert {path for path in new.parent.iterdir() if path.is_dir()} == {champion, recent, challenger, new}
    assert used(registry, "v2", 0) == old  # it comes back
    assert (old / "model" / "head.safetensors").read_bytes() == b"model 2"


def test_a_model_is_used_by_whoever_asks_for_it(registry: ModelRegistry) -> None:
    old = used(registry, "v2", KEPT_DAYS + 1)
    bundle_at(registry.root, registry.state().version("v2").commit)
    fetch_another(registry)
    assert old.is_dir()


def test_who_comes_at_the_last_moment_keeps_it(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    old = used(registry, "v2", KEPT_DAYS + 1)
    looked = bundles._unused

    def reached(folder: Path) -> bool:
        """As if another process had asked for the model between the look at it and its deletion."""
        if folder.name == "going":
            os.utime(folder / "files.json")
        return looked(folder)

    monkeypatch.setattr(bundles, "_unused", reached)
    fetch_another(registry)
    assert old.is_dir()
    assert not (old.parent / "going").exists()


def test_what_a_killed_process_left_half_deleted_goes(registry: ModelRegistry) -> None:
    folder = used(registry, "v2", KEPT_DAYS + 1)
    (folder.parent / "going" / "model").mkdir(parents=True)
    (folder.parent / "going" / "model" / "rest").write_bytes(b"x")
    fetch_another(registry)
    assert not (folder.parent / "going").exists()
    assert not folder.exists()
