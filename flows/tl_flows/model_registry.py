"""Which model serves: versions and their aliases as git tags, in the form of GTO.

A version is a tag `NAME@v3.0.0` on the commit that holds dvc.lock, an alias given to it a tag `NAME#champion#7`;
`gto show` reads both. There is no server: who pushes the tags shares the registry. The only module that imports GTO,
which owns what a tag's name means. Its API goes by whole seconds and creates tags without regard to what came between,
so here the number of a tag decides, and git itself creates it: whole or not at all, and never twice.
"""

from __future__ import annotations

import getpass
import itertools
import json
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock, Timeout

from tl_core.errors import FormatError, UserError
from tl_flows.bundles import digest_at
from tl_flows.git import GitError, commit_of, git
from tl_flows.registry_state import CHALLENGER, CHAMPION, Event, Kind, RegistryState, Version, short
from tl_flows.version_facts import VersionFacts

FORMAT_VERSION = 1  # of what the tag of an alias holds
LOCK = "tl-registry.lock"
LOCK_SECONDS = 60.0  # a promotion takes some hundredths of a second
TRIES = 5  # at a number that a process without the lock (gto, git fetch) takes first

# this module of GTO sets up logging for the whole process: it closes everyone's handlers, and while it holds logging's
# lock for that it waits 5 s for Prefect's handler, whose thread may wait for the lock
sys.modules.setdefault("gto.log", ModuleType("gto.log"))


@dataclass(frozen=True)
class Tag:
    """An annotated tag. id: git's, of the tag itself; commit: of the version that it names, or gives an alias to."""

    id: str
    commit: str


