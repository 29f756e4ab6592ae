"""Everything that the report shows, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tl_core.diagnostics.results import Diagnostics
from tl_core.errors import FormatError
from tl_core.evaluation import Evaluation, floor_title, meaning, metric_title, verdict
from tl_core.report.ranking import Ranking
from tl_core.report.summary import FloorSummary, RunSummary
from tl_core.report.tuning import Tuning
from tl_core.workspace import write_text

FORMAT_VERSION = 4

Kind = Literal["worst", "mislabelled", "leaked", "unusual"]


@dataclass(frozen=True)
class DataFacts:
    """The manifest in numbers.

    counts: split -> class -> good rows; notes: what was guessed; quarantine: rows with id, split, reason, ...; rows:
    good rows by split (a multi-label row counts in several classes or none), the counts' sums where not given.
    """

    version: str
    counts: Mapping[str, Mapping[str, int]]
    notes: Sequence[str] = ()
    quarantine: Sequence[Mapping[str, str]] = ()
    rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BackboneFacts:
    """The backbone that was used; unknown facts are None and stay out of the page."""

    name: str
    source: str
    fingerprint: str
    digest: str | None = None
    revision: str | None = None
    licence: str | None = None
    pretrained_on: str | None = None
    params: int | None = None
    feature_dim: int | None = None


@dataclass(frozen=True)
class Sample:
    """A row of the manifest as the page shows it.

    label, predicted: as people read them, `predicted` empty where it was not predicted; fragment: the loader's
    `render`, trusted HTML, None where there was no room for it; split: empty for the test split.
    """

    row: int
    id: str
    label: str
    predicted: str = ""
    probability: float | None = None
    fragment: str | None = None
    split: str = ""


@dataclass(frozen=True)
class Example:
    """A row worth looking at. fragment, explanation: trusted HTML of the loader; everything else is plain text.

    kind: why it is shown; predicted: of a mislabelled row the label that is suggested; explanation: what the model
    looked at; twin: of a leaked row the one that it repeats. How wrong, alike or unusual it is, is in the diagnostics,
    found by its row.
    """

    id: str
    label: str
    predicted: str
    fragment: str
    probability: float | None = None
    kind: Kind = "worst"
    row: int | None = None
    explanation: str | None = None
    twin: Sample | None = None


@dataclass(frozen=True)
class ReportFacts:
    """What `render_report` shows.

    strategy: the one that was fitted; ranking: which backbones competed, and how that went; tuning: how the model was
    trained; examples: rows worth looking at, by kind and the worst first; provenance: name -> version or other text;
    config: YAML; run, cpu: seconds and CPU seconds per step, None where the page has to be the same after every run;
    diagnostics: what was looked for, None where that was turned off; samples: test rows behind the confusion matrix,
    the errors first.
    """

    title: str
    modality: str
    data: DataFacts
    backbone: BackboneFacts
    strategy: str
    evaluation: Evaluation
    ranking: Ranking | None = None
    tuning: Tuning | None = None
    examples: Sequence[Example] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    run: Mapping[str, float] | None = None
    cpu: Mapping[str, float] | None = None
    diagnostics: Diagnostics | None = None
    samples: Sequence[Sample] = ()

    def summary(self) -> RunSummary:
        """The run in a few numbers and words."""
        evaluation, said = self.evaluation, verdict(self.evaluation)
        watched = evaluation.summary[evaluation.watch]
        return RunSummary(
            title=self.title,
            modality=self.modality,
            backbone=self.backbone.name,
            choice=_choice(self.ranking),
            strategy=self.strategy,
            metric=metric_title(evaluation.watch),
            value=watched.value,
            low=watched.low,
            high=watched.high,
            confidence=evaluation.confidence,
            n_test=evaluation.n_test,
            floors=tuple(
                FloorSummary(kind, floor_title(kind, evaluation.task), floor.value.value)
                for kind, floor in evaluation.floors.items()
            ),
            state=said.state,
            headline=said.headline,
            sentence=said.sentence,
            meaning=meaning(evaluation, self.strategy),
        )

    def save(self, path: Path) -> None:
        """Write the facts as JSON, from which `load` makes the same page without data or model, and their summary."""
        from pydantic import TypeAdapter

        value = {
            "format": FORMAT_VERSION,
            "summary": self.summary().as_json(),
            "facts": TypeAdapter(ReportFacts).dump_python(self, mode="json"),
        }
        # no sorted keys: the order of splits, floors and steps is shown
        write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> ReportFacts:
        """Read what `save` wrote, now or by an older tl. Raises FormatError on a newer or damaged file."""
        from pydantic import TypeAdapter, ValidationError

        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            found = value["format"]
            if found > FORMAT_VERSION:
                raise FormatError(f"{path} has format {found}, this tl reads up to {FORMAT_VERSION}; update tl")
            return TypeAdapter(ReportFacts).validate_python(value["facts"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise FormatError(f"unreadable report facts {path}: {type(error).__name__}; evaluate again") from error


def _choice(ranking: Ranking | None) -> str:
    """Why this backbone, and how sure that is."""
    return "" if ranking is None else "; ".join(filter(None, (ranking.why, ranking.certainty())))
