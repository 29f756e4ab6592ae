"""What the report shows of a run: facts of the steps before, and the samples that are worth a look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from tl_core.bundle import ModelBundle
from tl_core.diagnostics.results import Diagnostics
from tl_core.environment import environment
from tl_core.errors import DecodeError, UserError
from tl_core.evaluation import Evaluation, worst_rows
from tl_core.explain import explain
from tl_core.report import (
    BackboneFacts,
    DataFacts,
    Example,
    Ranking,
    ReportFacts,
    Sample,
    Tuning,
    choose_samples,
)
from tl_core.report.samples import shown
from tl_core.training import Job
from tl_core.types import SPLITS
from tl_core.workspace import Workspace

WORST = 24  # errors shown with a picture or text
OTHERS = 12  # of each other kind


def report_facts(
    job: Job,
    workspace: Workspace,
    receipt: Mapping[str, Any],
    tuned: Tuning,
    evaluation: Evaluation,
    diagnostics: Diagnostics | None,
    examples: Sequence[Example],
    samples: Sequence[Sample],
    plugin: str | None,
) -> ReportFacts:
    """All facts of the run.

    receipt: of the extraction; diagnostics: None where they are turned off; plugin: the modality's distribution.
    """
    manifest, backbone = job.manifest, receipt["backbone"]
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
        examples=examples,
        samples=samples,
        diagnostics=diagnostics,
        provenance=environment(plugin, job.device),
        # neither where features lie nor what the gate asks for changes a result
        config=yaml.safe_dump(
            job.config.model_dump(mode="json", exclude={"gate", "registry", "store"}), sort_keys=False
        ),
    )


class Shown:
    """The samples that the page shows, each rendered once."""

    def __init__(self, job: Job, table: pa.Table) -> None:
        self._job = job
        self._fragments: dict[int, str] = {}
        lines = table.select(["row", "predicted", "probability"]).to_pylist()
        self._lines = {line["row"]: line for line in lines}

    def samples(self, table: pa.Table) -> tuple[Sample, ...]:
        """The test rows behind the confusion matrix."""
        return choose_samples(table, self._fragment)

    def examples(
        self, bundle: ModelBundle, predictions: np.ndarray, diagnostics: Diagnostics | None
    ) -> Iterator[Example]:
        """The worst errors, some with what the model looked at, and what the diagnostics point at."""
        manifest = self._job.manifest
        rows, truth = manifest.rows("test"), manifest.target_array(manifest.rows("test"))
        explained = self._job.config.evaluate.explain
        for place, position in enumerate(worst_rows(manifest.targets, predictions, truth, WORST)):
            row = int(rows[position])
            seen = self._explanation(bundle, row) if place < explained else None
            yield self._example(row, "worst", explanation=seen)
        if diagnostics is None:
            return
        if diagnostics.labels is not None:
            for suspect in diagnostics.labels.suspects[:OTHERS]:
                yield self._example(suspect.row, "mislabelled", predicted=suspect.suggested)
        if diagnostics.leakage is not None and diagnostics.leakage.state == "warn":  # else chance makes as many
            for pair in diagnostics.leakage.duplicates[:OTHERS]:
                twin = manifest.sample(pair.other)
                yield self._example(
                    pair.row,
                    "leaked",
                    twin=Sample(
                        pair.other,
                        twin.id,
                        str(twin.label),
                        fragment=self._fragment(pair.other),
                        split=pair.other_split,
                    ),
                )
        if diagnostics.unusual is not None:
            for unusual in diagnostics.unusual.rows[:OTHERS]:
                yield self._example(unusual.row, "unusual")

    def _example(self, row: int, kind: Any, *, predicted: str | None = None, **more: Any) -> Example:
        sample, line = self._job.manifest.sample(row), self._lines.get(row)
        said = shown(line["predicted"]) if line is not None else ""
        return Example(
            id=sample.id,
            label=str(sample.label),
            predicted=said if predicted is None else predicted,
            fragment=self._fragment(row),
            probability=line["probability"] if line is not None and predicted is None else None,
            kind=kind,
            row=row,
            **more,
        )

    def _explanation(self, bundle: ModelBundle, row: int) -> str | None:
        """What the model looked at for the class that it gave, and for the right one."""
        sample, line = self._job.manifest.sample(row), self._lines[row]
        task = bundle.targets.task
        labels = [str(line["predicted"]), str(sample.label)] if task == "multiclass" else []
        found = explain(bundle, sample.source, [name for name in labels if name in bundle.targets.classes])
        return None if found.error is not None else found.html

    def _fragment(self, row: int) -> str:
        if row not in self._fragments:
            sample = self._job.manifest.sample(row)
            try:
                self._fragments[row] = self._job.loader.render(sample.source)
            except (DecodeError, OSError) as error:
                raise UserError(f"{sample.id} has changed since it was checked ({error}); run again") from error
        return self._fragments[row]
