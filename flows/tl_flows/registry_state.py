"""What the model registry says at one moment: the versions, who has an alias, and how that came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tl_core.errors import UserError, did_you_mean
from tl_flows.version_facts import VersionFacts

CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = (CHAMPION, CHALLENGER)

Kind = Literal["challenge", "promote", "rollback", "unassign"]


@dataclass(frozen=True)
class Version:
    """A registered model. name: as people call it, `v3`; time: seconds since 1970; by: who registered it.

    said: the first line of its tag; facts: None where it was registered by GTO alone.
    """

    name: str
    tag: str
    commit: str
    time: int
    by: str
    said: str
    facts: VersionFacts | None


@dataclass(frozen=True)
class Event:
    """An alias given to a version. number: its place in history; was: the version that had the alias before.

    kind: `unassign` is GTO's alone.
    """

    number: int
    alias: str
    version: str
    was: str | None
    kind: Kind
    time: int
    by: str
    why: str


@dataclass(frozen=True)
class RegistryState:
    """Versions by number, the first one first, and the history of the aliases, the eldest event first."""

    versions: tuple[Version, ...]
    history: tuple[Event, ...]

    @property
    def champion(self) -> Version | None:
        """The model that serves; None before the first promotion."""
        return self._holder(CHAMPION)

    @property
    def challenger(self) -> Version | None:
        """The version registered last, until it is promoted or another one is registered."""
        found = self._holder(CHALLENGER)
        last = {event.alias: event.number for event in self.history if found and event.version == found.name}
        return found if last.get(CHALLENGER, -1) > last.get(CHAMPION, -1) else None

    @property
    def former(self) -> Version | None:
        """The champion before this one, where a rollback leads: each of several in a row goes one further back."""
        reigns: list[str] = []
        for event in self.history:
            if event.alias != CHAMPION or event.kind == "unassign" or self.find(event.version) is None:
                continue
            if event.kind == "rollback" and event.version in reigns:
                while reigns.pop() != event.version:
                    pass
            reigns.append(event.version)
        return self.find(reigns[-2]) if len(reigns) > 1 else None

    def aliases(self, version: Version) -> tuple[str, ...]:
        """The aliases that a version has now."""
        holders = {CHAMPION: self.champion, CHALLENGER: self.challenger}
        return tuple(alias for alias, holder in holders.items() if holder == version)

    def find(self, name: str) -> Version | None:
        """The version of a name: `v3`, `3`, `v3.0.0`, `champion`, `challenger`; None where there is none."""
        if name in ALIASES:
            return self.champion if name == CHAMPION else self.challenger
        wanted = short(f"v{name.removeprefix('v')}")
        return next((version for version in self.versions if version.name == wanted), None)

    def version(self, name: str) -> Version:
        """The same. Raises UserError that says what there is where there is none."""
        found = self.find(name)
        if found is not None:
            return found
        there = [version.name for version in self.versions]
        if not there:
            raise UserError(
                f"no {name if name in ALIASES else f'version {name}'}: no model is registered here; `tl registry "
                "register` registers that of the last commit, `git fetch --tags` gets what others have registered"
            )
        if name == CHAMPION:
            raise UserError(f"no champion yet; `tl registry promote VERSION` makes one of {', '.join(there[-5:])}")
        if name == CHALLENGER:
            raise UserError(
                "no challenger: the last one was promoted, and no model was registered since; `tl registry list` lists "
                "what there is"
            )
        raise UserError(
            f"no version {name}{did_you_mean(name, there) or ';'} `tl registry list` lists all, `git fetch --tags` "
            "gets what others have registered"
        )

    def _holder(self, alias: str) -> Version | None:
        last = {event.version: event for event in self.history if event.alias == alias}
        given = [event for event in last.values() if event.kind != "unassign"]
        return self.find(max(given, key=lambda event: event.number).version) if given else None


def short(version: str) -> str:
    """`v3` for `v3.0.0`; a version that someone numbered otherwise as it is."""
    return version.removesuffix(".0.0")
