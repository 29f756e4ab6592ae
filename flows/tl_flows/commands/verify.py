"""`tl verify`: what is pinned against what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tl_flows.verification import Item

DRIFTED = 3


@click.command()
@click.argument("version", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def verify(version: str | None, as_json: bool) -> int:
    """Hold what is pinned against what is there, to the byte; of VERSION (v3, champion, HEAD) what DVC's cache has.

    Weights against backbones.lock, data against their .dvc files, step outputs against dvc.lock, the champion's model
    against the registry. All bytes are read. `tl cache verify` does the same for stored features.

    The exit code is 3 where something has changed or is missing, else 0.
    """
    from tl_flows.verification import FAULTS

    items = list(_items(version))
    faulty = [item for item in items if item.state in FAULTS]
    if as_json:
        click.echo(json.dumps([asdict(item) for item in items], indent=2, ensure_ascii=False))
        return DRIFTED if faulty else 0
    from tl_flows.commands.tables import print_table

    print_table(
        ("what", "name", "state", "detail"), [(item.kind, item.name, item.state, item.detail) for item in items]
    )
    states = [item.state for item in items]
    told = ", ".join(f"{states.count(state):,} {state}" for state in dict.fromkeys(states)) or "nothing is pinned yet"
    click.echo(f"{told}; `tl cache verify` checks the stored features")
    return DRIFTED if faulty else 0


def _items(name: str | None) -> Iterator[Item]:
    from tl_core.config import load_config
    from tl_flows.git import GitError, commit_of, git
    from tl_flows.model_names import revision_named
    from tl_flows.model_registry import ModelRegistry
    from tl_flows.project import PARAMS, project_workspace, require_project
    from tl_flows.verification import verify_version, verify_workspace

    root = require_project(Path.cwd())
    try:
        git(root, "rev-parse", "--git-dir")
        state = ModelRegistry.open(root).state()
    except GitError:  # a project without git has no versions
        state = None
    if name is not None:
        commit = commit_of(root, revision_named(root, name))
        return verify_version(root, name, commit, state.find(name) if state is not None else None)
    champion = state.champion if state is not None else None
    return verify_workspace(root, project_workspace(root, load_config(root / PARAMS)), champion)
