"""Asking plugins for loaders, backbones and heads by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pluggy

from tl_core.errors import UserError, did_you_mean
from tl_core.names import split_view
from tl_core.plugins import PluginInfo, Plugins, given_plugins, installed_plugins
from tl_core.types import BackboneSpec, HeadSpec, Loader, Task
from tl_core.workspace import Workspace


@dataclass(frozen=True)
class Registry:
    """The loaded plugins. Made by `load_registry()`; tests make their own from modules."""

    loaded: Plugins

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """What was found, and what is wrong with it."""
        return self.loaded.found

    @property
    def manager(self) -> pluggy.PluginManager:
        """pluggy's, which knows the plugins that work."""
        return self.loaded.manager

    def _offers(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """(plugin name, item) over all plugins that implement the hook, by plugin name."""
        found = []
        for impl in sorted(getattr(self.manager.hook, hook).get_hookimpls(), key=lambda i: i.plugin_name):
            call = {k: v for k, v in arguments.items() if k in impl.argnames}
            found += [(impl.plugin_name, item) for item in impl.function(**call) or []]
        return found

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities that some plugin serves."""
        return sorted({loader.modality for _, loader in self._offers("tl_loaders")})

    def plugin_of(self, modality: str) -> PluginInfo | None:
        """The plugin that serves a modality; None where none does, or it was given as a module."""
        names = {plugin for plugin, loader in self._offers("tl_loaders") if loader.modality == modality}
        return next((info for info in self.plugins if info.name in names), None)

    def loaders(self) -> list[Loader]:
        """All loaders, by modality. Raises UserError where two plugins serve one modality."""
        offers = self._offers("tl_loaders")
        _refuse_twins("modality", [(plugin, loader.modality) for plugin, loader in offers])
        return sorted((loader for _, loader in offers), key=lambda loader: loader.modality)

    def loader(self, modality: str) -> Loader:
        """The loader of a modality. Raises UserError where no plugin serves it."""
        for loader in self.loaders():
            if loader.modality == modality:
                return loader
        raise UserError(
            f"no plugin for modality '{modality}'{did_you_mean(modality, self.modalities) or ';'} "
            f"installed: {', '.join(self.modalities) or 'none'}{self._broken()}"
        )

    def backbones(self, modality: str | None = None) -> list[BackboneSpec]:
        """The catalogue, in the plugins' own order. Raises UserError where two plugins offer one name."""
        offers = self._offers("tl_backbones")
        _refuse_twins("backbone", [(plugin, f"{spec.modality} backbone '{spec.name}'") for plugin, spec in offers])
        return [spec for _, spec in offers if modality in (None, spec.modality)]

    def backbone(self, name: str, modality: str) -> BackboneSpec:
        """The backbone that a user names: catalogue name, folder, file, hub id or a library's model name, or its view.

        Raises UserError, with near names, where no plugin knows it.
        """
        self.loader(modality)
        catalogue = self.backbones(modality)
        for spec in catalogue:
            if spec.name == name:
                return spec
        whole, view = split_view(name)
        if view is not None:
            from tl_core.views import at_view  # needs torch, which finding plugins and loaders does not

            return at_view(self.backbone(whole, modality), view)
        found = self._offers("tl_resolve_backbone", name=name, modality=modality)
        _refuse_twins("backbone", [(plugin, f"{modality} backbone '{name}'") for plugin, _ in found])
        if found:
            known: BackboneSpec = found[0][1]
            return replace(known, name=Path(name).name) if known.source in ("folder", "file") else known
        served = next((m for m in self.modalities if m != modality and self._knows(name, m)), None)
        if served is not None:
            raise UserError(f"{name} is a backbone for {served} data; the data are {modality}: choose one that "
                            f"`tl backbones {modality}` lists")  # fmt: skip
        if Path(name).expanduser().is_dir():
            raise UserError(f"no {modality} plugin can read the backbone folder {name}: "
                            + _unreadable(Path(name).expanduser(), modality))  # fmt: skip
        if "/" in name and name.startswith((".", "/", "~")):
            raise UserError(f"no such backbone folder: {name}; check the path, or take a name that `tl backbones "
                            f"{modality}` lists")  # fmt: skip
        raise UserError(
            f"no {modality} backbone '{name}'{did_you_mean(name, [s.name for s in catalogue]) or ';'} "
            f"`tl backbones {modality}` lists all; a local folder with weights works too"
        )

    def _knows(self, name: str, modality: str) -> bool:
        """Whether the name is in a modality's catalogue, or a folder that one of its plugins reads."""
        if any(spec.name == name for spec in self.backbones(modality)):
            return True
        folder = Path(name).expanduser().is_dir()
        return folder and bool(self._offers("tl_resolve_backbone", name=name, modality=modality))

    def heads(self, modality: str, task: Task) -> list[HeadSpec]:
        """The heads for a modality and task."""
        offers = self._offers("tl_heads")
        _refuse_twins("head", [(p, f"{h.modality} head '{h.name}' for {h.task}") for p, h in offers])
        return [h for _, h in offers if h.modality == modality and h.task == task]

    def head(self, modality: str, task: Task, name: str) -> HeadSpec:
        """A head by name. Raises UserError where the modality's plugins offer none such."""
        heads = self.heads(modality, task)
        for head in heads:
            if head.name == name:
                return head
        names = [h.name for h in heads]
        raise UserError(
            f"no {task} head '{name}' for {modality}{did_you_mean(name, names) or ';'} "
            f"allowed: {', '.join(names) or 'none'}"
        )

    def finished(self, step: str, outputs: dict[str, Any], workspace: Workspace) -> list[str]:
        """Tell the watchers that a step ended; returns a line per watcher that failed."""
        return self.loaded.tell("tl_step_finished", step=step, outputs=outputs, workspace=workspace).failures

    def retrained(self, outcome: dict[str, Any], project: Path) -> list[str]:
        """Tell the watchers how a retrain ended; returns a line per watcher that failed."""
        return self.loaded.tell("tl_retrain_finished", outcome=outcome, project=project).failures

    def _broken(self) -> str:
        broken = [f"{p.name} ({p.error})" for p in self.plugins if p.error]
        return f"; broken: {', '.join(broken)}" if broken else ""


def load_registry(modules: Iterable[tuple[str, Any]] | None = None) -> Registry:
    """All plugins of the entry-point groups `tl.plugins` and `tl.watchers`, or just the given (name, module) pairs.

    Those that can't be used are listed with what is wrong with them; the rest work.
    """
    return Registry(installed_plugins() if modules is None else given_plugins(modules))


def _refuse_twins(what: str, offers: list[tuple[str, str]]) -> None:
    owners: dict[str, list[str]] = {}
    for plugin, name in offers:
        owners.setdefault(name, []).append(plugin)
    faults = [f"{what} {name} is offered by {' and '.join(p)}" for name, p in owners.items() if len(p) > 1]
    if faults:
        raise UserError("; ".join(faults) + "; uninstall one of them")


def _unreadable(folder: Path, modality: str) -> str:
    """Why a folder is no backbone, and what would be one."""
    if not any(folder.iterdir()):
        return "it is empty; give the folder that holds config.json and model.safetensors"
    if not (folder / "config.json").is_file():
        return "it has no config.json; give the folder that holds config.json and model.safetensors"
    return f"its config.json names no architecture that an installed {modality} plugin knows"
