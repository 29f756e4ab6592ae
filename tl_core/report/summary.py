"""A run in a few numbers and words, for a row among others; read without torch or the evaluation's own types."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tl_core.errors import FormatError


@dataclass(frozen=True)
class FloorSummary:
    """A floor of the watched metric. kind: as in metrics.json without `floor_`; title: in a few words."""

    kind: str
    title: str
    value: float


@dataclass(frozen=True)
class RunSummary:
    """What a table of runs says about one: the watched metric with its interval, its floors, and the verdict.

    metric: its name as people write it; state: `above`, `unclear` or `below` (the floors); meaning: the verdict in
    plain words; choice: why this backbone, and how sure that is.
    """

    title: str
    modality: str
    backbone: str
    strategy: str
    metric: str
    value: float
    low: float
    high: float
    confidence: float
    n_test: int
    floors: tuple[FloorSummary, ...]
    state: str
    headline: str
    sentence: str
    meaning: str
    choice: str = ""

    def as_json(self) -> dict[str, Any]:
        """The summary as report.json holds it."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> RunSummary:
        """Read the summary in a run's report.json. Raises FormatError where there is none."""
        from pydantic import TypeAdapter, ValidationError

        try:
            value = json.loads(path.read_text(encoding="utf-8"))["summary"]
            return TypeAdapter(RunSummary).validate_python(value)
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise FormatError(f"no summary in {path}: {type(error).__name__}; evaluate again") from error
