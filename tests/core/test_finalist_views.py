"""Views of the race's finalists in the ranking: which join, and that one which wins goes through all steps."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tl_core import hookimpl
from tl_core.bundle import ModelBundle
from tl_core.config import RunConfig, validate
from tl_core.registry import Registry, load_registry
from tl_core.report import Ranking
from tl_core.selection import speed
from tl_core.selection.outcomes import Outcomes
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.steps.finalist_views import clearly_better
from tl_core.types import Backbone, BackboneSpec, Identity, Prepared, State
from tl_core.workspace import Workspace


class Spectrum(nn.Module):
    """Amplitudes of 64 cosines, of the first `width` values only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(128, 64)
        waves = torch.arange(64).unsqueeze(1) * torch.linspace(0, torch.pi, 128)
        with torch.no_grad():
            self.linear.weight.copy_(torch.cos(waves) / 10 * (torch.arange(128) < width))
            self.linear.bias.zero_()

    def forward(self, state: State) -> State:
        return {"x": self.linear(state["x"]).abs()}


class Narrow(nn.Module):
    """All that the spectrum knows in one number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 1)
        nn.init.constant_(self.linear.weight, 1 / 64)
        nn.init.zeros_(self.linear.bias)

    def forward(self, state: State) -> State:
        return {"x": self.linear(state["x"])}


class Spoilt(Backbone):
    """Its last segment spoils what the first one tells."""

    def prepare(self, decoded: Any) -> Prepared:
        series = torch.as_tensor(decoded).view(1, 1, -1)
        return Prepared(({"x": nn.functional.interpolate(series, 128, mode="linear").flatten()},))

    def collate(self, windows: Sequence[State]) -> State:
        return {"x": torch.stack([w["x"] for w in windows])}

    def example(self) -> State:
        return {"x": torch.sin(torch.linspace(0, 20, 128))}

    def pooled(self, state: State) -> torch.Tensor:
        pooling()
        return super().pooled(state)


def pooling() -> None:
    """Called where a state is pooled."""


def resolve(name: str, modality: str) -> list[BackboneSpec]:
    """A folder with the width in it."""
    path = Path(name)
    if modality != "timeseries" or not (path / "width").is_file():
        return []

    def build(spec: BackboneSpec, random_seed: int | None) -> Backbone:
        width = int((path / "width").read_text())
        segments = [("spectrum", Spectrum(width)), ("last", Narrow())]
        return Spoilt(segments, 1, Identity(f"{width}:{random_seed}", {"width": width}, "spoilt"))

    return [BackboneSpec(name, "timeseries", "folder", name, build, licence="MIT")]


@pytest.fixture
def registry(timeseries: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(speed, "measured", lambda *_: 2.0**33)
    made = load_registry([("tl_timeseries", timeseries.manager.get_plugin("tl_timeseries"))])
    made.manager.register(SimpleNamespace(tl_resolve_backbone=hookimpl(resolve)), name="folders")
    return made


@pytest.fixture
def project(waves: Path, tmp_path: Path) -> Path:
    """A project with weights inside: one network that hears all, one that hears next to nothing."""
    for name, width in {"good": 128, "deaf": 2}.items():
        (tmp_path / "project" / "weights" / name).mkdir(parents=True)
        (tmp_path / "project" / "weights" / name / "width").write_text(str(width))
    shutil.copytree(waves, tmp_path / "project" / "data")
    return tmp_path / "project"


def settings(root: Path, *names: str) -> RunConfig:
    return validate({"data": {"path": str(root / "data")}, "select": {"backbones": list(names)}})


def workspace(root: Path) -> Workspace:
    return Workspace(root=root, store=root / "store", cache=root / "cache")


def ranked(root: Path, registry: Registry, *names: str) -> dict[str, Any]:
    config, ws = settings(root, *names), workspace(root)
    if not ws.manifest.exists():
        version(config, registry, ws)
    select(config, registry, ws)
    return json.loads(ws.ranking.read_text())  # type: ignore[no-any-return]


def outcomes(right: int, n: int = 200, seed: int = 0) -> Outcomes:
    terms = np.random.default_rng(seed).permutation((np.arange(n) < right).astype(np.float64))
    return Outcomes("multiclass", terms[:, None])


def test_a_view_joins_only_where_it_is_better_beyond_doubt() -> None:
    whole = outcomes(120)
    views = {"far": outcomes(170, seed=1), "bit": outcomes(126, seed=2), "same": outcomes(120), "below": outcomes(60)}
    assert clearly_better(whole, views, looked_at=4, confidence=0.9, seed=0) == ["far"]


def test_the_more_views_are_looked_at_the_more_it_takes() -> None:
    whole, views = outcomes(120), {"view": outcomes(140, seed=5)}
    assert clearly_better(whole, views, looked_at=1, confidence=0.9, seed=0) == ["view"]
    assert clearly_better(whole, views, looked_at=50, confidence=0.9, seed=0) == []


def test_a_view_that_wins_goes_through_all_steps_also_elsewhere(registry: Registry, project: Path) -> None:
    names = ["./weights/good", "./weights/deaf"]
    ranking = ranked(project, registry, *names)
    assert (ranking["chosen"], ranking["request"]) == ("good#spectrum", "./weights/good#spectrum")
    found = {c["name"]: c for c in ranking["candidates"]}
    assert (found["good#spectrum"]["base"], found["good#spectrum"]["cut"]) == ("good", "spectrum")
    assert found["good#spectrum"]["flops"] < found["good"]["flops"]
    assert {one["name"]: one["joined"] for one in ranking["views"]}["good#spectrum"] is True
    before = workspace(project).ranking.read_bytes()
    ranked(project, registry, *names[::-1])
    assert workspace(project).ranking.read_bytes() == before
    shutil.rmtree(project / "store")
    shutil.rmtree(project / "cache")
    ranked(project, registry, *names)
    assert workspace(project).ranking.read_bytes() == before
    moved = project.rename(project.with_name("moved"))
    config, ws = settings(moved, *names), workspace(moved)
    version(config, registry, ws)
    for step in (extract, tune, evaluate):
        step(config, registry, ws)
    assert json.loads(ws.metrics.read_text())["accuracy"] > 0.8
    assert "good#spectrum" in (ws.step("evaluate") / "report.html").read_text()
    assert Ranking.load(ws.ranking).because() == "first in the ranking"
    bundle = ModelBundle.load(ws.model, registry, str(moved / "weights" / "good"))  # the view is in the bundle
    assert [p.label for p in bundle.predict([moved / "data" / "slow" / "000.npy"])] == ["slow"]


def test_a_view_that_the_user_named_joins_once(registry: Registry, project: Path) -> None:
    ranking = ranked(project, registry, "./weights/good", "./weights/deaf", "./weights/good#spectrum")
    names = [c["name"] for c in ranking["candidates"]]
    assert sorted(names) == ["deaf", "good", "good#spectrum"]
    assert ranking["chosen"] == "good#spectrum"


def raising(error: Exception) -> Callable[[], None]:
    def fault() -> None:
        raise error

    return fault


def test_weights_that_are_lost_by_then_cost_only_the_views(
    registry: Registry, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "pooling", raising(FileNotFoundError("weights are gone")))
    assert ranked(project, registry, "./weights/good", "./weights/deaf")["chosen"] == "good"


def test_a_full_disk_stops_the_run_also_at_the_views(
    registry: Registry, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "pooling", raising(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        ranked(project, registry, "./weights/good", "./weights/deaf")
