from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tl_core import plugins as plugins_module
from tl_core.errors import UserError
from tl_core.hookspecs import hookimpl
from tl_core.registry import Registry, load_registry
from tl_core.types import BackboneSpec, Loader, Source
from tl_core.workspace import Workspace


class SoundLoader(Loader):
    modality = "sound"
    extensions = frozenset({".snd"})

    def decode(self, source: Source) -> Any:
        return source

    def render(self, source: Source) -> str:
        return "<p>sound</p>"


def module(name: str, **hooks: Any) -> tuple[str, ModuleType]:
    made = ModuleType(name)
    for hook, function in hooks.items():
        function.__name__ = hook
        setattr(made, hook, hookimpl(function))
    return name, made


def spec(name: str) -> BackboneSpec:
    return BackboneSpec(name, "sound", "package", "nowhere", builder=lambda *_: None)  # type: ignore[arg-type, return-value]


def one(*names: str) -> Registry:
    return load_registry(
        [module("tl_one", tl_loaders=lambda: [SoundLoader()], tl_backbones=lambda: [spec(n) for n in names])]
    )


def test_near_names_are_suggested() -> None:
    with pytest.raises(UserError) as caught:
        one("resnet18", "resnet50", "vit").backbone("resnet", "sound")
    assert str(caught.value).startswith(
        "no sound backbone 'resnet'; did you mean resnet18, resnet50? `tl backbones sound`"
    )


def test_unknown_modality_lists_what_is_there() -> None:
    with pytest.raises(UserError, match="no plugin for modality 'smell'; installed: sound"):
        one().loader("smell")


def test_missing_folder_is_said_plainly() -> None:
    with pytest.raises(UserError, match=r"no such backbone folder: \./weights/x"):
        one("a").backbone("./weights/x", "sound")


def test_a_folder_that_is_no_backbone_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is empty; give the folder that holds"):
        one("a").backbone(str(tmp_path), "sound")
    (tmp_path / "readme.txt").write_text("weights to come")
    with pytest.raises(UserError, match=r"it has no config\.json; give the folder"):
        one("a").backbone(str(tmp_path), "sound")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"its config\.json names no architecture"):
        one("a").backbone(str(tmp_path), "sound")


def test_a_backbone_of_another_modality_is_called_that() -> None:
    class PictureLoader(SoundLoader):
        modality = "picture"

    pictures = module("tl_pictures", tl_loaders=lambda: [PictureLoader()])
    sounds = module("tl_sounds", tl_loaders=lambda: [SoundLoader()], tl_backbones=lambda: [spec("starter-sound")])
    with pytest.raises(UserError) as caught:
        load_registry([pictures, sounds]).backbone("starter-sound", "picture")
    assert str(caught.value) == (
        "starter-sound is a backbone for sound data; the data are picture: choose one that `tl backbones picture` lists"
    )


def test_two_plugins_with_one_name_are_both_named() -> None:
    registry = load_registry(
        [
            module("tl_one", tl_loaders=lambda: [SoundLoader()], tl_backbones=lambda: [spec("a")]),
            module("tl_two", tl_backbones=lambda: [spec("a")]),
        ]
    )
    with pytest.raises(UserError, match="sound backbone 'a' is offered by tl_one and tl_two; uninstall one"):
        registry.backbones()


def test_two_plugins_for_one_modality_are_both_named() -> None:
    registry = load_registry([module(n, tl_loaders=lambda: [SoundLoader()]) for n in ("tl_one", "tl_two")])
    with pytest.raises(UserError, match="modality sound is offered by tl_one and tl_two"):
        registry.loaders()


def test_order_of_installation_decides_nothing() -> None:
    mods = [module("tl_b", tl_backbones=lambda: [spec("b")]), module("tl_a", tl_backbones=lambda: [spec("a")])]
    names = [[s.name for s in load_registry(order).backbones()] for order in (mods, mods[::-1])]
    assert names == [["a", "b"], ["a", "b"]]


