"""tune: train the head (and the backbone, where it pays or is asked for) and leave a bundle."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from tl_core.bundle import save_bundle
from tl_core.config import RunConfig
from tl_core.engines import resolve_precision
from tl_core.errors import UserError
from tl_core.extraction import space_of
from tl_core.held import MOST_HELD, Held, group_codes
from tl_core.reference import Reference, sampled, unit
from tl_core.registry import Registry
from tl_core.selection.speed import speed_of
from tl_core.steps.backbone import Lazy
from tl_core.steps.job import job_of
from tl_core.steps.record import recorded
from tl_core.steps.start import begun, seen_by, unused
from tl_core.training import Fitted, Job, fit
from tl_core.training.curve import learning_curve
from tl_core.training.finetune import embeddings_by
from tl_core.training.gap import memorised
from tl_core.training.processes import processes
from tl_core.training.search import search
from tl_core.training.sources import RawSource
from tl_core.training.trial import decide
from tl_core.training.trial_plan import PROBE
from tl_core.watch import watch_metric
from tl_core.workspace import Workspace, write_json

FORMAT_VERSION = 2


def tune(config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """Train into artifacts/tune: model/ (the bundle) and tune.json (what was decided, tried, and seen on validation).

    What is unfinished lies in .tl/tune until the step ends: a run that was killed goes on from there. Of processes that
    `accelerate launch` started, the first alone writes.
    """
    with recorded(workspace, "tune") as results:
        job, request = job_of("tune", config, registry, workspace)
        spec, precision = job.spec, job.space.precision
        job, facts, fitted = _fitted(job, workspace)
        if not processes(job.device).main:  # one of several that trained together writes
            return results
        facts.update(curve=_curve(job, fitted), gap=_gap(job, fitted))
        backbone = fitted.backbone or Lazy(spec)()
        watch = job.head_spec.watch
        save_bundle(
            workspace.model,
            spec=spec,
            request=request,
            backbone=backbone,
            trained=fitted.trained,
            head=fitted.head,
            head_spec=job.head_spec,
            targets=job.task,
            precision=precision,
            training={
                "asked": facts["asked"],
                "strategy": facts["strategy"],
                "why": (facts["decision"] or {}).get("why"),
                "data_version": job.manifest.data_version,
                "training_rows": len(job.train),
                "validation_rows": len(job.val),
                f"validation_{watch}": facts["validation"],
                "features": "fine-tuned" if fitted.trained else space_of(backbone, precision).fingerprint,
                "temperature": facts["temperature"],
                "trained_parameters": (facts["finetune"] or {}).get("trained_parameters"),
                "update": (facts["finetune"] or {}).get("update"),
                "memorised": facts["gap"]["memorised"],
                "seed": config.seed,
                **({"started_from": job.start.digest} if job.start is not None else {}),
            },
            reference=_reference(job, fitted, precision),
            seen=seen_by(job) if fitted.trained else None,
        )
        write_json(workspace.step("tune") / "tune.json", {"format": FORMAT_VERSION, **facts})
        shutil.rmtree(job.state, ignore_errors=True)  # what a killed run would have gone on with
        results.update(_told(facts))
        if facts["start"]:
            results["notes"] = [facts["start"]["text"]]
    return results


def _fitted(job: Job, workspace: Workspace) -> tuple[Job, dict[str, Any], Fitted]:
    """The job as it was decided and searched, the facts for tune.json, and the fit."""
    tune, split = job.config.tune, job
    facts: dict[str, Any] = {"asked": tune.strategy, "decision": None, "search": None}
    job, start = begun(job, workspace)
    fitted: Fitted | None = None
    if tune.strategy == "auto":
        speed = speed_of(job.device, resolve_precision(tune.precision, job.device, {}), workspace.cache)
        decision = decide(job, processes(job.device).agreed(speed))
        facts["decision"], fitted = decision.facts, decision.fitted
        job = job.tuned(strategy=decision.chosen)
        if start is not None and start.used:
            if decision.chosen == PROBE:
                job, start = split.tuned(strategy=PROBE), unused(start.asked, "auto chose the probe")
            elif not decision.design.real:
                start = start.but_not_in_the_trial(decision.design)
    if tune.search.trials:
        found = search(job)
        facts["search"], fitted = found.facts, None
        job = job.tuned(**found.settings)
    fitted = fitted or fit(job)
    told = None if start is None else start.as_json()
    return job, facts | {"start": told, "watch": job.head_spec.watch} | fitted.facts, fitted


def _curve(job: Job, fitted: Fitted) -> dict[str, Any] | None:
    """The probe's learning curve over all rows that are learnt from; None where there is no probe to draw it of."""
    tune = job.config.tune
    if not tune.curve or tune.strategy == "scratch":
        return None
    probed = fitted.facts["probe"]
    if probed is None:
        try:
            probed = fit(job.tuned(strategy="probe", refit=False)).facts["probe"]
        except UserError:  # a head that is not linear
            return None
    rows = np.concatenate([job.train, job.val])
    groups = job.manifest.groups(rows)
    return learning_curve(
        job.features(rows),
        job.targets(rows),
        job.task.task,
        job.task.outputs,
        strength=probed["strength"],
        groups=groups,
        confidence=job.config.evaluate.confidence,
        seed=job.config.seed,
    )


