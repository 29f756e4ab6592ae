"""The page of a comparison: the verdicts first, then the numbers, the samples and what differs."""

from __future__ import annotations

from dataclasses import dataclass

from tl_core.evaluation import metric_title
from tl_core.report.compare import Comparison, Pair
from tl_core.report.plots import Bar, comparison_bars
from tl_core.report.templates import listed, render

FOLD = 15  # rows of a table that are shown at once; the others unfold
MAX_CLASS_ROWS = 300
SHIFTS = {"ok": "No shift that matters", "warn": "Shift", "unclear": "Can't tell"}
STATES = {"better": "above", "worse": "below", "can't tell": "unclear"}  # as the report colours them


@dataclass(frozen=True)
class MetricRow:
    """A metric of all runs on a scale of its own; None for a run that does not have it."""

    title: str
    bars: list[Bar | None]


@dataclass(frozen=True)
class PairSection:
    """A run against the reference. details: sentences under the verdict; changes: the data's, in words."""

    pair: Pair
    state: str
    headline: str
    details: list[str]
    changes: str


def render_comparison(comparison: Comparison) -> str:
    """One self-contained HTML page without script; the same comparison gives the same text."""
    first = comparison.runs[0]
    context = {
        "comparison": comparison,
        "watch": metric_title(comparison.watch),
        "metrics": _metrics(comparison),
        "pairs": [_section(pair, first.name) for pair in comparison.pairs],
        "reference": first,
        "folded": FOLD,
        "class_rows": MAX_CLASS_ROWS,
        "shifts": SHIFTS,
    }
    return render("compare.html", context)


def details(pair: Pair, reference: str) -> list[str]:
    """What else is known of a pair's difference, in sentences: who is right where, and on which rows."""
    said = []
    counts = pair.result.mcnemar
    if counts is not None:
        whole = "all labels of " if pair.result.metric == "micro_f1" else ""
        text = (
            f"Only {pair.name} gets {whole}{_rows(counts.second_only)} right, only {reference} "
            f"{whole}{_rows(counts.first_only)}"
        )
        test = (
            "McNemar's test does not apply, because rows come in groups"
            if counts.p is None
            else f"McNemar's exact test p = {_p(counts.p)}"
        )
        said.append(f"{text}; {test}.")
    if pair.result.differ is not None:
        said.append(f"They decide {_rows(pair.result.differ)} of {pair.rows:,} differently.")
    alone = ((reference, pair.only_first), (pair.name, pair.only_second))
    if left := [f"{_rows(count)} only {name} has" for name, count in alone if count]:
        said.append(f"Left out: test rows that are not in both ({listed(left)}).")
    return said


def data_changes(pair: Pair) -> str:
    """What happened to the data from the reference to the run, in words."""
    told = {kind: getattr(pair.data, kind) for kind in ("added", "removed", "modified", "relabelled")}
    rows = [f"{count:,} {kind}" for kind, count in told.items() if count]
    if not rows:
        return "the same rows"
    return f"{listed(rows)}, {pair.data.unchanged:,} unchanged"


def shift_sentences(pair: Pair) -> list[str]:
    """Whether the rows that just one of them has are of another kind; nothing where there are none."""
    return [*(test.text for test in pair.shift.tests), *pair.shift.notes]


def _section(pair: Pair, reference: str) -> PairSection:
    state = pair.result.state
    headline = {
        "better": f"{pair.name} is better than {reference}",
        "worse": f"{pair.name} is worse than {reference}",
        "can't tell": f"Can't tell {pair.name} from {reference}",
    }[state]
    return PairSection(pair, STATES[state], headline, details(pair, reference), data_changes(pair))


def _metrics(comparison: Comparison) -> list[MetricRow]:
    rows = []
    for name in dict.fromkeys(name for run in comparison.runs for name in run.metrics):
        intervals = [run.metrics.get(name) for run in comparison.runs]
        known = [interval for interval in intervals if interval]
        low, high = min(i.low for i in known), max(i.high for i in known)
        air = 0.06 * ((high - low) or 0.02)
        rows.append(MetricRow(metric_title(name), comparison_bars(intervals, (low - air, high + air))))
    return rows


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"
