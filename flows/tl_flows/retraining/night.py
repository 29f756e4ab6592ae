"""One retrain of a project, from new data to a decision: what each task of the flow does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tl_core.config import load_config
from tl_core.errors import UserError
from tl_core.workspace import write_json, write_text
from tl_flows import versioning
from tl_flows.bundles import bundle_at
from tl_flows.engine import Stages, StepResult, open_project
from tl_flows.git import GitError, commit_of, git
from tl_flows.model_registry import ModelRegistry
from tl_flows.prefect_env import LOGGER
from tl_flows.project import PARAMS
from tl_flows.registry_state import RegistryState, Version
from tl_flows.retraining import test_sets
from tl_flows.retraining.attempt import FOLDER, Attempt
from tl_flows.retraining.incoming import Copied, mirror
from tl_flows.retraining.outcome import Outcome, State
from tl_flows.retraining.test_sets import TestSets
from tl_flows.retraining.worktree import Worktree
from tl_flows.runs import render_timed
from tl_flows.stage_process import StageError
from tl_flows.version_facts import facts_at

if TYPE_CHECKING:
    from tl_core.gate import Decision

log = logging.getLogger(LOGGER)

DECISION = (test_sets.FOLDER / "decision.json").as_posix()
LOCK = "dvc.lock"
METRICS = "artifacts/evaluate/metrics.json"  # the only output that git holds
MANIFEST = "artifacts/version/manifest.parquet"
OUTCOME = FOLDER / "outcome.json"
REPORTS = FOLDER / "reports"


@dataclass(frozen=True)
class Asked:
    """What a retrain starts from.

    data: folder or table whose content becomes the data; None: the project's own, as they lie in the main worktree.
    revision: whose code, parameters and (without `data`) data are used, `origin/main` is fetched first; None: the last
    commit. step_hours: a step that takes longer is ended.
    """

    data: str | None = None
    revision: str | None = None
    step_hours: float = 24.0


class Night:
    """A retrain under way. Whoever makes one holds the project's retrain lock until it is over.

    All that it makes lies in a worktree and in DVC's cache until its commit is registered; what a killed one has
    finished is found there by the next.
    """

    tree: Worktree
    engine: Stages
    sets: TestSets
    attempt: Attempt

    def __init__(self, main: Path, asked: Asked) -> None:
        self.main = main
        self.asked = asked
        self.started = time.time()
        self.registry = ModelRegistry.open(main)
        self.killed = self._killed()
        self.copied = Copied((), (), ())
        self.steps: dict[str, StepResult] = {}

    @cached_property
    def before(self) -> RegistryState:
        """The registry as this retrain found it: a promotion in the meantime makes its decision void."""
        return self.registry.state()

    @property
    def latest(self) -> Version | None:
        """The version registered last."""
        return self.before.versions[-1] if self.before.versions else None

    def make_good(self) -> Outcome | None:
        """Carry out the decision of a killed retrain that had got as far as that; None where there is none."""
        latest = self.latest
        if self.killed is None or latest is None or latest.facts is None or latest.facts.why != self.killed.why:
            return None
        from tl_core.gate import Decision

        decision = Decision.from_json(json.loads(git(self.main, "show", f"{latest.commit}:./{DECISION}")))
        told = decision.champion.name if decision.champion else None
        held = self.before.champion.name if self.before.champion else None
        if not decision.promote or told != held:  # refused, or promoted before the kill
            return None
        self.registry.promote(latest.name, expected_champion=held, why=decision.sentence)
        del self.before
        return Outcome(
            "promoted", f"{decision.sentence} (Decided by a retrain that was ended before it could promote.)",
            latest.name, latest.name, decision=decision.as_json(),
        )  # fmt: skip

    def prepare(self) -> None:
        """Set up the worktree with tonight's code, parameters and data, or go on where a killed retrain stood.

        Raises UserError on a revision or data that can't be used, StageError where a remote can't be reached.
        """
        base = self._base()
        killed = self.killed
        self.attempt = Attempt.begin(base, self.started).keep(self.main)
        self.tree = Worktree.at(self.main, base, keep=killed is not None and killed.prepared and killed.base == base)
        if self.latest is not None and not self.tree.kept:
            self.tree.take(self.latest.commit, [LOCK, METRICS, str(test_sets.FOLDER)])
        self.sets = TestSets.of(self.tree.project, self.before)
        self.copied = self._fetch()
        self._open()
        self.attempt = self.attempt.but(prepared=True).keep(self.main)

    def nothing_new(self) -> bool:
        """True where data, code and parameters are those of the version registered last."""
        return self.repeats() and self.engine.up_to_date()

    def repeats(self) -> bool:
        """True where the steps' inputs and outputs are exactly those of the version registered last."""
        if self.latest is None:
            return False
        try:
            then = git(self.main, "show", f"{self.latest.commit}:./{LOCK}")
            return (self.tree.project / LOCK).read_text(encoding="utf-8").rstrip("\n") == then.rstrip("\n")
        except (GitError, OSError):
            return False

    def run(self, step: str) -> StepResult:
        """Run a step of the pipeline in the worktree. After `version` the test set is frozen where it has to be."""
        result = self.engine.run(step)
        if step == "version" and self.sets.freeze(self.engine.workspace.manifest):
            self._open()
            result = dataclasses.replace(self.engine.run(step), outputs=result.outputs)
        self.steps[step] = result
        return result

    def decide(self) -> Decision:
        """Hold the new model against the champion by the rules of `gate`."""
        from tl_core.manifest import Manifest
        from tl_flows.retraining.deciding import Serving, decide

        champion, serving = self.before.champion, None
        with TemporaryDirectory(prefix="tl-champion-") as scratch:
            if champion is not None:
                versioning.outputs_at(self.main, champion.commit, [MANIFEST], Path(scratch))
                manifest = Manifest.load(Path(scratch) / MANIFEST, self.tree.project)
                serving = Serving(champion.name, bundle_at(self.main, champion.commit), manifest)
            with contextlib.chdir(self.tree.project):  # as in a step: a model may name its backbone from there
                decision = decide(self.engine.workspace, load_config(self.tree.project / PARAMS), self.sets, serving)
        write_json(self.tree.project / DECISION, decision.as_json())
        return decision

    def conclude(self, decision: Decision) -> Outcome:
        """Commit and register the new model, and promote it where the gate says so: the only step that others see."""
        commit = self.tree.commit(f"Retrain: {decision.sentence}")
        facts = facts_at(
            self.tree.project, commit, code_revision=self.attempt.base, test_set=decision.test_set.hash,
            decision=decision.sentence, why=self.attempt.why,
        )  # fmt: skip
        version = self.registry.register(commit, facts)
        folder = self._publish(version)
        state: State = "refused"
        reason = decision.sentence
        if decision.promote:
            held = self.before.champion.name if self.before.champion else None
            try:
                self.registry.promote(version.name, expected_champion=held, why=decision.sentence)
                state = "promoted"
            except UserError as error:  # somebody else promoted while this one was decided on
                reason = f"{decision.sentence} Not promoted all the same: {error}"
        serves = self.registry.state().champion
        version_step = self.steps.get("version")
        return Outcome(
            state=state,
            reason=reason,
            version=version.name,
            champion=serves.name if serves else None,
            data=self.copied.describe(),
            quarantined=int(version_step.outputs.get("quarantined", 0)) if version_step else 0,
            decision=decision.as_json(),
            folder=str(folder),
        )

    def idle(self) -> Outcome:
        """The outcome where there is nothing to decide on."""
        latest, serves = self.latest, self.before.champion
        name = latest.name if latest else None
        return Outcome(
            "nothing new", f"data, code and parameters are those of {name}", name, serves.name if serves else None
        )

    def end(self, outcome: Outcome) -> Outcome:
        """Record how it ended."""
        outcome = dataclasses.replace(outcome, seconds=round(time.time() - self.started, 1))
        outcome.keep(self.main / OUTCOME)
        last = Attempt.last(self.main)
        if last is not None:
            last.but(state=outcome.state).keep(self.main)
        return outcome

    def _killed(self) -> Attempt | None:
        """The last attempt where it never ended: the lock is ours, so whoever made it is gone."""
        last = Attempt.last(self.main)
        if last is None or last.state:
            return None
        log.info("the last retrain was ended from outside (process %s on %s); its work is kept", last.pid, last.host)
        return last

    def _base(self) -> str:
        revision = self.asked.revision or "HEAD"
        remote, _, branch = revision.partition("/")
        try:
            if branch and remote in git(self.main, "remote").splitlines():
                git(self.main, "fetch", "--quiet", "--tags", remote)
        except GitError as error:
            raise StageError(f"the remote {remote} can't be reached: {error}", may_pass=True) from error
        return commit_of(self.main, revision)

    def _fetch(self) -> Copied:
        """Bring the data into the worktree: from the watched folder or the main worktree; else DVC does, later."""
        project = self.tree.project
        data = project / Path(load_config(project / PARAMS).data.path).expanduser()
        place = versioning.data_place(project, data)
        if place is None:
            if self.asked.data is not None:
                raise UserError(
                    f"the project's data ({data}) lie outside of its repository and are read where they are; leave "
                    "--data out, or let data.path name a folder in the project"
                )
            return self.copied
        if self.asked.data is not None:
            source = Path(self.asked.data).expanduser().resolve()
        elif self.asked.revision is None:
            source = self.main / os.path.relpath(place, project)
        else:
            return self.copied
        if self.asked.data is None and not source.exists():
            return self.copied
        tracked = versioning.tracked(project, data)
        if self.latest is not None and tracked is not None and not self.tree.kept:
            # what was recorded last time needs no recording again
            self.tree.take(self.latest.commit, [tracked.file])
        return mirror(source, data if source.is_file() else place, project / FOLDER / "incoming")

    def _open(self) -> None:
        holdout = self.sets.holdout
        edits = {} if holdout is None else {"data.holdout": holdout}
        self.engine = open_project(self.tree.project, edits, self.asked.step_hours)

    def _publish(self, version: Version) -> Path:
        """The report and the decision where people look for them, outside of the worktree."""
        folder = self.main / REPORTS / version.name
        folder.mkdir(parents=True, exist_ok=True)
        render_timed(self.engine.workspace, folder / "report.html")
        write_text(folder / "decision.json", (self.tree.project / DECISION).read_text(encoding="utf-8"))
        return folder
