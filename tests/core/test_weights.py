"""Which weights are on this machine: found without network, without opening them, and without running a package."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tl_core import PRESETS, BackboneSpec, UserError, hookimpl
from tl_core.config import RunConfig
from tl_core.registry import Registry, load_registry
from tl_core.steps import select, version
from tl_core.weights import package_folder, weights_here
from tl_core.workspace import Workspace


def spec(source: Any, location: object, **more: Any) -> BackboneSpec:
    def build(spec: BackboneSpec, random_seed: int | None) -> Any:
        raise UserError(f"can't download {spec.location} from the hub: no network")

    return BackboneSpec(f"{source} {location}", "timeseries", source, str(location), build, **more)


def test_a_folder_and_a_file_are_here_where_they_hold_weights(tmp_path: Path) -> None:
    assert not weights_here(spec("folder", tmp_path / "none"))
    assert not weights_here(spec("folder", tmp_path))
    weights = tmp_path / "model.safetensors"
    assert not weights_here(spec("file", weights))
    weights.write_bytes(b"")
    assert weights_here(spec("folder", tmp_path))
    assert weights_here(spec("file", weights))


def test_what_comes_with_a_package_is_here_where_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "weights_in_a_package"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('a package need not run for that')")
    assert package_folder("weights_in_a_package/model") is None
    assert not weights_here(spec("package", "weights_in_a_package/model"))
    monkeypatch.syspath_prepend(tmp_path)
    assert package_folder("weights_in_a_package/model") == package / "model"
    (package / "model" / "config.json").write_text("{}")
    assert not weights_here(spec("package", "weights_in_a_package/model"))  # a checkout without its large files
    (package / "model" / "model.safetensors").write_bytes(b"")
    assert weights_here(spec("package", "weights_in_a_package/model"))
    assert weights_here(spec("package", "weights_in_a_package"))
    assert not weights_here(spec("package", "weights_in_a_package/other"))


def test_hub_weights_are_here_where_the_hubs_cache_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # even then no network is used
    wanted = spec("hub", "some-one/some-model")
    assert not weights_here(wanted)
    folder = tmp_path / "models--some-one--some-model"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    assert not weights_here(wanted)  # a download that was broken off
    (snapshot / "model.safetensors").write_bytes(b"")
    assert weights_here(wanted)
    assert not weights_here(dataclasses.replace(wanted, revision="v2"))
    assert not weights_here(spec("hub", "not a repository's name"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # an optional dependency
    assert not weights_here(wanted)


def test_a_plugin_can_say_so_itself() -> None:
    assert weights_here(spec("hub", "owner/name", offline=lambda spec: spec.location == "owner/name"))
    assert not weights_here(spec("package", "tl_core", offline=lambda _: False))


def with_hub_default(timeseries: Registry) -> Registry:
    """The tests' plugin, its backbone no default any more, and two that have to be downloaded first."""
    plugin: Any = dict(timeseries.manager.list_name_plugin())["tl_timeseries"]
    module = ModuleType("hubs")

    def tl_loaders() -> list[Any]:
        return list(plugin.tl_loaders())

    def tl_backbones() -> list[BackboneSpec]:
        here = [dataclasses.replace(known, presets=()) for known in plugin.tl_backbones()]
        return [spec("hub", "owner/large", presets=PRESETS), spec("hub", "owner/small", presets=PRESETS), *here]

    module.tl_loaders, module.tl_backbones = hookimpl(tl_loaders), hookimpl(tl_backbones)  # type: ignore[attr-defined]
    return load_registry([("hubs", module)])


def test_where_no_default_can_be_had_those_that_are_here_are_named(
    timeseries: Registry, waves: Path, tmp_path: Path
) -> None:
    config = RunConfig.model_validate({"data": {"path": str(waves)}})
    workspace = Workspace(tmp_path / "out", tmp_path / "store", tmp_path / "cache")
    registry = with_hub_default(timeseries)
    version(config, registry, workspace)
    with pytest.raises(UserError) as caught:
        select(config, registry, workspace)
    assert str(caught.value).splitlines() == [
        "no backbone could be used:",
        "  hub owner/large: can't download owner/large from the hub: no network",
        "  hub owner/small: can't download owner/small from the hub: no network",
        "give weights that are here: --backbone FOLDER",
        "or, for a trial without network: --backbone gaussian-derivatives",
    ]
