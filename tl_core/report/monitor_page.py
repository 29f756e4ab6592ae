"""The page of `tl monitor`: the verdict, then the tests, the answers, the strangest samples, what was unusable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tl_core.diagnostics.drift_result import Drift
from tl_core.report.templates import render

HEADLINES = {"drift": "The new data have drifted", "no drift": "No sign of drift", "too few": "Too few to tell"}
STATES = {"drift": "below", "no drift": "above", "too few": "unclear"}  # as other pages colour them
TITLES = {
    "unusual": "Unlike the training rows",
    "distance": "Distance to the training rows",
    "features": "Features, by a classifier",
    "kernel": "Features, by kernel means",
    "answers": "Answers",
    "confidence": "Confidence",
}
LISTED = 200  # unusable samples


@dataclass(frozen=True)
class Monitored:
    """What the page tells. model, data: as the user named them; unusable: samples with `id` and `reason`; fragments:
    HTML of a sample by its id, as the modality's plugin renders it."""

    drift: Drift
    model: str
    backbone: str
    modality: str
    data: str
    unusable: Sequence[Mapping[str, str]]
    fragments: Mapping[str, str]


def render_monitor(told: Monitored) -> str:
    """One self-contained HTML page without script; the same facts give the same text."""
    context = {
        "told": told, "drift": told.drift, "headline": HEADLINES[told.drift.state], "state": STATES[told.drift.state],
        "titles": TITLES, "listed": LISTED,
    }  # fmt: skip
    return render("monitor.html", context)
