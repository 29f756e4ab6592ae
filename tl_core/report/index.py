"""One page over several runs: each with its interval beside its floors, its verdict, and the way to its report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tl_core.report.scale import Scale
from tl_core.report.summary import FloorSummary, RunSummary
from tl_core.report.templates import render


@dataclass(frozen=True)
class IndexEntry:
    """A run on the index page.

    name: of the project or output folder; report: its address relative to the page; model: the path for `tl predict`;
    seconds: that its steps took, 0 where nothing had to run; error: why there is no summary.
    """

    name: str
    summary: RunSummary | None = None
    report: str = ""
    model: str = ""
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """A run in the picture: its watched metric with the interval, and its floors; percent positions."""

    entry: IndexEntry
    summary: RunSummary
    at: float
    low: float
    high: float
    floors: list[tuple[FloorSummary, float]]


def render_index(entries: Sequence[IndexEntry]) -> str:
    """One self-contained HTML page without script that links the runs' reports; same entries, same text."""
    summaries = [entry.summary for entry in entries if entry.summary]
    lowest = min([0.0, *(v for s in summaries for v in (s.low, *(floor.value for floor in s.floors)))])
    scale = Scale(max(-1.0, math.floor(lowest * 5) / 5), 1.0)
    titles: dict[str, dict[str, None]] = {}  # by a floor's kind: the constant answer has a name for each task
    for floor in (floor for summary in summaries for floor in summary.floors):
        titles.setdefault(floor.kind, {})[floor.title] = None
    return render(
        "index.html",
        {
            "entries": entries,
            "comparisons": [_comparison(entry, entry.summary, scale) for entry in entries if entry.summary],
            "ticks": scale.ticks(),
            "floors": titles,
            "metrics": sorted({s.metric for s in summaries}),
            "confidences": sorted({s.confidence for s in summaries}),
        },
    )


def _comparison(entry: IndexEntry, summary: RunSummary, scale: Scale) -> Comparison:
    at, low, high = (scale.at(value) for value in (summary.value, summary.low, summary.high))
    return Comparison(entry, summary, at, low, high, [(floor, scale.at(floor.value)) for floor in summary.floors])
