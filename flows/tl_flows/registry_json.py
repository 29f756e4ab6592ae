"""The model registry as plain values: for `--json`, and for watchers, such as one that mirrors it."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tl_flows.bundles import MODEL, OUTPUT
from tl_flows.git import GitError, git
from tl_flows.model_registry import ModelRegistry
from tl_flows.registry_state import ALIASES, Event, RegistryState, Version


def version_json(version: Version, state: RegistryState) -> dict[str, Any]:
    """A version with its facts, the aliases that it has now, and what became of it."""
    facts = version.facts.as_json() if version.facts else None
    events = [event_json(event) for event in state.history if event.version == version.name]
    return {
        **asdict(version), "time": _iso(version.time), "facts": facts, "aliases": state.aliases(version),
        "history": events,
    }  # fmt: skip


def event_json(event: Event) -> dict[str, Any]:
    """An alias given to a version, with its time in ISO 8601."""
    return {**asdict(event), "time": _iso(event.time)}


def registry_json(registry: ModelRegistry, name: str) -> dict[str, Any]:
    """All that a registry holds, as the hook `tl_registry_changed` is given it. name: of the model, for people."""
    state = registry.state()
    holders = {alias: state.find(alias) for alias in ALIASES}
    prefix = git(registry.root, "rev-parse", "--show-prefix")
    return {
        "name": name,
        "model": registry.name,
        "repository": _address(registry.root),
        "history_id": _history_id(registry.root, state),
        "path": f"{prefix}{OUTPUT}/{MODEL}",
        "versions": [version_json(version, state) for version in state.versions],
        "aliases": {alias: holder.name if holder else None for alias, holder in holders.items()},
    }


def _address(root: Path) -> str:
    """Where others find the repository: git's remote origin, or the only one, else the folder here."""
    top = git(root, "rev-parse", "--show-toplevel")
    remotes = git(root, "remote").splitlines()
    if "origin" not in remotes and len(remotes) != 1:
        return top
    url = git(root, "remote", "get-url", "origin" if "origin" in remotes else remotes[0])
    if not re.match(r"[\w+.-]+://|[^/]+:", url):  # a path, which may be relative
        return str(Path(top, url).resolve())
    url = re.sub(r"^(https?://)[^/]*@", r"\1", url)  # a user, a password, a token
    return re.sub(r"^(\w+://[^/@:]*):[^/]*@", r"\1@", url)


def _history_id(root: Path, state: RegistryState) -> str:
    """The commit that all began with, of which forks of a repository alone have the same; empty in a shallow clone."""
    if not state.versions or git(root, "rev-parse", "--is-shallow-repository") == "true":
        return ""
    try:
        return min(git(root, "rev-list", "--max-parents=0", state.versions[0].commit).splitlines())
    except GitError:  # a partial clone that is offline
        return ""


def _iso(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()
