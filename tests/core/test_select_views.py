"""The step `select` and what lies inside the candidates: views that join, and layers that fine-tuning can use."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from conftest import write_waves
from tl_core import hookimpl
from tl_core.config import RunConfig, validate
from tl_core.registry import Registry, load_registry
from tl_core.selection import speed
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.types import Backbone, BackboneSpec, Identity, State
from tl_core.workspace import Workspace


class Part(nn.Module):
    """A segment: modules one after the other over `x`."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, state: State) -> State:
        return {"x": self.parts(state["x"])}


@pytest.fixture(scope="session")
def many_waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_waves(tmp_path_factory.mktemp("many") / "waves", per_class=120)


@pytest.fixture
def registry(timeseries: Registry) -> Registry:
    """The tests' plugin with two backbones that differ at their ends: one shows what it knows, one hides it."""
    made = load_registry([("tl_timeseries", timeseries.manager.get_plugin("tl_timeseries"))])
    specs = [backbone("open", hides=False), backbone("closed", hides=True)]
    made.manager.register(SimpleNamespace(tl_backbones=hookimpl(lambda: specs)), name="more")
    return made


@pytest.fixture(autouse=True)
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measured", lambda *_: 2.0**33)


def backbone(name: str, hides: bool) -> BackboneSpec:
    """Two blocks that know the frequency, and a last layer that lets all or next to nothing of it through."""
    from tl_timeseries.backbone import WIDTH, FilterBank

    def made(spec: BackboneSpec, seed: int | None) -> Backbone:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3 if seed is None else seed)
            first = Part(nn.Unflatten(1, (1, WIDTH)), nn.Conv1d(1, 12, 9, padding=4), nn.ReLU())
            block = Part(nn.Conv1d(12, 12, 5, padding=2), nn.ReLU())
            pool = Part(nn.AdaptiveAvgPool1d(1), nn.Flatten(1))
            last = nn.Linear(12, 12)
        with torch.no_grad():
            last.weight.copy_(torch.zeros(12, 12) if hides else torch.eye(12))
            last.bias.fill_(1.0)
        segments = [("stem", first), ("block", block), ("pool", pool), ("last", Part(last))]
        return FilterBank(segments, 12, Identity(f"{name} {seed}", {"width": WIDTH}, "ends"))

    return BackboneSpec(name, "timeseries", "package", "tl_timeseries", made, licence="MIT")


def settings(data: Path, strategy: str) -> RunConfig:
    tuned = {"strategy": strategy, "epochs": 1}
    return validate({"data": {"path": str(data)}, "select": {"backbones": ["open", "closed"]}, "tune": tuned})


def ranked(config: RunConfig, registry: Registry, root: Path) -> tuple[dict[str, Any], Workspace]:
    workspace = Workspace(root=root, store=root / "store", cache=root / "cache")
    version(config, registry, workspace)
    select(config, registry, workspace)
    return json.loads(workspace.ranking.read_text()), workspace


def test_fine_tuning_is_foreseen_from_all_layers(registry: Registry, many_waves: Path, tmp_path: Path) -> None:
    probe, _ = ranked(settings(many_waves, "probe"), registry, tmp_path / "probe")
    tuned, workspace = ranked(settings(many_waves, "finetune"), registry, tmp_path / "tuned")
    assert (probe["judged_on"], tuned["judged_on"]) == ("embedding", "all layers")
    of_probe = {c["name"]: c for c in probe["candidates"]}
    of_tuned = {c["name"]: c for c in tuned["candidates"]}
    assert of_probe["open"]["probe"] > of_probe["closed"]["probe"] + 0.2
    assert of_tuned["closed"]["probe"] == pytest.approx(of_tuned["open"]["probe"], abs=0.05)
    assert of_tuned["closed"]["tied"]
    for name in ("open", "closed"):  # what is told of a candidate is its own, whatever it was judged on
        for key in ("fingerprint", "feature_dim", "params"):
            assert of_tuned[name][key] == of_probe[name][key]
    assert not tuned["views"]
    before = workspace.ranking.read_bytes()
    assert select(settings(many_waves, "finetune"), registry, workspace)["computed"] == 0
    assert workspace.ranking.read_bytes() == before
    extract(settings(many_waves, "finetune"), registry, workspace)
    tune(settings(many_waves, "finetune"), registry, workspace)


def test_a_view_that_clearly_beats_its_whole_joins(registry: Registry, many_waves: Path, tmp_path: Path) -> None:
    config = settings(many_waves, "probe")
    config = config.model_copy(update={"select": config.select.model_copy(update={"backbones": ("closed", "blind")})})
    blind = backbone("blind", hides=True)
    registry.manager.register(SimpleNamespace(tl_backbones=hookimpl(lambda: [blind])), name="blind")
    ranking, workspace = ranked(config, registry, tmp_path)
    joined = {view["name"] for view in ranking["views"] if view["joined"]}
    assert ranking["chosen"] in joined
    chosen = next(c for c in ranking["candidates"] if c["name"] == ranking["chosen"])
    assert (chosen["base"], chosen["cut"]) == tuple(ranking["chosen"].split("#"))
    assert chosen["status"] == "ranked"
    for step in (extract, tune, evaluate):
        step(config, registry, workspace)
    receipt = json.loads(workspace.receipt.read_text())
    assert receipt["backbone"]["fingerprint"] == chosen["fingerprint"]


def test_views_that_are_no_better_stay_out(registry: Registry, many_waves: Path, tmp_path: Path) -> None:
    ranking, _ = ranked(settings(many_waves, "probe"), registry, tmp_path)
    of_open = [view for view in ranking["views"] if view["name"].startswith("open#")]
    assert of_open
    assert all(not view["joined"] or view["probe"] > 0.9 for view in of_open)
    assert ranking["chosen"].partition("#")[0] == "open"