def _gap(job: Job, fitted: Fitted) -> dict[str, Any]:
    """How much better the model is on rows that it learnt from than on the validation rows."""
    spec, y_seen = job.head_spec, job.manifest.target_array(fitted.seen)
    groups = job.manifest.groups(job.val)
    return memorised(
        watch_metric(spec.task, fitted.said_seen, y_seen, spec.watch),
        fitted.said,
        job.manifest.target_array(job.val),
        job.manifest.target_array(job.train),
        spec,
        confidence=job.config.evaluate.confidence,
        seed=job.config.seed,
        groups=groups,
    )


def _reference(job: Job, fitted: Fitted, precision: str) -> Reference | None:
    """What the bundle keeps of training embeddings, in its own space: stored ones, or those of the tuned backbone.

    None where training has left a backbone that gives no finite embeddings.
    """
    train, place = sampled(job.train, job.config.seed), sampled(np.arange(len(job.val)), job.config.seed)
    val = job.val[place]
    if fitted.backbone is None:
        x_train, x_val = job.features(train).numpy(), job.features(val).numpy()
    else:
        source = RawSource(job.manifest, job.loader, fitted.backbone)
        made = embeddings_by(source, np.concatenate([train, val]), fitted.backbone, job.device, precision).numpy()
        if not np.isfinite(made).all():
            return None
        x_train, x_val = made[: len(train)], made[len(train) :]
    few = sampled(np.arange(len(val)), job.config.seed, MOST_HELD)
    held, manifest, groups = val[few], job.manifest, job.manifest.alike(train)
    return dataclasses.replace(
        Reference.of(x_train, x_val),
        held=Held.of(
            unit(x_val[few]), fitted.said[place[few]], manifest.target_array(held), job.task.task, manifest.alike(held)
        ),
        groups=None if groups is None else group_codes(groups),
        group_column=manifest.group_column,
    )


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the step says of its own run, as far as there is something to say."""
    found = {
        "asked": facts["asked"],
        "strategy": facts["strategy"],
        "watch": facts["watch"],
        "validation": facts["validation"],
        "why": (facts["decision"] or {}).get("why"),
        "strength": (facts["probe"] or {}).get("strength"),
        "best_epoch": (facts["finetune"] or {}).get("best_epoch"),
        "trained_segments": (facts["finetune"] or {}).get("trained_segments"),
        "stopped": (facts["finetune"] or {}).get("stopped"),
        "more_data": (facts["curve"] or {}).get("verdict"),
        "memorised": facts["gap"]["memorised"],
    }
    return {key: value for key, value in found.items() if value is not None}
