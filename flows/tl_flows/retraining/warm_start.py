"""Where a retrain's fine-tuning begins: at the champion's weights, if the project's parameters say so."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml

from tl_core.config import RunConfig, validate
from tl_core.errors import UserError
from tl_core.steps.start import LOOKED_UP
from tl_flows.bundles import bundle_at, digest_at
from tl_flows.git import GitError, git
from tl_flows.model_registry import ModelRegistry
from tl_flows.project import PARAMS
from tl_flows.registry_state import Version


@dataclass(frozen=True)
class WarmStart:
    """The value of `tune.start` in a retrain's worktree.

    wanted: the parameters ask for the champion; digest: what the parameters say in its place, None for the pretrained
    weights. Until training has to run anyway, that is what the version registered last was made with: a promotion
    alone is no reason to train again.
    """

    wanted: bool
    digest: str | None

    @classmethod
    def of(cls, main: Path, base: str, latest: Version | None) -> Self:
        """What the parameters of a commit ask for, and what those of the latest version have in its place."""
        if _params(main, base).tune.start != LOOKED_UP:
            return cls(False, None)
        try:
            return cls(True, _params(main, latest.commit).tune.start if latest else None)
        except UserError:  # it was registered with a file that this tl does not read
            return cls(True, None)

    @property
    def edits(self) -> dict[str, str | None]:
        """What is to be set in the worktree's params.yaml."""
        return {"tune.start": self.digest} if self.wanted else {}

    def at(self, main: Path, champion: Version) -> WarmStart:
        """The same with a champion, whose model is here afterwards."""
        bundle_at(main, champion.commit)
        return dataclasses.replace(self, digest=digest_at(main, champion.commit))


def fetch_start(root: Path, config: RunConfig) -> None:
    """Bring the model that `tune.start` names from DVC's cache or remote to where the step `tune` reads it.

    Raises UserError where no registered version has it, or neither cache nor remote.
    """
    asked = config.tune.start
    if asked is None or asked == LOOKED_UP:
        return
    known = {_digest(root, version): version for version in ModelRegistry.open(root).state().versions}
    if asked not in known:
        named = ", ".join(f"{digest} ({version.name})" for digest, version in known.items() if digest)
        raise UserError(
            f"config key 'tune.start' can't be {asked!r}: no registered version has a model of this md5; allowed: "
            f"null, champion{', ' if named else ''}{named}"
        )
    bundle_at(root, known[asked].commit)


def _digest(root: Path, version: Version) -> str | None:
    """The md5 of a version's model; None where its commit has none."""
    if version.facts is not None:
        return version.facts.bundle
    try:
        return digest_at(root, version.commit)
    except UserError:
        return None


def _params(main: Path, commit: str) -> RunConfig:
    """The configuration that a commit has. Raises UserError where it has none that can be used."""
    try:
        values = yaml.safe_load(git(main, "show", f"{commit}:./{PARAMS}")) or {}
        if not isinstance(values, dict):
            raise ValueError("it holds no keys")
    except (GitError, yaml.YAMLError, ValueError) as error:
        raise UserError(f"unreadable {PARAMS} in commit {commit[:12]}: {str(error).splitlines()[0]}") from error
    return validate(values)
