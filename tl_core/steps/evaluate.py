"""evaluate: the test rows, once: metrics with intervals, two floors, predictions and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Any

import numpy as np
import torch
import yaml

from tl_core.bundle import ModelBundle
from tl_core.config import RunConfig
from tl_core.errors import DecodeError, UserError
from tl_core.evaluation import (
    Evaluation,
    evaluate_predictions,
    majority_predictions,
    predictions_table,
    verdict,
    worst_rows,
    write_predictions,
)
from tl_core.extraction import features, resolve_device
from tl_core.heads import linear_heads
from tl_core.manifest import Manifest
from tl_core.registry import Registry
from tl_core.report import BackboneFacts, DataFacts, Example, Ranking, ReportFacts, Tuning, render_report, write_plots
from tl_core.steps.backbone import Lazy, chosen, located
from tl_core.steps.record import recorded
from tl_core.store import FeatureStore, Space
from tl_core.training import fit_probe, predict_rows
from tl_core.types import SPLITS, BackboneSpec, Loader
from tl_core.weights import read_json
from tl_core.workspace import Workspace, write_json, write_text

EXAMPLES = 24  # worst errors shown in the report


def evaluate(config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """Write metrics.json, predictions.parquet, report.json, report.html and plots/ into artifacts/evaluate."""
    with recorded(workspace, "evaluate") as results:
        manifest = Manifest.load(workspace.manifest, workspace.root)
        request, spec = chosen(registry, workspace, manifest.modality)
        receipt, tuned = read_json(workspace.receipt), Tuning.load(workspace.tuning)
        loader, store = registry.loader(manifest.modality), FeatureStore(workspace.store)
        rows = _Rows(config, manifest, loader, store, receipt["precision"])
        bundle = ModelBundle.load(
            workspace.model, registry, located(request, workspace.root), device=config.extract.device
        )
        if bundle.facts["trained_segments"]:
            test = manifest.rows("test")
            predictions = predict_rows(
                manifest, test, loader, bundle.backbone, bundle.head, bundle.device, bundle.facts["precision"]
            )
        else:
            predictions = rows.decoded(bundle.head, "test", receipt["backbone"], lambda: bundle.backbone)
        truth = manifest.target_array(manifest.rows("test"))
        evaluation = evaluate_predictions(
            manifest.targets.task,
            manifest.targets,
            predictions,
            truth,
            confidence=config.evaluate.confidence,
            resamples=config.evaluate.bootstrap,
            seed=config.seed,
            groups=manifest.groups(manifest.rows("test")),
            floors={
                "majority": majority_predictions(
                    manifest.targets, manifest.target_array(manifest.rows("train")), len(truth)
                ),
                "random_init": rows.random_floor(spec, receipt["random"]),
            },
        )
        folder = workspace.step("evaluate")
        table = predictions_table(manifest, manifest.rows("test"), predictions, separator=manifest.separator)
        write_predictions(table, folder / "predictions.parquet")
        report = _facts(config, workspace, manifest, receipt, tuned, evaluation)
        report = _with_examples(report, loader, manifest, predictions, table)
        report.save(folder / "report.json")
        write_text(folder / "report.html", render_report(report))
        write_plots(evaluation, table, folder / "plots", tuning=tuned)
        write_json(workspace.metrics, evaluation.flat_metrics())
        results.update(metrics=evaluation.flat_metrics(), watch=evaluation.watch, verdict=verdict(evaluation).sentence)
    return results


@dataclass(frozen=True)
class _Rows:
    """The features of a split, and what a head makes of them."""

    config: RunConfig
    manifest: Manifest
    loader: Loader
    store: FeatureStore
    precision: str

    def features(self, split: str, facts: Mapping[str, Any], build: Any) -> torch.Tensor:
        space = Space(facts["fingerprint"], facts["cut"], self.precision)
        rows, settings = self.manifest.rows(split), self.config.extract
        found = features(
            self.manifest, rows, self.loader, build, space, self.store, device=settings.device, engine=settings.engine
        )
        return torch.from_numpy(found)

    def decoded(self, head: Any, split: str, facts: Mapping[str, Any], build: Any) -> np.ndarray:
        device = resolve_device(self.config.extract.device)
        with torch.inference_mode():
            logits = head.to(device)(self.features(split, facts, build).to(device))
            return np.asarray(head.decode(logits).cpu().numpy())

    def random_floor(self, spec: BackboneSpec, facts: Mapping[str, Any]) -> np.ndarray:
        """Test predictions of a linear probe on the same network with random weights, tuned the same way."""
        manifest, tune = self.manifest, self.config.tune
        targets = manifest.targets
        head_spec = next(h for h in linear_heads(manifest.modality) if h.task == targets.task)
        head = head_spec.build(facts["feature_dim"], targets)
        build = Lazy(spec, random_seed=self.config.seed)
        x = {split: self.features(split, facts, build) for split in ("train", "val")}
        y = {split: torch.from_numpy(manifest.target_array(manifest.rows(split))) for split in ("train", "val")}
        fit = fit_probe(
            x["train"], y["train"], x["val"], y["val"], head, head_spec, targets, tune.strengths, tune.refit,
            balance=tune.balance, calibrate=tune.calibrate,
        )  # fmt: skip
        return self.decoded(fit.head, "test", facts, build)


def _facts(
    config: RunConfig,
    workspace: Workspace,
    manifest: Manifest,
    receipt: Mapping[str, Any],
    tuned: Tuning,
    evaluation: Evaluation,
) -> ReportFacts:
    backbone = receipt["backbone"]
    notes = list(manifest.notes)
    if receipt["truncated"]:
        notes.append(f"{receipt['truncated']} samples are longer than the backbone's window and were cut")
    return ReportFacts(
        title=f"{manifest.modality.capitalize()}: {backbone['name']}",
        modality=manifest.modality,
        data=DataFacts(
            manifest.data_version,
            manifest.counts(),
            notes,
            manifest.quarantined(),
            {split: len(manifest.rows(split)) for split in SPLITS},
        ),
        backbone=BackboneFacts(
            name=backbone["name"],
            source=f"{backbone['source']} {backbone['location']}",
            fingerprint=backbone["fingerprint"],
            digest=backbone["weights"],
            revision=backbone["revision"],
            licence=backbone["licence"],
            pretrained_on=backbone["pretrained_on"],
            params=backbone["parameters"],
            feature_dim=backbone["feature_dim"],
        ),
        strategy=tuned.strategy,
        evaluation=evaluation,
        ranking=Ranking.load(workspace.ranking),
        tuning=tuned,
        provenance={name: installed(name) for name in ("tl-core", "torch", "numpy")},
        # where features lie is a matter of the host, and changes no result
        config=yaml.safe_dump(config.model_dump(mode="json", exclude={"store"}), sort_keys=False),
    )


def _with_examples(
    report: ReportFacts, loader: Loader, manifest: Manifest, predictions: np.ndarray, table: Any
) -> ReportFacts:
    import dataclasses

    rows = manifest.rows("test")
    lines = {line["row"]: line for line in table.select(["row", "predicted", "probability"]).to_pylist()}
    examples = []
    for position in worst_rows(manifest.targets, predictions, manifest.target_array(rows), EXAMPLES):
        sample = manifest.sample(int(rows[position]))
        line = lines[sample.row]
        try:
            fragment = loader.render(sample.source)
        except (DecodeError, OSError) as error:
            raise UserError(f"{sample.id} has changed since it was checked ({error}); run again") from error
        examples.append(
            Example(sample.id, str(sample.label), str(line["predicted"]), fragment, line["probability"])
        )  # fmt: skip
    return dataclasses.replace(report, examples=examples)
