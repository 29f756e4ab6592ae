"""Pinned revisions: what was downloaded first is what every later step uses, until it is taken out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tl_core import PRESETS, Backbone, BackboneSpec, UserError, hookimpl, weights
from tl_core.bundle import ModelBundle
from tl_core.config import RunConfig
from tl_core.pins import LOCK, Pins, at_commit, pin, pinned, read_pins, unpin
from tl_core.registry import Registry, load_registry
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.steps.backbone import chosen
from tl_core.workspace import Workspace

OLD, NEW = "a" * 40, "b" * 40
HUB = "someone/their-model"


def spec(**facts: Any) -> BackboneSpec:
    return BackboneSpec(
        **{"name": "theirs", "modality": "timeseries", "source": "hub", "location": HUB, "builder": build} | facts
    )


def build(spec: BackboneSpec, random_seed: int | None) -> Backbone:
    """A plugin's builder: download, then build."""
    from tl_timeseries.backbone import build as derivatives

    commit = weights.hub_folder(spec.location, spec.revision)[1]
    built = derivatives(spec, random_seed)
    digest = built.identity.weights if random_seed is not None else f"{built.identity.weights}-{commit[:1]}"
    built.identity = dataclasses.replace(built.identity, weights=digest, revision=commit)
    return built


@pytest.fixture(name="hub")
def hub_fixture(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A hub that can be moved on; `asked` are the revisions that were asked for."""
    hub: dict[str, Any] = {"main": OLD, "asked": []}

    def fetch(repo: str, revision: str | None = None, *, allow: Sequence[str] = ()) -> tuple[Path, str]:
        hub["asked"].append(revision)
        commit = revision or hub["main"]
        return Path("/nowhere") / commit, commit

    monkeypatch.setattr(weights, "hub_folder", fetch)
    return hub


@pytest.fixture(name="registry")
def registry_fixture(timeseries: Registry) -> Registry:
    """The tests' plugin, its only backbone now from a hub."""
    plugin: Any = dict(timeseries.manager.list_name_plugin())["tl_timeseries"]
    module = ModuleType("hubs")

    def tl_backbones() -> list[BackboneSpec]:
        return [spec(presets=PRESETS)]

    module.tl_backbones = hookimpl(tl_backbones)  # type: ignore[attr-defined]
    module.tl_loaders, module.tl_heads = plugin.tl_loaders, plugin.tl_heads  # type: ignore[attr-defined]
    return load_registry([("hubs", module)])


def test_what_is_not_pinned_stays_as_it_is(tmp_path: Path) -> None:
    assert read_pins(tmp_path) == {}
    assert pinned(spec(), tmp_path) == spec()


def opened(revision: str | None = None, weights: str = "random-1") -> dict[str, str | None]:
    """What pin() looks at of a built backbone's facts."""
    return {"revision": revision, "weights": weights}


def test_a_pin_holds(tmp_path: Path) -> None:
    pin(spec(), "theirs", opened(OLD), tmp_path)
    pin(spec(name="another name", options={"layers": 3}), "another", opened(NEW), tmp_path)  # of the same repository
    pin(spec(location="a/second"), "a/second", opened(NEW, "1" * 64), tmp_path)
    assert json.loads((tmp_path / LOCK).read_text()) == {
        "format": 2, "revisions": {"a/second": NEW, HUB: OLD}, "weights": {"a/second": "1" * 64},
    }  # fmt: skip
    assert pinned(spec(), tmp_path) == spec(revision=OLD)
    assert pinned(spec(name="theirs#block1", view="block1", base=spec()), tmp_path).base == spec(revision=OLD)


@pytest.mark.parametrize("source", ["hub", "folder", "file", "package"])
def test_other_weights_than_pinned_are_refused(tmp_path: Path, source: str) -> None:
    one = spec(source=source)
    pin(one, "./mine#block1", opened(None, "1" * 64), tmp_path)
    pin(one, "./mine", opened(None, "1" * 64), tmp_path)
    assert Pins.at(tmp_path).weights == {"./mine": "1" * 64}
    for name in ("./mine", "./mine#block2"):
        with pytest.raises(UserError) as caught:
            pin(one, name, opened(None, "2" * 64), tmp_path)
        assert str(caught.value) == (
            f"the weights of ./mine have changed: {tmp_path / LOCK} pins sha256 111111111111, here are 222222222222; "
            "put the pinned ones back, or accept these: tl backbones --unpin ./mine"
        )
    assert unpin(["./mine"], tmp_path) == Pins({}, {"./mine": "1" * 64})
    pin(one, "./mine", opened(None, "2" * 64), tmp_path)
    assert Pins.at(tmp_path).weights == {"./mine": "2" * 64}


def test_weights_whose_digest_the_plugin_states_need_no_pin(tmp_path: Path) -> None:
    stated = spec(source="package", sha256="1" * 64)
    pin(stated, "theirs", opened(None, "1" * 64), tmp_path)
    pin(spec(name="theirs#b", view="b", source="package", base=stated), "theirs#b", opened(None, "1" * 64), tmp_path)
    assert not (tmp_path / LOCK).exists()


def test_a_table_of_format_1_is_read_and_extended(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({HUB: OLD}))
    assert pinned(spec(), tmp_path) == spec(revision=OLD)
    pin(spec(), HUB, opened(NEW, "1" * 64), tmp_path)
    assert Pins.at(tmp_path) == Pins({HUB: OLD}, {HUB: "1" * 64})


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text('{"format": 3}')
    with pytest.raises(UserError, match=r"backbones.lock has format 3, this tl reads up to 2; update tl"):
        read_pins(tmp_path)


@pytest.mark.parametrize("facts", [{"revision": "v2"}, {"source": "folder"}, {"source": "package"}])
def test_what_can_not_move_is_not_pinned(tmp_path: Path, facts: dict[str, Any]) -> None:
    pin(spec(**facts), "theirs", opened(OLD), tmp_path)
    assert not (tmp_path / LOCK).exists()
    pin(spec(), "theirs", opened(OLD), tmp_path)
    assert pinned(spec(**facts), tmp_path) == spec(**facts) == at_commit(spec(**facts), NEW)


@pytest.mark.parametrize("revision", [None, "", "main", "1.0.12", "A" * 40, "a" * 39])
def test_what_is_no_commit_is_not_pinned(tmp_path: Path, revision: str | None) -> None:
    pin(spec(), "theirs", opened(revision), tmp_path)
    assert not (tmp_path / LOCK).exists()


def test_unpinning(tmp_path: Path) -> None:
    assert unpin([HUB], tmp_path) == Pins()
    assert not (tmp_path / LOCK).exists()
    pin(spec(), "theirs", opened(OLD), tmp_path)
    assert unpin([HUB, "a/second"], tmp_path) == Pins({HUB: OLD})
    assert read_pins(tmp_path) == {}
    pin(spec(), "theirs", opened(NEW), tmp_path)
    assert pinned(spec(), tmp_path).revision == NEW


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "it holds a list"),
        (json.dumps({HUB: "main", "a/b": OLD, "c/d": 3}), f"'{HUB}' has 'main'; 'c/d' has 3"),
        (json.dumps({"format": "2"}), "format is '2'"),
        (json.dumps({"format": 2, "revisions": [], "weights": {"x": "y"}}), "revisions is a list; 'x' has 'y'"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(UserError) as caught:
        pinned(spec(), tmp_path)
    assert str(caught.value).startswith(f"unusable {tmp_path / LOCK}: {why}")
    assert str(caught.value).endswith(
        "expected an object with revisions (hub ids and commits of 40 hex digits) and weights (backbones and sha256s "
        "of 64): restore it from git, or delete it to pin anew what the next run finds"
    )


def test_the_revision_stands_in_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError, match=f"can't download {HUB} at revision aaaaaaaaaaaa from the hub: no network"):
        weights.hub_folder(HUB, OLD)


