"""Finding plugins and loading them, and telling those that watch; quick, and without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from tl_core import hookspecs
from tl_core.errors import did_you_mean

GROUP = "tl.plugins"
WATCHERS = "tl.watchers"  # plugins with no part in results


@dataclass(frozen=True)
class PluginInfo:
    """A plugin that was found: its entry-point name, dist, version, and what went wrong with it, if anything."""

    name: str
    dist: str
    version: str
    error: str | None = None


@dataclass(frozen=True)
class Answers:
    """What watchers answered. said: by plugin; failures: a line per plugin that failed."""

    said: Mapping[str, Any]
    failures: list[str]


@dataclass(frozen=True)
class Plugins:
    """Plugins that were found; the manager knows those of them that work."""

    manager: pluggy.PluginManager
    found: tuple[PluginInfo, ...]

    def implementing(self, hook: str) -> list[str]:
        """Names of the plugins that have a hook."""
        return sorted(impl.plugin_name for impl in getattr(self.manager.hook, hook).get_hookimpls())

    def tell(self, hook: str, **told: Any) -> Answers:
        """Call a hook of those that watch."""
        said, failures = {}, []
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                said[impl.plugin_name] = impl.function(**{k: v for k, v in told.items() if k in impl.argnames})
            except Exception as error:  # a notifier must not break the pipeline
                failures.append(f"plugin {impl.plugin_name} failed in {hook}: {error}")
        return Answers(said, failures)


def given_plugins(modules: Iterable[tuple[str, Any]]) -> Plugins:
    """Plugins that are given as (name, module)."""
    manager = _manager()
    return Plugins(manager, tuple(_register(manager, PluginInfo(name, name, "0"), module) for name, module in modules))


def installed_plugins(groups: Sequence[str] = (GROUP, WATCHERS)) -> Plugins:
    """All plugins of some entry-point groups.

    A plugin that fails to import, misspells a hook, shares its entry-point name with another, or is named as a watcher
    and does more than watch, is listed with its error; the rest work.
    """
    manager = _manager()
    points = sorted(
        (point for group in groups for point in entry_points(group=group)),
        key=lambda e: (e.name, _dist(e)[0], e.group),
    )
    names = Counter(point.name for point in points)
    found = []
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
        found.append(info)
    return Plugins(manager, tuple(found))


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


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
