"""The hooks that a plugin may implement. Each returns a list; installation order never decides anything.

A plugin is a module found through the entry-point group `tl.plugins` (entry-point name = import name) that
defines some of these functions, marked with `tl_core.hookimpl`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from tl_core.types import BackboneSpec, HeadSpec, Loader

PROJECT = "tl"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def tl_loaders() -> list[Loader]:  # type: ignore[empty-body]
    """One `Loader` per modality that the plugin brings."""


@hookspec
def tl_backbones() -> list[BackboneSpec]:  # type: ignore[empty-body]
    """The plugin's catalogue: backbones it offers by name. Must not import heavy libraries or open weights."""


@hookspec
def tl_resolve_backbone(name: str, modality: str) -> list[BackboneSpec]:  # type: ignore[empty-body]
    """A spec for a backbone outside the catalogue, or an empty list where the plugin does not know it.

    name: a local folder or weights file, a hub id (`owner/name`), a library's model name, or
    `architecture@weights-file`. Called only with modalities that the plugin's loaders serve.
    Raises UserError where the name is the plugin's business but unusable (unreadable weights, say).
    """


@hookspec
def tl_heads() -> list[HeadSpec]:  # type: ignore[empty-body]
    """The heads that the plugin offers, by modality, task and name."""


@hookspec
def tl_step_finished(step: str, outputs: dict[str, Any]) -> None:
    """Called after each step with its small results (trackers, notifiers); a failing watcher is logged, no more."""
