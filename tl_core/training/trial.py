"""auto: whether fine-tuning pays, told by fits that are compared row by row on what they did not learn from.

The probe costs next to nothing and is always tried. Fine-tuning, from the probe (lp_ft) and from zero, is tried as far
as `tune.minutes` goes, which is a plan in FLOPs: neither the clock nor a kill changes what is chosen.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tl_core.errors import UserError
from tl_core.progress import progress
from tl_core.selection.outcomes import Outcomes
from tl_core.selection.standing import Standing, standings
from tl_core.training.finetune import predict_rows
from tl_core.training.job import Fitted, Job, decoded, fit
from tl_core.training.trial_plan import FINE_TUNING, PROBE, Design, Part, TrialPlan, plan_trial
from tl_core.workspace import write_bytes

OF_THE_TRIAL = {"minutes", "search", "save_minutes", "curve"}  # of no consequence to a single fit
NOTHING_TO_GAIN = "the probe made no mistake on the held-out rows"
CLEAR = 0.8  # probability of being better, from which the metric decides alone
PAYS = 0.6  # the same over the probe for numbers, which have no log loss to ask: fine-tuning has its cost
DOUBT = 1e-3  # probability of the truth: a row that is wholly wrong counts no more than with this one


@dataclass(frozen=True)
class Decision:
    """What auto chose. facts: the block `decision` of tune.json.

    design, said: the fits of the trial, and what each strategy said of their held-out rows, one after the other.
    fitted: the chosen fine-tuning where the trial has made it on the job's own split; None: it is yet to be made.
    """

    chosen: str
    facts: dict[str, Any]
    design: Design
    said: Mapping[str, np.ndarray]
    fitted: Fitted | None = None


def decide(job: Job, speed: float) -> Decision:
    """Try probe, lp_ft and finetune on held-out rows within `tune.minutes`, and choose by what they said of each.

    speed: FLOP/s of the machine (tl_core.selection.speed). A strategy that can't be fitted, because of the head or
    because it diverges, is skipped with its reason. What was fitted is kept in `job.state`, so that a killed trial
    goes on. Raises UserError where no strategy can be fitted.
    """
    plan = plan_trial(job, speed)
    said: dict[str, np.ndarray] = {}
    own: dict[str, Fitted] = {}
    skipped = dict(plan.skipped)
    faults: list[UserError] = []
    tried = [name for name in (PROBE, *FINE_TUNING) if name not in skipped]
    with progress(len(tried) * len(plan.design.fits), "trial", unit="fit") as bar:
        for name in tried:
            if PROBE in said and _flawless(_outcomes(job, plan.design, said[PROBE])):
                skipped[name] = NOTHING_TO_GAIN
                continue
            bar.set_postfix(strategy=name)
            parts: list[np.ndarray] = []
            try:
                for part in plan.design.fits:
                    answer, fitted = _said(_of(job, name, part), part.held)
                    parts.append(answer)
                    if fitted is not None and plan.design.real and name != PROBE:
                        own[name] = fitted
                    bar.update()
            except UserError as error:
                skipped[name] = str(error)
                faults.append(error)
            else:
                said[name] = np.concatenate(parts)
    if not said:
        raise faults[0]
    history = {name: [_outcomes(job, plan.design, answer)] for name, answer in said.items()}
    found = standings(history, confidence=job.config.evaluate.confidence, seed=job.config.seed)
    losses = {name: log_loss(_of_truth(job, plan.design, answer)) for name, answer in said.items()}
    chosen = choose(found, losses)
    return Decision(chosen, _facts(job, plan, found, losses, skipped, chosen), plan.design, said, own.get(chosen))


def choose(found: Sequence[Standing], losses: Mapping[str, float | None]) -> str:
    """The strategy to take: the best on the held-out rows; of those that it is not clearly better than, by log loss.

    A few dozen rows that are right or wrong tell strategies apart by luck; how sure each was of the truth says more.
    Numbers have no log loss: there it is the best, but the probe unless that is more likely than not behind.
    """
    best = found[0]
    probe = next((one for one in found if one.name == PROBE), best)
    close = [one.name for one in found if one is best or 1 - one.ahead < CLEAR]
    known = {name: loss for name in close if (loss := losses[name]) is not None}
    if len(known) == len(close):
        return min(close, key=lambda name: (known[name], name != PROBE))
    return best.name if 1 - probe.ahead >= PAYS else probe.name


def log_loss(of_truth: np.ndarray | None) -> float | None:
    """The mean log loss of rows [N] by the probability that each gave to the truth; None where there is none."""
    return None if of_truth is None else float(-np.log(np.maximum(of_truth, DOUBT)).mean())


def _of_truth(job: Job, design: Design, said: np.ndarray) -> np.ndarray | None:
    """What each held-out row gave to the truth, [N]; of several labels the (geometric) mean; None for numbers."""
    y = job.manifest.target_array(np.concatenate([part.held for part in design.fits]))
    if job.task.task == "regression":
        return None
    if job.task.task == "multiclass":
        return np.asarray(said[np.arange(len(y)), y], np.float64)
    each = np.maximum(np.where(y > 0, said, 1 - said).astype(np.float64), DOUBT)
    return np.asarray(np.exp(np.log(each).mean(axis=1)))


def _of(job: Job, strategy: str, part: Part) -> Job:
    """One fit of the trial."""
    one = job.tuned(strategy=strategy).replace(train=part.train, val=part.val)
    # a model from which training goes on has learned from what is held out in turn; of rows that were thinned it knows
    # the others, which the probe does not, and fine-tuning would look better than it is
    if part.train is not job.train:
        one = one.tuned(start=None).replace(start=None)
    tune = one.config.tune
    own: dict[str, Any] = {"seed": True, "extract": True, "tune": set(type(tune).model_fields) - OF_THE_TRIAL}
    settings = one.config.model_dump(mode="json", include=own)
    rows = [job.manifest.digests(rows) for rows in (part.train, part.val, part.held)]
    digest = hashlib.sha256(json.dumps([settings, job.spec.name, rows], sort_keys=True).encode()).hexdigest()
    return one.replace(state=job.state / "trial" / f"{strategy}-{digest[:16]}")


def _said(job: Job, held: np.ndarray) -> tuple[np.ndarray, Fitted | None]:
    """What a fit says of held-out rows, and the fit itself where a run that was killed has not left its word."""
    kept = job.state.with_suffix(".npy")
    try:
        return np.load(kept, allow_pickle=False), None
    except (OSError, ValueError):  # there is none yet
        fitted = fit(job)
    said = fitted.said if held is job.val else _predicted(job, fitted, held)
    file = io.BytesIO()
    np.save(file, said, allow_pickle=False)
    write_bytes(kept, file.getvalue())
    shutil.rmtree(job.state, ignore_errors=True)  # what the fit would have gone on with
    return said, fitted


def _predicted(job: Job, fitted: Fitted, rows: np.ndarray) -> np.ndarray:
    if fitted.backbone is None:
        with torch.no_grad():
            return decoded(fitted.head, fitted.head(job.features(rows)))
    return predict_rows(job.manifest, rows, job.loader, fitted.backbone, fitted.head, job.device, job.space.precision)


def _outcomes(job: Job, design: Design, said: np.ndarray) -> Outcomes:
    """The outcomes of each held-out row once, the mean over the fits that it was held out from."""
    rows = np.concatenate([part.held for part in design.fits])
    each = Outcomes.of(job.task.task, said, job.manifest.target_array(rows)).terms
    once, place, count = np.unique(rows, return_inverse=True, return_counts=True)
    terms = np.zeros((len(once), each.shape[1]))
    np.add.at(terms, place, each)
    groups = job.manifest.groups(once)
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return Outcomes(job.task.task, terms / count[:, None], codes)


def _flawless(outcomes: Outcomes) -> bool:
    """Whether nothing can be better: not so of numbers, which are never met exactly."""
    return outcomes.task != "regression" and float(outcomes.metric()) == 1.0


def _why(found: Sequence[Standing], losses: Mapping[str, float | None], chosen: str, skipped: Mapping[str, str]) -> str:
    by_name = {one.name: one for one in found}
    if PROBE not in by_name:
        return f"the probe can't be fitted; of what can be, {chosen} is the best on held-out rows"
    if len(found) == 1:
        flawless = NOTHING_TO_GAIN in skipped.values()
        return (
            f"the probe made no mistake on {found[0].rows:,} held-out rows"
            if flawless
            else "fine-tuning could not be tried"
        )
    probe = by_name[PROBE]
    rival = by_name[chosen] if chosen != PROBE else next(one for one in found if one.name != PROBE)
    said = f"{rival.name} {rival.value:.3f} against {probe.value:.3f} of the probe on {probe.rows:,} held-out rows"
    own, other = losses[rival.name], losses[PROBE]
    if own is not None and other is not None:
        said += f", log loss {own:.3f} against {other:.3f}"
    surely = rival is found[0] and not probe.tied  # else log loss has decided between strategies that tie
    pays = "does not clearly pay" if rival.name != chosen else "pays" if surely else "seems to pay"
    return f"fine-tuning {pays}: {said}"


def _facts(
    job: Job,
    plan: TrialPlan,
    found: Sequence[Standing],
    losses: Mapping[str, float | None],
    skipped: Mapping[str, str],
    chosen: str,
) -> dict[str, Any]:
    """The block `decision` of tune.json."""
    by_name = {one.name: one for one in found}
    numbers = ("value", "low", "high", "gap", "gap_low", "gap_high", "p_best")
    candidates: list[dict[str, Any]] = []
    for name in (PROBE, *FINE_TUNING):
        one = by_name.get(name)
        candidates.append(
            {
                "strategy": name,
                "status": "skipped" if one is None else "tried",
                "reason": skipped.get(name),
                **{key: None if one is None else round(getattr(one, key), 6) for key in numbers},
                "log_loss": None if one is None or (loss := losses[name]) is None else round(loss, 6),
                "gflops": None if one is None else 0.0 if name == PROBE else round(plan.work / 1e9, 1),
            }
        )
    return {
        "chosen": chosen,
        "why": _why(found, losses, chosen, skipped),
        "rows": found[0].rows,
        "folds": plan.design.folds,
        "confidence": job.config.evaluate.confidence,
        "candidates": candidates,
    }