def fail(*_: Any, **__: Any) -> None:
    raise OSError("no network")


def test_a_hub_that_moves_on_changes_no_later_step(
    registry: Registry, waves: Path, tmp_path: Path, hub: dict[str, Any]
) -> None:
    config = RunConfig.model_validate({"data": {"path": str(waves)}, "tune": {"strategy": "probe"}})
    workspace = Workspace(tmp_path / "out", tmp_path / "store", tmp_path / "cache")
    version(config, registry, workspace)
    select(config, registry, workspace)
    assert read_pins(workspace.root) == {HUB: OLD}
    hub.update(main=NEW, asked=[])
    assert chosen(registry, workspace, "timeseries")[1].revision == OLD
    for step in (select, extract, tune, evaluate):
        step(config, registry, workspace)
    assert json.loads(workspace.receipt.read_text())["backbone"]["revision"] == OLD
    assert ModelBundle.load(workspace.model, registry).facts["backbone"]["revision"] == OLD
    assert set(hub["asked"]) == {OLD}
    assert (workspace.root / LOCK).parent == workspace.root  # beside the outputs, in none of them
    unpin([HUB], workspace.root)
    assert chosen(registry, workspace, "timeseries")[1].revision == OLD  # what was ranked
    hub["asked"] = []
    ModelBundle.load(workspace.model, registry)
    assert hub["asked"] == [OLD]  # what it was trained on
    select(config, registry, workspace)
    assert read_pins(workspace.root) == {HUB: NEW}


def test_weights_that_drift_stop_each_step_that_uses_them(timeseries: Registry, waves: Path, tmp_path: Path) -> None:
    plugin: Any = dict(timeseries.manager.list_name_plugin())["tl_timeseries"]
    digest = {"now": "1" * 64}

    def drifting(spec: BackboneSpec, random_seed: int | None) -> Backbone:
        from tl_timeseries.backbone import build as derivatives

        built = derivatives(spec, random_seed)
        weights = built.identity.weights if random_seed is not None else digest["now"]
        built.identity = dataclasses.replace(built.identity, weights=weights)
        return built

    module = ModuleType("drifts")
    module.tl_backbones = hookimpl(  # type: ignore[attr-defined]
        lambda: [spec(source="package", location="nowhere.at", builder=drifting, presets=PRESETS)]
    )
    module.tl_loaders, module.tl_heads = plugin.tl_loaders, plugin.tl_heads  # type: ignore[attr-defined]
    registry = load_registry([("drifts", module)])
    config = RunConfig.model_validate({"data": {"path": str(waves)}, "tune": {"strategy": "probe"}})
    workspace = Workspace(tmp_path / "out", tmp_path / "store", tmp_path / "cache")
    for step in (version, select, extract):
        step(config, registry, workspace)
    assert Pins.at(workspace.root) == Pins({}, {"theirs": "1" * 64})
    digest["now"] = "2" * 64
    for step in (select, extract, tune):
        with pytest.raises(UserError, match=r"the weights of theirs have changed: .* --unpin theirs"):
            step(config, registry, workspace)
    assert Pins.at(workspace.root) == Pins({}, {"theirs": "1" * 64})
