"""Which model fine-tuning goes on from, where the config names one; and why it does not, where it can't."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.bundle import read_facts, seen_in, weights_in
from tl_core.errors import UserError
from tl_core.training import Job
from tl_core.training.plan import plan_of
from tl_core.training.seen import Seen
from tl_core.training.start import Start
from tl_core.training.trial_plan import Design
from tl_core.types import Backbone
from tl_core.workspace import Workspace

LOOKED_UP = "champion"
LEFT = 0.5  # of the validation rows: with fewer that the model has not learned from, they would choose by luck
NAMED = 5  # classes that a text names at most


@dataclass(frozen=True)
class StartFacts:
    """The block `start` of tune.json.

    asked: tune.start; used: whether training went on from that model; text: what was taken of it, or why nothing was;
    moved: validation rows that it had learned from, which became training rows.
    """

    asked: str
    used: bool
    text: str
    moved: int = 0

    def but_not_in_the_trial(self, design: Design) -> StartFacts:
        """The same, with what the trial of auto did instead. design: other than the job's own split."""
        why = (
            "this model has learned from the rows it held out"
            if design.folds > 1
            else f"it learned from one training row in {design.thinned}, and this model may know the others"
        )
        return dataclasses.replace(self, text=f"{self.text}; auto's trial began with the pretrained weights, as {why}")

    def as_json(self) -> dict[str, Any]:
        """The facts as tune.json holds them."""
        return dataclasses.asdict(self)


class _UnusableError(Exception):
    """Why a model is no start here."""


def begun(job: Job, workspace: Workspace) -> tuple[Job, StartFacts | None]:
    """The job with the model that `tune.start` names to go on from, and what is to be told of it.

    Without a name, and where the model can't be used, it is the same job; a reason says why. A model that has seen
    what are test rows now is never used; validation rows that it has learned from train along, and choose nothing.
    Raises UserError where the model is not here, or damaged.
    """
    asked = job.config.tune.start
    if asked is None:
        return job, None
    try:
        backbone, start = _found(job, asked, workspace)
        taught = _untested(start, job)
    except _UnusableError as reason:
        return job, unused(asked, str(reason))
    text = f"training went on from the model {asked[:12]}: {', '.join(start.segments)}, {_head(start, job, backbone)}"
    if taught.any():
        text += f"; {int(taught.sum()):,} validation rows that it had learned from were trained on, and chose nothing"
    train = np.sort(np.concatenate([job.train, job.val[taught]])) if taught.any() else job.train
    told = StartFacts(asked, True, text, int(taught.sum()))
    return job.replace(train=train, val=job.val[~taught], start=start), told


def unused(asked: str, reason: str) -> StartFacts:
    """What is told where the model was not used."""
    return StartFacts(asked, False, f"training began with the pretrained weights: {reason}")


def seen_by(job: Job) -> Seen:
    """The rows that a backbone which this job has trained has seen, before it as well."""
    # the probe after a contrastive tuning may be fitted on validation rows as well
    every, none = np.concatenate([job.train, job.val]), job.val[:0]
    rows = (every, none) if job.config.tune.strategy == "contrastive" else (job.train, job.val)
    seen = Seen.of(job.manifest, *rows)
    return seen if job.start is None else seen.joined(job.start.seen)


def _found(job: Job, asked: str, workspace: Workspace) -> tuple[Backbone, Start]:
    """The backbone and the model that fits it. Raises _UnusableError where there is none to go on from."""
    tune = job.config.tune
    if asked == LOOKED_UP:
        raise _UnusableError("tune.start is 'champion', which only a retrain looks up")
    if tune.strategy in ("probe", "contrastive", "scratch"):
        raise _UnusableError(f"tune.strategy={tune.strategy} does not go on from another model")
    if tune.search.trials:
        raise _UnusableError("a search (tune.search.trials) tries its settings on these")
    folder = workspace.models / asked / "model"
    if not folder.is_dir():
        raise UserError(
            f"config key 'tune.start' can't be {asked!r}: there is no such model in {workspace.models}; allowed: "
            "champion, the md5 of a registered model of the project, or null for the pretrained weights"
        )
    backbone = job.spec.build()
    start = _read(job, asked, folder, backbone)
    named = job.tuned(strategy="finetune") if tune.strategy == "auto" else job
    try:
        misfit = start.misfit(backbone, plan_of(named.config.tune, backbone))
    except UserError as error:  # the fit itself says so, unless auto skips it
        raise _UnusableError(str(error)) from error
    if misfit is not None:
        raise _UnusableError(f"the model {asked[:12]} does not fit: {misfit}")
    return backbone, start


def _untested(start: Start, job: Job) -> np.ndarray:
    """Which validation rows the model has learned from, bool [N].

    Raises _UnusableError where these are too many, and where it has seen what are test rows now.
    """
    asked, test = start.digest, job.manifest.rows("test")
    met = int(start.seen.met(job.manifest, test).sum())
    if met:
        raise _UnusableError(
            f"{met:,} of the {len(test):,} test rows, or others of their groups, are among the rows that the model "
            f"{asked[:12]} or one before it was trained or chosen by"
        )
    taught = start.seen.taught(job.manifest, job.val)
    if (~taught).sum() < LEFT * len(job.val):
        raise _UnusableError(
            f"the model {asked[:12]} has learned from {int(taught.sum()):,} of the {len(job.val):,} validation rows"
        )
    return taught


def _read(job: Job, asked: str, folder: Path, backbone: Backbone) -> Start:
    """A bundle as a start. Raises _UnusableError where it is of another backbone, or says too little of itself."""
    facts = read_facts(folder)
    then, now = facts["backbone"], backbone.identity
    if not facts["trained_segments"]:
        raise _UnusableError(f"the model {asked[:12]} stands on the pretrained weights itself")
    same = (then["weights"], then["architecture"], then.get("view")) == (now.weights, now.architecture, job.spec.view)
    if not same:
        raise _UnusableError(f"the model {asked[:12]} stands on another backbone ({then['name']})")
    seen = seen_in(folder)
    if seen is None:
        raise _UnusableError(f"the model {asked[:12]} does not say which rows it has seen (it is of an older tl)")
    trained, head = weights_in(folder)
    like = (facts["task"], facts["head"]) == (job.task.task, job.head_spec.name)
    return Start(
        digest=asked,
        segments=tuple(facts["trained_segments"]),
        backbone=trained,
        head=head if like else None,
        classes=tuple(facts["classes"]),
        seen=seen,
    )


def _head(start: Start, job: Job, backbone: Backbone) -> str:
    """What was taken of its head, in words."""
    classes = job.task.classes
    if not start.suits(job.head(backbone.feature_dim), classes):
        return "not its head, which is of another kind"
    if not classes:
        return "and its head"
    new, gone = start.new(classes), start.gone(classes)
    text = f"and its head for {len(classes) - len(new):,} classes"
    told = [f"{what}: {_listed(names)}" for what, names in (("new", new), ("gone", gone)) if names]
    return f"{text} ({'; '.join(told)})" if told else text


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
