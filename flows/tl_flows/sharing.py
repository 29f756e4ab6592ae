"""Sending versions of the model to others: models and data to DVC's remote, then the tags to git's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import TypeVar

from tl_core.errors import UserError
from tl_core.progress import progress
from tl_flows import dvc_objects
from tl_flows.git import GitError, git
from tl_flows.model_registry import ModelRegistry
from tl_flows.prefect_env import LOGGER
from tl_flows.registry_state import ALIASES, RegistryState
from tl_flows.stage_process import StageError

T = TypeVar("T")
log = logging.getLogger(LOGGER)

PAUSES = (5.0, 30.0, 120.0)  # seconds before each further try, as in a retrain's other tasks


@dataclass(frozen=True)
class Pushed:
    """versions: whose models and data the remote has now; tags: new in git's remote; kept_back: version -> why."""

    remote: str
    versions: tuple[str, ...]
    tags: tuple[str, ...]
    kept_back: Mapping[str, str]

    def describe(self) -> str:
        """One sentence for people."""
        if not self.versions:
            return f"nothing was pushed to {self.remote}"
        tags = f"{len(self.tags):,} new tag{'' if len(self.tags) == 1 else 's'}" if self.tags else "no new tags"
        return f"{self.remote} has {', '.join(self.versions)} now, models and data, with {tags}"


def push(root: Path, names: Iterable[str] = (), *, remote: str | None = None) -> Pushed:
    """Push versions of a project's model: first their models and data, then their tags, all of them or none.

    names: the versions; none: those that the git remote lacks, or of which it lacks a tag, and those with an alias.
    remote: of git, `origin` or the only one where it is None. What passes by itself is tried again. Raises UserError
    without remotes, and where the remote has another tag of the same name; StageError where one can't be reached.
    """
    registry = ModelRegistry.open(root)
    state, tags = registry.state(), registry.tags()
    remote = _remote(root, remote)
    known = _patiently(lambda: _remote_tags(root, remote))
    _refuse_clashes(remote, {name for name, tag in tags.items() if known.get(name, tag.id) != tag.id})
    asked = {state.version(name).commit for name in names}
    wanted = {name: tag.commit for name, tag in tags.items() if name not in known}
    commits = asked or {*wanted.values(), *_serving(state)}
    chosen = [version for version in state.versions if version.commit in commits]
    sent, kept_back = [], {}
    with progress(len(chosen), "push", unit="version") as bar:
        for version in chosen:
            lost = _patiently(lambda commit=version.commit: _push_objects(root, commit))  # type: ignore[misc]
            if lost:
                kept_back[version.name] = lost
            else:
                sent.append(version)
            bar.update()
    there = {version.commit for version in sent}
    new = sorted(name for name, commit in wanted.items() if commit in there)
    if new:
        _patiently(lambda: _push_tags(root, remote, new))
    return Pushed(remote, tuple(version.name for version in sent), tuple(new), kept_back)


def _serving(state: RegistryState) -> set[str]:
    found = (state.find(alias) for alias in ALIASES)
    return {version.commit for version in found if version is not None}


def _push_objects(root: Path, commit: str) -> str:
    """Push what a commit's run consists of; what neither the cache nor the remote has, in words."""
    found = dvc_objects.objects_at(root, commit, whole=True)
    lost = found.lost or [one.output for one in dvc_objects.push(root, found.objects)]
    return ", ".join(dict.fromkeys(lost))


def _remote(root: Path, named: str | None) -> str:
    there = git(root, "remote").splitlines()
    if named is not None and named not in there:
        raise UserError(f"git has no remote {named!r} here; there are: {', '.join(there) or 'none'}")
    if named is None and "origin" not in there and len(there) != 1:
        raise UserError(
            f"several git remotes and none is origin ({', '.join(there)}); name one: --remote NAME"
            if there
            else f"git has no remote in {root}, to which tags could be pushed: git remote add origin URL"
        )
    return named or ("origin" if "origin" in there else there[0])


def _remote_tags(root: Path, remote: str) -> dict[str, str]:
    """Name -> id of the tags that a remote has."""
    try:
        lines = git(root, "ls-remote", "--tags", "--refs", remote, environment=_UNASKED).splitlines()
    except GitError as error:
        raise _away(remote, error) from error
    return {name.removeprefix("refs/tags/"): number for number, name in (line.split("\t") for line in lines)}


def _push_tags(root: Path, remote: str, tags: Sequence[str]) -> None:
    names = [f"refs/tags/{tag}" for tag in tags]
    try:
        git(root, "push", "--quiet", "--atomic", "--no-verify", remote, *names, environment=_UNASKED)
    except GitError as error:
        known = _remote_tags(root, remote)
        _refuse_clashes(remote, {tag for tag in tags if tag in known})  # somebody was faster
        raise _away(remote, error) from error


_UNASKED = {"GIT_TERMINAL_PROMPT": "0"}  # a question at night would wait for ever


def _refuse_clashes(remote: str, tags: Iterable[str]) -> None:
    clashes = sorted(tags)
    if clashes:
        raise UserError(
            f"{remote} has others' {', '.join(clashes)}: somebody registered or promoted meanwhile, and no tag was "
            f"pushed; drop yours (git tag -d {' '.join(map(repr, clashes))}), take theirs (git fetch --tags), look at "
            "`tl registry list`, then register or promote again"
        )


def _away(remote: str, error: Exception) -> StageError:
    return StageError(f"git's remote {remote} can't be used: {error}", may_pass=True)


def _patiently(attempt: Callable[[], T]) -> T:
    """What an attempt gives, after further tries where the fault may pass."""
    for pause in PAUSES:
        try:
            return attempt()
        except StageError as error:
            if not error.may_pass:
                raise
            log.warning("%s; next try in %.0f s", error, pause)
            sleep(pause)
    return attempt()
