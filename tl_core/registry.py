"""Finding plugins and asking them for loaders, backbones and heads by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from tl_core import hookspecs
from tl_core.errors import UserError, did_you_mean
from tl_core.names import split_view
from tl_core.types import BackboneSpec, HeadSpec, Loader, Task
from tl_core.views import at_view
from tl_core.workspace import Workspace

GROUP = "tl.plugins"
WATCHERS = "tl.watchers"  # plugins with no part in results


@dataclass(frozen=True)
class PluginInfo:
    """A plugin that was found: its entry-point name, dist, version, and what went wrong with it, if anything."""

    name: str
    dist: str
    version: str
    error: str | None = None


@dataclass
class Registry:
    """The loaded plugins. Made by `load_registry()`; tests make their own from modules."""

    manager: pluggy.PluginManager
    plugins: list[PluginInfo] = field(default_factory=list)

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
        return self._tell("tl_step_finished", step=step, outputs=outputs, workspace=workspace)

    def retrained(self, outcome: dict[str, Any], project: Path) -> list[str]:
        """Tell the watchers how a retrain ended; returns a line per watcher that failed."""
        return self._tell("tl_retrain_finished", outcome=outcome, project=project)

    def _tell(self, hook: str, **told: Any) -> list[str]:
        failed = []
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                impl.function(**{k: v for k, v in told.items() if k in impl.argnames})
            except Exception as error:  # a notifier must not break the pipeline
                failed.append(f"plugin {impl.plugin_name} failed in {hook}: {error}")
        return failed

    def _broken(self) -> str:
        broken = [f"{p.name} ({p.error})" for p in self.plugins if p.error]
        return f"; broken: {', '.join(broken)}" if broken else ""


def load_registry(modules: Iterable[tuple[str, Any]] | None = None) -> Registry:
    """All plugins of the entry-point groups `tl.plugins` and `tl.watchers`, or just the given (name, module) pairs.

    A plugin that fails to import, misspells a hook, shares its entry-point name with another, or is named as a watcher
    and does more than watch, is listed with its error; the rest work.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    registry = Registry(manager)
    if modules is not None:
        for name, module in modules:
            registry.plugins.append(_register(manager, PluginInfo(name, name, "0"), module))
        return registry
    points = sorted(
        (*entry_points(group=GROUP), *entry_points(group=WATCHERS)), key=lambda e: (e.name, _dist(e)[0], e.group)
    )
    names = Counter(point.name for point in points)
    for point in points:
        dist, version = _dist(point)
        info = PluginInfo(point.name, dist, version)
        if names[point.name] > 1:
            rivals = ", ".join(sorted(_dist(p)[0] for p in points if p.name == point.name))
            info = PluginInfo(point.name, dist, version, f"entry point used by several dists: {rivals}; remove one")
        elif point.name != point.module:
            info = PluginInfo(point.name, dist, version, f"entry point must be named '{point.module}', its import name")
        else:
            try:
                info = _register(manager, info, point.load(), watcher=point.group == WATCHERS)
            except Exception as error:
                info = PluginInfo(point.name, dist, version, f"{type(error).__name__}: {error}")
        registry.plugins.append(info)
    return registry


def _register(manager: pluggy.PluginManager, info: PluginInfo, module: Any, *, watcher: bool = False) -> PluginInfo:
    manager.register(module, name=info.name)
    known = {name for name in vars(hookspecs) if name.startswith("tl_")}
    hooks = [h.name for h in manager.get_hookcallers(module) or []]
    unknown = [name for name in hooks if name not in known]
    more = [name for name in hooks if name in known and name not in hookspecs.WATCHING] if watcher else []
    if more:
        manager.unregister(module)
        text = f"a plugin in the group {WATCHERS} has no {' or '.join(more)}; name it in the group {GROUP}"
        return replace(info, error=text)
    if unknown:
        manager.unregister(module)
        hints = "; ".join(f"no hook '{name}'{did_you_mean(name, known)}" for name in unknown)
        return PluginInfo(info.name, info.dist, info.version, hints)
    return info


def _dist(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")


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
