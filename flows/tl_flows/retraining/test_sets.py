"""The frozen test sets of a project: which one decides now, and which one it has replaced."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tl_core.config import load_config
from tl_flows.prefect_env import LOGGER
from tl_flows.project import PARAMS
from tl_flows.registry_state import RegistryState

if TYPE_CHECKING:
    from tl_core.manifest import TestSet

log = logging.getLogger(LOGGER)

FOLDER = Path("gate")  # of the project, in the commits of retrains
DECISION = (FOLDER / "decision.json").as_posix()
_NAME = re.compile(r"test-set-(\d+)\.json")


@dataclass
class TestSets:
    """The sets in a project's `gate` folder.

    given: the file that the user's own data.holdout names, which tl never replaces; state: the registry's, whose
    versions say what was decided on which set.
    """

    __test__ = False  # pytest takes classes of such a name for tests

    project: Path
    given: str | None
    state: RegistryState

    @classmethod
    def of(cls, project: Path, state: RegistryState) -> TestSets:
        """The sets of a project whose files are as its commit has them."""
        given = load_config(project / PARAMS).data.holdout
        return cls(project, given if given and not _ours(given) else None, state)

    @property
    def holdout(self) -> str | None:
        """The value of data.holdout: the newest set, None before the first one is frozen."""
        if self.given is not None:
            return self.given
        numbers = self._numbers()
        return (FOLDER / f"test-set-{numbers[-1]}.json").as_posix() if numbers else None

    def current(self) -> TestSet:
        """The set that decides. Raises FormatError where it is damaged or missing."""
        from tl_core.manifest import TestSet

        return TestSet.load(self.project / (self.holdout or FOLDER / "test-set-1.json"))

    def replaced(self) -> TestSet | None:
        """The set before the current one, where the last decision was still made on that."""
        from tl_core.manifest import TestSet

        numbers = self._numbers()
        if self.given is not None or len(numbers) < 2 or not self.state.versions:
            return None
        former = TestSet.load(self.project / FOLDER / f"test-set-{numbers[-2]}.json")
        facts = self.state.versions[-1].facts
        return former if facts is not None and facts.test_set == former.hash else None

    def uses(self, test_set: TestSet) -> int:
        """How many decisions were made on a set, so that the one under way is the next."""
        hashes = [version.facts.test_set for version in self.state.versions if version.facts is not None]
        return hashes.count(test_set.hash)

    def freeze(self, manifest_file: Path) -> bool:
        """Freeze the data's test rows where there is no set yet, or the one there is has to be replaced.

        True where data.holdout has another value now. Raises UserError where the data have no test row.
        """
        from tl_core.gate import freeze, match, renewed
        from tl_core.manifest import Manifest

        if self.given is not None:
            return False
        manifest = Manifest.load(manifest_file, self.project)
        if self.holdout is None:
            return self._write(freeze(manifest))
        current = self.current()
        due = match(current, manifest, renew_share=load_config(self.project / PARAMS).gate.renew_share).due
        if not due:
            return False
        log.info("%-8s  the test set is frozen anew: %s", "", "; ".join(due))
        return self._write(renewed(current, manifest))

    def _write(self, test_set: TestSet) -> bool:
        numbers = [*self._numbers(), test_set.version]
        test_set.save(self.project / FOLDER / f"test-set-{test_set.version}.json")
        for old in numbers[:-2]:  # the commits of earlier retrains hold them
            (self.project / FOLDER / f"test-set-{old}.json").unlink()
        return True

    def _numbers(self) -> list[int]:
        found = (_NAME.fullmatch(path.name) for path in (self.project / FOLDER).glob("test-set-*.json"))
        return sorted(int(match[1]) for match in found if match)


def _ours(holdout: str) -> bool:
    path = Path(holdout)
    return path.parent == FOLDER and _NAME.fullmatch(path.name) is not None