def test_a_misspelt_hook_is_reported() -> None:
    registry = load_registry([module("tl_bad", tl_loader=lambda: [])])
    assert registry.plugins[0].error == "no hook 'tl_loader'; did you mean tl_loaders?"


def test_a_plugin_that_fails_to_import_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dist:
        def __init__(self, name: str) -> None:
            self.name, self.version = name, "1.0"

    class Point:
        def __init__(self, name: str, dist: str, result: Any) -> None:
            self.name = self.module = name
            self.group = "tl.plugins"
            self.dist, self._result = Dist(dist), result

        def load(self) -> Any:
            if isinstance(self._result, Exception):
                raise self._result
            return self._result

    good = module("tl_good", tl_backbones=lambda: [spec("g")])[1]
    points = [
        Point("tl_broken", "tl-broken", ImportError("no torchfoo")),
        Point("tl_good", "tl-good", good),
        Point("tl_twin", "tl-twin-a", good),
        Point("tl_twin", "tl-twin-b", good),
    ]
    monkeypatch.setattr(plugins_module, "entry_points", lambda group: [p for p in points if p.group == group])
    registry = load_registry()
    errors = {(p.name, p.dist): p.error for p in registry.plugins}
    assert errors[("tl_broken", "tl-broken")] == "ImportError: no torchfoo"
    assert errors[("tl_good", "tl-good")] is None
    assert "several dists: tl-twin-a, tl-twin-b" in str(errors[("tl_twin", "tl-twin-a")])
    assert [s.name for s in registry.backbones()] == ["g"]


def test_a_watcher_may_watch_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    watches = module("tl_watches", tl_step_finished=lambda step: None)[1]
    brings = module("tl_brings", tl_step_finished=lambda step: None, tl_backbones=lambda: [spec("b")])[1]
    modules = {"tl_watches": watches, "tl_brings": brings}
    for name, value in modules.items():
        monkeypatch.setitem(sys.modules, name, value)
    points = [EntryPoint(name, name, "tl.watchers") for name in modules]
    monkeypatch.setattr(plugins_module, "entry_points", lambda group: [p for p in points if p.group == group])
    registry = load_registry()
    assert {plugin.name: plugin.error for plugin in registry.plugins} == {
        "tl_watches": None,
        "tl_brings": "a plugin in the group tl.watchers has no tl_backbones; name it in the group tl.plugins",
    }
    assert registry.backbones() == []


def test_a_failing_watcher_is_told_and_no_more(tmp_path: Path) -> None:
    seen: list[str] = []
    workspace = Workspace(root=tmp_path / "birds", store=tmp_path, cache=tmp_path)

    def fails(step: str) -> None:
        raise RuntimeError("mail server is down")

    registry = load_registry(
        [
            module("tl_fails", tl_step_finished=fails),
            module("tl_sees", tl_step_finished=lambda step, outputs: seen.append(f"{step} {outputs['n']}")),
            module("tl_seeks", tl_step_finished=lambda workspace: seen.append(workspace.root.name)),
        ]
    )
    failed = registry.finished("tune", {"n": 3}, workspace)
    assert failed == ["plugin tl_fails failed in tl_step_finished: mail server is down"]
    assert sorted(seen) == ["birds", "tune 3"]


def test_watchers_hear_how_a_retrain_ended(tmp_path: Path) -> None:
    seen: list[str] = []

    def fails(outcome: dict[str, Any], project: Path) -> None:
        raise OSError(f"no chat for {project.name}")

    registry = load_registry(
        [
            module("tl_fails", tl_retrain_finished=fails),
            module("tl_sees", tl_retrain_finished=lambda outcome: seen.append(outcome["state"])),
        ]
    )
    failed = registry.retrained({"state": "refused"}, tmp_path / "birds")
    assert failed == ["plugin tl_fails failed in tl_retrain_finished: no chat for birds"]
    assert seen == ["refused"]


def test_a_part_of_a_name_is_near_enough() -> None:
    with pytest.raises(UserError, match=r"did you mean resnet50\.a1_in1k, resnet18\.a1_in1k\?"):
        one("resnet18.a1_in1k", "resnet50.a1_in1k").backbone("resnet5O", "sound")
