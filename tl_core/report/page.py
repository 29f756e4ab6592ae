"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tl_core.evaluation import Interval, metric_title, verdict
from tl_core.report import plots
from tl_core.report.actions import actions
from tl_core.report.diagnosis import diagnosis
from tl_core.report.energy import energy
from tl_core.report.facts import Example, ReportFacts, Sample
from tl_core.report.ranking_section import ranking_section
from tl_core.report.samples import grouped, weight
from tl_core.report.templates import HERE, render
from tl_core.report.tuning_section import tuning_section
from tl_core.report.verdicts import verdicts

MAX_BYTES = 5_000_000  # of the page whatever the data are; the limits below keep it there but for odd cases
MAX_FRAGMENT_BYTES = 3_000_000  # of galleries and the rows behind the confusion matrix together
MAX_CLASS_ROWS = 300
MAX_QUARANTINE = 200
MAX_NOTES = 50
MAX_CONFIG_CHARACTERS = 50_000
GALLERY_FIRST = 6  # shown at once; the others unfold
GALLERIES = {
    "worst": ("errors", "Worst errors"),
    "mislabelled": ("mislabelled", "Likely mislabelled"),
    "leaked": ("leaked", "Leaked pairs"),
    "unusual": ("unlike", "Least like the training rows"),
}


@dataclass(frozen=True)
class Gallery:
    """Rows of one kind with their contents. notes: how wrong, alike or unusual each is; left_out: had no room."""

    kind: str
    anchor: str
    title: str
    examples: list[tuple[Example, str]]
    left_out: int


def render_report(facts: ReportFacts) -> str:
    """One self-contained HTML page of at most 5 MB; the same facts give the same text.

    It loads nothing and runs one script, its own, which its content security policy names by digest; all facts are
    escaped but the fragments of examples and samples. Without the script it shows everything as well.
    """
    room = MAX_FRAGMENT_BYTES
    page = render("report.html", _context(facts, room))
    while room > 0 and (size := len(page.encode("utf-8"))) > MAX_BYTES:
        room = max(0, room - (size - MAX_BYTES) - 10_000)
        page = render("report.html", _context(facts, room))
    return page


def _context(facts: ReportFacts, room: int) -> dict[str, Any]:
    evaluation = facts.evaluation
    script = (HERE / "report.js").read_text(encoding="utf-8")
    examples, room = _examples_within(facts.examples, room)
    errors = {e.row for e in examples if e.row is not None and e.kind == "worst"}
    samples = _samples_within(facts.samples, room, errors)
    groups = grouped(evaluation, samples)
    weakest = sorted(evaluation.per_class, key=lambda row: (_value(row.f1), row.name))
    return {
        "facts": facts,
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "report_style": (HERE / "report.css").read_text(encoding="utf-8"),
        "evaluation": evaluation,
        "verdict": verdict(evaluation),
        "verdicts": verdicts(evaluation, facts.strategy, facts.tuning, facts.diagnostics),
        "actions": actions(facts),
        "watch_title": metric_title(evaluation.watch),
        "metrics": plots.metric_bars(evaluation),
        "classes": [(row, plots.unit_bar(row.f1)) for row in weakest[:MAX_CLASS_ROWS]],
        "areas": [key for key in ("average_precision",) if any(getattr(row, key) for row in weakest)],
        "confusions": plots.confusions(evaluation),
        "matrix": plots.matrix(evaluation, {group.anchor for group in groups}),
        "curves": plots.curves(evaluation),
        "scatter": plots.scatter(evaluation),
        "groups": groups,
        "errors": errors,
        "training": tuning_section(facts.tuning) if facts.tuning else None,
        "backbones": ranking_section(facts.ranking) if facts.ranking else None,
        "checks": diagnosis(facts.diagnostics, evaluation.watch) if facts.diagnostics else None,
        "galleries": _galleries(facts, examples),
        "gallery_first": GALLERY_FIRST,
        "notes": [*facts.data.notes][:MAX_NOTES],
        "quarantine": facts.data.quarantine[:MAX_QUARANTINE],
        "config": facts.config[:MAX_CONFIG_CHARACTERS],
        "splits": _splits(facts),
        "energy": energy(facts.cpu) if facts.cpu else "",
        "label_word": "label" if evaluation.task == "multilabel" else "class",
        "nothing": "none" if evaluation.task == "multilabel" else "",
    }


def _examples_within(examples: Iterable[Example], room: int) -> tuple[list[Example], int]:
    """As many examples as fit, and the room that is left; an explanation goes before its example does."""
    kept = []
    for example in examples:
        size = weight(example.fragment) + (weight(example.twin.fragment) if example.twin else 0)
        explained = weight(example.explanation)
        if size + explained > room and size <= room:
            example, explained = replace(example, explanation=None), 0
        if size + explained <= room:
            kept.append(example)
            room -= size + explained
    return kept, room


def _samples_within(samples: Iterable[Sample], room: int, shown: set[int]) -> list[Sample]:
    """All samples, with the fragments that fit and are not on the page already."""
    kept = []
    for sample in samples:
        size = weight(sample.fragment)
        fits = size <= room and sample.row not in shown
        room -= size if fits else 0
        kept.append(sample if fits else replace(sample, fragment=None))
    return kept


def _galleries(facts: ReportFacts, kept: Sequence[Example]) -> list[Gallery]:
    notes = _notes(facts)
    found = []
    for kind, (anchor, title) in GALLERIES.items():
        mine = [(e, notes.get((kind, e.row), "")) for e in kept if e.kind == kind]
        given = sum(example.kind == kind for example in facts.examples)
        if given:
            found.append(Gallery(kind, anchor, title, mine, given - len(mine)))
    return found


def _notes(facts: ReportFacts) -> dict[tuple[str, int | None], str]:
    """What the diagnostics say of single rows, by kind and row."""
    found = facts.diagnostics
    notes: dict[tuple[str, int | None], str] = {}
    if found and found.labels:
        notes |= {("mislabelled", s.row): f"quality {s.quality:.3f}, {s.split} split" for s in found.labels.suspects}
    if found and found.leakage:
        for pair in reversed(found.leakage.duplicates):  # the most similar of a row's pairs is told
            alike = "the same bytes" if pair.exact else f"similarity {pair.similarity:.4f}"
            notes["leaked", pair.row] = alike + (", and their labels differ" if pair.differ else "")
    if found and found.unusual:
        notes |= {("unusual", row.row): f"{row.score:.2f} times the threshold" for row in found.unusual.rows}
    return notes


def _splits(facts: ReportFacts) -> list[tuple[str, int, int]]:
    """Each split with its rows and its classes that have any."""
    return [
        (split, facts.data.rows.get(split, sum(counts.values())), sum(1 for n in counts.values() if n))
        for split, counts in facts.data.counts.items()
    ]


def _value(interval: Interval | None) -> float:
    return interval.value if interval else 2.0  # undefined ones last
