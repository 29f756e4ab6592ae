"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import Any

from tl_core.evaluation import Interval, meaning, metric_title, verdict
from tl_core.report import plots
from tl_core.report.facts import Example, ReportFacts
from tl_core.report.ranking_section import ranking_section
from tl_core.report.templates import render
from tl_core.report.tuning_section import tuning_section

MAX_CLASS_ROWS = 300  # the limits together keep the page under 5 MB whatever the data are
FOLD_CLASSES = 15  # shown at once; the others unfold
MAX_QUARANTINE = 200
MAX_NOTES = 50
MAX_EXAMPLES_BYTES = 2_500_000
MAX_CONFIG_CHARACTERS = 50_000


def render_report(facts: ReportFacts) -> str:
    """One self-contained HTML page of at most 5 MB; the same facts give the same text.

    It loads nothing and runs no script (its content security policy forbids both); all facts are escaped but the
    examples' fragments.
    """
    return render("report.html", _context(facts))


def _context(facts: ReportFacts) -> dict[str, Any]:
    evaluation = facts.evaluation
    examples = _within(facts.examples, MAX_EXAMPLES_BYTES)
    weakest = sorted(evaluation.per_class, key=lambda row: (_value(row.f1), row.name))
    classes = [(row, plots.unit_bar(row.f1)) for row in weakest[:MAX_CLASS_ROWS]]
    return {
        "facts": facts,
        "evaluation": evaluation,
        "verdict": verdict(evaluation),
        "meaning": meaning(evaluation, facts.strategy),
        "watch_title": metric_title(evaluation.watch),
        "metrics": plots.metric_bars(evaluation),
        "classes": classes,
        "folded": FOLD_CLASSES,
        "confusions": plots.confusions(evaluation),
        "matrix": plots.matrix(evaluation),
        "scatter": plots.scatter(evaluation),
        "training": tuning_section(facts.tuning) if facts.tuning else None,
        "backbones": ranking_section(facts.ranking) if facts.ranking else None,
        "examples": examples,
        "examples_left_out": len(facts.examples) - len(examples),
        "notes": [*facts.data.notes][:MAX_NOTES],
        "quarantine": facts.data.quarantine[:MAX_QUARANTINE],
        "config": facts.config[:MAX_CONFIG_CHARACTERS],
        "splits": _splits(facts),
        "label_word": "label" if evaluation.task == "multilabel" else "class",
    }


def _within(examples: Any, limit: int) -> list[Example]:
    """As many examples as fit; one that is too large alone does not keep out the next."""
    kept, used = [], 0
    for example in examples:
        size = len(example.fragment.encode("utf-8", "replace"))
        if used + size <= limit:
            kept.append(example)
            used += size
    return kept


def _splits(facts: ReportFacts) -> list[tuple[str, int, int]]:
    """Each split with its rows and its classes that have any."""
    return [
        (split, facts.data.rows.get(split, sum(counts.values())), sum(1 for n in counts.values() if n))
        for split, counts in facts.data.counts.items()
    ]


def _value(interval: Interval | None) -> float:
    return interval.value if interval else 2.0  # undefined ones last