@dataclass(frozen=True)
class ModelRegistry:
    """The versions of one project's model. root: the project; common: git's folder; name: of the model, as GTO's.

    Linked worktrees share it.
    """

    root: Path
    common: Path
    name: str

    @classmethod
    def open(cls, root: Path) -> ModelRegistry:
        """The registry of a project. Raises UserError where the project lies in no git repository."""
        try:
            told = git(root, "rev-parse", "--path-format=absolute", "--git-common-dir", "--show-prefix")
        except GitError as error:
            raise UserError(
                f"no model registry for {root} ({error}); versions are git tags: make a repository with `git init`, "
                "and commit the project with its dvc.lock"
            ) from error
        common, prefix = [*told.split("\n"), ""][:2]
        return cls(root, Path(common), model_name(prefix.rstrip("/")))

    def state(self) -> RegistryState:
        """All versions and the history of their aliases. Raises FormatError where a newer tl wrote them."""
        from gto.constants import Action
        from gto.versions import SemVer

        tags = list(self._tags())
        withdrawn = {tag.meaning["version"] for tag in tags if tag.meaning["action"] == Action.DEREGISTER}
        registered = [
            tag for tag in tags if tag.meaning["action"] == Action.REGISTER and tag.meaning["version"] not in withdrawn
        ]
        registered.sort(key=lambda tag: SemVer(tag.meaning["version"]))
        versions = tuple(tag.as_version() for tag in registered)
        named = {version.commit: version.name for version in versions}
        events = [tag.as_event(named[tag.commit]) for tag in tags if "stage" in tag.meaning and tag.commit in named]
        return RegistryState(versions, tuple(sorted(events, key=lambda event: (event.number, event.time))))

    def tags(self) -> dict[str, Tag]:
        """The git tags that the state is read from, by name."""
        return {tag.name: Tag(tag.id, tag.commit) for tag in self._tags()}

    def register(self, revision: str, facts: VersionFacts) -> Version:
        """Make the model of a commit the next version, and the challenger; the version that it is where it is one.

        A killed call is completed by the next one. Raises UserError where the commit's dvc.lock does not hold the
        bundle of the facts, or the registry can't be written.
        """
        commit = self._commit(revision)
        bundle = digest_at(self.root, commit)
        if facts.bundle != bundle:
            raise UserError(
                f"commit {commit[:12]} holds another model ({bundle[:12]}) than the one to be registered "
                f"({facts.bundle[:12]}); commit the dvc.lock of the run that was evaluated, and register that commit"
            )
        with self._locked():
            for _ in range(TRIES):
                state = self.state()
                version = next((version for version in state.versions if version.commit == commit), None)
                if version is None:
                    self._add(commit, facts, state)
                elif all(event.version != version.name for event in state.history):
                    self._give(CHALLENGER, version, None, "challenge", facts.why, state)
                else:
                    return version
        raise UserError(_BUSY)

    def promote(self, version: str, *, expected_champion: str | None, why: str) -> Event:
        """Make a version the champion. expected_champion: the one that this was decided against, None for none.

        Raises UserError that names the winner where another one is champion by now; nothing is changed then.
        """
        return self._crown(version, expected_champion, "promote", why)

    def rollback(self, to: str | None = None, *, expected_champion: str | None, why: str) -> Event:
        """Make an earlier version the champion again, the one before the champion where none is named.

        Raises UserError as `promote` does, and where there is no earlier champion.
        """
        return self._crown(to, expected_champion, "rollback", why)

    def _crown(self, to: str | None, expected: str | None, kind: Kind, why: str) -> Event:
        with self._locked():
            for _ in range(TRIES):
                state = self.state()
                champion = state.champion.name if state.champion else None
                if champion != expected:
                    raise UserError(_overtaken(state, expected))
                version = state.former if to is None else state.version(to)
                if version is None:
                    raise UserError(
                        f"there was no champion before {champion or 'now'}; name a version: `tl registry "
                        f"{'rollback' if champion else 'promote'} VERSION`"
                    )
                if version.name == champion:
                    raise UserError(f"{champion} is the champion already; `tl registry list` lists the other versions")
                if self._give(CHAMPION, version, champion, kind, why, state):
                    return next(event for event in reversed(self.state().history) if event.alias == CHAMPION)
        raise UserError(_BUSY)

    def _add(self, commit: str, facts: VersionFacts, state: RegistryState) -> bool:
        """Register a version under the next number; False where another process took it."""
        from gto.constants import Action
        from gto.tag import name_tag
        from gto.versions import SemVer

        # also after those that GTO has withdrawn: a tag is never made twice
        taken = [SemVer(tag.meaning["version"]) for tag in self._tags() if "version" in tag.meaning]
        last = SemVer.parse(max(taken, default=SemVer("v0.0.0")).version)
        numbers = (f"v{number}.0.0" for number in itertools.count(last.major + 1))
        tag = self._free(name_tag(Action.REGISTER, self.name, version=n, simple=True) for n in numbers)
        said = f"{short(tag.rpartition('@')[2])}: {facts.metric.describe()}"
        said += f"; {facts.decision}" if facts.decision else ""
        return self._create(tag, commit, said, facts.as_json(), state)

    def _give(self, alias: str, version: Version, was: str | None, kind: Kind, why: str, state: RegistryState) -> bool:
        """Give a version an alias under the next number; False where another process took it."""
        from gto.constants import Action
        from gto.tag import COUNT_DELIMITER, name_tag

        last = max((event.number for event in state.history), default=0)
        stem = name_tag(Action.ASSIGN, self.name, stage=alias, simple=True) + COUNT_DELIMITER
        tag = self._free(f"{stem}{number}" for number in itertools.count(last + 1))
        facts = {"format": FORMAT_VERSION, "kind": kind, "version": version.name, "was": was, "why": why}
        said = f"{version.name} is {alias}" + (f" after {was}" if was else "") + (f": {why}" if why else "")
        return self._create(tag, version.commit, said, facts, state)

    def _free(self, tags: Iterable[str]) -> str:
        """The first one that git can make: a git that was killed leaves its lock on a tag, and that one stays free."""
        return next(tag for tag in tags if not (self.common / f"refs/tags/{tag}.lock").exists())

    def _create(self, tag: str, commit: str, said: str, facts: dict[str, Any], state: RegistryState) -> bool:
        """Create an annotated tag; False where it is there already. Raises UserError where git can't write."""
        times = [*(version.time for version in state.versions), *(event.time for event in state.history)]
        # later than all that there is, whatever the clock says: GTO orders by the time
        when = max(int(time.time()), max(times, default=0) + 1)
        message = f"{' '.join(said.split())}\n\n{json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False)}\n"
        options = ("--annotate", "--no-sign", "--cleanup=verbatim", "--message", message)
        try:
            git(self.root, "tag", *options, tag, commit, environment=self._signature(when))
        except GitError as error:
            if self._knows(f"refs/tags/{tag}"):
                return False
            raise UserError(self._unwritable(error)) from error
        return True

    def _knows(self, reference: str) -> bool:
        try:
            git(self.root, "rev-parse", "--verify", "--quiet", reference)
        except GitError:
            return False
        return True

    def _signature(self, when: int) -> dict[str, str]:
        """Who makes a tag and when, for git; where git knows no user, the one of this machine."""
        date = {"GIT_COMMITTER_DATE": f"{when} +0000"}
        try:
            git(self.root, "var", "GIT_COMMITTER_IDENT")
        except GitError:
            user = getpass.getuser()
            return {**date, "GIT_COMMITTER_NAME": user, "GIT_COMMITTER_EMAIL": f"{user}@{socket.gethostname()}"}
        return date

    def _commit(self, revision: str) -> str:
        if not self._knows("HEAD"):
            raise UserError(
                f"the repository of {self.root} has no commit yet; `tl run`, then `git add -A` and `git commit`"
            )
        return commit_of(self.root, revision)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the registry for one change; the lock of a dead process is free."""
        lock = FileLock(self.common / LOCK, timeout=LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"another process has held {self.common / LOCK} for {LOCK_SECONDS:.0f} s; end it, then try again"
            ) from error
        except (OSError, NotImplementedError) as error:  # the second: a file system without locks
            raise UserError(self._unwritable(error)) from error
        try:
            yield
        finally:
            lock.release()

    def _unwritable(self, error: Exception) -> str:
        return (
            f"the model registry can't be written, nothing was changed ({error}); mend the rights, or free some space, "
            f"in {self.common}"
        )

    def _tags(self) -> Iterator[_Tag]:
        """The model's annotated tags; GTO takes no notice of others."""
        from gto.constants import name_to_tag
        from gto.tag import parse_name

        fields = (
            "refname:lstrip=2", "objectname", "*objectname", "taggername", "taggerdate:unix", "subject", "contents:body"
        )  # fmt: skip
        form = "".join(f"%({field})%00" for field in fields)
        stem = f"refs/tags/{name_to_tag(self.name)}"
        try:
            cells = git(self.root, "for-each-ref", f"--format={form}", f"{stem}@*", f"{stem}#*").split("\0")
        except GitError as error:
            raise UserError(
                f"the model registry can't be read ({error}); `git fsck` says what is damaged in {self.common}, and a "
                "new clone has what was pushed"
            ) from error
        for start in range(0, len(cells) - len(fields), len(fields)):
            name, number, commit, by, seconds, said, body = cells[start : start + len(fields)]
            name = name.lstrip("\n")
            meaning = parse_name(name, raise_on_fail=False)
            if commit and meaning:
                yield _Tag(name, number, commit, by, int(seconds), said, body, meaning)


