"""evaluate: the test rows, once: metrics with intervals, floors, diagnostics, predictions and the report."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from tl_core.bundle import ModelBundle
from tl_core.config import RunConfig
from tl_core.diagnostics.results import Diagnostics
from tl_core.evaluation import evaluate_predictions, predictions_table, verdict, write_predictions
from tl_core.registry import Registry
from tl_core.report import Tuning, model_card, render_report, write_plots
from tl_core.steps.backbone import located
from tl_core.steps.diagnose import Answers, diagnose
from tl_core.steps.floors import floors_of
from tl_core.steps.job import job_of
from tl_core.steps.record import recorded
from tl_core.steps.report_facts import Shown, report_facts
from tl_core.training import Job
from tl_core.training.finetune import embeddings_by
from tl_core.training.job import decoded
from tl_core.training.sources import RawSource
from tl_core.weights import read_json
from tl_core.workspace import Workspace, write_json, write_text


def evaluate(config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """Write what the test rows say into artifacts/evaluate.

    metrics.json, predictions.parquet, report.json, report.html, model_card.md and plots/.
    """
    with recorded(workspace, "evaluate") as results:
        job, request = job_of("evaluate", config, registry, workspace)
        manifest, receipt, tuned = job.manifest, read_json(workspace.receipt), Tuning.load(workspace.tuning)
        test = manifest.rows("test")
        bundle = ModelBundle.load(
            workspace.model, registry, located(request, workspace.root), device=config.extract.device
        )
        answers = _answers(job, bundle, test)
        floors = floors_of(job, tuned.strategy, receipt["random"], workspace)
        evaluation = evaluate_predictions(
            manifest.targets.task,
            manifest.targets,
            answers.predictions,
            manifest.target_array(test),
            confidence=config.evaluate.confidence,
            resamples=config.evaluate.bootstrap,
            seed=config.seed,
            groups=manifest.groups(test),
            floors=floors.predictions,
        )
        evaluation = dataclasses.replace(evaluation, notes=(*evaluation.notes, *floors.left_out))
        diagnostics = _diagnosed(job, bundle, answers, tuned)
        folder = workspace.step("evaluate")
        table = predictions_table(manifest, test, answers.predictions, separator=manifest.separator)
        shown = Shown(job, table)
        examples = tuple(shown.examples(bundle, answers.predictions, diagnostics))
        plugin = registry.plugin_of(manifest.modality)
        report = report_facts(
            job, workspace, receipt, tuned, evaluation, diagnostics, examples, shown.samples(table),
            plugin.dist if plugin else None,
        )  # fmt: skip
        write_predictions(table, folder / "predictions.parquet")
        report.save(folder / "report.json")
        write_text(folder / "report.html", render_report(report))
        write_text(folder / "model_card.md", model_card(report))
        write_plots(
            evaluation,
            table,
            folder / "plots",
            tuning=tuned,
            calibration=diagnostics.calibration if diagnostics else None,
        )
        write_json(workspace.metrics, evaluation.flat_metrics())
        results.update(metrics=evaluation.flat_metrics(), watch=evaluation.watch, verdict=verdict(evaluation).sentence)
    return results


def _diagnosed(job: Job, bundle: ModelBundle, answers: Answers, tuned: Tuning) -> Diagnostics | None:
    if not job.config.evaluate.diagnostics:
        return None
    return diagnose(job, bundle, answers, tuned.probe.strength if tuned.probe is not None else None)


def _answers(job: Job, bundle: ModelBundle, rows: np.ndarray) -> Answers:
    """What the model says of rows: from stored features, but by its own network where that was fine-tuned."""
    if bundle.facts["trained_segments"]:
        source = RawSource(job.manifest, job.loader, bundle.backbone)
        embeddings = embeddings_by(source, rows, bundle.backbone, bundle.device, bundle.facts["precision"])
    else:
        embeddings = job.features(rows)
    with torch.inference_mode():
        head = bundle.head.to(job.device)
        return Answers(embeddings.numpy(), decoded(head, head(embeddings.to(job.device))))
