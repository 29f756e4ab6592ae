"""The results of planted faults as a Markdown page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]


def page(results: Facts) -> str:
    """All tables; a set that lacks a fault's results has no row in its table."""
    facts = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        "# Planted faults",
        "",
        f"Made by `python -m benchmarks.evaluation.planted`; {facts}. Means over {results['draws']} draws; intervals "
        "cover 90%.",
        "",
    ]
    for fault, table in TABLES.items():
        rows = {name: facts for name, facts in results["sets"].items() if facts.get(fault)}
        if rows:
            lines += [*table(rows, results), ""]
    return "\n".join(lines)


def _flipped(rows: Mapping[str, Facts], results: Facts) -> list[str]:
    body = []
    for name, facts in rows.items():
        one = facts["flipped_labels"]
        body.append(
            [
                _set(name, facts), _percent(one["accuracy"]), f"**{one['average_precision']:.3f}**",
                f"{one['average_precision_margin']:.3f}", f"{one['found']:.0f}", _percent(one["precision"]),
                _percent(one["recall"]), f"{one['share']:.1%}", _percent(one["covers"]),
                f"{one['clean_state']}, {_interval(one['clean_share'])}",
                f"{one['confident_learning_share']:.1%}; {one['clean_confident_learning_share']:.1%}",
                f"{_percent(one['confident_learning_precision'])}, {_percent(one['confident_learning_recall'])}",
            ]
        )  # fmt: skip
    head = (
        "set", "probe is right", "average precision", "by margin", "found", "precision of these", "recall",
        "estimated share", "intervals that hold it", "untouched set", "confident learning: share; untouched",
        "its precision, recall",
    )  # fmt: skip
    return [
        f"## {results['flipped']:.0%} of the labels flipped",
        "",
        "Average precision of the ranking by the probability of the given label, and by margin; *found*: rows that are "
        "more likely wrong than right; *untouched set*: what is said of the set as it is, with the share's interval.",
        "",
        *_table(head, body),
    ]


def _copied(rows: Mapping[str, Facts], results: Facts) -> list[str]:
    body = []
    for name, facts in rows.items():
        one = facts["near_copies"]
        changes = ", ".join(f"{change} {recall:.0%}" for change, recall in one["recall_by_change"].items())
        body.append(
            [
                _set(name, facts), f"{one['planted']} in {one['test_rows']}", f"**{_percent(one['recall_at_1'])}**",
                _percent(one["recall_at_1_plain_cosine"]), _percent(one["recall"]), changes,
                f"{one['others']:.1f}", str(one["untouched_found"]), f"{one['threshold']:.2f}", _percent(one["warned"]),
            ]
        )  # fmt: skip
    head = (
        "set", "copies in test rows", "recall at 1% false positives", "with plain cosines", "found by the threshold",
        "by what was done", "others found", "in the untouched set", "threshold", "warned",
    )  # fmt: skip
    return [
        f"## Near copies of {results['copied']:.0%} of the rows in the test split",
        "",
        "*Others found*: test rows that were not planted; many are copies that the set had already (all test rows of "
        "caltech20 that are found in the untouched set were looked at: about two thirds are the same picture).",
        "",
        *_table(head, body),
    ]


def _grouped(rows: Mapping[str, Facts], results: Facts) -> list[str]:
    body = []
    for name, facts in rows.items():
        one = facts["ignored_groups"]
        body.append(
            [_set(name, facts), str(one["groups"]), *(_share(one[key]) for key in ("random", "grouped", "gap"))]
        )
    return [
        "## A split that ignores groups",
        "",
        *_table(("set", "groups", "accuracy, split by rows", "by whole groups", "gap"), body),
    ]


def _shifted(rows: Mapping[str, Facts], results: Facts) -> list[str]:
    body = []
    for name, facts in rows.items():
        one = facts["shifted_group"]
        kinds = [one[kind] for kind in ("none", "a third", "all")]
        body.append(
            [_set(name, facts), one["corruption"]]
            + [f"{_percent(kind['found'])}; {kind['others']:.1f}" for kind in kinds]
        )
    return [
        "## One shifted group",
        "",
        "Rows are dealt to five groups at random; in one of 60 rows none, a third or all are harmed by a corruption at "
        "severity 3. How often that group is warned of; how many of the other four are.",
        "",
        *_table(("set", "corruption", "none harmed", "a third", "all"), body),
    ]


def _distorted(rows: Mapping[str, Facts], results: Facts) -> list[str]:
    body = []
    for name, facts in rows.items():
        one = facts["distorted_temperature"]
        kinds = [one[kind] for kind in ("as it is", "too sure", "not sure enough")]
        body.append(
            [_set(name, facts), str(one["rows"])]
            + [f"{_percent(kind['warned'])} ({100 * kind['offset']:+.1f})" for kind in kinds]
        )
    return [
        "## A distorted temperature",
        "",
        "A probe's held-out logits, calibrated on half of the rows, then divided by 1, 0.5 or 2: how often the other "
        "half calls it miscalibrated, and mean confidence less accuracy in points.",
        "",
        *_table(("set", "rows", "as it is", "divided by 0.5", "divided by 2"), body),
    ]


TABLES: Mapping[str, Callable[[Mapping[str, Facts], Facts], list[str]]] = {
    "flipped_labels": _flipped,
    "near_copies": _copied,
    "ignored_groups": _grouped,
    "shifted_group": _shifted,
    "distorted_temperature": _distorted,
}
"""A table for each fault, by its name in the results."""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _set(name: str, facts: Facts) -> str:
    return f"{name} ({facts['rows']:,} {facts['modality']})"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _interval(numbers: Sequence[float]) -> str:
    return f"{numbers[1]:.1%} to {numbers[2]:.1%}"


def _share(numbers: Sequence[float]) -> str:
    return f"{numbers[0]:.3f} ({numbers[1]:.3f} to {numbers[2]:.3f})"