@dataclass(frozen=True)
class _Tag:
    """A tag of the model. id: git's; meaning: what GTO reads in its name (action, version, stage, counter)."""

    name: str
    id: str
    commit: str
    by: str
    time: int
    said: str
    body: str
    meaning: dict[str, Any]

    def as_version(self) -> Version:
        facts = VersionFacts.from_json(self._facts())
        return Version(short(self.meaning["version"]), self.name, self.commit, self.time, self.by, self.said, facts)

    def as_event(self, version: str) -> Event:
        from gto.constants import Action

        alias, facts = self.meaning["stage"], self._facts()
        if facts.get("format", 0) > FORMAT_VERSION:
            raise FormatError(
                f"the tag {self.name} has format {facts['format']}, this tl reads up to {FORMAT_VERSION}; update tl"
            )
        kind: Kind = facts.get("kind", "promote" if alias == CHAMPION else "challenge")
        if self.meaning["action"] == Action.UNASSIGN:
            kind = "unassign"
        number, why = self.meaning.get("counter", 0), facts.get("why", self.said)
        return Event(number, alias, version, facts.get("was"), kind, self.time, self.by, why)

    def _facts(self) -> dict[str, Any]:
        """What tl keeps in the message; empty in a tag that GTO made."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) and isinstance(value.get("format"), int) else {}


def model_name(folder: str) -> str:
    """GTO's name of the model of a project's folder in its repository: `demo/image:model`, `model` in the root.

    What git or GTO can't have in a tag is replaced, and a digest of the folder's name keeps two such folders apart.
    """
    if not folder:
        return "model"
    part = r"\w[\w-]*(\.[\w-]+)*"
    if re.fullmatch(f"{part}(/{part})*", folder, re.ASCII) and not re.search(r"\.lock(/|$)", folder):
        return f"{folder}:model"
    pieces = re.sub(r"[^\w/-]+", "-", folder, flags=re.ASCII).split("/")
    plain = "/".join(piece.strip("-") or "x" for piece in pieces)
    return f"{plain}-{sha256(folder.encode()).hexdigest()[:8]}:model"


_BUSY = "other processes keep changing the model registry; look at `tl registry list`, then decide again"


def _overtaken(state: RegistryState, expected: str | None) -> str:
    """Who won, for someone who decided against another champion."""
    decided = f"this was decided against {expected}" if expected else "this was decided when there was no champion"
    if state.champion is None:
        return f"there is no champion any more, and {decided}; look at `tl registry list`, then decide again"
    event = next(event for event in reversed(state.history) if event.version == state.champion.name)
    day = datetime.fromtimestamp(event.time).strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"{state.champion.name} is the champion by now ({event.kind} by {event.by}, {day}), and {decided}; nothing was "
        f"changed: compare with {state.champion.name}, then decide again"
    )
