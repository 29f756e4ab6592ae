"""The model card: Markdown with the hub's metadata, from the same facts as the page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from tl_core.evaluation import Interval, floor_title, metric_title
from tl_core.report.facts import ReportFacts
from tl_core.report.templates import first_up, number, short
from tl_core.report.verdicts import STATES, verdicts

LICENCES = (  # the hub's names of what backbones come under; anything else is `other`
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "openrail", "unlicense",
)  # fmt: skip
HUB_METRICS = {
    "macro_f1": "f1", "micro_f1": "f1", "auroc": "roc_auc", "r2": "r_squared", "micro_precision": "precision",
    "micro_recall": "recall",
}  # fmt: skip
TASKS = ("image", "text", "audio")  # modalities whose classification is a task on the hub
MAX_LABELS = 100
MAX_CHARACTERS = 400


def model_card(facts: ReportFacts) -> str:
    """The card as a file: a YAML block that the hub reads, then what a user has to know before using the model."""
    return (
        f"---\n{yaml.safe_dump(_clean(_metadata(facts)), sort_keys=False, allow_unicode=True, width=1000)}---\n\n"
        + "\n\n".join(_sections(facts))
        + "\n"
    )


def _metadata(facts: ReportFacts) -> dict[str, Any]:
    evaluation, confidence = facts.evaluation, f"{facts.evaluation.confidence:.0%}"
    classifies = evaluation.task != "regression" and facts.modality in TASKS
    task = f"{facts.modality}-classification" if classifies else evaluation.task
    location = facts.backbone.source.removeprefix("hub ") if facts.backbone.source.startswith("hub ") else None
    result = {
        "task": {"type": task},
        "dataset": {"name": f"own data, version {facts.data.version}", "type": "own", "split": "test"},
        "metrics": [
            {
                "type": HUB_METRICS.get(name, name),
                "name": f"{metric_title(name)} ({confidence} interval {value.low:.3f} to {value.high:.3f})",
                "value": value.value,
            }
            for name, value in evaluation.summary.items()
        ],
    }
    return {
        **_licence(facts.backbone.licence),
        "library_name": "tl",
        **({"base_model": location} if location else {}),
        **({"pipeline_tag": task} if classifies else {}),
        "tags": ["transfer-learning", facts.modality, evaluation.task, facts.strategy],
        "metrics": list(dict.fromkeys(HUB_METRICS.get(name, name) for name in evaluation.summary)),
        "model-index": [{"name": facts.title, "results": [result]}],
    }


def _licence(name: str | None) -> dict[str, str]:
    if name is None:
        return {"license": "unknown"}
    return {"license": name.lower()} if name.lower() in LICENCES else {"license": "other", "license_name": name}


def _sections(facts: ReportFacts) -> Iterable[str]:
    evaluation, backbone = facts.evaluation, facts.backbone
    said = verdicts(evaluation, facts.strategy, facts.tuning, facts.diagnostics)
    labels = [row.name for row in evaluation.per_class]
    yield f"# {_plain(facts.title)}"
    what = {"multiclass": "one class of", "multilabel": "any labels of", "regression": "a number from"}[evaluation.task]
    yield (
        f"It gives {what} {'an' if facts.modality[:1] in 'aeiou' else 'a'} {_plain(facts.modality)} sample: "
        f"{_plain(facts.strategy)} on {_plain(backbone.name)}."
    )
    yield "## Intended use"
    if labels:
        named = ", ".join(_plain(short(name, 80)) for name in labels[:MAX_LABELS])
        more = f" and {len(labels) - MAX_LABELS:,} more" if len(labels) > MAX_LABELS else ""
        yield f"Samples like those below, which it sorts into: {named}{more}. It knows no other answer."
    else:
        yield "Samples like those below. It gives a number also where a sample is nothing like them."
    yield "Predict with `tl predict MODEL FILE...`, where MODEL is the folder that holds `bundle.json`."
    yield "## Data"
    yield _list(
        [f"version {facts.data.version}"]
        + [
            f"rows of the {split} split: {facts.data.rows.get(split, sum(n.values())):,}"
            for split, n in facts.data.counts.items()
        ]
        + ([f"rows that could not be used: {len(facts.data.quarantine):,}"] if facts.data.quarantine else [])
    )
    yield "## Result"
    yield _table(
        ("Metric", "Value", f"{evaluation.confidence:.0%} interval"),
        [(metric_title(name), *_numbers(value)) for name, value in evaluation.summary.items()]
        + [
            (f"floor: {floor_title(name, evaluation.task)}, {metric_title(evaluation.watch)}", *_numbers(floor.value))
            for name, floor in evaluation.floors.items()
        ],
    )
    yield f"On {evaluation.n_test:,} test rows that had no part in training or in any choice."
    yield _list([f"**{one.topic}: {one.word}.** {one.text}" for one in said], escaped=False)
    checks = _checks(facts)
    if checks:
        yield "## What was looked for"
        yield _list(checks)
    yield "## Limits"
    yield _list(_limits(facts), escaped=False)
    yield "## Backbone"
    yield _list(
        f"{name}: {value}"
        for name, value in (
            ("source", backbone.source), ("revision", backbone.revision), ("weights sha256", backbone.digest),
            ("pretrained on", backbone.pretrained_on or "not stated"), ("licence", backbone.licence or "not stated"),
            ("parameters", f"{backbone.params:,}" if backbone.params else None),
        )
        if value
    )  # fmt: skip


def _checks(facts: ReportFacts) -> list[str]:
    found = facts.diagnostics
    if found is None:
        return []
    parts = [
        ("leakage", found.leakage), ("label errors", found.labels), ("shift", found.shift),
        *((f"groups by {part.column}", part) for part in found.subgroups), ("calibration", found.calibration),
        ("unusual rows", found.unusual), ("robustness", found.robustness),
    ]  # fmt: skip
    told = [f"{name}, {STATES[part.state][1]}: {part.text}" for name, part in parts if part is not None]
    return told + [f"not looked at: {text}" for text in found.skipped]


def _limits(facts: ReportFacts) -> list[str]:
    """What the result does not say."""
    limits = ["The result holds for samples that come as the test rows came; for others it is not known."]
    found = facts.diagnostics
    if found is None:
        limits.append("Leakage, label errors, shift and groups were not looked at.")
    elif found.unusual:
        limits.append("`tl predict` says of each sample how unlike the training rows it is; above 1, don't rely on it.")
    weak = [row for row in facts.evaluation.per_class if row.support and row.recall and row.recall.high < 0.5]
    if weak:
        names = ", ".join(_plain(short(row.name, 60)) for row in weak[:10])
        limits.append(f"More often missed than found: {names}.")
    never = [row.name for row in facts.evaluation.per_class if not row.support]
    if never:
        limits.append(f"No test row of: {', '.join(_plain(short(name, 60)) for name in never[:10])}.")
    if facts.tuning and facts.tuning.gap and facts.tuning.gap.memorised:
        limits.append("It has memorised training rows: what it says of them tells nothing of new ones.")
    if facts.backbone.licence is None:
        limits.append("The licence of its backbone is not stated: find it out before you pass the model on.")
    return limits


def _numbers(value: Interval) -> tuple[str, str]:
    return number(value.value), f"{number(value.low)} to {number(value.high)}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(_plain(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Iterable[str], *, escaped: bool = True) -> str:
    return "\n".join(f"- {first_up(_plain(item) if escaped else _inert(item))}" for item in items)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", _inert(text))


def _inert(text: str) -> str:
    """Text in one line that can't be HTML or the end of the metadata."""
    return short(_line(text), 4 * MAX_CHARACTERS).replace("&", "&amp;").replace("<", "&lt;")


def _clean(value: Any) -> Any:
    """The metadata with every text in one line without control characters, which YAML's readers refuse."""
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    return short(_line(value), MAX_CHARACTERS) if isinstance(value, str) else value


def _line(text: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", " ", text).split())
