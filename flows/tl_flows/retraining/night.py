"""One retrain of a project, from new data to a decision: what each task of the flow does."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tl_core.config import load_config
from tl_core.workspace import BACKBONES_LOCK, write_json
from tl_flows import versioning
from tl_flows.bundles import bundle_at
from tl_flows.engine import Stages, StepResult, open_project
from tl_flows.git import GitError, git
from tl_flows.model_registry import ModelRegistry
from tl_flows.prefect_env import LOGGER
from tl_flows.project import PARAMS
from tl_flows.registry_state import RegistryState, Version
from tl_flows.retraining import test_sets
from tl_flows.retraining.attempt import FOLDER, Attempt
from tl_flows.retraining.decided import Decided, forget
from tl_flows.retraining.decision_file import Concluded, write_decision
from tl_flows.retraining.incoming import Copied
from tl_flows.retraining.outcome import Outcome, State
from tl_flows.retraining.publishing import publish
from tl_flows.retraining.recovery import promote, settle
from tl_flows.retraining.sources import Asked, base_commit, bring_data, other_rules
from tl_flows.retraining.test_sets import DECISION, TestSets
from tl_flows.retraining.warm_start import WarmStart
from tl_flows.retraining.worktree import Worktree
from tl_flows.version_facts import facts_at

if TYPE_CHECKING:
    from tl_core.gate import Decision

log = logging.getLogger(LOGGER)

LOCK = "dvc.lock"
METRICS = "artifacts/evaluate/metrics.json"  # the only output that git holds
MANIFEST = "artifacts/version/manifest.parquet"
OUTCOME = FOLDER / "outcome.json"


class Night:
    """A retrain under way. Whoever makes one holds the project's retrain lock until it is over.

    All that it makes lies in a worktree and in DVC's cache until its commit is registered; what a killed one has
    finished is found there by the next.
    """

    tree: Worktree
    engine: Stages
    sets: TestSets
    start: WarmStart
    attempt: Attempt | None = None
    decided: Decided | None = None
    made_good: Outcome | None = None
    settled = False
    pushes = False  # whether the parameters say that others get the version

    def __init__(self, main: Path, asked: Asked) -> None:
        self.main = main
        self.asked = asked
        self.started = time.time()
        self.registry = ModelRegistry.open(main)
        last = Attempt.last(main)
        self.untold = last.untold if last is not None else ()
        self.killed = self._killed(last)
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
        """Carry out, or tell, the decision of an earlier retrain that could not do so; None where there is none."""
        if not self.untold:
            return None
        self.made_good = settle(self.registry, self.untold)
        self.settled = True
        if self.made_good is None:  # nor will there ever be a version of such an origin
            self.untold = ()
        else:
            log.info("%s  %s", self.made_good.version, self.made_good.reason)
            self.__dict__.pop("before", None)  # what the registry says has changed
        return self.made_good

    def prepare(self) -> None:
        """Set up the worktree with tonight's code, parameters and data, or go on where a killed retrain stood.

        Raises UserError on a revision or data that can't be used, StageError where a remote can't be reached.
        """
        base = base_commit(self.main, self.asked)
        killed = self.killed
        self.attempt = Attempt.begin(base, self.started, self.untold).keep(self.main)
        self.tree = Worktree.at(self.main, base, keep=killed is not None and killed.prepared and killed.base == base)
        if self.latest is not None and not self.tree.kept:
            self.tree.take(self.latest.commit, [LOCK, METRICS, str(test_sets.FOLDER)])
            if not (self.tree.project / BACKBONES_LOCK).exists():  # else the user's own commit says what is pinned
                self.tree.take(self.latest.commit, [BACKBONES_LOCK])
        self.sets = TestSets.of(self.tree.project, self.before)
        self.start = WarmStart.of(self.main, base, self.latest)
        self.copied = bring_data(self.main, self.asked, self.tree, base, self.latest)
        self._open()
        self.pushes = load_config(self.tree.project / PARAMS).registry.push
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
        """Run a step of the pipeline in the worktree.

        After `version` the test set is frozen where it has to be; before `tune` it is decided where training starts.
        """
        if step == "tune":
            self._choose_start()
        result = self.engine.run(step)
        if step == "version" and self.sets.freeze(self.engine.workspace.manifest):
            self._open()
            result = dataclasses.replace(self.engine.run(step), outputs=result.outputs)
        self.steps[step] = result
        return result

    def decide(self) -> Decision:
        """Hold the new model against the champion by the rules of `gate`, and keep what is seen of that."""
        from tl_core.manifest import Manifest
        from tl_flows.retraining.deciding import Serving, decide

        assert self.attempt is not None  # `prepare` has begun it
        champion, serving = self.before.champion, None
        with TemporaryDirectory(prefix="tl-champion-") as scratch:
            if champion is not None:
                versioning.outputs_at(self.main, champion.commit, [MANIFEST], Path(scratch))
                manifest = Manifest.load(Path(scratch) / MANIFEST, self.tree.project)
                serving = Serving(champion.name, bundle_at(self.main, champion.commit), manifest)
            with contextlib.chdir(self.tree.project):  # as in a step: a model may name its backbone from there
                config = load_config(self.tree.project / PARAMS)
                contest = decide(self.engine.workspace, config, self.sets, serving)
        write_json(self.tree.project / DECISION, contest.decision.as_json())
        ran = self.steps.get("version")
        quarantined = int(ran.outputs.get("quarantined", 0)) if ran else 0
        self.decided = Decided(self.attempt.why, contest, self.copied.describe(), quarantined).keep(self.main)
        return contest.decision

    def conclude(self, decision: Decision) -> Outcome:
        """Commit and register the new model, and promote it where the gate says so: the only step that others see."""
        assert self.attempt is not None  # `prepare` has begun it
        assert self.decided is not None  # by `decide`
        commit = self.tree.commit(f"Retrain: {decision.sentence}")
        facts = facts_at(
            self.tree.project, commit, code_revision=self.attempt.base, test_set=decision.test_set.hash,
            decision=decision.sentence, why=self.attempt.why,
        )  # fmt: skip
        version = self.registry.register(commit, facts)
        folder = publish(self.main, version, decision, self.engine.workspace)
        state: State = "refused"
        reason = decision.sentence
        if decision.promote:
            held = self.before.champion.name if self.before.champion else None
            overtaken = promote(self.registry, version.name, held, decision.sentence)
            state = "refused" if overtaken else "promoted"
            reason += f" Not promoted all the same: {overtaken}" if overtaken else ""
        serves = self.registry.state().champion
        outcome = Outcome(
            state=state,
            reason=reason,
            version=version.name,
            champion=serves.name if serves else None,
            data=self.decided.incoming,
            quarantined=self.decided.quarantined,
            decision=decision.as_json(),
            folder=str(folder),
        )
        write_decision(self.main, folder, Concluded(self.decided.contest, version, self.before.champion, outcome))
        return outcome

    def idle(self) -> Outcome:
        """The outcome where there is nothing to decide on."""
        latest, serves = self.latest, self.before.champion
        assert latest is not None  # or everything would be new
        reason = f"data, code and parameters are those of {latest.name}"
        if other_rules(self.main, self.tree.project / PARAMS, latest):
            reason += (
                " but for the rules of `gate`, which judge the next model; `tl registry promote "
                f"{latest.name}` promotes this one by hand"
            )
        return Outcome("nothing new", reason, latest.name, serves.name if serves else None)

    def end(self, outcome: Outcome) -> Outcome:
        """Record how it ended, and what became of a killed one's model before that."""
        outcome = dataclasses.replace(outcome, seconds=round(time.time() - self.started, 1))
        first = self.made_good
        if first is not None and outcome.version != first.version:
            told = f"{first.version}: {first.reason}"
            outcome = dataclasses.replace(outcome, made_good=told, champion=outcome.champion or first.champion)
        outcome.keep(self.main / OUTCOME)
        last = Attempt.last(self.main)
        if self.attempt is not None:
            # one that failed may have registered its model before
            untold = (self.attempt.why,) if outcome.state == "failed" else ()
            self.attempt.but(state=outcome.state, untold=untold).keep(self.main)
        elif last is not None and self.settled:  # its worktree is as it left it
            last.but(untold=()).keep(self.main)
        if outcome.state != "failed":
            forget(self.main)
        return outcome

    def _killed(self, last: Attempt | None) -> Attempt | None:
        """The last attempt where it never ended: the lock is ours, so whoever made it is gone."""
        if last is None or last.state:
            return None
        log.info("the last retrain was ended from outside (process %s on %s); its work is kept", last.pid, last.host)
        return last

    def _open(self) -> None:
        holdout = self.sets.holdout
        edits = self.start.edits | ({} if holdout is None else {"data.holdout": holdout})
        self.engine = open_project(self.tree.project, edits, self.asked.step_hours)

    def _choose_start(self) -> None:
        """Let training go on from the model that serves tonight, where the parameters say so and it has to run."""
        champion = self.before.champion
        if not self.start.wanted or champion is None:
            return
        stale = versioning.stale_stages(self.tree.project, ["tune"]).get("tune", [])
        if any(not reason.startswith("outs ") for reason in stale):  # outputs that are missing, DVC brings back
            self.start = self.start.at(self.main, champion)
            self._open()
