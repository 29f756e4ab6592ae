"""The hooks that a plugin may implement. Each returns a list; installation order never decides anything.

A plugin is a module found through the entry-point group `tl.plugins` (entry-point name = import name) that defines some
of these functions, marked with `tl_core.hookimpl`. One that only watches (`tl_step_finished`, `tl_retrain_finished`,
`tl_registry_changed`) is named in the group `tl.watchers` instead: it has no part in results, so its version makes no
step of a project stale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from tl_core.types import BackboneSpec, HeadSpec, Loader
    from tl_core.workspace import Workspace

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
def tl_step_finished(step: str, outputs: dict[str, Any], workspace: Workspace) -> None:
    """Called after each step that ran (trackers, notifiers); a failing watcher is logged, no more.

    outputs: the step's small results, as in `workspace.run_file(step)`; workspace: where the files of this step and of
    those before it lie, to be read only. The steps of one run may be called in a process each; a step that is up to
    date, or that DVC restored, is not told. After `evaluate`, its report.json holds the whole run, config included.
    """


@hookspec
def tl_retrain_finished(outcome: dict[str, Any], project: Path) -> None:
    """Called after each retrain that made a model or failed; a failing watcher is logged, no more.

    outcome: as `tl retrain --json` prints it: state (promoted, refused or failed), reason, version, champion, the
    decision with every rule, the folder of the report; project: the folder in the main worktree.
    """


@hookspec
def tl_registry_changed(registry: dict[str, Any], project: Path) -> str | None:
    """Called after each `tl registry register`, `promote` and `rollback`, each retrain, and by `tl registry mirror`.

    What is registered or promoted stays so whatever a watcher does; one that fails is told in a line. It is given all
    that the model registry holds, so that one that missed a change can catch up, and not what has changed since the
    last call: often nothing has. Only plugins of the group `tl.watchers` are called: a promotion loads no modality.
    Returns a line for people that says what was done with it; None where the watcher is switched off.

    registry: `name` (of the model, for people), `model` (in git's tags), `repository` (address of the git repository,
    without passwords), `history_id` (of its history: the same in all full clones; empty in a shallow one), `path` (of
    the model's folder in the repository), `versions` (as `tl registry list --json` prints them, the first one first)
    and `aliases` (champion and challenger, each a version's name or None); project: the folder in the main worktree.
    """


WATCHING = ("tl_step_finished", "tl_retrain_finished", "tl_registry_changed")  # hooks with no part in results
